"""Resizing and sampling of images as composites: each axis by itself, by gathered taps and their weights."""

from __future__ import annotations

import math
import warnings
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops


def _positions(size: int, out: int, align_corners: bool, scale: float | None, like: Tensor, cubic: bool = False) -> Tensor:
    """Where each output point lies on the input's axis."""
    dtype = _flambeau.float64 if like.dtype == _flambeau.float64 else _flambeau.float32
    steps = ops.arange(out, dtype=dtype, device=like.device)
    if align_corners:
        return steps * ((size - 1) / (out - 1) if out > 1 else 0.0)
    ratio = 1 / scale if scale is not None and scale > 0 else size / out
    position = (steps + 0.5) * ratio - 0.5
    return position if cubic else position.clamp(min=0)


def _woven(x: Tensor, dim: int, taps: list[Tensor], weights: list[Tensor]) -> Tensor | None:
    """The sum of weighted taps along an axis, in one pass; None where the host does not do it."""
    if x.device.type != "cpu" or x.dtype not in (_flambeau.float32, _flambeau.float64) or _flambeau._is_batched(x):
        return None
    index, weight = ops.stack(taps, 1).reshape(-1), ops.stack(weights, 1).reshape(-1)
    starts = ops.arange(0, index.numel() + 1, len(taps))
    return ops._weave(x, starts, index, weight, dim)


def _broadcast(weight: Tensor, dim: int, rank: int) -> Tensor:
    return weight.reshape([-1 if i == dim else 1 for i in range(rank)])


def _linear_axis(x: Tensor, dim: int, out: int, align_corners: bool, scale: float | None) -> Tensor:
    size = x.size(dim)
    if size == out and (align_corners or scale is None or scale == 1):
        return x
    position = _positions(size, out, align_corners, scale, x)
    low = position.floor().clamp(max=size - 1)
    part = (position - low).to(x.dtype)
    index = low.to(_flambeau.int64)
    after = (index + 1).clamp(max=size - 1)
    woven = _woven(x, dim, [index, after], [1 - part, part])
    if woven is not None:
        return woven
    part = _broadcast(part, dim, x.dim())
    a, b = x.index_select(dim, index), x.index_select(dim, after)
    return a * (1 - part) + b * part


def _cubic_weights(t: Tensor) -> list[Tensor]:
    """Keys' cubic convolution with a = -0.75, for the taps at -1, 0, 1, 2."""
    a = -0.75

    def inner(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def outer(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [outer(t + 1), inner(t), inner(1 - t), outer(2 - t)]


def _cubic_axis(x: Tensor, dim: int, out: int, align_corners: bool, scale: float | None) -> Tensor:
    size = x.size(dim)
    position = _positions(size, out, align_corners, scale, x, cubic=True)
    low = position.floor()
    index = low.to(_flambeau.int64)
    weights = _cubic_weights((position - low).to(x.dtype))
    places = [(index + i - 1).clamp(0, size - 1) for i in range(4)]
    woven = _woven(x, dim, places, weights)
    if woven is not None:
        return woven
    taps = [x.index_select(dim, place) * _broadcast(w, dim, x.dim()) for place, w in zip(places, weights, strict=True)]
    return taps[0] + taps[1] + taps[2] + taps[3]


def _antialias_rows(size: int, out: int, align_corners: bool, scale: float | None, cubic: bool) -> list[list[float]]:
    """Each output point's weights: a filter as wide as the reduction."""
    if align_corners:
        ratio = (size - 1) / (out - 1) if out > 1 else 0.0
    else:
        ratio = 1 / scale if scale is not None and scale > 0 else size / out
    support = (2.0 if cubic else 1.0) * max(ratio, 1.0)
    inverse = 1 / max(ratio, 1.0)
    rows = []
    for i in range(out):
        centre = ratio * (i + 0.5)
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), size)
        row = [0.0] * size
        for j in range(first, last):
            d = abs((j - centre + 0.5) * inverse)
            if cubic:
                a = -0.5
                if d < 1:
                    row[j] = ((a + 2) * d - (a + 3)) * d * d + 1
                elif d < 2:
                    row[j] = (((d - 5) * d + 8) * d - 4) * a
            else:
                row[j] = max(1 - d, 0.0)
        total = sum(row)
        rows.append([w / total for w in row] if total else row)
    return rows


