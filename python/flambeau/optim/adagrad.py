"""Adagrad."""

from __future__ import annotations

from typing import Any

from .._flambeau import Tensor
from .._ops import ops
from ._common import _counter, _prepare, _tick
from .optimizer import Optimizer, _check, _number


class Adagrad(Optimizer):
    """Steps over the root of the sum of squared gradients (Duchi et al., 2011)."""

    _sparse = True

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
        _check(lr_decay >= 0.0, f"Invalid lr_decay value: {lr_decay}")
        _check(weight_decay >= 0.0, f"Invalid weight_decay value: {weight_decay}")
        _check(
            initial_accumulator_value >= 0.0, f"Invalid initial_accumulator_value value: {initial_accumulator_value}"
        )
        _check(eps >= 0.0, f"Invalid epsilon value: {eps}")
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "eps": eps,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "fused": fused,
            },
        )
        for group in self.param_groups:
            for p in group["params"]:
                self._create(group, p)

    def _create(self, group: dict[str, Any], p: Tensor) -> None:
        start = group["initial_accumulator_value"]
        if p.is_complex():
            start = complex(start, start)
        self.state[p].update(step=_counter(), sum=ops.full_like(p.detach(), start))

    def share_memory(self) -> None:
        """Moves the sums to shared memory."""
        for state in self.state.values():
            state["sum"].share_memory_()

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        for p, g in zip(params, grads, strict=True):
            if not self.state[p]:
                self._create(group, p)
            s = self.state[p]
            step = _tick(s)
            if g.is_sparse and group["weight_decay"] != 0:
                raise RuntimeError("weight_decay option is not compatible with sparse gradients")
            g = _prepare(group, p, g.to_dense() if g.is_sparse else g)
            rate = _number(group["lr"]) / (1 + (step - 1) * group["lr_decay"])
            s["sum"].addcmul_(g, g, value=1)
            p.addcdiv_(g, s["sum"].sqrt().add(group["eps"]), value=-rate)


__all__ = ["Adagrad"]
