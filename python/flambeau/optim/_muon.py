"""Muon."""

from __future__ import annotations

import math
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


def _orthogonalise(g: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton–Schulz iterations towards the nearest semi-orthogonal matrix, in bfloat16."""
    if steps >= 100:
        raise ValueError("Number of steps must be less than 100 for computational efficiency")
    if g.dim() != 2:
        raise ValueError("Input tensor gradient must be a 2D matrix")
    a, b, c = coefficients
    half = _flambeau.bfloat16
    x = g.to(half)
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.t()
    x = x / x.float().norm().to(half).clamp(min=eps)
    for _ in range(steps):
        # Each line is one product plus a sum in float32, rounded once.
        x = x.float()
        gram = x.matmul(x.t()).to(half).float()
        gram = ops.addmm(gram, gram, gram, beta=b, alpha=c).to(half).float()
        x = ops.addmm(x, gram, x, beta=a).to(half)
    return x.t() if tall else x


class Muon(Optimizer):
    """Momentum, orthogonalised (Jordan et al., 2024); for the matrices of hidden layers."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        _check(not isinstance(lr, Tensor) or lr.numel() == 1, "Tensor lr must be 1-element")
        _check(_number(lr) >= 0.0, f"Learning rate should be >= 0 but is: {lr}")
        _check(momentum >= 0.0, f"momentum should be >= 0 but is: {momentum}")
        _check(weight_decay >= 0.0, f"weight decay should be >= 0 but is: {weight_decay}")
        _check(
            adjust_lr_fn in (None, "original", "match_rms_adamw"),
            f"Adjust learning rate function {adjust_lr_fn} is not supported",
        )
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_coefficients": ns_coefficients,
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
            },
        )
        for group in self.param_groups:
            for p in group["params"]:
                _check(
                    p.dim() == 2, f"Muon only supports 2D parameters whereas we found a parameter with size: {p.size()}"
                )

    def _update_complex(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        raise RuntimeError("Muon does not support complex parameters")

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        lr, momentum = _number(group["lr"]), group["momentum"]
        create = lambda p: {"momentum_buffer": _zeros_like(p)}  # noqa: E731
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            buffer = s["momentum_buffer"]
            buffer.lerp_(g, 1 - momentum)
            update = g.lerp(buffer, momentum) if group["nesterov"] else buffer
            update = _orthogonalise(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
            rows, cols = p.shape
            if group["adjust_lr_fn"] == "match_rms_adamw":
                rate = lr * 0.2 * math.sqrt(max(rows, cols))
            else:
                rate = lr * math.sqrt(max(1, rows / cols))
            p.mul_(1 - lr * group["weight_decay"])
            p.add_(update.to(p.dtype), alpha=-rate)


__all__ = ["Muon"]
