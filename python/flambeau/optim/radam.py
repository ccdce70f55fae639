"""RAdam."""

from __future__ import annotations

import math
from typing import Any

from .._flambeau import Tensor
from ._common import _check_adam, _counter, _prepare, _tick
from .optimizer import Optimizer, _number, _state, _zeros_like


class RAdam(Optimizer):
    """Adam with the variance of its step size rectified (Liu et al., 2019)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
        }  # fmt: skip
        flags = {
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, {**defaults, **flags})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        lr, decay = _number(group["lr"]), group["weight_decay"]
        create = lambda p: {"step": _counter(), "exp_avg": _zeros_like(p), "exp_avg_sq": _zeros_like(p)}  # noqa: E731
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            step = _tick(s)
            if group["decoupled_weight_decay"] and decay:
                p.mul_(1 - lr * decay)
            g = _prepare(group, p, g, decay=not group["decoupled_weight_decay"])
            s["exp_avg"].lerp_(g, 1 - beta1)
            s["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
            correction2 = 1 - beta2**step
            momentum = s["exp_avg"] / (1 - beta1**step)
            rho_inf = 2 / (1 - beta2) - 1
            rho = rho_inf - 2 * step * (beta2**step) / correction2
            if rho > 5.0:
                rectified = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
                adaptive = math.sqrt(correction2) / s["exp_avg_sq"].sqrt().add_(group["eps"])
                p.add_(momentum * lr * adaptive * rectified, alpha=-1.0)
            else:
                p.add_(momentum * lr, alpha=-1.0)


__all__ = ["RAdam"]
