"""Functional forms of the layers.

The definitions here and in the files they are imported from are composites over the extension's operators. An operator
that the extension registers under "nn.functional.<name>" takes the place of the definition of that name.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops
from ._attention import multi_head_attention_forward, scaled_dot_product_attention
from ._losses import *  # noqa: F403
from ._resize import affine_grid, grid_sample, interpolate, upsample, upsample_bilinear, upsample_nearest


def _softmax_dim(dim: int | None, input: Tensor) -> int:
    """The dimension that softmax takes when none is given, by the number of dimensions."""
    if dim is not None:
        return dim
    warnings.warn(
        "Implicit dimension choice for softmax has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=3,
    )
    return 0 if input.dim() in (0, 1, 3) else 1


def _cast(input: Tensor, dtype: Any) -> Tensor:
    return input if dtype is None else input.to(dtype)


def _write(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    """The result, written into the input where that was asked for."""
    return input.copy_(result) if inplace else result


# ---- activations ---------------------------------------------------------------------------------------


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    return input.relu_() if inplace else input.relu()


def relu_(input: Tensor) -> Tensor:
    """`relu` in place."""
    return input.relu_()


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return input.tanh()


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x clamped to [min_val, max_val]."""
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    return input.clamp_(min_val, max_val) if inplace else input.clamp(min_val, max_val)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x clamped to [0, 6]."""
    return hardtanh(input, 0.0, 6.0, inplace)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where it exceeds the threshold, `value` elsewhere."""
    return _write(input, ops.where(input > threshold, input, ops.full_like(input, value)), inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, negative_slope * x elsewhere."""
    return _write(input, ops.where(input > 0, input, input * negative_slope), inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, alpha * (exp(x) - 1) elsewhere."""
    return _write(input, ops.where(input > 0, input, alpha * input.clamp(max=0).expm1()), inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Scaled ELU (Klambauer et al., 2017)."""
    return _write(input, 1.0507009873554804934193349852946 * elu(input, 1.6732632423543772848170429916717), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return _write(input, ops.where(input > 0, input, alpha * (input.clamp(max=0) / alpha).expm1()), inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Leaky ReLU with a slope for all or one for each channel."""
    if weight.numel() > 1 and input.dim() >= 2:
        weight = weight.reshape([-1 if i == 1 else 1 for i in range(input.dim())])
    elif input.dim() == 0:
        weight = weight.reshape(())
    return ops.where(input > 0, input, weight * input)


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """Leaky ReLU with slopes drawn uniformly from [lower, upper] in training, their mean otherwise."""
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slope = ops.empty_like(input).uniform_(lower, upper)
    return _write(input, ops.where(input > 0, input, input * slope), inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x, exact or by tanh."""
    if approximate == "none":
        return input * 0.5 * (1 + (input * math.sqrt(0.5)).erf())
    if approximate == "tanh":
        return input * 0.5 * (1 + (math.sqrt(2 / math.pi) * (input + 0.044715 * input * input * input)).tanh())
    raise RuntimeError("approximate argument must be either none or tanh.")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    return _write(input, input * input.sigmoid(), inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    return _write(input, input * softplus(input).tanh(), inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, linear above the threshold."""
    scaled = input * beta
    return ops.where(scaled > threshold, input, scaled.clamp(max=threshold).exp().log1p() / beta)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    return input.clamp(max=0) - (-input.abs()).exp().log1p()


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """clamp(x / 6 + 1/2, 0, 1)."""
    return _write(input, (input + 3).clamp(0, 6) / 6, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * clamp(x / 6 + 1/2, 0, 1)."""
    return _write(input, input * (input + 3).clamp(0, 6) / 6, inplace)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambda, 0 elsewhere."""
    return ops.where(input.abs() > lambd, input, ops.zeros_like(input))


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambda."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return ops.where(input > lambd, input - lambd, ops.where(input < -lambd, input + lambd, input * 0))


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (input.abs() + 1)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - input.tanh()


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of a dimension, gated by the sigmoid of its second half."""
    if input.dim() == 0:
        raise RuntimeError("glu does not support scalars because halving size must be even")
    if input.size(dim) % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {input.size(dim)}")
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """exp(x) normalised to sum 1 along a dimension."""
    return ops.softmax(input, _softmax_dim(dim, input), dtype=dtype)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """The logarithm of softmax."""
    return ops.log_softmax(input, _softmax_dim(dim, input), dtype=dtype)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """Softmax of -x."""
    return softmax(-input, _softmax_dim(dim, input), dtype=dtype)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A sample of the relaxed one-hot distribution; `hard` rounds it, keeping the relaxed gradient."""
    gumbels = -ops.empty_like(logits, memory_format=_flambeau.contiguous_format).exponential_().log()
    soft = softmax((logits + gumbels) / tau, dim)
    if not hard:
        return soft
    index = soft.max(dim, keepdim=True)[1]
    one_hot_ = ops.zeros_like(logits).scatter_(dim, index, 1.0)
    return one_hot_ - soft.detach() + soft


# ---- linear --------------------------------------------------------------------------------------------


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b."""
    result = input.matmul(weight.t())
    return result if bias is None else result + bias


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x₁ᵀ A x₂ + b for every output feature."""
    if input1.dim() != input2.dim():
        raise RuntimeError(f"bilinear(): input dimensions do not match: got {input1.dim()} and {input2.dim()}")
    for d, (a, b) in enumerate(zip(input1.shape[:-1], input2.shape[:-1], strict=True)):
        if a != b:
            raise RuntimeError(f"bilinear(): input batch dimensions do not match at dim {d}: got {a} and {b}")
    # Sums of integers would be int64.
    result = ops.einsum("...i,oij,...j->...o", input1, weight, input2).to(input1.dtype)
    return result if bias is None else result + bias


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Rows with a 1 at each index."""
    if tensor.dtype != _flambeau.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    if tensor.numel() == 0 and num_classes <= 0:
        raise RuntimeError("Can not infer total number of classes from empty tensor.")
    # Inside `vmap` nobody can look at one example's values; what writes at them checks them again.
    readable = bool(tensor.numel()) and not _flambeau._is_batched(tensor)
    if readable and int(tensor.min()) < 0:
        raise RuntimeError("Class values must be non-negative.")
    if num_classes == -1:
        num_classes = int(tensor.max()) + 1
    elif readable and int(tensor.max()) >= num_classes:
        raise RuntimeError("Class values must be smaller than num_classes.")
    result = ops.zeros([*tensor.shape, num_classes], dtype=tensor.dtype, device=tensor.device)
    return result.scatter(-1, tensor.unsqueeze(-1), 1)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of a table by index; the padding row gets no gradient."""
    if weight.dim() != 2:
        raise RuntimeError("'weight' must be 2-D")
    if padding_idx is not None:
        if not -weight.size(0) <= padding_idx < weight.size(0):
            raise AssertionError("Padding_idx must be within num_embeddings")
        padding_idx %= weight.size(0)
    if max_norm is not None:
        _renorm_rows(weight, input, max_norm, norm_type)
    table = weight
    if padding_idx is not None and weight.requires_grad:
        row = ops.arange(weight.size(0), device=weight.device).unsqueeze(1) == padding_idx
        table = ops.where(row, weight.detach(), weight)
    if scale_grad_by_freq and weight.requires_grad:
        counts = ops.bincount(input.reshape(-1), minlength=weight.size(0)).clamp(min=1).unsqueeze(1).to(weight.dtype)
        # The value is unchanged, its gradient divided by how often the row was used.
        table = table.detach() + (table - table.detach()) / counts
    return table.index_select(0, input.reshape(-1)).reshape([*input.shape, weight.size(1)])


def _renorm_rows(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scales the rows that are looked up to a largest norm, in place and unrecorded."""
    from ..autograd.grad_mode import no_grad

    with no_grad():
        rows = index.reshape(-1).unique()
        used = weight.detach().index_select(0, rows)
        norms = used.abs().pow(norm_type).sum(1, keepdim=True).pow(1 / norm_type)
        weight.detach().index_copy_(0, rows, ops.where(norms > max_norm, used * (max_norm / (norms + 1e-7)), used))


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sums, means or maxima over bags of embeddings; a bag of nothing is zero."""
    if weight.dtype == _flambeau.int64 and input.is_floating_point():
        warnings.warn("Argument order of nn.functional.embedding_bag was changed; exchanging input and weight", stacklevel=2)
        input, weight = weight, input
    if per_sample_weights is not None and input.size() != per_sample_weights.size():
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({list(per_sample_weights.shape)}) is not None, then it must have the same "
            f"shape as the input ({list(input.shape)})"
        )
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and (scale_grad_by_freq or sparse):
        what = "scaling the gradient by the frequency" if scale_grad_by_freq else "sparse weights"
        raise ValueError(f"embedding_bag: max mode does not support {what}")
    if per_sample_weights is not None and per_sample_weights.dtype != weight.dtype:
        raise RuntimeError(
            f"embedding_bag: per_sample_weights must have the weight's dtype {weight.dtype}, but got {per_sample_weights.dtype}"
        )
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            f"embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' (got mode='{mode}')."
        )
    plain = (
        mode != "max"
        and max_norm is None
        and padding_idx is None
        and not (scale_grad_by_freq or sparse)
        and weight.device.type == "cpu"
        and weight.dtype in (_flambeau.float32, _flambeau.float64)
        and weight.dim() == 2
        and input.numel() > 0
        and input.dtype in (_flambeau.int64, _flambeau.int32)
        and not any(t is not None and _flambeau._is_batched(t) for t in (input, weight, offsets, per_sample_weights))
        and not (per_sample_weights is not None and per_sample_weights.requires_grad)
    )
    if plain and input.dim() == 2 and offsets is None:
        bags, width = input.shape
        return _bags(input.reshape(-1), weight, ops.arange(0, bags * width + 1, width), mode, per_sample_weights)
    if input.dim() == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length sequences."
            )
        bags, width = input.shape
        bag_of = ops.arange(bags, device=input.device).repeat_interleave(width)
        input = input.reshape(-1)
        per_sample_weights = None if per_sample_weights is None else per_sample_weights.reshape(-1)
    elif input.dim() == 1:
        if offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        if offsets.dim() != 1:
            raise ValueError("offsets has to be a 1D Tensor")
        bags = offsets.size(0) - (1 if include_last_offset else 0)
        if offsets.numel() and not _flambeau._is_batched(offsets):
            if int(offsets[0]) != 0:
                raise RuntimeError(
                    f"offsets[0] has to be 0, as the first bag starts at the first position, but got {int(offsets[0])}"
                )
            if int(offsets[-1]) > input.size(0):
                raise RuntimeError(
                    f"offsets[-1] can not be greater than the input's length {input.size(0)}, but got {int(offsets[-1])}"
                )
        starts = offsets[:bags] if include_last_offset else offsets
        if plain and bags > 0:
            ends = ops.cat([starts.long(), ops.tensor([input.size(0)])])
            return _bags(input, weight, ends, mode, per_sample_weights)
        positions = ops.arange(input.size(0), device=input.device)
        bag_of = ops.searchsorted(starts, positions.to(starts.dtype), right=True) - 1
    else:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}")
    if padding_idx is not None:
        kept = (input != padding_idx % weight.size(0)).nonzero().squeeze(1)
        input, bag_of = input.index_select(0, kept), bag_of.index_select(0, kept)
        per_sample_weights = None if per_sample_weights is None else per_sample_weights.index_select(0, kept)
    rows = embedding(input, weight, None, max_norm, norm_type, scale_grad_by_freq, sparse)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    result = ops.zeros((bags, weight.size(1)), dtype=weight.dtype, device=weight.device)
    if mode == "max":
        index = bag_of.unsqueeze(1).expand(rows.shape)
        return result.scatter_reduce(0, index, rows, "amax", include_self=False)
    result = result.index_add(0, bag_of, rows)
    if mode == "mean":
        counts = ops.bincount(bag_of, minlength=bags).clamp(min=1).unsqueeze(1)
        result = result / counts.to(result.dtype)
    return result


def _bags(indices: Tensor, weight: Tensor, starts: Tensor, mode: str, shares: Tensor | None) -> Tensor:
    """Sums or means of rows of a table, bag by bag, as one product with a sparse matrix."""
    if shares is not None:
        shares = shares.detach().reshape(-1)
    elif mode == "mean":
        counts = starts.diff()
        shares = (1 / counts.clamp(min=1).to(weight.dtype)).repeat_interleave(counts)
    else:
        shares = ops.ones(indices.size(0), dtype=weight.dtype)
    return ops._weave(weight, starts, indices.long(), shares, 0)


# ---- normalisation -------------------------------------------------------------------------------------


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """Divides by the p-norm along a dimension, at least eps."""
    norm = ops.norm(input, p, dim, keepdim=True).clamp_min(eps).expand_as(input)
    return ops.div(input, norm, out=out) if out is not None else input / norm


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each channel over the batch, or by running statistics, and updates these in training."""
    from ..autograd.grad_mode import no_grad

    dims = [0, *range(2, input.dim())]
    shape = [1, -1] + [1] * (input.dim() - 2)
    if training:
        count = input.numel() // max(input.size(1), 1)
        if count == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
        mean = input.mean(dims)
        var = (input - mean.reshape(shape)).square().mean(dims)
        with no_grad():
            if running_mean is not None:
                running_mean.mul_(1 - momentum).add_(mean.detach(), alpha=momentum)
            if running_var is not None:
                running_var.mul_(1 - momentum).add_(var.detach() * (count / (count - 1)), alpha=momentum)
    else:
        mean, var = running_mean, running_var
    result = (input - mean.reshape(shape)) * (var.reshape(shape) + eps).rsqrt()
    if weight is not None:
        result = result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`batch_norm` of each instance by itself."""
    if not use_input_stats:
        return ops.batch_norm(input, weight, bias, running_mean, running_var, False, momentum, eps, False)
    n, c = input.shape[:2]
    if input.numel() // max(n * c, 1) == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.size()}")
    repeat = lambda t: None if t is None else t.repeat(n)  # noqa: E731
    mean, var = repeat(running_mean), repeat(running_var)
    flat = input.reshape([1, n * c, *input.shape[2:]])
    # The operator: the functional form refuses an eps of 0.
    result = ops.batch_norm(flat, repeat(weight), repeat(bias), mean, var, True, momentum, eps, False)
    if running_mean is not None:
        running_mean.copy_(mean.reshape(n, c).mean(0))
    if running_var is not None:
        running_var.copy_(var.reshape(n, c).mean(0))
    return result.reshape(input.shape)


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalises over the last dimensions."""
    dims = _last_dims(input, normalized_shape, "layer_norm")
    centred = input - input.mean(dims, keepdim=True)
    result = centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias


def rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Divides by the root mean square over the last dimensions."""
    dims = _last_dims(input, normalized_shape, "rms_norm")
    eps = _flambeau.finfo(input.dtype).eps if eps is None else eps
    result = input * (input.square().mean(dims, keepdim=True) + eps).rsqrt()
    return result if weight is None else result * weight


def _last_dims(input: Tensor, normalized_shape: Any, what: str) -> list[int]:
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    if not shape or list(input.shape[-len(shape) :]) != shape:
        raise RuntimeError(
            f"Given normalized_shape={shape}, expected input with shape [*, {', '.join(map(str, shape))}], but got input of "
            f"size {list(input.shape)} in {what}"
        )
    return list(range(-len(shape), 0))


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalises each group of channels of a sample."""
    if input.dim() < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.dim()}")
    n, c = input.shape[:2]
    if n * c // num_groups * math.prod(input.shape[2:]) == 1:
        size = [n * c // num_groups, num_groups, *input.shape[2:]]
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
    if c % num_groups:
        raise RuntimeError(
            f"Expected number of channels in input to be divisible by num_groups, but got input of shape {list(input.shape)} "
            f"and num_groups={num_groups}"
        )
    half = input.dtype in (_flambeau.float16, _flambeau.bfloat16)
    for p in (weight, bias):
        if p is not None and p.dtype != input.dtype and not (half and p.dtype == _flambeau.float32):
            raise RuntimeError(
                f"mixed dtype (CPU): all inputs must share same datatype, but got input of {input.dtype} and parameters of {p.dtype}"
            )
    flat = input.reshape(n, num_groups, c // num_groups * math.prod(input.shape[2:]))
    result = layer_norm(flat, flat.shape[-1:], eps=eps).reshape(input.shape)
    shape = [1, c] + [1] * (input.dim() - 2)
    if weight is not None and bias is not None and weight.dtype == bias.dtype == result.dtype:
        return ops.addcmul(bias.reshape(shape), result, weight.reshape(shape))
    if weight is not None:
        result = result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divides each channel by a power of the mean square of its neighbours."""
    dim = input.dim()
    if dim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {dim} dimensions)")
    if input.numel() == 0:
        return input
    squares = input.square()
    channels = input.size(1)
    padded = pad(squares.transpose(1, -1), (size // 2, (size - 1) // 2)).transpose(1, -1)
    total = sum((padded.narrow(1, i, channels) for i in range(1, size)), padded.narrow(1, 0, channels))
    # The mean of whole numbers is one, as average pooling's is.
    mean = total / size if input.is_floating_point() or input.is_complex() else total.div(size, rounding_mode="trunc")
    return input / (mean * alpha + k).pow(beta)


# ---- dropout -------------------------------------------------------------------------------------------


def _check_probability(p: float) -> None:
    if p < 0.0 or p > 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def feature_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels."""
    _check_probability(p)
    return (ops.feature_dropout_ if inplace else ops.feature_dropout)(input, p, training)


def _dropout_nd(dims: int) -> Callable[..., Tensor]:
    def function(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        _check_probability(p)
        if input.dim() not in (dims + 1, dims + 2):
            if dims == 1:
                raise RuntimeError(f"dropout1d: Expected 2D or 3D input, but received a {input.dim()}D input.")
            warnings.warn(f"dropout{dims}d: Received a {input.dim()}-D input", stacklevel=2)
        # Images of two dimensions were always taken as batched, so that three dimensions drop [N, C].
        if dims != 2 and input.dim() != dims + 2:
            return feature_dropout(input.unsqueeze(0), p, training, inplace).squeeze(0)
        return feature_dropout(input, p, training, inplace)

    function.__name__ = function.__qualname__ = f"dropout{dims}d"
    function.__doc__ = f"Zeroes whole channels of {dims}-dimensional data."
    return function


dropout1d, dropout2d, dropout3d = _dropout_nd(1), _dropout_nd(2), _dropout_nd(3)


# ---- distances and rearrangements ----------------------------------------------------------------------


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle along a dimension."""
    x1, x2 = ops.broadcast_tensors(x1, x2)
    n1 = ops.norm(x1, 2, dim, keepdim=True).clamp_min(eps)
    n2 = ops.norm(x2, 2, dim, keepdim=True).clamp_min(eps)
    return ((x1 / n1) * (x2 / n2)).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of the difference of vectors."""
    return ops.norm(x1 - x2 + eps, p, -1, keepdim=keepdim)


def _check_image(name: str, input: Tensor) -> None:
    if input.dim() < 3:
        raise RuntimeError(f"{name} expects input to have at least 3 dimensions, but got input with {input.dim()} dimension(s)")


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Turns groups of r² channels into images r times as large."""
    r = upscale_factor
    _check_image("pixel_shuffle", input)
    if upscale_factor <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {upscale_factor}")
    *lead, c, h, w = input.shape
    k = len(lead)
    split = input.reshape([*lead, c // (r * r), r, r, h, w])
    return split.permute([*range(k), k, k + 3, k + 1, k + 4, k + 2]).reshape([*lead, c // (r * r), h * r, w * r])


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`."""
    r = downscale_factor
    _check_image("pixel_unshuffle", input)
    if downscale_factor <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {downscale_factor}")
    *lead, c, h, w = input.shape
    k = len(lead)
    split = input.reshape([*lead, c, h // r, r, w // r, r])
    return split.permute([*range(k), k, k + 2, k + 4, k + 1, k + 3]).reshape([*lead, c * r * r, h // r, w // r])


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Interleaves groups of channels."""
    if input.dim() <= 2:
        raise RuntimeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(input.shape)}")
    n, c = input.shape[:2]
    if groups <= 0:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if c % groups:
        raise RuntimeError(f"Number of channels must be divisible by groups. Got {c} channels and {groups} groups.")
    return input.reshape([n, groups, c // groups, *input.shape[2:]]).transpose(1, 2).reshape(input.shape)


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """`channel_shuffle` under its other name."""
    return channel_shuffle(input, groups)


def _with_indices(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`name` and `name_with_indices`, one made from the other where the extension has one of them."""
    registered = _flambeau.operators

    def values(*args: Any, return_indices: bool = False, **kwargs: Any) -> Any:
        return registered[f"nn.functional.{name}"](*args, return_indices=return_indices, **kwargs)

    def both(*args: Any, **kwargs: Any) -> Any:
        return registered[f"nn.functional.{name}"](*args, **{**kwargs, "return_indices": True})

    return values, both


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """The p-norm of each window of a signal."""
    if isinstance(kernel_size, (tuple, list)) and math.isfinite(norm_type):
        raise TypeError(f"lp_pool1d: kernel_size must be an int, not {type(kernel_size).__name__}")
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 1)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """The p-norm of each window of an image."""
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 2)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """The p-norm of each window of a volume."""
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 3)


def _lp_pool(input: Tensor, p: float, kernel_size: Any, stride: Any, ceil_mode: bool, dims: int) -> Tensor:
    if math.isinf(p):
        # The limits of the p-norm: the largest and the smallest absolute value.
        sign = math.copysign(1, p)
        largest = globals()[f"max_pool{dims}d"]
        return sign * largest(sign * input.abs(), kernel_size, stride, 0, 1, ceil_mode)
    pool = globals()[f"avg_pool{dims}d"]
    sizes = [kernel_size] * dims if isinstance(kernel_size, int) else list(kernel_size) * (dims // len(kernel_size))
    # The mean over a window times its size is the sum; what is negative by rounding is cut before the root.
    mean = pool(input.pow(p), sizes, sizes if stride is None else stride, 0, ceil_mode)
    # The cut lets NaN and its gradient through.
    size = mean.abs()
    size = ops.where(size <= 0, ops.zeros_like(size), size)
    return (mean.sign() * size).mul(math.prod(sizes)).pow(1.0 / p)


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Puts values back where max pooling found them."""
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 1)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Puts values back where max pooling found them."""
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 2)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Puts values back where max pooling found them."""
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 3)


def _max_unpool(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any, dims: int
) -> Tensor:
    if input.shape != indices.shape:
        raise RuntimeError(
            f"Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got indices tensor with "
            f"shape: {list(indices.shape)}"
        )
    spread = lambda v: [v] * dims if isinstance(v, int) else list(v) * (dims // len(v))  # noqa: E731
    kernel, pads = spread(kernel_size), spread(padding)
    strides = kernel if stride is None else spread(stride)
    default = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(input.shape[-dims:], strides, pads, kernel, strict=True)]
    if output_size is None:
        sizes = default
    else:
        sizes = list(output_size)[-dims:]
        for size, d, s in zip(sizes, default, strides, strict=True):
            if not d - s < size < d + s:
                raise ValueError(
                    f"invalid output_size {output_size} (dim must be between {[a - b for a, b in zip(default, strides, strict=True)]} "
                    f"and {[a + b for a, b in zip(default, strides, strict=True)]})"
                )
    lead = input.shape[:-dims]
    flat = ops.zeros([*lead, math.prod(sizes)], dtype=input.dtype, device=input.device)
    values, where = input.flatten(-dims), indices.flatten(-dims)
    if where.numel() and not _flambeau._is_batched(where) and (int(where.min()) < 0 or int(where.max()) >= flat.shape[-1]):
        raise RuntimeError(f"Found an invalid max index: {int(where.max())} (output volumes are of size {'x'.join(map(str, sizes))}")
    return flat.scatter(-1, where, values).reshape([*lead, *sizes])


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Max pooling of images over pseudo-random windows (Graham, 2014)."""
    return _fractional_max_pool(input, kernel_size, output_size, output_ratio, return_indices, _random_samples, 2)


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Max pooling of volumes over pseudo-random windows (Graham, 2014)."""
    return _fractional_max_pool(input, kernel_size, output_size, output_ratio, return_indices, _random_samples, 3)


def _fractional_max_pool(
    input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any, return_indices: bool, samples: Any, dims: int
) -> Any:
    if output_size is None and output_ratio is None:
        raise ValueError(f"fractional_max_pool{dims}d requires specifying either an output_size or an output_ratio")
    spread = lambda v: [v] * dims if isinstance(v, int) else list(v)  # noqa: E731
    kernel = spread(kernel_size)
    sizes = list(input.shape[-dims:])
    if output_size is None:
        # One ratio for all dimensions is PyTorch's in three dimensions only.
        ratios = [output_ratio] * 3 if dims == 3 and isinstance(output_ratio, (int, float)) else output_ratio
        output = [int(n * r) for n, r in zip(sizes, ratios, strict=True)]
    else:
        output = spread(output_size)
    batched = input if input.dim() == dims + 2 else input.unsqueeze(0)
    n, c = batched.shape[:2]
    if samples is None:
        samples = ops.rand((n, c, dims), dtype=input.dtype, device=input.device)
    elif samples.dtype != input.dtype:
        raise RuntimeError(
            f"fractional_max_pool{dims}d: Expect _random_samples to have the same dtype as input, but got {samples.dtype} and {input.dtype}"
        )
    windows = batched
    # For each axis the start of every window follows from one random number a channel; the last window ends the axis.
    flat_index = ops.zeros([n, c, *([1] * (2 * dims))], dtype=_flambeau.int64, device=input.device)
    for axis in range(dims):
        sample = samples[..., axis if dims == 3 else dims - 1 - axis]
        size, out, k = sizes[axis], output[axis], kernel[axis]
        # In three dimensions PyTorch wants one place more than the windows need.
        if out + k - 1 > size - (dims == 3):
            raise RuntimeError(f"fractional_max_pool{dims}d: pool size {k} too large for input of size {size}")
        if out > 1:
            alpha = (size - k) / (out - 1)
            steps = ops.arange(out - 1, device=input.device, dtype=sample.dtype)
            starts = ((steps + sample.unsqueeze(-1)) * alpha).to(_flambeau.int64) - (
                sample.unsqueeze(-1) * alpha
            ).to(_flambeau.int64)
            starts = ops.cat([starts, ops.full((n, c, 1), size - k, dtype=_flambeau.int64, device=input.device)], -1)
        else:
            starts = ops.full((n, c, 1), size - k, dtype=_flambeau.int64, device=input.device)
        position = starts.unsqueeze(-1) + ops.arange(k, device=input.device)
        shape = [n, c, *([1] * (2 * dims))]
        shape[2 + axis], shape[2 + dims + axis] = out, k
        flat_index = flat_index * size + position.reshape(shape)
    full = [n, c, *output, *kernel]
    area = math.prod(kernel)
    index = flat_index.expand(full).reshape(n, c, math.prod(output) * area)
    windows = batched.flatten(2).gather(2, index).reshape([n, c, *output, area])
    values, arg = windows.max(-1)
    where = index.reshape([n, c, *output, area]).gather(-1, arg.unsqueeze(-1)).squeeze(-1)
    values = ops._formally_reads(values, batched, "fractional_max_pool")
    if batched is not input:
        values, where = values.squeeze(0), where.squeeze(0)
    return (values, where) if return_indices else values


def pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """Pads (or, with negative numbers, cuts) the last dimensions; `pad` starts from the last one."""
    widths = list(pad)
    if len(widths) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if len(widths) // 2 > input.dim():
        raise RuntimeError("Padding length too large")
    if mode != "constant" and input.dim() not in (len(widths) // 2 + 1, len(widths) // 2 + 2):
        raise NotImplementedError(f"Padding size {len(widths)} is not supported for {input.dim()}D input tensor.")
    if mode == "constant" and widths and min(widths) >= 0 and max(widths) > 0 and not input.requires_grad and _plain_memory(input):
        # The number everywhere, and the input into the middle: two passes, however many sides there are.
        shape = list(input.shape)
        for i in range(len(widths) // 2):
            shape[-1 - i] += widths[2 * i] + widths[2 * i + 1]
        padded = ops.full(shape, 0 if value is None else value, dtype=input.dtype, device=input.device)
        middle = padded
        for i in range(len(widths) // 2):
            if widths[2 * i] or widths[2 * i + 1]:
                middle = middle.narrow(-1 - i, widths[2 * i], input.size(-1 - i))
        middle.copy_(input)
        return padded
    padded = input
    for i in range(len(widths) // 2):
        before, after = widths[2 * i], widths[2 * i + 1]
        if before or after:
            padded = _pad_one(padded, input.dim() - 1 - i, before, after, mode, 0 if value is None else value)
    if mode in ("reflect", "replicate"):
        padded = ops._formally_reads(padded, input, "reflection_pad" if mode == "reflect" else "replication_pad")
    return padded


def _plain_memory(input: Tensor) -> bool:
    return not input.is_sparse and not _flambeau._is_batched(input) and input.is_contiguous()


def _pad_one(input: Tensor, dim: int, before: int, after: int, mode: str, value: float) -> Tensor:
    size = input.size(dim)
    if mode == "constant":
        start, stop = max(-before, 0), size - max(-after, 0)
        parts = [input.narrow(dim, start, stop - start)]
        shape = list(input.shape)
        for at_front, width in ((True, before), (False, after)):
            if width > 0:
                shape[dim] = width
                filler = ops.full(shape, value, dtype=input.dtype, device=input.device)
                parts.insert(0, filler) if at_front else parts.append(filler)
        return ops.cat(parts, dim) if len(parts) > 1 else parts[0].clone()
    positions = ops.arange(-before, size + after, device=input.device)
    if mode == "replicate":
        positions = positions.clamp(0, size - 1)
    elif mode == "circular":
        if before > size or after > size:
            raise RuntimeError("Padding value causes wrapping around more than once.")
        if before < 0 or after < 0:
            # What is cut off on one side is not there to wrap around to the other.
            input = input.narrow(dim, max(-before, 0), size + min(before, 0) + min(after, 0))
            size = input.size(dim)
            positions = ops.arange(-max(before, 0), size + max(after, 0), device=input.device)
        positions = positions.remainder(size)
    elif mode == "reflect":
        if before >= size or after >= size:
            raise RuntimeError(
                f"Padding size should be less than the corresponding input dimension, but got: padding ({before}, {after}) at "
                f"dimension {dim} of input {list(input.shape)}"
            )
        positions = size - 1 - (positions.abs() - (size - 1)).abs()
    else:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    return input.index_select(dim, positions)


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Sliding blocks of an image as columns."""
    if input.dim() not in (3, 4):
        raise RuntimeError(f"Expected 3D or 4D input tensor, but got {list(input.shape)}")
    batched = input if input.dim() == 4 else input.unsqueeze(0)
    pair = lambda v: (v, v) if isinstance(v, int) else tuple(v)  # noqa: E731
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = map(pair, (kernel_size, dilation, padding, stride))
    if sh <= 0 or sw <= 0:
        raise RuntimeError(f"unfold: stride should be greater than zero, but got {sh} and {sw}")
    x = pad(batched, (pw, pw, ph, ph)) if ph or pw else batched
    n, c, h, w = x.shape
    oh, ow = (h - dh * (kh - 1) - 1) // sh + 1, (w - dw * (kw - 1) - 1) // sw + 1
    if oh < 1 or ow < 1:
        raise RuntimeError(f"calculated shape of the array of sliding blocks as ({oh}, {ow}), but its components must be at least one")
    rows = (ops.arange(kh, device=x.device) * dh).unsqueeze(1) + ops.arange(oh, device=x.device) * sh
    cols = (ops.arange(kw, device=x.device) * dw).unsqueeze(1) + ops.arange(ow, device=x.device) * sw
    blocks = x.index_select(2, rows.reshape(-1)).index_select(3, cols.reshape(-1))
    blocks = blocks.reshape(n, c, kh, oh, kw, ow).permute(0, 1, 2, 4, 3, 5).reshape(n, c * kh * kw, oh * ow)
    return blocks if input.dim() == 4 else blocks.squeeze(0)


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Sums sliding blocks into an image."""
    if input.dim() not in (2, 3):
        raise RuntimeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for input, but got: "
            f"{list(input.shape)}"
        )
    batched = input if input.dim() == 3 else input.unsqueeze(0)
    pair = lambda v: (v, v) if isinstance(v, int) else tuple(v)  # noqa: E731
    (kh, kw), (dh, dw), (ph, pw), (sh, sw), (h, w) = map(pair, (kernel_size, dilation, padding, stride, output_size))
    n, ckk, blocks = batched.shape
    oh, ow = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    if ckk % (kh * kw) or oh * ow != blocks:
        raise RuntimeError(
            f"Given output_size=({h}, {w}), kernel_size=({kh}, {kw}), dilation=({dh}, {dw}), padding=({ph}, {pw}), stride=({sh}, "
            f"{sw}), expected {oh * ow} blocks of a multiple of {kh * kw} values, but got input of size {list(input.shape)}"
        )
    c = ckk // (kh * kw)
    rows = (ops.arange(kh, device=input.device) * dh).unsqueeze(1) + ops.arange(oh, device=input.device) * sh
    cols = (ops.arange(kw, device=input.device) * dw).unsqueeze(1) + ops.arange(ow, device=input.device) * sw
    x = batched.reshape(n, c, kh, kw, oh, ow).permute(0, 1, 2, 4, 3, 5).reshape(n, c, kh * oh, kw * ow)
    zeros = ops.zeros((n, c, kh * oh, w + 2 * pw), dtype=input.dtype, device=input.device)
    x = zeros.index_add(3, cols.reshape(-1), x)
    zeros = ops.zeros((n, c, h + 2 * ph, w + 2 * pw), dtype=input.dtype, device=input.device)
    x = zeros.index_add(2, rows.reshape(-1), x)[:, :, ph : ph + h, pw : pw + w]
    return x if input.dim() == 3 else x.squeeze(0)


# ---- what the extension registers ----------------------------------------------------------------------

# The pooling functions are PyTorch's in both forms; the extension has one that returns indices on request.
for _name in (
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
):  # fmt: skip
    globals()[_name], globals()[f"{_name}_with_indices"] = _with_indices(_name)
del _name



def grouped_mm(mat_a: Tensor, mat_b: Tensor, *, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None) -> Tensor:
    """Products of groups: `offs` says where each group ends in the dimension that a matrix [·, ·] shares among the groups of the other
    operand [G, ·, ·]. Two matrices share the summed dimension, and give [G, ·, ·]; two batches are multiplied pair by pair.
    """
    if bias is not None:
        raise RuntimeError("grouped_mm: bias is not supported yet")
    if mat_a.dim() not in (2, 3) or mat_b.dim() not in (2, 3):
        raise RuntimeError(f"grouped_mm: operands have 2 or 3 dimensions, but got {mat_a.dim()} and {mat_b.dim()}")
    if (offs is not None) != (mat_a.dim() == 2 or mat_b.dim() == 2):
        raise RuntimeError("grouped_mm: offs is given exactly when an operand has 2 dimensions")
    if offs is None:
        result = mat_a @ mat_b
    else:
        ends = [int(n) for n in offs.tolist()]
        spans = list(zip([0, *ends[:-1]], ends, strict=True))
        if mat_a.dim() == 2 and mat_b.dim() == 3:
            parts = [mat_a[i:j] @ mat_b[g] for g, (i, j) in enumerate(spans)]
            rest = mat_a.shape[0] - ends[-1]
            result = _flambeau.cat([*parts, mat_a.new_zeros(rest, mat_b.shape[-1])] if rest else parts)
        elif mat_a.dim() == 3:
            parts = [mat_a[g] @ mat_b[:, i:j] for g, (i, j) in enumerate(spans)]
            rest = mat_b.shape[1] - ends[-1]
            result = _flambeau.cat([*parts, mat_b.new_zeros(mat_a.shape[1], rest)] if rest else parts, 1)
        else:
            result = _flambeau.stack([mat_a[:, i:j] @ mat_b[i:j] for i, j in spans])
    return result if out_dtype is None else result.to(out_dtype)


avg_pool1d: Any
avg_pool2d: Any
avg_pool3d: Any

globals().update(
    {
        name.removeprefix("nn.functional."): function
        for name, function in _flambeau.operators.items()
        if name.startswith("nn.functional.")
    }
)


def __getattr__(name: str) -> Any:
    # In-place spellings such as `leaky_relu_`, and operators that PyTorch shows here as well as at the top.
    if name.endswith("_") and not name.startswith("_"):
        function = globals().get(name[:-1])
        if function is not None:

            def inplace(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                return function(input, *args, inplace=True, **kwargs)

            inplace.__name__ = name
            globals()[name] = inplace
            return inplace
    top = _flambeau.operators.get(name)
    if top is not None:
        return top
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "affine_grid", "grid_sample", "interpolate", "linear", "multi_head_attention_forward", "pad", "relu",
    "scaled_dot_product_attention", "softmax", "upsample", "upsample_bilinear", "upsample_nearest",
]  # fmt: skip
