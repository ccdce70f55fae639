"""The Python array API standard's inspection functions, and its names where PyTorch has none of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import _flambeau
from ._flambeau import Tensor
from ._ops import ops
from .functional import tensordot

__array_api_version__ = "2024.12"

_KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "signed integer": ("int8", "int16", "int32", "int64"),
    "unsigned integer": ("uint8", "uint16", "uint32", "uint64"),
    "real floating": ("float32", "float64"),
    "complex floating": ("complex64", "complex128"),
}
_KINDS["integral"] = _KINDS["signed integer"] + _KINDS["unsigned integer"]
_KINDS["numeric"] = _KINDS["integral"] + _KINDS["real floating"] + _KINDS["complex floating"]


class ArrayNamespaceInfo:
    """What this namespace offers, as the standard asks for it."""

    def capabilities(self) -> dict[str, Any]:
        """Which optional behaviour there is."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Any:
        """The device of new arrays."""
        return _flambeau.device("cpu")

    def default_dtypes(self, *, device: Any = None) -> dict[str, Any]:
        """The dtypes of new arrays for which none is asked."""
        default = _flambeau.get_default_dtype()
        return {
            "real floating": default,
            "complex floating": _flambeau.complex128 if default == _flambeau.float64 else _flambeau.complex64,
            "integral": _flambeau.int64,
            "indexing": _flambeau.int64,
        }

    def dtypes(self, *, device: Any = None, kind: str | tuple[str, ...] | None = None) -> dict[str, Any]:
        """The standard's dtypes that there are, of one kind or several."""
        if kind is None:
            names = _KINDS["bool"] + _KINDS["numeric"]
        else:
            kinds = (kind,) if isinstance(kind, str) else kind
            unknown = [k for k in kinds if k not in _KINDS]
            if unknown:
                raise ValueError(f"unsupported kind: {unknown[0]!r}; the kinds are {', '.join(map(repr, _KINDS))}")
            names = tuple(n for k in kinds for n in _KINDS[k])
        return {n: getattr(_flambeau, n) for n in dict.fromkeys(names)}

    def devices(self) -> list[Any]:
        """The devices there are."""
        return [_flambeau.device("cpu"), *(_flambeau.device(f"cuda:{i}") for i in range(_flambeau._cuda_device_count()))]


def __array_namespace_info__() -> ArrayNamespaceInfo:
    """What this namespace offers."""
    return ArrayNamespaceInfo()



# ---- functions that PyTorch has under other names --------------------------------------------------------------------


