"""Losses as composites, each reducing by "none", "mean" or "sum"."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops
from ..amp._single import single


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction} is not a valid value for reduction")


def _legacy(size_average: Any, reduce: Any, reduction: str) -> str:
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def _paired(input: Tensor, target: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if input.size() != target.size():
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}). This will likely lead "
            "to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )
    a, b = ops.broadcast_tensors(input, target)
    return a, b


@single
def l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Tensor:
    """|x - y|."""
    a, b = _paired(input, target, "l1_loss")
    return _weighted((a - b).abs(), weight, _legacy(size_average, reduce, reduction))


@single
def mse_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Tensor:
    """(x - y)²."""
    a, b = _paired(input, target, "mse_loss")
    return _weighted((a - b).square(), weight, _legacy(size_average, reduce, reduction))


def _weighted(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None:
        return _reduce(loss, reduction)
    if reduction == "mean":
        return (loss * weight).sum() / weight.sum()
    return _reduce(loss * weight, reduction)


@single
def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Quadratic below beta, linear above."""
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    a, b = _paired(input, target, "smooth_l1_loss")
    distance = (a - b).abs()
    reduction = _legacy(size_average, reduce, reduction)
    if beta == 0:
        return _reduce(distance, reduction)
    return _reduce(ops.where(distance < beta, 0.5 * distance.square() / beta, distance - 0.5 * beta), reduction)


@single
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Quadratic below delta, linear with slope delta above."""
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    a, b = _paired(input, target, "huber_loss")
    distance = (a - b).abs()
    loss = ops.where(distance <= delta, 0.5 * distance.square(), delta * (distance - 0.5 * delta))
    return _weighted(loss, weight, reduction)


def _class_weights(weight: Tensor, input: Tensor, classes: int) -> None:
    if weight.dim() != 1 or weight.numel() != classes:
        raise RuntimeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but got weight tensor of shape: "
            f"{list(weight.shape)}"
        )
    if weight.dtype != input.dtype:
        raise RuntimeError(f"expected scalar type {input.dtype} of the classes' weights but found {weight.dtype}")


@single
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability of the target class; the mean is weighted by the classes' weights."""
    reduction = _legacy(size_average, reduce, reduction)
    if input.dim() == 0:
        raise RuntimeError("input tensor should be 1D or 2D")
    class_dim = 0 if input.dim() == 1 else 1
    expected = [n for i, n in enumerate(input.shape) if i != class_dim]
    if list(target.shape) != expected:
        if target.dim() and input.shape[0] != target.shape[0]:
            raise ValueError(f"Expected input batch_size ({input.shape[0]}) to match target batch_size ({target.shape[0]}).")
        raise RuntimeError(f"nll_loss: expected target size {expected}, got {list(target.shape)}")
    if weight is not None:
        _class_weights(weight, input, input.shape[class_dim])
    if target.dtype == _flambeau.uint8:
        target = target.to(_flambeau.int64)
    if (
        weight is None
        and input.dim() == 2
        and reduction == "mean"
        and target.numel()
        and not (_flambeau._is_batched(target) or _flambeau._is_batched(input))
    ):
        low, high = target.aminmax()
        if low.item() >= 0 and high.item() < input.shape[1] and not low.item() <= ignore_index <= high.item():
            # The usual case: nothing to ignore, and nothing to weigh.
            return ops._formally_reads(-input.gather(1, target.unsqueeze(1)).mean(), input, "nll_loss")
    ignored = target == ignore_index
    index = target.masked_fill(ignored, 0)
    # Inside `vmap` nobody can look at one example's values; what gathers them checks them again.
    if index.numel() and not _flambeau._is_batched(index):
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= input.shape[class_dim]:
            raise IndexError(f"Target {low if low < 0 else high} is out of bounds.")
    picked = -input.gather(class_dim, index.unsqueeze(class_dim)).squeeze(class_dim)
    weights = ops.ones_like(picked) if weight is None else weight[index]
    weights = weights.masked_fill(ignored, 0)
    loss = ops.where(ignored, ops.zeros_like(picked), picked * weights)
    loss = loss.sum() / weights.sum() if reduction == "mean" else _reduce(loss, reduction)
    return ops._formally_reads(loss, input, "nll_loss")


