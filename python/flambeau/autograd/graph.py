"""The graph of recorded operators: nodes, edges, and hooks on what it saves and on the gradients that run through it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from .. import _flambeau
from .._flambeau import Node, Tensor
from ..utils.hooks import RemovableHandle


class GradientEdge(NamedTuple):
    """A place in the graph: where the gradient of one output of a node goes."""

    node: Any
    output_nr: int
    ownership_token: Any = None


class _InputMetadata(NamedTuple):
    """What a gradient that arrives at a node looks like."""

    shape: Any
    dtype: Any
    device: Any


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge at which the gradient of a tensor is computed: of its node, or of a leaf's accumulator."""
    edge = _flambeau._gradient_edge(tensor)
    if edge is None:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(*edge)


def increment_version(tensor: Any) -> None:
    """Tells autograd that tensors' memory was written, so that reading what was saved of it fails."""
    for t in (tensor,) if isinstance(tensor, Tensor) else tensor:
        _flambeau._increment_version(t)


class _Disabled(threading.local):
    message: str | None = None


_disabled = _Disabled()


class saved_tensors_hooks:
    """Within it, what operators save for their backward is `pack_hook`'s answer; `unpack_hook` gives the tensor back."""

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook

    def __enter__(self) -> None:
        if _disabled.message is not None:
            raise RuntimeError(_disabled.message)
        _flambeau._push_saved_hooks(self.pack_hook, self.unpack_hook)

    def __exit__(self, *exc: Any) -> None:
        _flambeau._pop_saved_hooks()


class save_on_cpu(saved_tensors_hooks):
    """Within it, what is saved for the backward is kept in the host's memory."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        def pack(tensor: Tensor) -> tuple[Any, Tensor]:
            copy = _flambeau.operators["empty_like"](tensor, device="cpu").copy_(tensor) if tensor.is_cpu else tensor.cpu()
            return tensor.device, copy

        def unpack(packed: tuple[Any, Tensor]) -> Tensor:
            device, tensor = packed
            return tensor.to(device, non_blocking=pin_memory)

        super().__init__(pack, unpack)


@contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[None]:
    """Within it, tensors that are saved for the backward may be written in place: the backward sees a copy of what they were."""

    def pack(tensor: Tensor) -> Tensor:
        return tensor.detach().clone()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Within it, entering `saved_tensors_hooks` raises a `RuntimeError` with this message."""
    before = _disabled.message
    _disabled.message = error_message
    try:
        yield
    finally:
        _disabled.message = before


class _MultiHandle(RemovableHandle):
    """Removes several hooks at once."""

    def __init__(self, handles: Sequence[Any]) -> None:
        self.handles = tuple(handles)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def __getstate__(self) -> Any:
        return self.handles

    def __setstate__(self, state: Any) -> None:
        self.handles = state


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[..., None], *, mode: str = "all") -> Any:
    """Calls `fn` when the gradients of all `tensors` have been computed in a backward pass (a list, None for those that the pass
    does not compute), or with mode "any" when the first has.

    Tensors that a pass does not reach are not waited for.
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    lock = threading.Lock()
    if mode == "any":
        called_in: list[int | None] = [None]

        @functools.wraps(fn)
        def once(grad: Tensor) -> None:
            task = _flambeau._current_graph_task_id()
            with lock:
                if called_in[0] == task:
                    return
                called_in[0] = task
            fn(grad)

        return _MultiHandle([t.register_hook(once) for t in tensors if t.requires_grad])

    count: dict[int, int] = {}
    expected: dict[int, int] = {}
    buffers: dict[int, list[Tensor | None]] = {}
    nodes = [get_gradient_edge(t).node for t in tensors]

    def make(index: int) -> Callable[[Tensor], None]:
        def inner(grad: Tensor) -> None:
            task = _flambeau._current_graph_task_id()
            with lock:
                if task not in buffers:
                    buffers[task] = [None] * len(tensors)
                    count[task] = 0
                    expected[task] = sum(_flambeau._will_engine_execute_node(node) for node in nodes)
                buffers[task][index] = grad
                count[task] += 1
                done = count[task] == expected[task]
                if done:
                    grads = buffers.pop(task)
                    del count[task], expected[task]
            if done:
                fn(grads)

        return inner

    return _MultiHandle([t.register_hook(make(i)) for i, t in enumerate(tensors)])


class Identity:
    """Kept for programs that name it: wraps a tensor that hooks pass through unchanged."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


__all__ = [
    "GradientEdge",
    "Node",
    "allow_mutation_on_saved_tensors",
    "disable_saved_tensors_hooks",
    "get_gradient_edge",
    "increment_version",
    "register_multi_grad_hook",
    "save_on_cpu",
    "saved_tensors_hooks",
]
