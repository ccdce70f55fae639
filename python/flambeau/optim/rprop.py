"""Rprop."""

from __future__ import annotations

from typing import Any

from .._flambeau import Tensor
from .._ops import ops
from ._common import _counter, _prepare, _tick
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


class Rprop(Optimizer):
    """Step sizes that grow while the gradient keeps its sign (Riedmiller and Braun, 1993)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
        _check(0.0 < etas[0] < 1.0 < etas[1], f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {"lr": lr, "etas": etas, "step_sizes": step_sizes}
        flags = {"foreach": foreach, "maximize": maximize, "differentiable": differentiable, "capturable": capturable}
        super().__init__(params, {**defaults, **flags})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        (shrink, grow), (low, high) = group["etas"], group["step_sizes"]
        create = lambda p: {  # noqa: E731
            "step": _counter(), "prev": _zeros_like(p), "step_size": ops.full_like(p.detach(), _number(group["lr"])),
        }  # fmt: skip
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            _tick(s)
            g = _prepare(group, p, g, decay=False)
            agreement = g * s["prev"]
            one = ops.ones_like(g)
            factor = ops.where(agreement > 0, one * grow, ops.where(agreement < 0, one * shrink, one))
            s["step_size"].mul_(factor).clamp_(low, high)
            # Where the sign turned, this step is left out.
            g = g.masked_fill(agreement < 0, 0)
            p.addcmul_(g.sign(), s["step_size"], value=-1)
            s["prev"].copy_(g)


__all__ = ["Rprop"]
