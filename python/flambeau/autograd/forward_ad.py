"""Forward mode: dual tensors, which carry a tangent.

A dual tensor is a place in the graph that its level remembers with its tangent. The tangent of a result is found when it is
asked for: with g(u) = Jᵀu linear in u, the derivative of ⟨g(u), v⟩ in u is Jv, whatever u.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops
from .function import Function
from .grad_mode import enable_grad, forward_mode, set_grad_enabled


class _Level:
    """The duals made at one level."""

    def __init__(self) -> None:
        self.places: list[Tensor] = []
        self.tangents: list[Tensor] = []
        # Tangents by the identity of the dual, for those that come back as they are.
        self.own: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.mode = enable_grad()
        self.forward = forward_mode()


_levels: list[_Level] = []


class _Carried(Function):
    """The same memory as neither a leaf nor a view of one, so that it can be written in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class UnpackedDualTensor(NamedTuple):
    """What `unpack_dual` returns."""

    primal: Tensor
    tangent: Tensor | None


def enter_dual_level() -> int:
    """Starts a level of forward mode; returns its number."""
    if _levels:
        raise RuntimeError("Nested forward mode AD is not supported at the moment")
    level = _Level()
    level.mode.__enter__()
    level.forward.__enter__()
    _levels.append(level)
    return len(_levels) - 1


def exit_dual_level(*, level: int | None = None) -> None:
    """Ends a level: its tangents are gone."""
    if level is None:
        level = len(_levels) - 1
    if not _levels or level != len(_levels) - 1:
        raise RuntimeError("Trying to exit a forward AD level that was not the last one that was created. This is not supported.")
    level_left = _levels.pop()
    level_left.forward.__exit__(None, None, None)
    level_left.mode.__exit__(None, None, None)


def _level(number: int | None, what: str) -> _Level:
    if number is None:
        number = len(_levels) - 1
    if number < 0 or number >= len(_levels):
        raise RuntimeError(
            f"Trying to {what} but no forward AD level is entered. Make sure to use the `with fwAD.dual_level()` context manager."
        )
    return _levels[number]


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """A dual tensor: an alias of `tensor` that carries `tangent`."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ValueError(f"Expected primal to be floating point or complex, but got: {tensor.dtype}")
    if not (tangent.is_floating_point() or tangent.is_complex()):
        raise ValueError(f"Expected tangent to be floating point or complex, but got: {tangent.dtype}")
    if not _levels:
        raise RuntimeError(
            "Trying to create a dual Tensor for forward AD but no level exists, make sure to enter_dual_level() first."
        )
    if tensor.shape != tangent.shape:
        raise RuntimeError(
            f"Expected tangent to have the same shape as primal: primal has sizes {list(tensor.shape)}, tangent {list(tangent.shape)}"
        )
    if tensor.dtype != tangent.dtype:
        raise RuntimeError(f"Expected primal and tangent to have the same dtype, got {tensor.dtype} and {tangent.dtype}")
    here = _level(level, "make a dual Tensor")
    place = tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
    here.places.append(place)
    here.tangents.append(tangent)
    dual = _Carried.apply(place)
    here.own[id(dual)] = (dual, tensor, tangent)
    return dual


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """The value of a dual tensor and its tangent, None where it depends on no dual."""
    if level is None and not _levels:
        return UnpackedDualTensor(tensor, None)
    here = _level(level, "unpack a dual Tensor")
    known = here.own.get(id(tensor))
    if known is not None and known[0] is tensor and tensor._version == 0:
        return UnpackedDualTensor(known[1].view_as(known[1]), known[2])
    if not tensor.requires_grad or not here.places:
        return UnpackedDualTensor(tensor.view_as(tensor) if not tensor.requires_grad else tensor, None)
    with set_grad_enabled(True):
        # Not zeros: a gradient may take the logarithm of a cotangent, or divide by it.
        seed = ops.ones_like(tensor.detach()).requires_grad_()
        places = tuple(here.places)
        back = _flambeau._engine_backward((tensor,), (seed,), True, True, places, False, True)
        if all(b is None for b in back):
            return UnpackedDualTensor(tensor, None)
        usable = [(b, t) for b, t in zip(back, here.tangents, strict=True) if b is not None and b.requires_grad]
        if usable:
            firsts, seconds = zip(*usable, strict=True)
            (pushed,) = _flambeau._engine_backward(firsts, seconds, True, True, (seed,), False, True)
        else:
            pushed = None
    tangent = ops.zeros_like(tensor.detach()) if pushed is None else pushed
    outer = any(p.grad_fn is not None for p in places) or any(t.requires_grad for t in here.tangents)
    return UnpackedDualTensor(tensor if outer else tensor.detach(), tangent if outer else tangent.detach())


class dual_level:
    """A level of forward mode as a context manager."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *exc: Any) -> None:
        exit_dual_level()

    def __call__(self, function: Any) -> Any:
        import functools

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with dual_level():
                return function(*args, **kwargs)

        return wrapped


__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual", "unpack_dual"]
