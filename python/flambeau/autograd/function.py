"""`Function`: operators whose backward is written in Python."""

from __future__ import annotations

from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from ..utils import _pytree as pytree


class FunctionCtx:
    """What a `Function` keeps between its forward and its backward.

    The extension reads the underscored attributes after `forward` (or `setup_context`) and fills `saved_tensors`
    before `backward`.
    """

    _to_save: tuple[Any, ...] = ()
    _to_save_forward: tuple[Any, ...] = ()
    _dirty: tuple[Tensor, ...] = ()
    _non_differentiable: tuple[Tensor, ...] = ()
    _materialize_grads: bool = True
    needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps inputs or outputs for the backward, checked against later in-place changes."""
        self._to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors for `jvp`."""
        self._to_save_forward = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which inputs the forward changed in place."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says which outputs carry no gradient."""
        self._non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether missing gradients arrive in backward as zeros (the default) or as None."""
        self._materialize_grads = value


class Function:
    """Base of custom operators: static `forward`, `backward` and, if wanted, `setup_context`, `jvp`, `vmap`."""

    generate_vmap_rule = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all static, so you should invoke "
            "them on the class itself, with apply()."
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs; takes a context first unless the class has `setup_context`."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Keeps what backward needs when `forward` takes no context."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Computes the gradients of the inputs from those of the outputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with backward mode AD."
        )

    vjp = backward

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """Computes the tangents of the outputs from those of the inputs."""
        raise NotImplementedError("You must implement the jvp function for custom autograd.Function to use it with forward mode AD.")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Says how the function acts on batched inputs."""
        raise NotImplementedError("To use autograd.Function with vmap, you must either override the vmap staticmethod or set generate_vmap_rule=True.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs the function and records it."""
        if kwargs:
            # Keyword arguments are bound by the forward's own signature, since backward answers by position.
            import inspect

            own_context = cls.setup_context is Function.setup_context
            bound = inspect.signature(cls.forward).bind(*((None, *args) if own_context else args), **kwargs)
            bound.apply_defaults()
            args = bound.args[1:] if own_context else bound.args
        return _flambeau._function_apply(cls, args)


def once_differentiable(backward: Any) -> Any:
    """Marks a backward that cannot be differentiated itself: its result refuses a second backward."""
    import functools

    from .grad_mode import no_grad

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        recording = _flambeau.is_grad_enabled() and any(isinstance(g, Tensor) and g.requires_grad for g in grads)
        with no_grad():
            results = backward(ctx, *grads)
        if not recording:
            return results
        single = not isinstance(results, tuple)
        tensors = (results,) if single else results
        refused = tuple(_Refuse.apply(t) if isinstance(t, Tensor) else t for t in tensors)
        return refused[0] if single else refused

    return wrapped


class _Refuse(Function):
    """An identity that fails when somebody differentiates through it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        out = tensor.detach().requires_grad_()
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


class NestedIOFunction(Function):
    """A `Function` whose arguments may be nested containers: they are flattened around `apply`."""

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        leaves, _ = pytree.tree_flatten(args)
        return super().apply(*leaves, **kwargs)


BackwardCFunction = FunctionCtx
InplaceFunction = Function
