"""RMSprop."""

from __future__ import annotations

from typing import Any

from .._flambeau import Tensor
from ._common import _counter, _prepare, _tick
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


class RMSprop(Optimizer):
    """Steps over the root of a moving mean of squared gradients (Hinton), optionally centred."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
        _check(eps >= 0.0, f"Invalid epsilon value: {eps}")
        _check(momentum >= 0.0, f"Invalid momentum value: {momentum}")
        _check(weight_decay >= 0.0, f"Invalid weight_decay value: {weight_decay}")
        _check(alpha >= 0.0, f"Invalid alpha value: {alpha}")
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered, "weight_decay": weight_decay,
        }  # fmt: skip
        flags = {"capturable": capturable, "foreach": foreach, "maximize": maximize, "differentiable": differentiable}
        super().__init__(params, {**defaults, **flags})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        alpha, lr = group["alpha"], _number(group["lr"])

        def create(p: Tensor) -> dict[str, Any]:
            state = {"step": _counter(), "square_avg": _zeros_like(p)}
            if group["momentum"] > 0:
                state["momentum_buffer"] = _zeros_like(p)
            if group["centered"]:
                state["grad_avg"] = _zeros_like(p)
            return state

        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            _tick(s)
            g = _prepare(group, p, g)
            s["square_avg"].mul_(alpha).addcmul_(g, g, value=1 - alpha)
            if group["centered"]:
                s["grad_avg"].lerp_(g, 1 - alpha)
                scale = s["square_avg"].addcmul(s["grad_avg"], s["grad_avg"], value=-1).sqrt_()
            else:
                scale = s["square_avg"].sqrt()
            scale = scale.add(group["eps"])
            if group["momentum"] > 0:
                s["momentum_buffer"].mul_(group["momentum"]).addcdiv_(g, scale)
                p.add_(s["momentum_buffer"], alpha=-lr)
            else:
                p.addcdiv_(g, scale, value=-lr)


__all__ = ["RMSprop"]
