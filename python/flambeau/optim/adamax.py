"""Adamax."""

from __future__ import annotations

from typing import Any

from .._flambeau import Tensor
from .._ops import ops
from ._common import _check_adam, _counter, _prepare, _tick
from .optimizer import Optimizer, _number, _state, _zeros_like


class Adamax(Optimizer):
    """Adam with the infinity norm (Kingma and Ba, 2014)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        flags = {"foreach": foreach, "maximize": maximize, "differentiable": differentiable, "capturable": capturable}
        super().__init__(params, {**defaults, **flags})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        create = lambda p: {"step": _counter(), "exp_avg": _zeros_like(p), "exp_inf": _zeros_like(p)}  # noqa: E731
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            step = _tick(s)
            g = _prepare(group, p, g)
            s["exp_avg"].lerp_(g, 1 - beta1)
            largest = ops.maximum(s["exp_inf"] * beta2, g.abs() + group["eps"])
            s["exp_inf"].copy_(largest)
            mean = s["exp_avg"].clone() if group["differentiable"] else s["exp_avg"]
            p.addcdiv_(mean, largest, value=-_number(group["lr"]) / (1 - beta1**step))


__all__ = ["Adamax"]
