"""Adam."""

from __future__ import annotations

from typing import Any

from .. import _flambeau
from .._flambeau import Tensor, _optimizer_step
from .optimizer import Optimizer, _check, _number, _zeros_like


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2014), with AMSGrad and decoupled weight decay as options."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
        if foreach and not capturable:
            _check(not isinstance(lr, Tensor), "lr as a Tensor is not supported for capturable=False and foreach=True")
            for i in range(2):
                _check(
                    not isinstance(betas[i], Tensor),
                    f"betas[{i}] as a Tensor is not supported for capturable=False and foreach=True",
                )
        _check(
            isinstance(betas[0], Tensor) == isinstance(betas[1], Tensor),
            "betas must be either both floats or both Tensors",
        )
        _check(eps >= 0.0, f"Invalid epsilon value: {eps}")
        _check(0.0 <= _number(betas[0]) < 1.0, f"Invalid beta parameter at index 0: {betas[0]}")
        _check(0.0 <= _number(betas[1]) < 1.0, f"Invalid beta parameter at index 1: {betas[1]}")
        _check(weight_decay >= 0.0, f"Invalid weight_decay value: {weight_decay}")
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )
        # The counters of the states as plain numbers: reading a tensor at every step would cost more than the update.
        self._steps: dict[Tensor, tuple[Tensor, int]] = {}

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        amsgrad = group["amsgrad"]
        beta1, beta2 = group["betas"]
        by_step: dict[int, list[list[Tensor]]] = {}
        counters = []
        for p, g in zip(params, grads, strict=True):
            state = self.state[p]
            if not state:
                state["step"] = _flambeau.tensor(0.0)
                state["exp_avg"] = _zeros_like(p)
                state["exp_avg_sq"] = _zeros_like(p)
                if amsgrad:
                    state["max_exp_avg_sq"] = _zeros_like(p)
            counter = state["step"]
            known = self._steps.get(p)
            step = (known[1] if known is not None and known[0] is counter else int(counter)) + 1
            self._steps[p] = (counter, step)
            counters.append(counter)
            lists = by_step.get(step)
            if lists is None:
                lists = by_step[step] = [[], [], [], [], []] if amsgrad else [[], [], [], []]
            lists[0].append(p)
            lists[1].append(g)
            lists[2].append(state["exp_avg"])
            lists[3].append(state["exp_avg_sq"])
            if amsgrad:
                lists[4].append(state["max_exp_avg_sq"])
        numbers = {
            "lr": _number(group["lr"]),
            "beta1": _number(beta1),
            "beta2": _number(beta2),
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
            "decoupled": group["decoupled_weight_decay"],
            "amsgrad": amsgrad,
            "maximize": group["maximize"],
        }
        for step, lists in by_step.items():
            numbers["step"] = step
            _optimizer_step("adam", lists, numbers)
        for counter in counters:
            counter += 1

    def _forget(self, param: Tensor) -> None:
        self._steps.pop(param, None)

    def _differentiable_update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        amsgrad, eps = group["amsgrad"], group["eps"]
        lr, decay = group["lr"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        for p, g in zip(params, grads, strict=True):
            state = self.state[p]
            if not state:
                state["step"] = _flambeau.tensor(0.0)
                for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else [])):
                    state[name] = _zeros_like(p)
            state["step"] += 1
            step = int(state["step"])
            if group["maximize"]:
                g = -g
            if decay != 0 and group["decoupled_weight_decay"]:
                p.mul_(1 - lr * decay)
            elif decay != 0:
                g = g + decay * p
            # Out of place where a later step still reads what this one recorded.
            state["exp_avg"] = mean = state["exp_avg"] + (g - state["exp_avg"]) * (1 - beta1)
            state["exp_avg_sq"] = square = state["exp_avg_sq"] * beta2 + (1 - beta2) * g * g.conj()
            if amsgrad:
                state["max_exp_avg_sq"] = square = _flambeau.maximum(state["max_exp_avg_sq"], square)
            scale = (square / (1 - beta2**step)).sqrt() + eps
            p.add_(-(lr / (1 - beta1**step)) * mean / scale)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._steps = {}


__all__ = ["Adam"]
