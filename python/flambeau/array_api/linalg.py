"""The array API's linear algebra: the package's own, with operands of two dtypes promoted and stacks of no matrices allowed."""

from __future__ import annotations

import math
from typing import Any

from .. import _array_api
from .. import linalg as _linalg
from .._array_api import matrix_transpose, trace
from .._flambeau import Tensor
from .._ops import ops
from . import _pair, matmul, tensordot, vecdot

cholesky, det, eigh, eigvalsh, inv, matrix_norm, matrix_power, matrix_rank, qr, slogdet, svdvals = (
    getattr(_linalg, _name)
    for _name in (
        "cholesky", "det", "eigh", "eigvalsh", "inv", "matrix_norm", "matrix_power", "matrix_rank", "qr", "slogdet", "svdvals",
    )  # fmt: skip
)


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Cross products of vectors of three elements along an axis."""
    x1, x2 = _array_api.broadcast_arrays(*_pair(x1, x2))
    return _linalg.cross(x1, x2, dim=axis)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The matrices' diagonals."""
    return x.diagonal(offset, -2, -1)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """All products of an element of one vector with one of another."""
    return _array_api.outer(x1, x2)


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The matrices' pseudo-inverses; NaN of a matrix that holds values that are not finite."""
    finite = ops.isfinite(x).all(-1).all(-1)[..., None, None]
    result = _linalg.pinv(ops.where(finite, x, ops.zeros_like(x)), rtol=rtol)
    return ops.where(finite, result, ops.full_like(result, math.nan))


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The solution of `x1 @ x = x2`; `x2` is one vector where it has one dimension, else a stack of matrices."""
    x1, x2 = _pair(x1, x2)
    if x2.dim() == 1:
        return ops.squeeze(_linalg.solve(x1, x2.unsqueeze(-1)), -1)
    if x2.dim() == x1.dim() - 1 and x2.shape == x1.shape[:-1]:
        # PyTorch takes this for a stack of vectors; the standard never does.
        x2 = x2.expand(*x1.shape[:-2], *x2.shape[-2:])
    return _linalg.solve(x1, x2)


def svd(x: Tensor, /, *, full_matrices: bool = True) -> Any:
    """Singular vectors and values, as (U, S, Vh)."""
    return _linalg.svd(x, full_matrices=full_matrices)


def vector_norm(x: Tensor, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """Norms of vectors along axes; each element's own where there are none."""
    if isinstance(axis, tuple) and not axis:
        return ops.abs(x) if ord != 0 else (x != 0).to(x.dtype.to_real())
    return _linalg.vector_norm(x, ord, axis, keepdims)


__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power", "matrix_rank",
    "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
