"""Limited-memory BFGS (Nocedal and Wright, Numerical Optimization, chapters 3 and 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._flambeau import Tensor
from .._ops import ops
from ..autograd.grad_mode import enable_grad, no_grad
from .optimizer import Optimizer, _check, _number


def _cubic_minimum(x1: float, f1: float, g1: float, x2: float, f2: float, g2: float, bounds: Any = None) -> float:
    """The minimum of the cubic through two points with slopes, within bounds."""
    low, high = bounds if bounds is not None else (min(x1, x2), max(x1, x2))
    if x1 > x2:
        x1, f1, g1, x2, f2, g2 = x2, f2, g2, x1, f1, g1
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if square < 0:
        return (low + high) / 2
    d2 = square**0.5
    position = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    return min(max(position, low), high)


def _strong_wolfe(
    evaluate: Callable[[float], tuple[float, Tensor, float]],
    t: float,
    longest: float,
    f0: float,
    g0: Tensor,
    slope0: float,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance: float = 1e-9,
    max_evaluations: int = 25,
) -> tuple[float, Tensor, float, int]:
    """A step length of sufficient decrease and small slope: loss, gradient, length and evaluations made.

    `evaluate(t)` gives the loss, the gradient and the slope along the direction at step t.
    """
    f, g, slope = evaluate(t)
    evaluations = 1
    t_prev, f_prev, g_prev, slope_prev = 0.0, f0, g0, slope0
    bracket: list[tuple[float, float, Tensor, float]] = []
    done = False
    iteration = 0
    while iteration < max_evaluations:
        if f > f0 + c1 * t * slope0 or (iteration > 1 and f >= f_prev):
            bracket = [(t_prev, f_prev, g_prev, slope_prev), (t, f, g, slope)]
            break
        if abs(slope) <= -c2 * slope0:
            bracket, done = [(t, f, g, slope)], True
            break
        if slope >= 0:
            bracket = [(t_prev, f_prev, g_prev, slope_prev), (t, f, g, slope)]
            break
        # Extrapolate, at least a little and at most tenfold.
        bounds = (t + 0.01 * (t - t_prev), t * 10)
        t_next = _cubic_minimum(t_prev, f_prev, slope_prev, t, f, slope, bounds)
        t_prev, f_prev, g_prev, slope_prev = t, f, g, slope
        t = t_next
        f, g, slope = evaluate(t)
        evaluations += 1
        iteration += 1
    if iteration == max_evaluations:
        bracket = [(0.0, f0, g0, slope0), (t, f, g, slope)]
    stalled = False
    low, high = (0, 1) if bracket[0][1] <= bracket[-1][1] else (1, 0)
    while not done and iteration < max_evaluations:
        (ta, fa, _, sa), (tb, fb, _, sb) = bracket
        if abs(tb - ta) * longest < tolerance:
            break
        t = _cubic_minimum(ta, fa, sa, tb, fb, sb)
        # A point close to an end twice in a row is moved a tenth of the bracket inside.
        left, right = min(ta, tb), max(ta, tb)
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            if stalled or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        f, g, slope = evaluate(t)
        evaluations += 1
        iteration += 1
        if f > f0 + c1 * t * slope0 or f >= bracket[low][1]:
            bracket[high] = (t, f, g, slope)
            low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
        else:
            if abs(slope) <= -c2 * slope0:
                done = True
            elif slope * (bracket[high][0] - bracket[low][0]) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = (t, f, g, slope)
    t, f, g, _ = bracket[low if len(bracket) > 1 else 0]
    return f, g, t, evaluations


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last gradients; `step` needs a closure, called several times."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        _check(_number(lr) >= 0.0, f"Invalid learning rate: {lr}")
        super().__init__(
            params,
            {
                "lr": lr,
                "max_iter": max_iter,
                "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad,
                "tolerance_change": tolerance_change,
                "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    def _gradient(self) -> Tensor:
        parts = []
        for p in self._params:
            part = p.detach() * 0 if p.grad is None else p.grad.to_dense() if p.grad.is_sparse else p.grad
            # A complex parameter counts as twice as many real ones.
            part = ops.view_as_real(part.resolve_conj()) if part.is_complex() else part
            parts.append(part.reshape(-1))
        return ops.cat(parts, 0).clone()  # type: ignore[no-any-return]

    def _add(self, t: float, direction: Tensor) -> None:
        start = 0
        for p in self._params:
            real = ops.view_as_real(p.detach()) if p.is_complex() else p
            stop = start + real.numel()
            real.add_(direction[start:stop].view_as(real), alpha=t)
            start = stop

    def _step(self, closure: Any) -> Any:
        if closure is None:
            raise TypeError("LBFGS.step() needs a closure that computes the loss again")
        run = enable_grad()(closure)
        with no_grad():
            return self._minimise(run)

    def _minimise(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        lr = _number(group["lr"])
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first_loss = closure()
        loss = float(first_loss)
        evaluations = 1
        state["func_evals"] += 1
        gradient = self._gradient()
        if float(gradient.abs().max()) <= group["tolerance_grad"]:
            return first_loss
        direction, t = state.get("d"), state.get("t")
        steps, differences = state.get("old_stps", []), state.get("old_dirs", [])
        inverse, scale = [float(r) for r in state.get("ro", [])], float(state.get("H_diag", 1.0))
        t = None if t is None else float(t)
        prev_gradient, prev_loss = state.get("prev_flat_grad"), state.get("prev_loss")
        iterations = 0
        while iterations < group["max_iter"]:
            iterations += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                direction, steps, differences, inverse, scale = -gradient, [], [], [], 1.0
            else:
                y, s = gradient - prev_gradient, direction * t
                ys = float(y.dot(s))
                if ys > 1e-10:
                    if len(differences) == group["history_size"]:
                        differences.pop(0), steps.pop(0), inverse.pop(0)
                    differences.append(y)
                    steps.append(s)
                    inverse.append(1.0 / ys)
                    scale = ys / float(y.dot(y))
                # The two-loop recursion.
                weights = state.setdefault("al", [None] * group["history_size"])
                q = -gradient
                alphas = [0.0] * len(steps)
                for i in reversed(range(len(steps))):
                    alphas[i] = float(steps[i].dot(q)) * inverse[i]
                    q = q - alphas[i] * differences[i]
                    weights[i] = alphas[i]
                direction = q * scale
                for i in range(len(steps)):
                    beta = float(differences[i].dot(direction)) * inverse[i]
                    direction = direction + steps[i] * (alphas[i] - beta)
            prev_gradient, prev_loss = gradient, loss
            t = min(1.0, 1.0 / float(gradient.abs().sum())) * lr if state["n_iter"] == 1 else lr
            slope = float(gradient.dot(direction))
            if slope > -group["tolerance_change"]:
                break
            made = 0
            if group["line_search_fn"] is not None:
                if group["line_search_fn"] != "strong_wolfe":
                    raise RuntimeError("only 'strong_wolfe' is supported")
                start = [p.clone() for p in self._params]
                along = direction

                def evaluate(
                    step: float, start: list[Tensor] = start, along: Tensor = along
                ) -> tuple[float, Tensor, float]:
                    self._add(step, along)
                    value = float(closure())
                    g = self._gradient()
                    for p, saved in zip(self._params, start, strict=True):
                        p.copy_(saved)
                    return value, g, float(g.dot(along))

                longest = float(direction.abs().max())
                loss, gradient, t, made = _strong_wolfe(evaluate, t, longest, loss, gradient, slope)
                self._add(t, direction)
                converged = float(gradient.abs().max()) <= group["tolerance_grad"]
            else:
                self._add(t, direction)
                converged = False
                if iterations != group["max_iter"]:
                    loss = float(closure())
                    gradient = self._gradient()
                    converged = float(gradient.abs().max()) <= group["tolerance_grad"]
                    made = 1
            evaluations += made
            state["func_evals"] += made
            if iterations == group["max_iter"] or evaluations >= group["max_eval"] or converged:
                break
            if float((direction * t).abs().max()) <= group["tolerance_change"]:
                break
            if abs(loss - prev_loss) < group["tolerance_change"]:
                break
        # Numbers that PyTorch computes as tensors are filed as such.
        as_tensor = gradient.new_tensor
        if "al" in state:
            state["al"] = [None if a is None else as_tensor(a) for a in state["al"]]
            scale, inverse = as_tensor(scale), [as_tensor(r) for r in inverse]
        state.update(
            d=direction, t=t, old_dirs=differences, old_stps=steps, ro=inverse, H_diag=scale,
            prev_flat_grad=prev_gradient, prev_loss=prev_loss,
        )  # fmt: skip
        return first_loss


__all__ = ["LBFGS"]