@single
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Minus the log-softmax of the target class, or its mean under target probabilities."""
    reduction = _legacy(size_average, reduce, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if weight is None and label_smoothing == 0.0 and input.dim() == 2 and target.dim() == 1 and not target.is_floating_point():
        # The usual case: one pass over the logits.
        if target.dtype == _flambeau.uint8:
            target = target.to(_flambeau.int64)
        if reduction == "mean":
            return ops._cross_entropy(input, target, ignore_index)
        return _reduce(ops._cross_entropy_rows(input, target, ignore_index), reduction)
    class_dim = 0 if input.dim() == 1 else 1
    classes = input.size(class_dim)
    shape = [classes if i == class_dim else 1 for i in range(input.dim())]
    scores = ops.log_softmax(input, class_dim)
    if target.is_floating_point():
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        if target.shape != input.shape:
            raise RuntimeError(f"cross_entropy: expected probabilities of size {list(input.shape)}, got {list(target.shape)}")
        if label_smoothing > 0:
            target = target * (1 - label_smoothing) + label_smoothing / classes
        if weight is not None:
            scores = scores * weight.reshape(shape)
        loss = -(scores * target).sum(class_dim)
        return loss.sum() / max(loss.numel(), 1) if reduction == "mean" else _reduce(loss, reduction)
    hard = nll_loss(scores, target, weight, None, ignore_index, None, reduction)
    if label_smoothing == 0:
        return hard
    smooth = -(scores if weight is None else scores * weight.reshape(shape)).sum(class_dim)
    ignored = target == ignore_index
    smooth = smooth.masked_fill(ignored, 0)
    if reduction == "mean":
        if weight is None:
            total = (~ignored).sum().to(scores.dtype)
        else:
            total = weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0).sum()
        smooth = smooth.sum() / total
    else:
        smooth = _reduce(smooth, reduction)
    return (1 - label_smoothing) * hard + label_smoothing / classes * smooth


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """`cross_entropy` of a linear layer's outputs; `linear_weight` is [num_classes, *out_features, in_features]."""
    from . import functional as F

    if input.dim() == 2 and target.dim() and input.shape[0] != target.shape[0]:
        raise ValueError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size ({target.shape[0]})."
        )
    if input.dim() not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.dim()}")
    shape = list(linear_weight.shape[:-1])
    if len(shape) > 1 and input.dim() == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {tuple(linear_weight.shape)} requires batched input, "
            f"(N, {input.shape[-1]}), got unbatched input with shape {tuple(input.shape)}"
        )
    if ignore_index is not None and target.is_floating_point():
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    scores = F.linear(input, linear_weight.reshape(-1, linear_weight.shape[-1]), bias)
    return F.cross_entropy(
        scores.reshape([*input.shape[:-1], *shape]),
        target,
        weight=weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


@single
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of probabilities; logarithms are cut at -100."""
    if target.size() != input.size():
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}) is deprecated. Please "
            "ensure they have the same size."
        )
    reduction = _legacy(size_average, reduce, reduction)
    for name, values in (("input", input.detach()), ("target", target.detach())):
        # Inside `vmap` nobody can look at one example's values.
        if _flambeau._is_batched(values) or values.device.type == "meta":
            continue
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise RuntimeError(f"all elements of {name} should be between 0 and 1")
    loss = -(target * input.log().clamp(min=-100) + (1 - target) * (1 - input).log().clamp(min=-100))
    return _reduce(loss if weight is None else (loss * weight).to(loss.dtype), reduction)


@single
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(x), computed stably."""
    if target.size() != input.size():
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    softplus = (-input.abs()).exp().log1p() + (-input).clamp(min=0)
    if pos_weight is None:
        loss = (1 - target) * input + softplus
    else:
        loss = (1 - target) * input + (1 + (pos_weight - 1) * target) * softplus
    loss = loss if weight is None else loss * weight
    dtype = _flambeau.promote_types(input.dtype, target.dtype)
    return _reduce(loss if loss.dtype == dtype else loss.to(dtype), _legacy(size_average, reduce, reduction))


@single
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Kullback–Leibler divergence of a target from log-probabilities."""
    if not (input.is_floating_point() or input.is_complex()) or not (target.is_floating_point() or target.is_complex()):
        raise RuntimeError("kl_div: Integral inputs not supported.")
    reduction = _legacy(size_average, reduce, reduction)
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size. 'batchmean' divides only by the "
            "batch size, and aligns with the KL math definition.",
            stacklevel=2,
        )
    loss = target.exp() * (target - input) if log_target else ops.xlogy(target, target) - target * input
    if reduction == "batchmean":
        return loss.sum() / input.size(0) if input.dim() else loss.sum()
    return _reduce(loss, reduction)


@single
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of counts; `full` adds Stirling's approximation of log(target!)."""
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        loss = loss + ops.where(target > 1, stirling, ops.zeros_like(loss))
    return _reduce(loss, _legacy(size_average, reduce, reduction))


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """Negative log-likelihood under a normal distribution of given variance, at least eps."""
    if isinstance(var, (int, float)):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = var * ops.ones_like(input)
    elif bool((var < 0).any()):
        raise ValueError("var has negative entry/entries")
    if var.size() != input.size():
        if input.size()[:-1] == var.size():
            var = var.unsqueeze(-1)
        elif not (input.dim() == var.dim() and all(a == b or b == 1 for a, b in zip(input.shape, var.shape, strict=True))):
            raise ValueError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(reduction + " is not valid")
    # The floor on the variance takes no part in the gradient.
    var = var + (var.clamp(min=eps) - var).detach()
    loss = 0.5 * (var.log() + (input - target).square() / var)
    return _reduce(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


@single
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    zero = ops.zeros_like(input)
    loss = ops.where(target != 1, (margin - input).clamp(min=0), zero) + ops.where(target != -1, input, zero)
    return _reduce(loss, _legacy(size_average, reduce, reduction))


@single
def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """log(1 + exp(-y x))."""
    reduction = _legacy(size_average, reduce, reduction)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if target.requires_grad and _flambeau.is_grad_enabled():
        raise RuntimeError(
            "The function 'soft_margin_loss' is not differentiable with respect to argument 'target'. This input cannot have "
            "requires_grad True."
        )
    return _reduce((-target * input).exp().log1p(), reduction)


@single
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -y (x₁ - x₂) + margin)."""
    if input1.dim() != input2.dim() or input1.dim() != target.dim():
        raise RuntimeError(
            f"margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: {input1.size()}, input2: "
            f"{input2.size()}, target: {target.size()} "
        )
    return _reduce((-target * (input1 - input2) + margin).clamp(min=0), _legacy(size_average, reduce, reduction))


def _margin_reduction(size_average: Any, reduce: Any, reduction: str) -> str:
    """The reduction by its present name; a wrong one is reported before anything about the operands."""
    name = _legacy(size_average, reduce, reduction)
    if name not in ("none", "mean", "sum"):
        raise ValueError(f"{name} is not a valid value for reduction")
    return name


@single
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Σ max(0, margin - x[y] + x[i])^p / C over the classes i other than y."""
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    reduction = _margin_reduction(size_average, reduce, reduction)
    if weight is not None and weight.dim() != 1:
        raise ValueError("weight must be one-dimensional")
    rows = input if input.dim() == 2 else input.reshape(1, -1)
    if target.dim() > 1 or target.numel() != rows.size(0):
        raise RuntimeError(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples (batch size). Expected "
            f"target size [{rows.size(0)}], but got {list(target.shape)}."
        )
    index = target.reshape(-1, 1)
    margins = (margin - rows.gather(1, index) + rows).clamp(min=0)
    if p == 2:
        margins = margins.square()
    if weight is not None:
        margins = margins * weight[index]
    own = ops.arange(rows.size(1), device=rows.device) == index
    loss = margins.masked_fill(own, 0).sum(1) / rows.size(1)
    if target.dim() == 0:
        loss = loss.squeeze(0)
    return _reduce(loss, reduction)


@single
def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """Σ max(0, 1 - x[y] + x[i]) / C over targets y (up to the first -1) and classes i that are no target."""
    reduction = _margin_reduction(size_average, reduce, reduction)
    if input.dim() > 2:
        raise RuntimeError(f"multilabel_margin_loss: expected a vector or a matrix, but got {list(input.shape)}")
    rows, labels = (input, target) if input.dim() == 2 else (input.reshape(1, -1), target.reshape(1, -1))
    if rows.shape != labels.shape:
        raise RuntimeError(f"inconsistent target size: {list(labels.shape)} for input of size: {list(rows.shape)}")
    valid = (labels < 0).to(_flambeau.int64).cumsum(1) == 0
    index = labels.masked_fill(~valid, 0)
    counts = ops.zeros(rows.shape, dtype=_flambeau.int64, device=rows.device)
    is_target = counts.scatter_add(1, index, valid.to(_flambeau.int64)) > 0
    margins = (1 - rows.gather(1, index).unsqueeze(2) + rows.unsqueeze(1)).clamp(min=0)
    counted = valid.unsqueeze(2) & ~is_target.unsqueeze(1)
    loss = margins.masked_fill(~counted, 0).sum([1, 2]) / rows.size(1)
    if input.dim() < 2:
        loss = loss.squeeze(0)
    return _reduce(loss, reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes of the binary cross-entropy of each."""
    from . import functional as F

    loss = -(target * F.logsigmoid(input) + (1 - target) * F.logsigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return _reduce(loss.mean(-1), _legacy(size_average, reduce, reduction))


@single
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos for similar pairs, max(0, cos - margin) for others."""
    if target.dim() not in (0, 1):
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if input1.dim() != target.dim() + 1 or input2.dim() != target.dim() + 1:
        raise RuntimeError(
            f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, but found inputs with sizes "
            f"{list(input1.shape)} and {list(input2.shape)}."
        )
    eps = 1e-12
    dot = (input1 * input2).sum(-1)
    norms = ((input1.square().sum(-1) + eps) * (input2.square().sum(-1) + eps)).sqrt()
    cos = dot / norms
    zero = ops.zeros_like(cos)
    loss = ops.where(target == 1, 1 - cos, zero) + ops.where(target == -1, (cos - margin).clamp(min=0), zero)
    return _reduce(loss, _legacy(size_average, reduce, reduction))


@single
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    from . import functional as F

    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=lambda a, b: F.pairwise_distance(a, b, p, eps),
        margin=margin,
        swap=swap,
        reduction=_legacy(size_average, reduce, reduction),
    )


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with a distance of one's own."""
    from . import functional as F

    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: anchor "
            f"{anchor.dim()}D, positive {positive.dim()}D, and negative {negative.dim()}D inputs"
        )
    distance = F.pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = ops.minimum(far, distance(positive, negative))
    return _reduce((near - far + margin).clamp(min=0), reduction)


