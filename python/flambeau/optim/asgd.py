"""Averaged SGD."""

from __future__ import annotations

from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from ._common import _counter, _prepare, _tick
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak and Juditsky, 1992)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
        _check(weight_decay >= 0.0, f"Invalid weight_decay value: {weight_decay}")
        defaults = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay}
        flags = {"foreach": foreach, "maximize": maximize, "differentiable": differentiable, "capturable": capturable}
        super().__init__(params, {**defaults, **flags})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        lr, lambd = _number(group["lr"]), group["lambd"]

        def create(p: Tensor) -> dict[str, Any]:
            return {"step": _counter(), "eta": _flambeau.tensor(lr), "mu": _flambeau.tensor(1.0), "ax": _zeros_like(p)}

        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            step = _tick(s)
            g = _prepare(group, p, g)
            eta, mu = float(s["eta"]), float(s["mu"])
            p.mul_(1 - lambd * eta)
            p.add_(g, alpha=-eta)
            if mu != 1:
                s["ax"].add_((p - s["ax"]).mul_(mu))
            else:
                s["ax"].copy_(p)
            s["eta"] = _flambeau.tensor(lr / ((1 + lambd * lr * step) ** group["alpha"]))
            s["mu"] = _flambeau.tensor(1 / max(1, step - group["t0"]))


__all__ = ["ASGD"]
