"""Adadelta."""

from __future__ import annotations

from typing import Any

from .._flambeau import Tensor
from ._common import _counter, _prepare, _tick
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


class Adadelta(Optimizer):
    """Steps of the size of recent steps over recent gradients (Zeiler, 2012)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
        _check(0.0 <= rho <= 1.0, f"Invalid rho value: {rho}")
        _check(eps >= 0.0, f"Invalid epsilon value: {eps}")
        _check(weight_decay >= 0.0, f"Invalid weight_decay value: {weight_decay}")
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
        flags = {"maximize": maximize, "capturable": capturable, "foreach": foreach, "differentiable": differentiable}
        super().__init__(params, {**defaults, **flags})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        rho, eps, lr = group["rho"], group["eps"], _number(group["lr"])
        create = lambda p: {"step": _counter(), "square_avg": _zeros_like(p), "acc_delta": _zeros_like(p)}  # noqa: E731
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            _tick(s)
            g = _prepare(group, p, g)
            s["square_avg"].mul_(rho).addcmul_(g, g, value=1 - rho)
            std = s["square_avg"].add(eps).sqrt_()
            # What is recorded of a root is the root itself: it may not be written on.
            delta = s["acc_delta"].add(eps).sqrt_().div(std).mul(g)
            s["acc_delta"].mul_(rho).addcmul_(delta, delta, value=1 - rho)
            p.add_(delta, alpha=-lr)


__all__ = ["Adadelta"]