@single
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Connectionist temporal classification (Graves et al., 2006), by the forward recursion in log space.

    `log_probs` is [T, N, C] or [T, C]; `targets` is [N, S] or one row of all targets after each other.
    """
    as_list = lambda v: v.reshape(-1).tolist() if isinstance(v, Tensor) else [v] if isinstance(v, int) else list(v)  # noqa: E731
    if log_probs.dim() not in (2, 3):
        raise RuntimeError(f"Expected 3-dimensional tensor, but got {log_probs.dim()}-dimensional tensor for argument #1 'log_probs'")
    batched = log_probs.dim() == 3
    scores = log_probs if batched else log_probs.unsqueeze(1)
    if scores.dtype in (_flambeau.float16, _flambeau.bfloat16):
        # A sum over all alignments is beyond half precision.
        scores = scores.float()
    steps, batch, classes = scores.shape
    lengths, sizes = as_list(input_lengths), as_list(target_lengths)
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    if len(lengths) != batch:
        raise RuntimeError("input_lengths must be of size batch_size")
    if len(sizes) != batch:
        raise RuntimeError("target_lengths must be of size batch_size")
    if any(n > steps or n < 0 for n in lengths):
        raise RuntimeError(f"Expected input_lengths to have value at most {steps}, but got value {max(lengths)}")
    if targets.dim() == 2 and any(size > targets.shape[1] for size in sizes):
        raise RuntimeError(
            f"Expected targets to have size at least {max(sizes)} at dimension 1, but got size {targets.shape[1]}"
        )
    if targets.dim() < 2 and batched and sum(sizes) != targets.numel():
        raise RuntimeError(
            f"Expected the lengths of targets to sum to their number {targets.numel()}, but got {sum(sizes)}"
        )
    longest = max(sizes, default=0)
    flat = targets.reshape(-1).to(_flambeau.int64)
    start = 0
    rows = []
    width = targets.shape[-1] if targets.dim() == 2 else 0
    for i, size in enumerate(sizes):
        begin = i * width if targets.dim() == 2 else start
        row = flat[begin : begin + size]
        start += size
        rows.append(ops.cat([row, ops.full((longest - size,), blank, dtype=row.dtype, device=row.device)], 0))
    labels = ops.stack(rows, 0).to(scores.device)
    # The alignment's states are blank, l₁, blank, l₂, …, blank.
    blanks = ops.full((batch, longest, 1), blank, dtype=labels.dtype, device=labels.device)
    end = ops.full((batch, 1), blank, dtype=labels.dtype, device=labels.device)
    states = ops.cat([ops.cat([blanks, labels.unsqueeze(2)], 2).reshape(batch, -1), end], 1)
    width = states.shape[1]
    emitted = scores.gather(2, states.unsqueeze(0).expand(steps, batch, width))
    # Finite, so that gradients of impossible paths are zero rather than not a number.
    never = -1e30
    skip = ops.zeros((batch, min(width, 2)), dtype=_flambeau.bool, device=scores.device)
    if width > 2:
        skip = ops.cat([skip, states[:, 2:] != states[:, :-2]], 1)
    outside = ops.full((batch, 2), never, dtype=scores.dtype, device=scores.device)
    first = ops.arange(width, device=scores.device) < 2
    alpha = ops.where(first, emitted[0], ops.full_like(emitted[0], never))
    history = [alpha]
    for t in range(1, steps):
        padded = ops.cat([outside, alpha], 1)
        one, two = padded[:, 1:-1], ops.where(skip, padded[:, :-2], ops.full_like(alpha, never))
        alpha = ops.logsumexp(ops.stack([alpha, one, two], 0), 0) + emitted[t]
        history.append(alpha)
    trellis = ops.stack(history, 0)
    ends = ops.tensor([max(n - 1, 0) for n in lengths], device=scores.device)
    last = trellis.gather(0, ends.reshape(1, -1, 1).expand(1, batch, width)).squeeze(0)
    final = ops.tensor([[2 * s, max(2 * s - 1, 0)] for s in sizes], device=scores.device)
    picked = last.gather(1, final)
    only = ops.tensor([[False, s == 0] for s in sizes], device=scores.device)
    loss = -ops.logsumexp(picked.masked_fill(only, never), 1)
    if 0 in lengths:
        # Of no steps only nothing can be read, and that surely.
        none = ops.tensor([n == 0 for n in lengths], device=scores.device)
        least = ops.tensor([0.0 if size == 0 else -never for size in sizes], dtype=loss.dtype, device=scores.device)
        loss = ops.where(none, least, loss)
    impossible = loss > 1e29
    if zero_infinity:
        loss = ops.where(impossible, ops.zeros_like(loss), loss)
    else:
        loss = ops.where(impossible, ops.full_like(loss, float("inf")), loss)
    # The inputs are taken to be normalised, so that a step's gradient is its probabilities minus their expectation under
    # the alignments: the probabilities enter as a term of value zero.
    counted = ops.arange(steps, device=scores.device).unsqueeze(1) < ops.tensor(lengths, device=scores.device)
    mass = (scores.exp().sum(2) * counted.to(scores.dtype)).sum(0)
    mass = mass - mass.detach()
    loss = loss + (mass.masked_fill(impossible, 0) if zero_infinity else mass)
    if reduction == "mean":
        loss = (loss / ops.tensor([max(s, 1) for s in sizes], dtype=loss.dtype, device=loss.device)).mean()
        return loss.to(log_probs.dtype)
    loss = loss if batched else loss.squeeze(0)
    return _reduce(loss, reduction).to(log_probs.dtype)


__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy", "ctc_loss",
    "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "linear_cross_entropy",
    "margin_ranking_loss", "mse_loss", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "nll_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]  # fmt: skip
