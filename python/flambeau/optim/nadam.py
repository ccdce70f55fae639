"""NAdam."""

from __future__ import annotations

from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from ._common import _check_adam, _counter, _prepare, _tick
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat, 2016)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        _check(momentum_decay >= 0.0, f"Invalid momentum_decay value: {momentum_decay}")
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        flags = {"maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, {**defaults, **flags})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        lr, decay, psi = _number(group["lr"]), group["weight_decay"], group["momentum_decay"]

        def create(p: Tensor) -> dict[str, Any]:
            product = _flambeau.tensor(1.0)
            return {"step": _counter(), "mu_product": product, "exp_avg": _zeros_like(p), "exp_avg_sq": _zeros_like(p)}

        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            step = _tick(s)
            if group["decoupled_weight_decay"] and decay:
                p.mul_(1 - lr * decay)
            g = _prepare(group, p, g, decay=not group["decoupled_weight_decay"])
            mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * psi))
            mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * psi))
            s["mu_product"] *= mu
            product = float(s["mu_product"])
            s["exp_avg"].lerp_(g, 1 - beta1)
            s["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
            scale = s["exp_avg_sq"].div(1 - beta2**step).sqrt_().add(group["eps"])
            p.addcdiv_(g, scale, value=-lr * (1.0 - mu) / (1.0 - product))
            mean = s["exp_avg"].clone() if group["differentiable"] else s["exp_avg"]
            p.addcdiv_(mean, scale, value=-lr * mu_next / (1.0 - product * mu_next))


__all__ = ["NAdam"]
