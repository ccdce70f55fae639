"""Reductions and normalizations that leave masked-out elements (mask `False`) aside.

Each function takes `mask`, a bool tensor that broadcasts to the input; without one, every element counts. A masked-out
element is replaced by the operation's identity, so that results where nothing is left are that identity (`0` for `sum`,
`-inf` for `amax`).
"""

from __future__ import annotations

from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops

__all__ = [
    "amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp", "logsumexp", "mean", "median",
    "norm", "normalize", "prod", "softmax", "softmin", "std", "sum", "var",
]  # fmt: skip


def _dims(input: Tensor, dim: Any) -> list[int]:
    rank = max(input.dim(), 1)
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return list(range(input.dim()))
    given = [dim] if isinstance(dim, int) else list(dim)
    seen = []
    for d in given:
        if not -rank <= d < rank:
            raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {d})")
        if d % rank in seen:
            raise RuntimeError(f"dim={d % rank} appears multiple times in the list of dims")
        seen.append(d % rank)
    return seen if input.dim() else []


def _expanded(input: Tensor, mask: Tensor) -> Tensor:
    if mask.dim() > input.dim():
        raise IndexError(f"_input_mask expected broadcastable mask (got mask dimensionality higher than of the input: {mask.dim()} > {input.dim()})")
    if mask.dtype is not _flambeau.bool:
        mask = mask.to(_flambeau.bool)
    return mask if mask.shape == input.shape else mask.expand(input.shape)


def _filled(input: Tensor, mask: Tensor | None, value: Any) -> Tensor:
    return input if mask is None else input.masked_fill(~_expanded(input, mask), value)


def _lowest(dtype: Any) -> Any:
    if dtype.is_floating_point or dtype.is_complex:
        return -float("inf")
    return False if dtype is _flambeau.bool else _flambeau.iinfo(dtype).min


def _highest(dtype: Any) -> Any:
    if dtype.is_floating_point:
        return float("inf")
    return True if dtype is _flambeau.bool else _flambeau.iinfo(dtype).max


def _whole(dtype: Any) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex)


def _cast(input: Tensor, dtype: Any) -> Tensor:
    return input if dtype is None else input.to(dtype)


