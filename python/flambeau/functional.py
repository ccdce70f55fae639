"""Top-level operators that are composites; one the extension registers itself takes the place of its namesake here."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import _flambeau
from ._flambeau import Tensor
from ._lobpcg import lobpcg


def broadcast_shapes(*shapes: Any) -> Any:
    """The shape that tensors of these shapes broadcast to."""
    rank = 0
    sizes = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    for s in sizes:
        rank = max(rank, len(s))
    result = [1] * rank
    for s in sizes:
        for i in range(-1, -len(s) - 1, -1):
            if s[i] < 0:
                raise RuntimeError(f"Trying to create tensor with negative dimension ({s[i]}): ({s[i]})")
            if s[i] not in (1, result[i]):
                if result[i] != 1:
                    raise RuntimeError("Shape mismatch: objects cannot be broadcast to a single shape")
                result[i] = s[i]
    return _flambeau.Size(result)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors, each expanded to their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*(t.shape for t in tensors))
    return tuple(t.expand(shape) for t in tensors)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of one element of each 1-d tensor, a row each."""
    if len(tensors) == 1:
        return tensors[0]
    grids = meshgrid(*tensors, indexing="ij")
    return _flambeau.operators["stack"]([g.reshape(-1) for g in grids], 1)


def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein summation over operands named by the equation's terms."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    return _flambeau.operators["_einsum"](equation, list(operands))  # type: ignore[no-any-return]


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None, *, axes: Any = None) -> Tensor:
    """Sum of products over pairs of dimensions: the last `dims` of `a` with the first of `b`, or two lists of dimensions. `axes` is
    the array API's name for `dims`."""
    if axes is not None:
        dims = axes
    if isinstance(dims, Tensor):
        dims = dims.tolist() if dims.dim() else int(dims.item())
    if isinstance(dims, (tuple, list)):
        first, second = dims
        pairs = (
            [first] if isinstance(first, int) else list(first),
            [second] if isinstance(second, int) else list(second),
        )
    else:
        n = int(dims)
        if n < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={n}")
        if n > min(a.dim(), b.dim()):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={n}")
        pairs = (list(range(-n, 0)), list(range(n)))
    given = {} if out is None else {"out": out}
    return _flambeau.operators["_tensordot"](a, b, *pairs, **given)  # type: ignore[no-any-return]


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False, out: Any = None) -> Any:
    """Packed LU factorisation of (batches of) matrices: factors, pivots and, with `get_infos`, where a pivot is zero."""
    result = _flambeau.operators["_lu_with_info"](A, pivot=pivot, check_errors=not get_infos)
    if not get_infos:
        result = tuple(result[:2])
    if out is not None:
        if not isinstance(out, (tuple, list)) or len(out) != len(result):
            raise TypeError(f"lu: out= takes {len(result)} tensors, as many as are returned")
        for to, value in zip(out, result, strict=True):
            to.resize_as_(value).copy_(value)
        return tuple(out)
    return result


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Coordinate grids of 1-d tensors; "ij" orders the dimensions as the arguments, "xy" swaps the first two."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    return tuple(_flambeau.operators["_meshgrid"](list(tensors), "ij" if indexing is None else indexing))


def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with the given ones (at most 2-d) along its diagonal."""
    ops = _flambeau.operators
    blocks = [t.reshape(1, -1) if t.dim() < 2 else t for t in tensors]
    width = sum(b.shape[1] for b in blocks)
    rows, left = [], 0
    for b in blocks:
        right = width - left - b.shape[1]
        rows.append(ops["nn.functional.pad"](b, (left, right)))
        left += b.shape[1]
    return ops["cat"](rows, 0)  # type: ignore[no-any-return]


def atleast_1d(*tensors: Any) -> Any:
    """Tensors with at least one dimension."""
    return _atleast(tensors, lambda t: t.reshape(1) if t.dim() == 0 else t)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors with at least two dimensions."""
    return _atleast(tensors, lambda t: t.reshape(1, -1) if t.dim() < 2 else t)


def atleast_3d(*tensors: Any) -> Any:
    """Tensors with at least three dimensions."""

    def grow(t: Tensor) -> Tensor:
        if t.dim() == 2:
            return t.unsqueeze(-1)
        return t.reshape(1, -1, 1) if t.dim() < 2 else t

    return _atleast(tensors, grow)


def _atleast(tensors: Any, grow: Any) -> Any:
    if len(tensors) == 1:
        return tuple(map(grow, tensors[0])) if isinstance(tensors[0], (list, tuple)) else grow(tensors[0])
    return tuple(map(grow, tensors))


def histogramdd(
    input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None, density: bool = False
) -> Any:
    """The histogram of points `input` (..., dimensions): bins a number, a number for each dimension, or tensors of edges."""
    ops = _flambeau.operators
    given = [bins] * (input.shape[-1] if input.dim() else 0) if isinstance(bins, int) else list(bins)
    if not given or isinstance(given[0], int):
        edges = ops["_histogramdd_edges"](input, given, None if range is None else list(range))
    else:
        edges = tuple(given)
    return _Histogramdd(ops["_histogramdd_at"](input, list(edges), weight, density), tuple(edges))


