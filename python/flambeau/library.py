"""Operators that programs add: `custom_op` and what is registered for it. They are called through what `custom_op` returned or through
`flambeau.ops.NAMESPACE.NAME`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ._flambeau import Tensor
from .autograd import Function
from .autograd.grad_mode import no_grad

__all__ = ["CustomOpDef", "Library", "custom_op", "define", "impl", "register_autograd", "register_fake", "register_kernel"]

_REGISTERED: dict[str, CustomOpDef] = {}
# Dispatch keys whose kernel is an ordinary function over operators: gradients follow from what it calls.
_COMPOSITE = ("CompositeImplicitAutograd", "Autograd", "AutogradCPU", "AutogradCUDA")
_IGNORED = ("Meta", "Functionalize", "AutocastCPU", "AutocastCUDA")


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


class CustomOpDef:
    """An operator made of Python functions: a kernel, perhaps one of its own for some kinds of devices, perhaps a gradient."""

    def __init__(self, name: str, function: Callable[..., Any] | None = None, schema: str | None = None) -> None:
        self._qualname, self._schema = name, schema
        self._composite: Callable[..., Any] | None = None
        self._kernels: dict[str | None, Callable[..., Any]] = {} if function is None else {None: function}
        self._fake: Callable[..., Any] | None = None
        self._gradient: tuple[Callable[..., Any], Callable[..., Any] | None] | None = None
        self._signature = None if function is None else inspect.signature(function)
        self.__name__ = name.rpartition("::")[2]
        self.__doc__ = getattr(function, "__doc__", None)

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._qualname})>"

    def register_kernel(self, device_types: Any, func: Callable[..., Any] | None = None, /) -> Any:
        """The kernel for one kind of device (`"cpu"`, `"cuda"`) or several; for all that have none of their own for None."""
        kinds = [device_types] if device_types is None or isinstance(device_types, str) else list(device_types)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            for kind in kinds:
                self._kernels[kind] = function
            self._signature = self._signature or inspect.signature(function)
            return function

        return register if func is None else register(func)

    def register_fake(self, func: Callable[..., Any], /) -> Callable[..., Any]:
        """Kept: shapes are never guessed, an operator's kernel runs."""
        self._fake = func
        return func

    def register_autograd(self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None) -> None:
        """The gradient: `setup_context(ctx, inputs, output)` keeps what `backward(ctx, *gradients)` needs."""
        self._gradient = (backward, setup_context)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._composite is not None:
            return self._composite(*args, **kwargs)
        device = next((t.device.type for t in _tensors([*args, *kwargs.values()])), None)
        kernel = self._kernels.get(device, self._kernels.get(None))
        if kernel is None:
            raise NotImplementedError(f"{self._qualname}: there is no kernel for device {device!r}; register one by register_kernel")
        keywords: dict[str, Any] = kwargs
        if self._signature is not None:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            args, keywords = bound.args, bound.kwargs
        gradient, name = self._gradient, self._qualname

        class Call(Function):
            @staticmethod
            def forward(ctx: Any, *inputs: Any) -> Any:
                with no_grad():
                    output = kernel(*inputs, **keywords)
                if gradient is not None and gradient[1] is not None:
                    extra = {"keyword_only_inputs": keywords} if keywords else {}
                    gradient[1](ctx=ctx, inputs=inputs, output=output, **extra)
                return output

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                if gradient is None:
                    raise RuntimeError(f"{name}: no gradient is registered; register one by register_autograd")
                return gradient[0](ctx, *grads)

        return Call.apply(*args)


def _named(op: Any) -> CustomOpDef:
    if isinstance(op, CustomOpDef):
        return op
    name = op if isinstance(op, str) else op.name()
    if name not in _REGISTERED:
        raise RuntimeError(f"there is no operator {name!r}; define it by custom_op or define")
    return _REGISTERED[name]


def _check_name(name: str) -> None:
    if name.count("::") != 1:
        raise ValueError(f"an operator's name is 'NAMESPACE::NAME', not {name!r}")


def custom_op(
    name: str, fn: Callable[..., Any] | None = None, /, *, mutates_args: Any, device_types: Any = None, schema: str | None = None, tags: Any = None
) -> Any:
    """Makes an operator `NAMESPACE::NAME` of a function. `mutates_args` names the arguments that it writes to."""
    _check_name(name)

    def register(function: Callable[..., Any]) -> CustomOpDef:
        op = CustomOpDef(name, schema=schema)
        op.register_kernel(device_types, function)
        op.__doc__ = function.__doc__
        _REGISTERED[name] = op
        return op

    return register if fn is None else register(fn)


def define(qualname: str, schema: str, *, lib: Any = None, tags: Any = ()) -> None:
    """Says that there is an operator; `impl` gives it kernels."""
    _check_name(qualname)
    _REGISTERED[qualname] = CustomOpDef(qualname, schema=schema)


def impl(qualname: str, types: Any, func: Callable[..., Any] | None = None, *, lib: Any = None) -> Any:
    """A kernel of a defined operator, for kinds of devices or `"default"`."""
    op = _named(qualname)
    return op.register_kernel(None if types == "default" else types, func)


def register_kernel(op: Any, device_types: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None) -> Any:
    """A kernel of an operator, for kinds of devices."""
    return _named(op).register_kernel(device_types, func)


def register_fake(op: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None, _stacklevel: int = 1) -> Any:
    """Kept: shapes are never guessed, an operator's kernel runs."""
    return _named(op).register_fake if func is None else _named(op).register_fake(func)


def register_autograd(op: Any, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None, lib: Any = None) -> None:
    """The gradient of an operator."""
    _named(op).register_autograd(backward, setup_context=setup_context)


def get_ctx() -> Any:
    """Raises: it belongs to functions that guess shapes, which are not called."""
    raise RuntimeError("get_ctx() is for functions given to register_fake, which are never called: operators' kernels run")


class Library:
    """Operators of one namespace, defined by schema and given kernels by dispatch key."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = "") -> None:
        if kind not in ("DEF", "IMPL", "FRAGMENT"):
            raise ValueError(f"Library: kind must be DEF, IMPL or FRAGMENT, not {kind!r}")
        self.ns, self.kind, self.dispatch_key = ns, kind, dispatch_key

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """Says that there is an operator; its name is returned."""
        name = schema.partition("(")[0].strip()
        define(f"{self.ns}::{name}", schema)
        return name

    def impl(self, op_name: Any, fn: Callable[..., Any], dispatch_key: str = "", *, with_keyset: bool = False, allow_override: bool = False) -> None:
        """A kernel for a dispatch key; none (or a composite one) stands for every device."""
        name = op_name if isinstance(op_name, str) else op_name.name()
        op = _named(name if "::" in name else f"{self.ns}::{name}")
        key = dispatch_key or self.dispatch_key or "CompositeImplicitAutograd"
        if key in _IGNORED:
            return
        if key in _COMPOSITE:
            op._composite = fn
        else:
            op.register_kernel(None if key.startswith("Composite") else key.lower(), fn)
