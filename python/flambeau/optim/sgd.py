"""Stochastic gradient descent, a group in one call of the extension."""

from __future__ import annotations

from typing import Any

from .._flambeau import Tensor, _any_sparse, _optimizer_step
from .optimizer import Optimizer, _check, _number, _zeros_like


class SGD(Optimizer):
    """p -= lr · (g + weight_decay · p), with momentum, dampening and Nesterov's form."""

    _sparse = True

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: Any = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
        _check(momentum >= 0.0, f"Invalid momentum value: {momentum}")
        _check(_number(weight_decay) >= 0.0, f"Invalid weight_decay value: {weight_decay}")
        _check(not nesterov or (momentum > 0 and dampening == 0), "Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "foreach": foreach,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        if _any_sparse(grads):
            if not group["momentum"] and not _number(group["weight_decay"]):
                # Only the rows that are there are written.
                rate = _number(group["lr"]) if group["maximize"] else -_number(group["lr"])
                pairs = list(zip(params, grads, strict=True))
                for p, g in pairs:
                    if g.is_sparse:
                        p.add_(g, alpha=rate)
                params = [p for p, g in pairs if not g.is_sparse]
                grads = [g for _, g in pairs if not g.is_sparse]
            else:
                grads = [g.to_dense() if g.is_sparse else g for g in grads]
        if not group["momentum"]:
            _optimizer_step("sgd", [params, grads, []], group)
            return
        state = self.state
        buffers = [state[p].get("momentum_buffer") for p in params]
        fresh = [i for i, buffer in enumerate(buffers) if buffer is None]
        if fresh:
            # Buffers start as the first gradient, so that parameters on their first step go by themselves.
            for i in fresh:
                state[params[i]]["momentum_buffer"] = buffers[i] = _zeros_like(params[i])
            lists = [params, grads, buffers]
            _optimizer_step("sgd", [[x[i] for i in fresh] for x in lists], {**group, "first": True})
            seen = [i for i in range(len(params)) if i not in fresh]
            params, grads, buffers = ([x[i] for i in seen] for x in lists)
        if params:
            _optimizer_step("sgd", [params, grads, buffers], group)

    def _differentiable_update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        momentum, decay = group["momentum"], group["weight_decay"]
        for p, g in zip(params, grads, strict=True):
            if group["maximize"]:
                g = -g
            if _number(decay) != 0:
                g = g + decay * p
            if momentum:
                buffer = self.state[p].get("momentum_buffer")
                buffer = g.clone() if buffer is None else buffer * momentum + (1 - group["dampening"]) * g
                self.state[p]["momentum_buffer"] = buffer
                g = g + momentum * buffer if group["nesterov"] else buffer
            p.add_(-group["lr"] * g)


__all__ = ["SGD"]
