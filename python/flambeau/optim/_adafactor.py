"""Adafactor."""

from __future__ import annotations

import math
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


class Adafactor(Optimizer):
    """Second moments kept as a row and a column (Shazeer and Stern, 2018)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Learning rate should be >= 0 but is: {lr}")
        _check(beta2_decay <= 0.0, f"beta2_decay should be <= 0 but is: {beta2_decay}")
        _check(eps[0] is None or eps[0] >= 0.0, f"epsilon1 should be >= 0 but is: {eps[0]}")
        _check(eps[1] >= 0.0, f"epsilon2 should be >= 0 but is: {eps[1]}")
        _check(d >= 1.0, f"Clipping threshold d should be >= 1 but is: {d}")
        _check(weight_decay >= 0.0, f"weight_decay should be >= 0 but is: {weight_decay}")
        super().__init__(
            params,
            {
                "lr": lr,
                "beta2_decay": beta2_decay,
                "eps": eps,
                "d": d,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "maximize": maximize,
            },
        )

    def _update_complex(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        raise RuntimeError("Adafactor does not support complex parameters")

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        lr, d = _number(group["lr"]), group["d"]

        def create(p: Tensor) -> dict[str, Any]:
            state: dict[str, Any] = {"step": _flambeau.tensor(0.0)}
            if p.dim() > 1:
                state["row_var"] = ops.zeros((*p.shape[:-1], 1), dtype=p.dtype, device=p.device)
                state["col_var"] = ops.zeros((*p.shape[:-2], 1, p.shape[-1]), dtype=p.dtype, device=p.device)
            else:
                state["variance"] = _zeros_like(p)
            return state

        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            if group["maximize"]:
                g = -g
            s["step"] += 1
            step = float(s["step"])
            eps1 = _flambeau.finfo(p.dtype).eps if group["eps"][0] is None else group["eps"][0]
            part = step ** group["beta2_decay"]
            rho = min(lr, 1 / math.sqrt(step))
            alpha = max(group["eps"][1], float(p.square().mean().sqrt())) * rho
            if group["weight_decay"] != 0:
                p.mul_(1 - lr * group["weight_decay"])
            if g.dim() > 1:
                s["row_var"].lerp_(g.square().mean(-1, keepdim=True), part)
                s["col_var"].lerp_(g.square().mean(-2, keepdim=True), part)
                variance = s["row_var"].matmul(s["col_var"])
                variance = variance / s["row_var"].mean(-2, keepdim=True).clamp(min=eps1)
            else:
                s["variance"].lerp_(g.square(), part)
                variance = s["variance"]
            update = variance.clamp(min=eps1 * eps1).rsqrt() * g
            size = float(update.square().mean().sqrt())
            p.add_(update, alpha=-alpha / max(1.0, size / d))


__all__ = ["Adafactor"]
