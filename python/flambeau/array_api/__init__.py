"""The Python array API standard (2024.12), strictly.

`flambeau` itself has the standard's names, with PyTorch's behaviour where the two contradict each other: `flambeau.equal` is one bool,
`flambeau.sort` a pair, `flambeau.sum(x, ())` the sum of everything, a 0-dimensional operand does not raise a result's dtype. Programs
that are written for the standard use this module, `x.__array_namespace__()` or `import flambeau.array_api as xp`. Its functions take
any tensor and return `Array`s, which are tensors whose operators and indexing follow the standard too.
"""

# ruff: noqa: F401, F822 (the names of the standard are listed in `__all__`, which is put together from tables)

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import _array_api, _flambeau
from .._array_api import (
    UniqueAllResult,
    UniqueCountsResult,
    UniqueInverseResult,
    __array_api_version__,
    __array_namespace_info__,
    _default_sum,
    astype,
    broadcast_arrays,
    cumulative_prod,
    cumulative_sum,
    expand_dims,
    isdtype,
    matrix_transpose,
    permute_dims,
    repeat,
    take_along_axis,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
    unstack,
)
from .._flambeau import Tensor
from .._ops import ops

_DTYPES = """bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128""".split()
_UNARY = """abs acos acosh asin asinh atan atanh bitwise_not ceil conj cos cosh exp floor imag isfinite isinf isnan log log10 log2
logical_not negative positive real reciprocal signbit sin sinh sqrt square tan trunc""".split()
_BINARY = """add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide hypot logaddexp
logical_and logical_or logical_xor maximum minimum multiply nextafter pow subtract""".split()
_SAME = """argmax argmin asarray broadcast_to concat count_nonzero diff empty empty_like from_dlpack linspace moveaxis roll stack
tile tril triu where""".split()

globals().update({name: getattr(_flambeau, name) for name in _DTYPES})
e, inf, nan, pi, newaxis = math.e, math.inf, math.nan, math.pi, None


def _package(name: str) -> Any:
    """A function of the package: of Python's half of it or of the extension."""
    import flambeau

    return getattr(flambeau, name)


for _name in [*_UNARY, *_SAME]:
    globals()[_name] = _package(_name)
bitwise_invert = _array_api.bitwise_invert


def _promote(a: Any, b: Any) -> Any:
    """The dtype of two; PyTorch knows none for unsigned ones of more than eight bits beside others, the standard does."""
    return a if a == b else ops.promote_types(a, b)


class Array(Tensor):
    """A tensor whose operators and indexing follow the standard: operands of 0 dimensions count in a result's dtype, division by or
    of an infinity is IEEE's, and slices may run backwards. Everything else it has of tensors."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, Tensor) and key.dtype == _flambeau.bool and key.numel() == 0 and key.dim() <= self.dim():
            # A mask of nothing may have 0 where the array has more.
            if builtins.all(k in (n, 0) for k, n in zip(key.shape, self.shape, strict=False)):
                return self.new_empty((0, *self.shape[key.dim() :]))
        key, backwards = _forwards(self, key)
        result = super().__getitem__(key)
        return ops.flip(result, backwards) if backwards else result

    def __setitem__(self, key: Any, value: Any) -> None:
        key, backwards = _forwards(self, key)
        if backwards and isinstance(value, Tensor):
            shape = super().__getitem__(key).shape
            value = ops.flip(value.expand(shape), backwards)
        super().__setitem__(key, value if isinstance(value, Tensor) else _scalar(value, self))


def _forwards(x: Tensor, key: Any) -> tuple[Any, list[int]]:
    """An index in which no slice runs backwards, and the dimensions of its result to turn round."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if not builtins.any(isinstance(k, slice) and k.step is not None and k.step < 0 for k in parts):
        return key, []
    taken = builtins.sum(1 for k in parts if k is not None and k is not Ellipsis)
    source = place = 0  # dimensions of the operand and of the result that come before
    turned = []
    for i, k in enumerate(parts):
        if k is None:
            place += 1
        elif k is Ellipsis:
            source, place = source + x.dim() - taken, place + x.dim() - taken
        elif isinstance(k, slice):
            if k.step is not None and k.step < 0:
                run = range(*k.indices(x.shape[source]))
                parts[i] = slice(run[-1], run[0] + 1, -run.step) if run else slice(0, 0)
                turned.append(place)
            source, place = source + 1, place + 1
        else:
            source += 1
    return tuple(parts), turned