def _antialias_axis(x: Tensor, dim: int, out: int, align_corners: bool, scale: float | None, cubic: bool) -> Tensor:
    """A filter as wide as the reduction, applied as a product with its matrix."""
    rows = _antialias_rows(x.size(dim), out, align_corners, scale, cubic)
    matrix = ops.tensor(rows, dtype=x.dtype, device=x.device)
    return x.transpose(dim, -1).matmul(matrix.t()).transpose(dim, -1)


def _rows(size: int, out: int, align_corners: bool, scale: float | None, cubic: bool) -> list[list[float]]:
    """Each output point's weights without antialiasing; taps beyond the border count for the border."""
    if align_corners:
        ratio = (size - 1) / (out - 1) if out > 1 else 0.0
    else:
        ratio = 1 / scale if scale is not None and scale > 0 else size / out
    rows = []
    for i in range(out):
        position = ratio * i if align_corners else ratio * (i + 0.5) - 0.5
        if not cubic:
            position = max(position, 0.0)
        low = min(math.floor(position), size - 1)
        t = min(max(position - low, 0.0), 1.0)
        if cubic:
            a = -0.75
            near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (t, 1 - t)]
            far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (t + 1, 2 - t)]
            taps, first = [far[0], near[0], near[1], far[1]], low - 1
        else:
            taps, first = [1 - t, t], low
        row = [0.0] * size
        for j, w in enumerate(taps):
            row[min(max(first + j, 0), size - 1)] += w
        rows.append(row)
    return rows


def _byte_axis(x: Tensor, dim: int, rows: list[list[float]]) -> Tensor:
    """Weights applied to bytes in fixed point, with as many bits as leave the largest weight within 16, rounded to bytes again."""
    largest, bits = max(map(max, rows)), 0
    while bits < 22 and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    kept = [[(j, int(math.copysign(0.5, w) + w * (1 << bits))) for j, w in enumerate(row) if w != 0] for row in rows]
    count = max(map(len, kept))
    shape = [-1 if i == dim else 1 for i in range(x.dim())]
    total: Any = 1 << (bits - 1)
    for k in range(count):
        taps = [row[k] if k < len(row) else (0, 0) for row in kept]
        index = ops.tensor([j for j, _ in taps], dtype=_flambeau.int64, device=x.device)
        weight = ops.tensor([w for _, w in taps], dtype=_flambeau.int64, device=x.device).reshape(shape)
        total = total + x.index_select(dim, index).to(_flambeau.int64) * weight
    return (total >> bits).clamp(0, 255).to(_flambeau.uint8)


