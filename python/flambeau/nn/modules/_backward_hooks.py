"""Full backward hooks: two identities in the graph, one on a module's inputs and one on its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..._flambeau import Tensor
from ...autograd.function import Function

if TYPE_CHECKING:
    from .module import Module


class _Identity(Function):
    """Passes tensors on unchanged and their gradients through `visit`."""

    @staticmethod
    def forward(ctx: Any, visit: Callable[..., Sequence[Any]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.visit = visit
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return (None, *ctx.visit(grads))


class BackwardHooks:
    """The backward hooks of one call of a module."""

    def __init__(self, module: Module, hooks: list[Callable[..., Any]], pre_hooks: list[Callable[..., Any]]) -> None:
        self.module, self.hooks, self.pre_hooks = module, hooks, pre_hooks
        self.grad_outputs: tuple[Any, ...] | None = None
        self.input_count = 0
        self.input_slots: list[int] = []

    def wrap_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.input_count = len(args)
        self.input_slots = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
        if not self.input_slots or not self.hooks:
            return args
        wrapped = _Identity.apply(self._on_inputs, *(args[i] for i in self.input_slots))
        new = list(args)
        for slot, tensor in zip(self.input_slots, wrapped, strict=True):
            new[slot] = tensor
        return tuple(new)

    def wrap_outputs(self, result: Any) -> Any:
        from ...utils._pytree import tree_flatten, tree_unflatten

        leaves, spec = tree_flatten(result)
        slots = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
        if not slots:
            return result
        wrapped = _Identity.apply(self._on_outputs, *(leaves[i] for i in slots))
        for slot, tensor in zip(slots, wrapped, strict=True):
            leaves[slot] = tensor
        return tree_unflatten(leaves, spec)

    def _on_outputs(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.pre_hooks:
            changed = hook(self.module, grads)
            if changed is not None:
                grads = changed if isinstance(changed, tuple) else (changed,)
        self.grad_outputs = grads
        if not self.input_slots:
            # No input asks for a gradient: the hooks see None for all of them, and cannot change anything.
            for hook in self.hooks:
                if hook(self.module, (None,) * self.input_count, grads) is not None:
                    raise RuntimeError("a backward hook returned gradients for inputs that need none")
        return grads

    def _on_inputs(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        full: list[Any] = [None] * self.input_count
        for slot, grad in zip(self.input_slots, grads, strict=True):
            full[slot] = grad
        current = tuple(full)
        for hook in self.hooks:
            changed = hook(self.module, current, self.grad_outputs)
            if changed is not None:
                current = changed if isinstance(changed, tuple) else (changed,)
                if len(current) != self.input_count:
                    raise RuntimeError(
                        f"Backward hook returned an invalid number of grad_input, got {len(current)}, but expected {self.input_count}"
                    )
        return tuple(current[slot] for slot in self.input_slots)