def sum(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The sum over `dim` (all dimensions when absent); whole numbers sum in int64."""
    if dtype is None and _whole(input.dtype):
        dtype = _flambeau.int64
    x, dims = _filled(_cast(input, dtype), mask, 0), _dims(input, dim)
    return ops.sum(x, dims, keepdim) if dims else ops.sum(x)


def prod(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The product over `dim` (all dimensions when absent); whole numbers multiply in int64."""
    if dtype is None and _whole(input.dtype):
        dtype = _flambeau.int64
    x = _filled(_cast(input, dtype), mask, 1)
    for d in sorted(_dims(input, dim), reverse=True):
        x = ops.prod(x, d, keepdim)
    return x


def cumsum(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The running sum along `dim`."""
    x = _cast(input, dtype)
    return ops.cumsum(_filled(x, mask, 0), dim).to(x.dtype)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The running product along `dim`."""
    x = _cast(input, dtype)
    return ops.cumprod(_filled(x, mask, 1), dim).to(x.dtype)


def amax(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The largest value over `dim`."""
    x = _cast(input, dtype)
    return ops.amax(_filled(x, mask, _lowest(x.dtype)), _dims(input, dim), keepdim)


def amin(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The smallest value over `dim`."""
    x = _cast(input, dtype)
    return ops.amin(_filled(x, mask, _highest(x.dtype)), _dims(input, dim), keepdim)


def argmax(input: Tensor, dim: int | None = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The position of the largest value along `dim` (in the flattened input when absent), in the input's dtype."""
    x = _cast(input, dtype)
    return ops.argmax(_filled(x, mask, _lowest(x.dtype)), dim, keepdim).to(x.dtype)


def argmin(input: Tensor, dim: int | None = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The position of the smallest value along `dim` (in the flattened input when absent), in the input's dtype."""
    x = _cast(input, dtype)
    return ops.argmin(_filled(x, mask, _highest(x.dtype)), dim, keepdim).to(x.dtype)


def _count(input: Tensor, dim: Any, keepdim: bool, mask: Tensor | None) -> Tensor:
    ones = ops.ones(input.shape, dtype=_flambeau.int64, device=input.device)
    return sum(ones, dim, keepdim=keepdim, mask=mask)


def mean(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The mean over `dim`; NaN where nothing is left."""
    if dtype is None and _whole(input.dtype):
        dtype = _flambeau.float32
    x = _cast(input, dtype)
    return sum(x, dim, keepdim=keepdim, mask=mask) / _count(x, dim, keepdim, mask)


def median(input: Tensor, dim: int = -1, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The lower median along `dim`; NaN where nothing is left."""
    if dtype is None and _whole(input.dtype):
        dtype = _flambeau.float32
    x = _cast(input, dtype)
    if mask is None:
        return ops.median(x, dim, keepdim).values
    if bool(ops.isnan(x).any()):
        raise ValueError("masked median expects no NaNs in the input where a mask is given")
    return ops.nanmedian(_filled(x, mask, float("nan")), dim, keepdim).values


def logsumexp(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The logarithm of the sum of exponentials over `dim`, in the input's dtype."""
    x = _cast(input, dtype)
    return ops.logsumexp(_filled(x, mask, _lowest(x.dtype)), _dims(input, dim), keepdim).to(x.dtype)


def logaddexp(
    input: Tensor, other: Tensor, *, dtype: Any = None, input_mask: Tensor | None = None, other_mask: Tensor | None = None
) -> Tensor:
    """The logarithm of the sum of two tensors' exponentials; a masked-out element counts as nothing."""
    low = -float("inf")
    return ops.logaddexp(_filled(_cast(input, dtype), input_mask, low), _filled(_cast(other, dtype), other_mask, low))


def norm(
    input: Tensor, ord: float = 2.0, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None
) -> Tensor:
    """The vector norm of order `ord` over `dim`."""
    x = _filled(_cast(input, dtype), mask, 0 if ord >= 0 else float("inf"))
    return _flambeau.operators["linalg.vector_norm"](x, ord, _dims(input, dim), keepdim)


def _variance(
    input: Tensor, dim: Any, unbiased: bool | None, correction: float | None, keepdim: bool, dtype: Any, mask: Tensor | None
) -> Tensor:
    if unbiased is not None and correction is not None:
        raise ValueError("Only one of unbiased and correction may be given")
    correction = (1.0 if unbiased in (None, True) else 0.0) if correction is None else float(correction)
    if dtype is None and _whole(input.dtype):
        dtype = _flambeau.float32
    x = _cast(input, dtype)
    dtype = x.dtype
    count = _count(x, dim, True, mask)
    centred = x - sum(x, dim, keepdim=True, mask=mask) / count
    squares = (centred * ops.conj_physical(centred)).real if centred.is_complex() else centred * centred
    total = sum(squares, dim, keepdim=keepdim, mask=mask)
    count = _count(x, dim, keepdim, mask)
    return (total / (count - correction).clamp_min(0)).to(dtype)


def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The variance over `dim`: the squared distances from the mean, over their number less `correction` (1)."""
    return _variance(input, dim, unbiased, correction, keepdim, dtype, mask)


def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The square root of `var`."""
    return _variance(input, dim, unbiased, correction, keepdim, dtype, mask).sqrt()


def softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The softmax along `dim`; masked-out elements get 0."""
    return ops.softmax(_filled(_cast(input, dtype), mask, -float("inf")), dim)


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The logarithm of `softmax`."""
    return ops.log_softmax(_filled(_cast(input, dtype), mask, -float("inf")), dim)


def softmin(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The softmax of the negated input."""
    return softmax(-input, dim, dtype=dtype, mask=mask)


def normalize(
    input: Tensor, ord: float, dim: int, *, eps: float = 1e-12, dtype: Any = None, mask: Tensor | None = None
) -> Tensor:
    """The input over its norm of order `ord` along `dim`, which counts as `eps` at least."""
    x = _cast(input, dtype)
    length = norm(x, ord, dim, keepdim=True, mask=mask)
    return _filled(x, mask, 0) / length.clamp_min(eps)