def astype(x: Tensor, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """The tensor in another dtype (and on another device); itself where nothing changes and no copy is wanted."""
    if x.is_complex() and not (dtype.is_complex or dtype == _flambeau.bool):
        raise TypeError(f"astype: complex values cannot become {dtype}")
    return x.to(device=x.device if device is None else device, dtype=dtype, copy=copy)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is the given one, of a kind by name, or one of several of those."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ValueError(f"unsupported kind: {kind!r}; the kinds are {', '.join(map(repr, _KINDS))}")
        return any(dtype == getattr(_flambeau, n) for n in _KINDS[kind])
    if isinstance(kind, _flambeau.dtype):
        return bool(dtype == kind)
    raise TypeError(f"isdtype: kind must be a dtype, a name or a tuple of them, not {type(kind).__name__}")


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """The tensors, each expanded to their common shape."""
    from .functional import broadcast_tensors

    return list(broadcast_tensors(*arrays))


def bitwise_invert(x: Tensor, /) -> Tensor:
    """Every bit turned over."""
    return ops.bitwise_not(x)


def _default_sum(x: Tensor, dtype: Any) -> Any:
    """The dtype of sums: int64 for smaller signed integers, uint64 for unsigned ones, else the operand's own."""
    if dtype is not None or x.is_floating_point() or x.is_complex():
        return dtype
    unsigned = (_flambeau.uint8, _flambeau.uint16, _flambeau.uint32, _flambeau.uint64)
    return _flambeau.uint64 if x.dtype in unsigned else _flambeau.int64


def _cumulative(run: Any, start: int, x: Tensor, axis: int | None, dtype: Any, include_initial: bool) -> Tensor:
    if axis is None:
        if x.dim() > 1:
            raise ValueError(f"an axis must be given for a tensor of {x.dim()} dimensions")
        axis = 0
        x = x.reshape(-1)
    dtype = _default_sum(x, dtype)
    result = run(x, axis, dtype=dtype)
    if include_initial:
        shape = list(result.shape)
        shape[axis] = 1
        result = ops.cat([ops.full(shape, start, dtype=result.dtype, device=result.device), result], axis)
    return result


def cumulative_sum(x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """Running sums along an axis, after a 0 where `include_initial` says so."""
    return _cumulative(ops.cumsum, 0, x, axis, dtype, include_initial)


def cumulative_prod(x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """Running products along an axis, after a 1 where `include_initial` says so."""
    return _cumulative(ops.cumprod, 1, x, axis, dtype, include_initial)


class UniqueAllResult(NamedTuple):
    """What `unique_all` returns."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCountsResult(NamedTuple):
    """What `unique_counts` returns."""

    values: Tensor
    counts: Tensor


class UniqueInverseResult(NamedTuple):
    """What `unique_inverse` returns."""

    values: Tensor
    inverse_indices: Tensor


def _distinct(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distinct values in order, where each is found first, each element's place among them, how often each occurs. NaN differs from
    every value, itself too; of complex numbers the real part is compared first."""
    flat = x.detach().reshape(-1)
    n = flat.shape[0]
    if n == 0:
        empty = ops.zeros(0, dtype=_flambeau.int64, device=x.device)
        return flat.clone(), empty, ops.zeros(x.shape, dtype=_flambeau.int64, device=x.device), empty
    if flat.is_complex():
        order = ops.argsort(flat.imag, stable=True)
        order = order[ops.argsort(flat.real[order], stable=True)]
    else:
        order = ops.argsort(flat.to(_flambeau.uint8) if flat.dtype == _flambeau.bool else flat, stable=True)
    ordered = flat[order]
    first = ops.cat([ops.ones(1, dtype=_flambeau.bool, device=x.device), ordered[1:] != ordered[:-1]])
    starts = first.nonzero().reshape(-1)
    places = ops.cumsum(first.to(_flambeau.int64), 0) - 1
    inverse = ops.empty_like(places)
    inverse[order] = places
    counts = ops.diff(starts, append=ops.full((1,), n, dtype=_flambeau.int64, device=x.device))
    return ordered[starts], order[starts], inverse.reshape(x.shape), counts


def unique_all(x: Tensor, /) -> UniqueAllResult:
    """Distinct values, the first place of each, each element's value by number, and how often each occurs."""
    return UniqueAllResult(*_distinct(x))


def unique_counts(x: Tensor, /) -> UniqueCountsResult:
    """Distinct values and how often each occurs."""
    values, _, _, counts = _distinct(x)
    return UniqueCountsResult(values, counts)


def unique_inverse(x: Tensor, /) -> UniqueInverseResult:
    """Distinct values and each element's value by number."""
    values, _, inverse, _ = _distinct(x)
    return UniqueInverseResult(values, inverse)


def unique_values(x: Tensor, /) -> Tensor:
    """Distinct values."""
    return _distinct(x)[0]


def expand_dims(x: Tensor, /, axis: int = 0) -> Tensor:
    """A dimension of one element more, at `axis`."""
    return x.unsqueeze(axis)


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """The dimensions in another order."""
    return x.permute(axes)


def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Every element `repeats` times, along an axis or of the tensor laid flat."""
    if isinstance(repeats, Tensor):
        repeats = repeats.to(_flambeau.int64)
    return ops.repeat_interleave(x, repeats, dim=axis)


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis."""
    return tuple(x.unbind(axis))


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """Elements by an index for every place of the result along an axis."""
    return ops.take_along_dim(x, indices.to(_flambeau.int64), dim=axis)


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The matrices transposed."""
    return x.mT


def _common(x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
    dtype = ops.promote_types(x1.dtype, x2.dtype)
    return x1.to(dtype), x2.to(dtype)


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Inner products along an axis, the first operand conjugated."""
    if not -min(x1.dim(), x2.dim()) <= axis < 0:
        raise ValueError(f"vecdot: axis must lie in [-{min(x1.dim(), x2.dim())}, -1], not {axis}")
    if x1.shape[axis] != x2.shape[axis]:
        raise ValueError(f"vecdot: sizes {x1.shape[axis]} and {x2.shape[axis]} along axis {axis} differ")
    x1, x2 = _common(x1, x2)
    first = ops.movedim(x1, axis, -1).conj() if x1.is_complex() else ops.movedim(x1, axis, -1)
    return ops.sum(first * ops.movedim(x2, axis, -1), -1, dtype=x1.dtype)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """All products of an element of one vector with one of another."""
    return ops.outer(*_common(x1, x2))


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """Sums of the matrices' diagonals."""
    return ops.sum(x.diagonal(offset, -2, -1), -1, dtype=_default_sum(x, dtype))


def result_type(*arrays_and_dtypes: Any, **named: Any) -> Any:
    """The dtype of a computation with these tensors, numbers and dtypes. PyTorch's two arguments are `tensor1` and `tensor2`."""
    values = [*arrays_and_dtypes, *named.values()]
    if set(named) - {"tensor1", "tensor2"} or not values:
        raise TypeError("result_type() takes tensors, numbers and dtypes")
    if len(values) == 2 and not any(isinstance(v, _flambeau.dtype) for v in values):
        return ops.result_type(*values)
    # A dtype counts as a tensor with dimensions does.
    tensors = [ops.empty((1,), dtype=v) if isinstance(v, _flambeau.dtype) else v for v in values if not isinstance(v, (bool, int, float, complex))]
    numbers = [v for v in values if isinstance(v, (bool, int, float, complex))]
    if not tensors:
        raise ValueError("result_type: at least one tensor or dtype is needed beside numbers")
    dtype = tensors[0].dtype
    for rank in (True, False):
        chosen = [t for t in tensors if (t.dim() > 0) is rank]
        for t in chosen:
            one = ops.empty((1,) if rank else (), dtype=t.dtype)
            dtype = ops.result_type(ops.empty((1,), dtype=dtype), one) if rank or any(t.dim() for t in tensors) else ops.promote_types(dtype, t.dtype)
    for v in numbers:
        dtype = ops.result_type(ops.empty((1,), dtype=dtype), v)
    return dtype


FUNCTIONS = (
    astype, bitwise_invert, broadcast_arrays, cumulative_prod, cumulative_sum, expand_dims, isdtype, matrix_transpose, permute_dims,
    repeat, take_along_axis, unique_all, unique_counts, unique_inverse, unique_values, unstack, vecdot,
)  # fmt: skip
LINALG = (matrix_transpose, outer, tensordot, trace)


def install(package: dict[str, Any]) -> None:
    """Adds the functions to the package and to its linear algebra, where PyTorch has no such name."""
    for function in FUNCTIONS:
        package.setdefault(function.__name__, function)
    for function in LINALG:
        package["linalg"].__dict__.setdefault(function.__name__, function)
    package["result_type"] = result_type


__all__ = ["ArrayNamespaceInfo", "__array_api_version__", "__array_namespace_info__", "install"]