def _nearest_axis(x: Tensor, dim: int, out: int, exact: bool, scale: float | None) -> Tensor:
    size = x.size(dim)
    ratio = 1 / scale if scale is not None and scale > 0 else size / out
    steps = ops.arange(out, dtype=_flambeau.float32, device=x.device)
    index = ((steps + 0.5) * ratio if exact else steps * ratio).floor().to(_flambeau.int64).clamp(max=size - 1)
    return x.index_select(dim, index)


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resizes the last dimensions to a size or by factors."""
    from . import functional as F

    if mode in ("nearest", "area", "nearest-exact"):
        if align_corners is not None:
            raise ValueError("align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | trilinear")
    elif align_corners is None:
        align_corners = False
    if input.dim() not in (3, 4, 5):
        raise NotImplementedError(
            f"interpolate resizes the last dimensions of 3D, 4D and 5D inputs, but got {input.dim()}D and mode {mode!r}"
        )
    dims = input.dim() - 2
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    factors: list[float | None] = [None] * dims
    if size is not None:
        sizes = [int(s) for s in size] if isinstance(size, (list, tuple)) else [int(size)] * dims
        if len(sizes) != dims:
            raise ValueError(
                f"Input and output must have the same number of spatial dimensions, but got input with spatial dimensions of "
                f"{list(input.shape[2:])} and output size of {size}. Please provide input tensor in (N, C, d1, d2, ...,dK) format and "
                "output size in (o1, o2, ...,oK) format."
            )
        if recompute_scale_factor:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
    elif scale_factor is not None:
        given = list(scale_factor) if isinstance(scale_factor, (list, tuple)) else [scale_factor] * dims
        if len(given) != dims:
            raise ValueError(
                f"Input and scale_factor must have the same number of spatial dimensions, but got input with spatial dimensions of "
                f"{list(input.shape[2:])} and scale_factor of shape {scale_factor}."
            )
        sizes = [int(math.floor(float(n) * float(f))) for n, f in zip(input.shape[2:], given, strict=True)]
        if not recompute_scale_factor:
            factors = [float(f) for f in given]
    else:
        raise ValueError("either size or scale_factor should be defined")
    if any(s <= 0 for s in sizes):
        raise RuntimeError(f"Input and output sizes should be greater than 0, but got input (of {list(input.shape)}) and output {sizes}")
    names = {1: "linear", 2: "bilinear", 3: "trilinear"}
    if antialias and (mode not in ("bilinear", "bicubic") or dims != 2):
        raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes and requires a 4-D tensor as input")
    if mode == "area":
        return getattr(F, f"adaptive_avg_pool{dims}d")(input, sizes)
    # Halves are weighted in float32 and rounded once.
    halves = input.dtype in (_flambeau.float16, _flambeau.bfloat16) and "nearest" not in mode
    result = input.float() if halves else input
    bytewise = input.dtype == _flambeau.uint8 and mode in ("bilinear", "bicubic") and dims == 2
    # Bytes are rounded after each axis, the last axis first. Otherwise an axis that grows comes later the more of the others it copies.
    growing = sizes[0] >= input.shape[2]
    for axis in reversed(range(dims)) if bytewise or growing else range(dims):
        dim, out, factor = axis + 2, sizes[axis], factors[axis]
        if bytewise:
            weights = (_antialias_rows if antialias else _rows)(result.size(dim), out, bool(align_corners), factor, mode == "bicubic")
            result = _byte_axis(result, dim, weights)
            continue
        if mode in ("nearest", "nearest-exact"):
            result = _nearest_axis(result, dim, out, mode == "nearest-exact", factor)
        elif mode == names.get(dims) or (mode == "bicubic" and dims == 2):
            if antialias:
                result = _antialias_axis(result, dim, out, bool(align_corners), factor, mode == "bicubic")
            elif mode == "bicubic":
                result = _cubic_axis(result, dim, out, bool(align_corners), factor)
            else:
                result = _linear_axis(result, dim, out, bool(align_corners), factor)
        else:
            raise NotImplementedError(
                f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {input.dim()}D) for the modes: nearest | linear | bilinear | bicubic | "
                f"trilinear | area | nearest-exact (got {mode})"
            )
    return result.to(input.dtype) if halves else result


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """`interpolate` under its older name."""
    warnings.warn("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` by the nearest pixel."""
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` linearly, corners aligned."""
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Tensor:
    """Sampling positions in [-1, 1] of an affine map, for `grid_sample`."""
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    size = list(size)
    dims = len(size) - 2
    if dims not in (2, 3):
        raise NotImplementedError("affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively.")
    if theta.dim() != 3 or theta.shape[-2] != dims or theta.shape[-1] != dims + 1:
        raise ValueError(f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size {size}. Got {theta.shape}.")
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    axes = []
    for n in size[2:]:
        line = ops.linspace(-1, 1, n, dtype=theta.dtype, device=theta.device) if n > 1 else ops.zeros(1, dtype=theta.dtype, device=theta.device)
        axes.append(line if align_corners else line * ((n - 1) / n))
    grids = ops.meshgrid(axes, indexing="ij")
    base = ops.stack([*reversed(list(grids)), ops.ones_like(grids[0])], -1)
    flat = base.reshape(1, -1, dims + 1).expand(size[0], -1, dims + 1)
    return flat.matmul(theta.transpose(1, 2)).reshape([size[0], *size[2:], dims])


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """Values of an image or volume at positions in [-1, 1], last coordinate first."""
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            f"nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: '{padding_mode}'"
        )
    dims = input.dim() - 2
    if dims not in (2, 3) or grid.dim() != input.dim():
        raise RuntimeError(
            f"grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, but got input with sizes "
            f"{list(input.shape)} and grid with sizes {list(grid.shape)}"
        )
    if grid.shape[-1] != dims or grid.shape[0] != input.shape[0]:
        raise RuntimeError(
            f"grid_sampler(): expected grid to have size {dims} in last dimension and the input's batch size, but got grid with sizes "
            f"{list(grid.shape)} for input with sizes {list(input.shape)}"
        )
    if mode == "bicubic" and dims != 2:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    out = _sample(input, grid, mode, padding_mode, bool(align_corners))
    # PyTorch's gradients are functions of both, even where nearest neighbours make them constant.
    return ops._formally_reads(out, grid if grid.requires_grad else input, f"grid_sampler_{dims}d")


def _sample(input: Tensor, grid: Tensor, mode: str, padding_mode: str, align: bool) -> Tensor:
    """`grid_sample` of operands that fit."""
    dims = input.dim() - 2
    n, c = input.shape[:2]
    sizes = list(input.shape[2:])
    out = list(grid.shape[1:-1])
    flat = input.flatten(2)
    positions = []
    for axis, size in enumerate(sizes):
        g = grid[..., dims - 1 - axis]
        positions.append((g + 1) / 2 * (size - 1) if align else ((g + 1) * size - 1) / 2)

    def place(p: Tensor, size: int) -> Tensor:
        """Moves positions outside the image as the padding mode says."""
        if padding_mode == "border":
            return p.clamp(0, size - 1)
        if padding_mode == "reflection":
            low, span = (0.0, float(size - 1)) if align else (-0.5, float(size))
            if span == 0:
                return p * 0
            d = (p - low).abs()
            turns = (d / span).floor()
            rest = d - turns * span
            p = ops.where(turns.remainder(2) == 0, rest + low, span - rest + low)
            return p.clamp(0, size - 1)
        return p

    def look_up(indices: list[Tensor], weight: Tensor | None = None) -> Tensor:
        """The values at integer positions, zero outside, times their weights."""
        inside = None
        linear = None
        for index, size in zip(indices, sizes, strict=True):
            ok = (index >= 0) & (index < size)
            inside = ok if inside is None else inside & ok
            clamped = index.clamp(0, size - 1).to(_flambeau.int64)
            linear = clamped if linear is None else linear * size + clamped
        values = flat.gather(2, linear.reshape(n, 1, -1).expand(n, c, -1))
        # A product and no view of one: what gradients formally read is noted at results that own their memory.
        share = inside.to(values.dtype) if weight is None else weight * inside
        return values.reshape([n, c, *out]) * share.reshape([n, 1, *out])

    if mode == "bicubic":
        y, x = positions
        y0, x0 = y.floor(), x.floor()
        wy, wx = _cubic_weights(y - y0), _cubic_weights(x - x0)
        total = None
        for i in range(4):
            for j in range(4):
                term = look_up([place(y0.detach() + i - 1, sizes[0]), place(x0.detach() + j - 1, sizes[1])], wy[i] * wx[j])
                total = term if total is None else total + term
        return total  # type: ignore[return-value]
    placed = [place(p, s) for p, s in zip(positions, sizes, strict=True)]
    if mode == "nearest":
        return look_up([p.detach().round() for p in placed])
    lows = [p.detach().floor() for p in placed]
    total = None
    for corner in range(1 << dims):
        indices, weight = [], None
        for axis in range(dims):
            high = corner >> axis & 1
            index = lows[axis] + high
            part = placed[axis] - lows[axis] if high else lows[axis] + 1 - placed[axis]
            weight = part if weight is None else weight * part
            indices.append(index)
        term = look_up(indices, weight)
        total = term if total is None else total + term
    return total  # type: ignore[return-value]
