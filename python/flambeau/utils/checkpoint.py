"""Activation checkpointing: forgets intermediate values and computes them again in backward.

The form without reentrance stands on hooks on saved tensors: forward keeps a holder for each tensor that it would save, and the
first holder that backward asks runs the function again, filling all of them in the same order. The reentrant form is a custom
function whose backward runs the function again and a backward of its own through it.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from ..autograd.function import Function
from ..autograd.grad_mode import enable_grad, no_grad
from ..autograd.graph import saved_tensors_hooks
from . import _pytree as pytree


class CheckpointError(RuntimeError):
    """Raised when computing again gives other tensors than the forward did."""


class DefaultDeviceType:
    """The kind of device whose random state is kept where the arguments do not show one."""

    _default_device_type = "cuda"

    @staticmethod
    def set_device_type(device: str = "cuda") -> None:
        """Sets the kind of device."""
        DefaultDeviceType._default_device_type = device

    @staticmethod
    def get_device_type() -> str:
        """The kind of device."""
        return DefaultDeviceType._default_device_type


_early_stop: bool | None = None
_debug: bool | None = None


@contextlib.contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """Within it, decides whether computing again ends when all that is needed has been computed."""
    global _early_stop
    before, _early_stop = _early_stop, enable
    try:
        yield
    finally:
        _early_stop = before


@contextlib.contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """Within it, decides over the argument `debug` of checkpoints."""
    global _debug
    before, _debug = _debug, enabled
    try:
        yield
    finally:
        _debug = before


def noop_context_fn() -> tuple[Any, Any]:
    """The default `context_fn`: nothing around the forward and around computing again."""
    return contextlib.nullcontext(), contextlib.nullcontext()


class CheckpointPolicy(enum.Enum):
    """What a policy of selective checkpoints may say of an operator's result."""

    MUST_SAVE = 0
    PREFER_SAVE = 1
    MUST_RECOMPUTE = 2
    PREFER_RECOMPUTE = 3
    MUST_CPU_OFFLOAD = 4


class SelectiveCheckpointContext:
    """What a policy is told beside the operator."""

    def __init__(self, *, is_recompute: bool, op_output: Any = None) -> None:
        self.is_recompute, self.op_output = is_recompute, op_output


def create_selective_checkpoint_contexts(policy_fn_or_list: Any, allow_cache_entry_mutation: bool = False) -> tuple[Any, Any]:
    """A `context_fn` for checkpoints. Accepted for compatibility: every operator is computed again, which gives the same results and
    needs the least memory.
    """
    if not callable(policy_fn_or_list) and not isinstance(policy_fn_or_list, list):
        raise TypeError("policy_fn_or_list must be either a function or a list of ops.")
    return noop_context_fn()


