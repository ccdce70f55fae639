"""What optimizers with a step size for each element share."""

from __future__ import annotations

from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .optimizer import _check, _number


def _prepare(group: dict[str, Any], p: Tensor, g: Tensor, decay: bool = True) -> Tensor:
    """The gradient as it enters the update: its sign for `maximize`, and the weight decay."""
    if group.get("maximize"):
        g = -g
    if decay and group["weight_decay"] != 0:
        g = g.add(p, alpha=_number(group["weight_decay"]))
    return g


def _tick(state: dict[str, Any]) -> int:
    state["step"] += 1
    return int(state["step"])


def _counter() -> Tensor:
    return _flambeau.tensor(0.0)


def _check_adam(lr: Any, betas: Any, eps: float, weight_decay: float) -> None:
    _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
    _check(eps >= 0.0, f"Invalid epsilon value: {eps}")
    for i in range(2):
        _check(0.0 <= betas[i] < 1.0, f"Invalid beta parameter at index {i}: {betas[i]}")
    _check(weight_decay >= 0.0, f"Invalid weight_decay value: {weight_decay}")