def _arrays(value: Any) -> Any:
    """Tensors, also those in a tuple or a list, as arrays."""
    if isinstance(value, Tensor):
        return value if isinstance(value, Array) else value.as_subclass(Array)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_arrays, value))
    return type(value)(map(_arrays, value)) if type(value) in (tuple, list) else value


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with arrays for results."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return _arrays(function(*args, **kwargs))

    return run


def _scalar(value: Any, beside: Tensor) -> Tensor:
    """A number as a tensor of the dtype that it has beside another."""
    if isinstance(value, int) and value >= 2**63:  # beyond int64, for uint64 and for floats
        return ops.tensor(value, dtype=beside.dtype, device=beside.device)
    return ops.full((), value, dtype=ops.result_type(beside, value), device=beside.device)


def _pair(x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """Both operands as tensors of the dtype of the result: numbers take the tensor's, and a 0-dimensional tensor counts as any other."""
    if not isinstance(x1, Tensor):
        return _scalar(x1, x2), x2
    if not isinstance(x2, Tensor):
        return x1, _scalar(x2, x1)
    if x1.dtype == x2.dtype:
        return x1, x2
    dtype = ops.promote_types(x1.dtype, x2.dtype)
    return x1.to(dtype), x2.to(dtype)


def _binary(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(x1: Any, x2: Any, /) -> Tensor:
        return function(*_pair(x1, x2))

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"The standard's `{name}`, element by element."
    return run


for _name in _BINARY:
    globals()[_name] = _binary(_name, _package(_name))
for _name, _function in {
    "equal": ops.eq, "not_equal": ops.ne, "less": ops.lt, "less_equal": ops.le, "greater": ops.gt, "greater_equal": ops.ge,
}.items():  # fmt: skip
    globals()[_name] = _binary(_name, _function)


def floor_divide(x1: Any, x2: Any, /) -> Tensor:
    """The greatest whole number not above the quotient; of an infinite operand, the floor of IEEE's quotient."""
    x1, x2 = _pair(x1, x2)
    result = ops.floor_divide(x1, x2)
    if not result.is_floating_point():
        return result
    special = ops.isinf(x1) | ops.isinf(x2)
    quotient = ops.true_divide(x1, x2)
    return ops.where(special, quotient, result)


def remainder(x1: Any, x2: Any, /) -> Tensor:
    """What is left of a division, with the divisor's sign, also where it is zero."""
    x1, x2 = _pair(x1, x2)
    result = ops.remainder(x1, x2)
    if not result.is_floating_point():
        return result
    return ops.where(result == 0, ops.copysign(result, x2), result)


def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1; of a complex number x / |x|; NaN of NaN."""
    if x.is_complex():
        return ops.sgn(x)
    return ops.where(ops.isnan(x), x, ops.sign(x)) if x.is_floating_point() else ops.sign(x)


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """Values below `min` raised to it and values above `max` lowered to it; the dtype is the operand's."""
    result = x
    if min is not None:
        bound = min if isinstance(min, Tensor) else ops.full((), min, dtype=x.dtype, device=x.device)
        result = ops.maximum(*_pair(result, bound)).to(x.dtype)
    if max is not None:
        bound = max if isinstance(max, Tensor) else ops.full((), max, dtype=x.dtype, device=x.device)
        result = ops.minimum(*_pair(result, bound)).to(x.dtype)
    return result if result is not x else x.clone()


def expm1(x: Tensor, /) -> Tensor:
    """exp(x) - 1, exact near zero; at complex infinities what C's annex G says of exp."""
    if not x.is_complex():
        return ops.expm1(x)
    result = ops.expm1(x)
    re, im = x.real, x.imag
    zero = ops.zeros_like(re)
    flat = ops.complex(ops.where(re == 0, zero, ops.expm1(re)), im)  # a number on the real line; zero without a sign
    result = ops.where(im == 0, flat, result)
    low = (re == -inf) & ~ops.isfinite(im)
    result = ops.where(low, ops.complex(ops.full_like(re, -1.0), zero), result)
    high = (re == inf) & ~ops.isfinite(im)
    return ops.where(high, ops.complex(ops.full_like(re, inf), ops.full_like(re, nan)), result)


def log1p(x: Tensor, /) -> Tensor:
    """log(1 + x), exact near zero; the real part is infinite where either part of x is."""
    result = ops.log1p(x)
    if not x.is_complex():
        return result
    mixed = (ops.isinf(x.real) & ops.isnan(x.imag)) | (ops.isnan(x.real) & ops.isinf(x.imag))
    return ops.where(mixed, ops.complex(ops.full_like(x.real, inf), ops.full_like(x.real, nan)), result)


def tanh(x: Tensor, /) -> Tensor:
    """The hyperbolic tangent; at complex infinities ±1 with a zero of the sign of sin(2 Im x)."""
    result = ops.tanh(x)
    if not x.is_complex():
        return result
    far = ops.isinf(x.real)
    # The sign of sin(2 Im x) by C's annex G; the standard wants a zero with the sign of Im x, which agrees with it near the real line.
    limit = ops.complex(ops.copysign(ops.ones_like(x.real), x.real), ops.copysign(ops.zeros_like(x.real), x.imag))
    return ops.where(far, limit, result)


# ---- creation --------------------------------------------------------------------------------------------------------


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Numbers from `start` to before `stop`; none where the step leads away from it."""
    if stop is None:
        start, stop = 0, start
    if dtype is None and not builtins.any(isinstance(v, float) for v in (start, stop, step)):
        dtype = _flambeau.int64
    if (stop - start) * (1 if step > 0 else -1) <= 0:
        return ops.empty(0, dtype=dtype, device=device)
    return ops.arange(start, stop, step, dtype=dtype, device=device)


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones on a diagonal, zeros elsewhere."""
    columns = n_rows if n_cols is None else n_cols
    result = ops.zeros((n_rows, columns), dtype=dtype, device=device)
    if -n_rows < k < columns:
        result.diagonal(k).fill_(1)
    return result


def flip(x: Tensor, /, *, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """The order of elements turned round along some dimensions, or all."""
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    return ops.flip(x, axes)


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of one value."""
    return ops.full((shape,) if isinstance(shape, int) else shape, fill_value, dtype=dtype, device=device)


def full_like(x: Tensor, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of one value, with another's sizes."""
    return ops.full_like(x, fill_value, dtype=dtype, device=device)


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of ones."""
    return ops.ones(shape, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones, with another's sizes."""
    return ops.ones_like(x, dtype=dtype, device=device)


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of zeros."""
    return ops.zeros(shape, dtype=dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros, with another's sizes."""
    return ops.zeros_like(x, dtype=dtype, device=device)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """The coordinates of a grid, one tensor a dimension."""
    return list(_package("meshgrid")(*arrays, indexing=indexing)) if arrays else []


# ---- data types ------------------------------------------------------------------------------------------------------


class finfo_object(NamedTuple):
    """What there is to know of a floating dtype."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: Any


class iinfo_object(NamedTuple):
    """What there is to know of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: Any


def finfo(type: Any, /) -> finfo_object:
    """The limits of a floating dtype, or of a tensor's; of a complex one, of its parts'."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    if dtype.is_complex:
        dtype = dtype.to_real()
    info = _flambeau.finfo(dtype)
    return finfo_object(info.bits, info.eps, info.max, info.min, info.smallest_normal, dtype)


def iinfo(type: Any, /) -> iinfo_object:
    """The limits of an integer dtype, or of a tensor's."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    info = _flambeau.iinfo(dtype)
    return iinfo_object(info.bits, info.max, info.min, dtype)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion leads from one dtype to another."""
    source = from_.dtype if isinstance(from_, Tensor) else from_
    return builtins.bool(_promote(source, to) == to)


def result_type(*arrays_and_dtypes: Any) -> Any:
    """The dtype of a computation; a 0-dimensional tensor counts as any other."""
    return _array_api.result_type(*(v.dtype if isinstance(v, Tensor) else v for v in arrays_and_dtypes))


# ---- reductions ------------------------------------------------------------------------------------------------------


def _axes(x: Tensor, axis: Any) -> list[int]:
    """The axes to reduce, from the last to the first."""
    if axis is None:
        return list(range(x.dim()))[::-1]
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if not -x.dim() <= a < x.dim():
            raise IndexError(f"axis {a} is out of range for a tensor of {x.dim()} dimensions")
    return sorted({a % x.dim() for a in axes}, reverse=True)


def _accumulate(run: Any, x: Tensor, axis: Any, dtype: Any, keepdims: bool) -> Tensor:
    result = x.to(_default_sum(x, dtype) or x.dtype)
    for a in _axes(x, axis):
        result = run(result, a, keepdim=keepdims, dtype=result.dtype)
    return result if result is not x else x.clone()


def sum(x: Tensor, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """Sums over axes; small integers are summed in the widest dtype of their kind."""
    axes = _axes(x, axis)
    dtype = _default_sum(x, dtype) or x.dtype
    return ops.sum(x, axes, keepdim=keepdims, dtype=dtype) if axes else x.to(dtype, copy=True)


def prod(x: Tensor, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """Products over axes; small integers are multiplied in the widest dtype of their kind."""
    return _accumulate(ops.prod, x, axis, dtype, keepdims)


def mean(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Means over axes."""
    axes = _axes(x, axis)
    return ops.mean(x, axes, keepdim=keepdims) if axes else x.clone()


def var(x: Tensor, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Variances over axes, divided by the count less `correction`."""
    axes = _axes(x, axis)
    if axes:
        return ops.var(x, axes, correction=correction, keepdim=keepdims)
    return x - x if correction < 1 else ops.full_like(x, nan)  # NaN where the only value is none or infinite


def std(x: Tensor, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Standard deviations over axes: square roots of `var`."""
    return ops.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def max(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The greatest values over axes."""
    axes = _axes(x, axis)
    return ops.amax(x, axes, keepdim=keepdims) if axes else x.clone()


def min(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The least values over axes."""
    axes = _axes(x, axis)
    return ops.amin(x, axes, keepdim=keepdims) if axes else x.clone()


def any(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether a value over axes is not zero."""
    axes = _axes(x, axis)
    return ops.any(x != 0, axes, keepdim=keepdims) if axes else x != 0


def all(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether no value over axes is zero."""
    axes = _axes(x, axis)
    return ops.all(x != 0, axes, keepdim=keepdims) if axes else x != 0


# ---- searching, sorting, shapes --------------------------------------------------------------------------------------


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The indices of values that are not zero, one tensor a dimension."""
    if x.dim() == 0:
        raise ValueError("nonzero: a 0-dimensional tensor has no indices")
    return tuple(ops.nonzero(x).unbind(1))


def searchsorted(x1: Tensor, x2: Tensor, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """Where the values of `x2` belong in the sorted `x1`."""
    if sorter is not None:
        x1 = x1[sorter.to(_flambeau.int64)]
    x1, x2 = _pair(x1, x2)
    return ops.searchsorted(x1.contiguous(), x2.contiguous(), side=side)


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The values in order along an axis."""
    return ops.sort(x, dim=axis, descending=descending, stable=stable)[0]


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices that put the values in order along an axis."""
    return ops.argsort(x, dim=axis, descending=descending, stable=stable)


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The slices at `indices` along an axis, which a tensor of one dimension need not say."""
    if axis is None:
        if x.dim() != 1:
            raise ValueError(f"take: an axis must be given for a tensor of {x.dim()} dimensions")
        axis = 0
    indices = indices.to(_flambeau.int64)
    return ops.index_select(x, axis, ops.where(indices < 0, indices + x.shape[axis], indices))


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """The elements in other sizes: a view where there can be one, unless `copy` asks for a copy or forbids it."""
    if copy:
        return x.clone().reshape(shape)
    if copy is None:
        return x.reshape(shape)
    try:
        return x.view(shape)
    except RuntimeError as failure:
        raise ValueError(f"reshape: {shape} cannot be had without a copy") from failure


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """Without the given dimensions, which must have one element."""
    for a in _axes(x, axis):
        if x.shape[a] != 1:
            raise ValueError(f"squeeze: dimension {a} has {x.shape[a]} elements, not one")
    return x.squeeze(axis)


# ---- products --------------------------------------------------------------------------------------------------------


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The matrix product."""
    return ops.matmul(*_pair(x1, x2))


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    """Products summed over several axes of both."""
    x1, x2 = _pair(x1, x2)
    if not isinstance(axes, int):
        axes = [list(a) for a in axes]
    return _package("tensordot")(x1, x2, dims=axes)


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Inner products along an axis, the first operand conjugated."""
    return _array_api.vecdot(x1, x2, axis=axis)


def round(x: Tensor, /) -> Tensor:
    """To whole numbers, halves to even ones; a complex number's parts each."""
    return ops.complex(ops.round(x.real), ops.round(x.imag)) if x.is_complex() else ops.round(x)


# The names by which Python's operators find these functions.
_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip
_COMPARISONS = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}


def _operator(name: str, function: Callable[..., Any], plain: Any) -> tuple[Any, Any, Any]:
    """The operator, its form with the operands changed about, and the one that writes."""

    def takes(other: Any) -> builtins.bool:
        return isinstance(other, (Tensor, builtins.bool, int, float, complex))

    def forward(self: Array, other: Any, /) -> Any:
        return _arrays(function(self, other)) if takes(other) else plain(self, other)

    def backward(self: Array, other: Any, /) -> Any:
        return _arrays(function(other, self)) if takes(other) else NotImplemented

    def inplace(self: Array, other: Any, /) -> Any:
        result = function(self, other)
        if result.dtype != self.dtype or result.shape != self.shape:
            raise RuntimeError(
                f"__i{name}__: a result of dtype {result.dtype} and sizes {tuple(result.shape)} cannot be written to an array of dtype "
                f"{self.dtype} and sizes {tuple(self.shape)}"
            )
        return self.copy_(result)

    return forward, backward, inplace


for _name, _target in _OPERATORS.items():
    _forms = _operator(_name, globals()[_target], getattr(Tensor, f"__{_name}__"))
    for _prefix, _form in zip(("", "r", "i"), _forms, strict=True):
        _form.__name__ = _form.__qualname__ = f"__{_prefix}{_name}__"
        setattr(Array, _form.__name__, _form)
for _name, _target in _COMPARISONS.items():
    setattr(Array, f"__{_name}__", _operator(_name, globals()[_target], getattr(Tensor, f"__{_name}__"))[0])
Array.__hash__ = Tensor.__hash__  # type: ignore[method-assign]

from . import fft, linalg  # noqa: E402

for _module in (globals(), fft.__dict__, linalg.__dict__):
    for _name, _value in list(_module.items()):
        plain = isinstance(_value, type) or _name.startswith("_") or not callable(_value)
        if not plain and _name not in ("finfo", "iinfo", "isdtype", "can_cast", "result_type"):
            _module[_name] = _strict(_value)

__all__ = sorted(
    [
        *_DTYPES, *_SAME, *_BINARY, *_UNARY, "e", "inf", "nan", "pi", "newaxis", "equal", "not_equal",
        "less", "less_equal", "greater", "greater_equal", "bitwise_invert", "floor_divide", "remainder", "sign", "clip", "expm1",
        "log1p", "tanh", "round", "Array", "arange", "eye", "full", "full_like", "ones", "ones_like", "zeros", "zeros_like", "meshgrid", "finfo",
        "iinfo", "can_cast", "result_type", "astype", "isdtype", "sum", "prod", "mean", "var", "std", "max", "min", "any", "all",
        "nonzero", "searchsorted", "sort", "argsort", "take", "take_along_axis", "reshape", "squeeze", "matmul", "tensordot",
        "vecdot", "matrix_transpose", "broadcast_arrays", "cumulative_prod", "cumulative_sum", "expand_dims", "permute_dims",
        "repeat", "unique_all", "unique_counts", "unique_inverse", "unique_values", "unstack", "UniqueAllResult",
        "UniqueCountsResult", "UniqueInverseResult", "fft", "linalg", "__array_api_version__", "__array_namespace_info__",
    ]
)  # fmt: skip
