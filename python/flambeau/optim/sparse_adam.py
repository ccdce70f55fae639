"""Adam for sparse gradients."""

from __future__ import annotations

import math
from typing import Any

from .._flambeau import Tensor
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


class SparseAdam(Optimizer):
    """Adam that only touches the rows a sparse gradient names."""

    _sparse = True

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        _check(_number(lr) > 0.0, f"Invalid learning rate: {lr}")
        _check(eps > 0.0, f"Invalid epsilon value: {eps}")
        for i in range(2):
            _check(0.0 <= betas[i] < 1.0, f"Invalid beta parameter at index {i}: {betas[i]}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        places = [(i, j, p) for i, group in enumerate(self.param_groups) for j, p in enumerate(group["params"])]
        sparse = [[i, j] for i, j, p in places if p.is_sparse]
        _check(not sparse, f"Sparse params at indices {sparse}: SparseAdam requires dense parameter tensors")
        complexes = [[i, j] for i, j, p in places if p.is_complex()]
        _check(not complexes, f"Complex params at indices {complexes}: SparseAdam does not support complex parameters")

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        create = lambda p: {"step": 0, "exp_avg": _zeros_like(p), "exp_avg_sq": _zeros_like(p)}  # noqa: E731
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            if not g.is_sparse:
                raise RuntimeError("SparseAdam does not support dense gradients, please consider Adam instead")
            s["step"] += 1
            step = s["step"]
            g = g.coalesce()
            if g.values().numel() == 0:
                continue
            index = tuple(g.indices().unbind(0))
            values = -g.values() if group["maximize"] else g.values()
            mean, square = s["exp_avg"][index], s["exp_avg_sq"][index]
            mean = mean + (values - mean) * (1 - beta1)
            square = square + (values * values - square) * (1 - beta2)
            s["exp_avg"][index] = mean
            s["exp_avg_sq"][index] = square
            rate = _number(group["lr"]) * math.sqrt(1 - beta2**step) / (1 - beta1**step)
            p[index] = p[index] - rate * mean / (square.sqrt() + group["eps"])


__all__ = ["SparseAdam"]