def detach_variable(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The tensors outside the graph, each requiring gradients as it did."""
    if not isinstance(inputs, tuple):
        raise RuntimeError(f"Only tuple of tensors is supported. Got Unsupported input type: {type(inputs).__name__}")
    return tuple(t.detach().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t for t in inputs)


def check_backward_validity(inputs: Iterable[Any]) -> None:
    """Warns when no input requires gradients."""
    if not any(isinstance(t, Tensor) and t.requires_grad for t in inputs):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=3)


def _cuda_devices(tree: Any) -> list[int]:
    leaves = pytree.tree_leaves(tree)
    return sorted({t.device.index or 0 for t in leaves if isinstance(t, Tensor) and t.is_cuda})


def get_device_states(*args: Any) -> tuple[list[int], list[Tensor]]:
    """The devices of the arguments and the states of their random generators."""
    devices = _cuda_devices(args)
    if not devices:
        return [], []
    from .. import cuda

    return devices, [cuda.get_rng_state(d) for d in devices]


def set_device_states(devices: list[int], states: list[Tensor], *, device_type: str | None = None) -> None:
    """Sets the states of random generators."""
    if devices:
        from .. import cuda

        for device, state in zip(devices, states, strict=True):
            cuda.set_rng_state(state, device)


class _Surroundings:
    """The random states and autocast settings of a forward, to be there again when it is computed again."""

    def __init__(self, preserve_rng_state: bool, args: Any) -> None:
        self.state = _flambeau.default_generator.get_state() if preserve_rng_state else None
        self.devices = get_device_states(*args) if preserve_rng_state else ([], [])
        from ..amp import autocast_mode as modes

        self.autocast = [
            (kind, modes.is_autocast_enabled(kind), modes.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")
        ]

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Within it, the surroundings are as they were."""
        from ..amp import autocast_mode as modes

        generator = _flambeau.default_generator
        before = None if self.state is None else generator.get_state()
        devices = self.devices[0]
        device_before = get_states(devices) if devices else []
        now = [(kind, modes.is_autocast_enabled(kind), modes.get_autocast_dtype(kind)) for kind, _, _ in self.autocast]
        try:
            if self.state is not None:
                generator.set_state(self.state)
                set_device_states(*self.devices)
            _set_autocast(self.autocast)
            yield
        finally:
            _set_autocast(now)
            if before is not None:
                generator.set_state(before)
                set_device_states(devices, device_before)


def get_states(devices: list[int]) -> list[Tensor]:
    """The states of the random generators of CUDA devices."""
    from .. import cuda

    return [cuda.get_rng_state(d) for d in devices]


def _set_autocast(settings: list[tuple[str, bool, Any]]) -> None:
    from ..amp import autocast_mode as modes

    for kind, on, dtype in settings:
        if modes.is_autocast_enabled(kind) != on or modes.get_autocast_dtype(kind) != dtype:
            modes.set_autocast_enabled(kind, on)
            modes.set_autocast_dtype(kind, dtype)


# ---- the reentrant form --------------------------------------------------------------------------------------------


class CheckpointFunction(Function):
    """Runs a function without a graph, and again with one in backward."""

    @staticmethod
    def forward(ctx: Any, run_function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        check_backward_validity(args)
        ctx.run_function = run_function
        ctx.around = _Surroundings(preserve_rng_state, args)
        ctx.inputs = [None if isinstance(a, Tensor) else a for a in args]
        ctx.tensor_indices = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        ctx.save_for_backward(*(args[i] for i in ctx.tensor_indices))
        with no_grad():
            return run_function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        if not _flambeau._is_checkpoint_valid():
            raise RuntimeError(
                "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an `inputs` parameter to "
                ".backward(). To resolve this error, you can either set use_reentrant=False, or call .backward() without passing "
                "the `inputs` argument."
            )
        inputs = list(ctx.inputs)
        for i, t in zip(ctx.tensor_indices, ctx.saved_tensors, strict=True):
            inputs[i] = t
        detached = detach_variable(tuple(inputs))
        with ctx.around.again(), enable_grad():
            outputs = ctx.run_function(*detached)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if isinstance(o, Tensor) and o.requires_grad]
        if not pairs:
            raise RuntimeError("none of output has requires_grad=True, this checkpoint() is not necessary")
        # Parameters inside the function get their gradients here, the inputs through the return value.
        _flambeau._engine_backward(tuple(o for o, _ in pairs), tuple(g for _, g in pairs), False, False, None, True, True)
        return (None, None, *(t.grad if isinstance(t, Tensor) else None for t in detached))


# ---- the form without reentrance ------------------------------------------------------------------------------------


class _Stop(BaseException):
    """Ends computing again when every holder is filled."""


class _Holder:
    """Stands for a tensor that forward would have saved; its values by the backward pass that computed them."""

    __slots__ = ("__weakref__", "frame", "index", "values")

    def __init__(self, frame: _Frame, index: int) -> None:
        self.frame = frame
        self.index = index
        self.values: dict[int, Tensor] = {}


_outside = itertools.count(-2, -1)


class _Frame:
    """One checkpointed call."""

    def __init__(self, run: Callable[[], Any], around: _Surroundings, context: Any, early_stop: bool, determinism_check: str) -> None:
        self.run = run
        self.around = around
        self.context = context
        self.early_stop = early_stop
        self.check = determinism_check != "none"
        self.holders: list[weakref.ref[_Holder]] = []
        self.saved: list[dict[str, Any]] = []
        self.forward_done = False

    def hooks(self) -> saved_tensors_hooks:
        """The hooks around the forward."""

        def pack(t: Tensor) -> _Holder:
            holder = _Holder(self, len(self.holders))
            self.holders.append(weakref.ref(holder))
            self.saved.append(_metadata(t))
            return holder

        def unpack(holder: _Holder) -> Tensor:
            task = _flambeau._current_graph_task_id()
            if task < 0:
                task = next(_outside)
            if task not in holder.values:
                holder.frame.recompute(task)
            if task not in holder.values:
                raise CheckpointError(
                    "torch.utils.checkpoint: A different number of tensors was saved during the original forward and recomputation.\n"
                    f"Number of tensors saved during forward: {len(self.holders)}"
                )
            return holder.values.pop(task)

        return saved_tensors_hooks(pack, unpack)

    def recompute(self, task: int) -> None:
        """Runs the function again and fills the holders for one backward pass."""
        count = 0
        wrong: list[tuple[int, Any, Any]] = []
        extra = False

        def pack(t: Tensor) -> Tensor:
            nonlocal count, extra
            index, count = count, count + 1
            if index >= len(self.holders):
                extra = True
                return t
            holder = self.holders[index]()
            if self.check and (got := _metadata(t)) != self.saved[index]:
                wrong.append((index, self.saved[index], got))
            if holder is not None:
                holder.values[task] = t.detach()
            if self.early_stop and count == len(self.holders):
                raise _Stop
            return t

        with self.around.again(), self.context, enable_grad(), saved_tensors_hooks(pack, lambda t: t):
            with contextlib.suppress(_Stop):
                self.run()
        if wrong:
            lines = "".join(
                f"tensor at position {i}:\nsaved metadata: {saved}\nrecomputed metadata: {got}\n" for i, saved, got in wrong
            )
            raise CheckpointError(
                "torch.utils.checkpoint: Recomputed values for the following tensors have different metadata than during the forward "
                f"pass.\n{lines}"
            )
        if count < len(self.holders) or extra:
            raise CheckpointError(
                "torch.utils.checkpoint: A different number of tensors was saved during the original forward and recomputation.\n"
                f"Number of tensors saved during forward: {len(self.holders)}\nNumber of tensors saved during recomputation: {count}"
            )


def _metadata(t: Tensor) -> dict[str, Any]:
    return {"shape": t.shape, "dtype": t.dtype, "device": t.device}


def _saved_anew(
    function: Callable[..., Any],
    preserve_rng_state: bool,
    context_fn: Callable[[], tuple[Any, Any]],
    determinism_check: str,
    early_stop: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if determinism_check not in ("default", "none"):
        raise ValueError(f"determinism_check should be one of default, none, but got {determinism_check}")
    around = _Surroundings(preserve_rng_state, args)
    forward_context, recompute_context = context_fn()
    frame = _Frame(
        lambda: function(*args, **kwargs),
        around,
        recompute_context,
        early_stop if _early_stop is None else _early_stop,
        determinism_check,
    )
    with forward_context, frame.hooks():
        return function(*args, **kwargs)


# ---- what programs call ----------------------------------------------------------------------------------------------

_SAY_WHICH = (
    "torch.utils.checkpoint: the use_reentrant parameter should be passed explicitly. use_reentrant=False is recommended, but if you "
    "need to preserve the current default behavior, you can pass use_reentrant=True."
)


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """Calls `function` without keeping its intermediate values; backward calls it again, with the same random draws."""
    if use_reentrant is None:
        warnings.warn(_SAY_WHICH, stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant:
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        if context_fn is not noop_context_fn or debug is not False:
            raise ValueError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
        return CheckpointFunction.apply(function, preserve, *args)
    if not _flambeau.is_grad_enabled():
        return function(*args, **kwargs)
    return _saved_anew(function, preserve, context_fn, determinism_check, early_stop, args, kwargs)


def checkpoint_sequential(functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any) -> Any:
    """Calls modules one after the other in checkpointed segments; the last one is kept."""
    if use_reentrant is None:
        warnings.warn(_SAY_WHICH, stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    functions = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = len(functions) // segments

    def span(start: int, stop: int) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            for f in functions[start:stop]:
                x = f(x)
            return x

        return run

    stop = 0
    for start in range(0, size * (segments - 1), size):
        stop = start + size
        input = checkpoint(span(start, stop), input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
    return span(stop, len(functions))(input)


__all__ = [
    "CheckpointError",
    "CheckpointFunction",
    "DefaultDeviceType",
    "check_backward_validity",
    "checkpoint",
    "checkpoint_sequential",
    "detach_variable",
    "get_device_states",
    "noop_context_fn",
    "set_checkpoint_debug_enabled",
    "set_checkpoint_early_stop",
    "set_device_states",
]
