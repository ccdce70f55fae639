"""Optimizers with a step size for each element, written in tensor operators."""

from __future__ import annotations

import math
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops
from .optimizer import Optimizer, _check, _number, _state, _zeros_like


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


def _flags(foreach: Any, maximize: bool, capturable: bool, differentiable: bool) -> dict[str, Any]:
    return {"foreach": foreach, "maximize": maximize, "capturable": capturable, "differentiable": differentiable}


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
        super().__init__(params, {**defaults, **_flags(foreach, maximize, capturable, differentiable)})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        rho, eps, lr = group["rho"], group["eps"], _number(group["lr"])
        create = lambda p: {"step": _counter(), "square_avg": _zeros_like(p), "acc_delta": _zeros_like(p)}  # noqa: E731
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            _tick(s)
            g = _prepare(group, p, g)
            s["square_avg"].mul_(rho).addcmul_(g, g, value=1 - rho)
            std = s["square_avg"].add(eps).sqrt_()
            delta = s["acc_delta"].add(eps).sqrt_().div_(std).mul_(g)
            s["acc_delta"].mul_(rho).addcmul_(delta, delta, value=1 - rho)
            p.add_(delta, alpha=-lr)


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
        _check(initial_accumulator_value >= 0.0, f"Invalid initial_accumulator_value value: {initial_accumulator_value}")
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
            p.addcdiv_(g, s["sum"].sqrt().add_(group["eps"]), value=-rate)


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
        super().__init__(params, {**defaults, **_flags(foreach, maximize, capturable, differentiable)})

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
            scale = scale.add_(group["eps"])
            if group["momentum"] > 0:
                s["momentum_buffer"].mul_(group["momentum"]).addcdiv_(g, scale)
                p.add_(s["momentum_buffer"], alpha=-lr)
            else:
                p.addcdiv_(g, scale, value=-lr)


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
        super().__init__(params, {**defaults, **_flags(foreach, maximize, capturable, differentiable)})

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


class Adamax(Optimizer):
    """Adam with the infinity norm (Kingma and Ba, 2014)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, **_flags(foreach, maximize, capturable, differentiable)})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        create = lambda p: {"step": _counter(), "exp_avg": _zeros_like(p), "exp_inf": _zeros_like(p)}  # noqa: E731
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            step = _tick(s)
            g = _prepare(group, p, g)
            s["exp_avg"].lerp_(g, 1 - beta1)
            s["exp_inf"].copy_(ops.maximum(s["exp_inf"] * beta2, g.abs() + group["eps"]))
            p.addcdiv_(s["exp_avg"], s["exp_inf"], value=-_number(group["lr"]) / (1 - beta1**step))


def _check_adam(lr: Any, betas: Any, eps: float, weight_decay: float) -> None:
    _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
    _check(eps >= 0.0, f"Invalid epsilon value: {eps}")
    for i in range(2):
        _check(0.0 <= betas[i] < 1.0, f"Invalid beta parameter at index {i}: {betas[i]}")
    _check(weight_decay >= 0.0, f"Invalid weight_decay value: {weight_decay}")


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat, 2016)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        _check(momentum_decay >= 0.0, f"Invalid momentum_decay value: {momentum_decay}")
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, {**defaults, **_flags(foreach, maximize, capturable, differentiable)})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        lr, decay, psi = _number(group["lr"]), group["weight_decay"], group["momentum_decay"]

        def create(p: Tensor) -> dict[str, Any]:
            product = _flambeau.tensor(1.0)
            return {"step": _counter(), "mu_product": product, "exp_avg": _zeros_like(p), "exp_avg_sq": _zeros_like(p)}

        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            step = _tick(s)
            if group["decoupled_weight_decay"] and decay:
                p.mul_(1 - lr * decay)
            g = _prepare(group, p, g, decay=not group["decoupled_weight_decay"])
            mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * psi))
            mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * psi))
            s["mu_product"] *= mu
            product = float(s["mu_product"])
            s["exp_avg"].lerp_(g, 1 - beta1)
            s["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
            scale = s["exp_avg_sq"].div(1 - beta2**step).sqrt_().add_(group["eps"])
            p.addcdiv_(g, scale, value=-lr * (1.0 - mu) / (1.0 - product))
            p.addcdiv_(s["exp_avg"], scale, value=-lr * mu_next / (1.0 - product * mu_next))


class RAdam(Optimizer):
    """Adam with the variance of its step size rectified (Liu et al., 2019)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, {**defaults, **_flags(foreach, maximize, capturable, differentiable)})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        lr, decay = _number(group["lr"]), group["weight_decay"]
        create = lambda p: {"step": _counter(), "exp_avg": _zeros_like(p), "exp_avg_sq": _zeros_like(p)}  # noqa: E731
        for p, g, s in zip(params, grads, _state(self, params, create), strict=True):
            step = _tick(s)
            if group["decoupled_weight_decay"] and decay:
                p.mul_(1 - lr * decay)
            g = _prepare(group, p, g, decay=not group["decoupled_weight_decay"])
            s["exp_avg"].lerp_(g, 1 - beta1)
            s["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
            correction2 = 1 - beta2**step
            momentum = s["exp_avg"] / (1 - beta1**step)
            rho_inf = 2 / (1 - beta2) - 1
            rho = rho_inf - 2 * step * (beta2**step) / correction2
            if rho > 5.0:
                rectified = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
                adaptive = math.sqrt(correction2) / s["exp_avg_sq"].sqrt().add_(group["eps"])
                p.add_(momentum * lr * adaptive * rectified, alpha=-1.0)
            else:
                p.add_(momentum * lr, alpha=-1.0)


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
        super().__init__(params, {**defaults, **_flags(foreach, maximize, capturable, differentiable)})

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


__all__ = ["ASGD", "Adadelta", "Adagrad", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SparseAdam"]