_SAMPLE_MODES = ("bilinear", "nearest", "bicubic")
_SAMPLE_PADDING = ("zeros", "border", "reflection")


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`nn.functional.grid_sample` with its modes as numbers: bilinear, nearest, bicubic; zeros, border, reflection."""
    from .nn.functional import grid_sample

    if interpolation_mode not in (0, 1, 2) or padding_mode not in (0, 1, 2):
        raise RuntimeError(
            f"grid_sampler(): expected interpolation_mode and padding_mode to be 0, 1 or 2, but got {interpolation_mode} and "
            f"{padding_mode}"
        )
    return grid_sample(input, grid, _SAMPLE_MODES[interpolation_mode], _SAMPLE_PADDING[padding_mode], align_corners)


def _grid_sampler(
    dims: int, input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sampler` of inputs with `dims` spatial dimensions."""
    if input.dim() != dims + 2:
        raise RuntimeError(
            f"grid_sampler_{dims}d(): expected {dims + 2}D input and grid, but got input with sizes {list(input.shape)} and grid "
            f"with sizes {list(grid.shape)}"
        )
    return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)


def grid_sampler_2d(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sampler` of images."""
    return _grid_sampler(2, input, grid, interpolation_mode, padding_mode, align_corners)


def grid_sampler_3d(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sampler` of volumes."""
    return _grid_sampler(3, input, grid, interpolation_mode, padding_mode, align_corners)


class _Histogramdd(NamedTuple):
    """What `histogramdd` returns."""

    hist: Tensor
    bin_edges: tuple[Tensor, ...]


def svd_lowrank(
    A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest `q` singular values and vectors of `A`, or of `A - M`, approximately: U, S and V of a randomly found range
    (Halko, Martinsson and Tropp, 2011, algorithm 5.1 on the range of 4.4)."""
    matrix = A if M is None else A - M.broadcast_to(A.shape)
    wide = matrix.shape[-2] < matrix.shape[-1]
    if wide:
        matrix = matrix.mH
    qr = lambda t: _flambeau.operators["linalg.qr"](t)[0]  # noqa: E731
    draws = _flambeau.operators["randn"](
        matrix.shape[-1], 6 if q is None else q, dtype=matrix.dtype, device=matrix.device
    )
    basis = qr(matrix @ draws)
    for _ in range(2 if niter is None else niter):
        basis = qr(matrix @ qr(matrix.mH @ basis))
    u, s, vh = _flambeau.operators["linalg.svd"](basis.mH @ matrix, full_matrices=False)
    u, v = basis @ u, vh.mH
    return (v, s, u) if wide else (u, s, v)


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of the rows of `A`, approximately: `svd_lowrank` of `A`, with the mean of each column taken off where
    `center` is set."""
    m, n = A.shape[-2:]
    if q is None:
        q = min(6, m, n)
    elif not 0 <= q <= min(m, n):
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(m, n)}")
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    if not (A.dtype.is_floating_point or A.dtype.is_complex):
        raise ValueError(f"pca_lowrank expected a floating point or complex tensor, but got {A.dtype}")
    return svd_lowrank(A - A.mean(-2, keepdim=True) if center else A, q, niter)


def native_layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer normalisation with the mean and the reciprocal standard deviation that it divided by."""
    from .nn.functional import layer_norm

    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    result = layer_norm(input, shape, weight, bias, eps)
    x = _computed(input.detach())
    dims = list(range(-len(shape), 0))
    mean, scale = x.mean(dims, keepdim=True), (x.var(dims, correction=0, keepdim=True) + eps).rsqrt()
    return result, mean.to(input.dtype), scale.to(input.dtype)


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Group normalisation with the mean and the reciprocal standard deviation of each group."""
    from .nn.functional import group_norm

    result = group_norm(input, group, weight, bias, eps)
    x = _computed(input).reshape(N, group, C // group * HxW)
    mean, scale = x.mean(-1), (x.var(-1, correction=0) + eps).rsqrt()
    return result, mean.to(input.dtype), scale.to(input.dtype)


def native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *,
    out: Any = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation with the mean and the reciprocal standard deviation of each channel; outside training these are
    empty."""
    from .nn.functional import batch_norm

    result = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    x = _computed(input.detach())
    if training:
        dims = [0, *range(2, input.dim())]
        mean, scale = x.mean(dims), (x.var(dims, correction=0) + eps).rsqrt()
    else:
        mean, scale = x.new_empty(0), x.new_empty(0)
    # Weights of another precision than the input's are the mixed case, where statistics stay in theirs.
    kind = input.dtype if weight is None else weight.dtype
    results = (result, mean.to(kind), scale.to(kind))
    if out is None:
        return results
    for to, value in zip(out, results, strict=True):
        to.resize_(value.shape).copy_(value.detach())
    return tuple(out)


def _computed(x: Tensor) -> Tensor:
    """Half precisions as float32, in which their statistics are computed."""
    return x.float() if x.dtype in (_flambeau.float16, _flambeau.bfloat16) else x


__all__ = [
    "native_batch_norm",
    "native_group_norm",
    "native_layer_norm",
    "pca_lowrank",
    "svd_lowrank",
    "histogramdd",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block_diag",
    "broadcast_shapes",
    "einsum",
    "grid_sampler",
    "grid_sampler_2d",
    "grid_sampler_3d",
    "lobpcg",
    "lu",
    "meshgrid",
    "tensordot",
    "broadcast_tensors",
    "cartesian_prod",
]
