"""Types that answer for operators themselves, through `__torch_function__`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import _flambeau
from ._flambeau import Tensor

__all__ = ["TorchFunctionMode", "handle_torch_function", "has_torch_function", "is_tensor_like", "is_tensor_method_or_property", "resolve_name"]


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether one of the arguments, not a plain tensor, has a `__torch_function__` that is not switched off."""
    disabled = _flambeau._disabled_torch_function_impl
    return any(
        type(a) is not Tensor and getattr(type(a), "__torch_function__", disabled) is not disabled for a in relevant_args
    )


def has_torch_function_unary(arg: Any) -> bool:
    """`has_torch_function` of one argument."""
    return has_torch_function((arg,))


def has_torch_function_variadic(*args: Any) -> bool:
    """`has_torch_function` of its arguments."""
    return has_torch_function(args)


def handle_torch_function(public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
    """Asks the arguments' types, subclasses before their parents, else from the left; the first that answers decides."""
    overriders: list[Any] = []
    for a in relevant_args:
        if has_torch_function((a,)) and type(a) not in [type(o) for o in overriders]:
            place = next((i for i, o in enumerate(overriders) if issubclass(type(a), type(o))), len(overriders))
            overriders.insert(place, a)
    kinds = tuple(type(o) for o in overriders)
    for o in overriders:
        result = o.__torch_function__(public_api, kinds, args, kwargs)
        if result is not NotImplemented:
            return result
    raise TypeError(f"no implementation found for '{resolve_name(public_api)}' on types that implement __torch_function__: {list(kinds)}")


def is_tensor_like(inp: Any) -> bool:
    """Whether a value is a tensor or of a type that answers for operators."""
    return isinstance(inp, Tensor) or hasattr(inp, "__torch_function__")


def is_tensor_method_or_property(func: Callable[..., Any]) -> bool:
    """Whether a function is a member of tensors."""
    return getattr(Tensor, getattr(func, "__name__", ""), None) is func or getattr(func, "__name__", "") == "__get__"


def resolve_name(f: Any) -> str:
    """The name of a public function, as programs write it."""
    name = getattr(f, "__name__", str(f))
    return f"torch.Tensor.{name}" if isinstance(f, str) is False and is_tensor_method_or_property(f) else f"torch.{name}"


class TorchFunctionMode:
    """Would see every operator that a thread runs. It cannot be entered: operators between plain tensors ask nobody."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError

    def __enter__(self) -> TorchFunctionMode:
        raise NotImplementedError(
            "TorchFunctionMode: operators between plain tensors ask nobody; use a subclass of Tensor with __torch_function__, module "
            "hooks, or flambeau.profiler to watch what runs"
        )

    def __exit__(self, *exc: Any) -> None:
        """Nothing to leave."""
