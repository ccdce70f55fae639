"""Some eigenpairs of large symmetric matrices, by LOBPCG."""

from __future__ import annotations

import math
from typing import Any

from . import _flambeau
from ._flambeau import Tensor
from ._ops import ops
from .autograd.grad_mode import is_grad_enabled, no_grad

_eigh = _flambeau.operators["linalg.eigh"]
_solve = _flambeau.operators["linalg.solve"]


def _orthonormal(s: Tensor, b: Tensor | None) -> Tensor:
    """A basis of the columns of `s`, orthonormal in the product of `b`; directions that depend on others are left out (the
    method SVQB of Stathopoulos and Wu, 2002, twice for the precision that the first time loses)."""
    for _ in range(2):
        gram = s.mT @ (s if b is None else b @ s)
        scale = gram.diagonal().clamp_min(0).sqrt()
        keep = scale > 0
        s, gram, scale = s[:, keep], gram[keep][:, keep], scale[keep]
        if s.shape[1] == 0:
            return s
        values, vectors = _eigh(gram / scale / scale.unsqueeze(-1))
        large = values > values[-1] * _flambeau.finfo(s.dtype).eps * s.shape[1]
        s = (s / scale) @ (vectors[:, large] / values[large].sqrt())
    return s


def _apart(s: Tensor, basis: Tensor, b: Tensor | None) -> Tensor:
    """What of `s` lies outside the span of an orthonormal basis."""
    for _ in range(2):
        s = s - basis @ (basis.mT @ (s if b is None else b @ s))
    return s


class _Worker:
    """The state of an iteration, as trackers see it."""

    def __init__(self, A: Tensor, B: Tensor | None, iK: Tensor | None, X: Tensor, count: int, largest: bool) -> None:
        self.A, self.B, self.iK, self.X = A, B, iK, X
        self.S = X
        self.E = X.new_zeros(X.shape[1])
        self.R = ops.zeros_like(X)
        self.iparams: dict[str, int] = {"m": A.shape[0], "n": X.shape[1], "k": count}
        self.bparams = {"largest": largest}
        self.fparams: dict[str, float] = {}
        self.ivars: dict[str, int] = {"istep": 0, "converged_count": 0}
        self.fvars: dict[str, float] = {}
        self.bvars: dict[str, bool] = {}
        self.tvars: dict[str, Tensor] = {}

    def ritz(self, basis: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The first `n` pairs of the problem within the span of an orthonormal basis: values, and coefficients of all."""
        values, z = _eigh(basis.mT @ (self.A @ basis))
        if self.bparams["largest"]:
            values, z = values.flip(0), z.flip(1)
        return values[:n], z

    def residual(self) -> None:
        """Residuals, and how many pairs from the first on have converged."""
        image = self.X if self.B is None else self.B @ self.X
        self.R = self.A @ self.X - image * self.E
        size = self.X.norm(dim=0) * (self.fvars["A_norm"] + self.E.abs() * self.fvars["B_norm"])
        self.tvars["rerr"] = relative = self.R.norm(dim=0) / size
        count = 0
        for error in relative.tolist():
            if not error < self.fparams["tol"]:
                break
            count += 1
        self.ivars["converged_count"] = count


def _pairs(
    A: Tensor,
    k: int,
    B: Tensor | None,
    X: Tensor,
    iK: Tensor | None,
    niter: int,
    tol: float,
    largest: bool,
    tracker: Any,
) -> tuple[Tensor, Tensor]:
    """Knyazev, "Toward the optimal preconditioned eigensolver" (2001), algorithm 5.1, with the basis of the Rayleigh-Ritz step
    orthonormalised as Hetmaniuk and Lehoucq (2006) advise."""
    n = X.shape[1]
    k = min(k, n)
    w = _Worker(A, B, iK, X, k, largest)
    norm = X.norm().item()
    w.fparams["tol"] = tol
    w.fvars = {
        "X_norm": norm,
        "A_norm": (A @ X).norm().item() / norm,
        "B_norm": 1.0 if B is None else (B @ X).norm().item() / norm,
    }
    basis = _orthonormal(X, B)
    w.E, z = w.ritz(basis, n)
    w.X = basis @ z[:, :n]
    step: Tensor | None = None
    w.residual()
    if tracker is not None:
        tracker(w)
    while w.ivars["converged_count"] < k and (niter < 0 or w.ivars["istep"] < niter):
        w.ivars["istep"] += 1
        done = w.ivars["converged_count"]
        search = w.R[:, done:] if iK is None else iK @ w.R[:, done:]
        if step is not None:
            search = ops.cat([search, step[:, done:]], 1)
        search = _orthonormal(_apart(search, w.X, B), B)
        if search.shape[1] == 0:
            break
        search = _apart(search, w.X, B)
        w.S = ops.cat([w.X, search], 1)
        w.E, z = w.ritz(w.S, n)
        # The new direction is what the step adds from outside the old block.
        step = search @ z[w.X.shape[1] :, :n]
        w.X = w.S @ z[:, :n]
        w.residual()
        if tracker is not None:
            tracker(w)
    return w.E[:k], w.X[:, :k]


def _differentiable(E: Tensor, X: Tensor, A: Tensor, B: Tensor | None) -> tuple[Tensor, Tensor]:
    """The pairs with their first-order perturbation: the values of Rayleigh's quotient, and the vectors' change through the
    pseudo-inverse of the matrix without the pair's own direction. Both terms are zero but for their gradients."""
    A = (A + A.mT) / 2
    metric = ops.eye(A.shape[-1], dtype=A.dtype, device=A.device) if B is None else (B + B.mT) / 2
    image = A @ X - metric @ X * E
    change = (X * image).sum(0)
    values = E + change - change.detach()
    columns = []
    for i in range(X.shape[1]):
        x = X[:, i]
        shifted = (A - E[i] * metric).detach()
        own = metric.detach() @ x
        force = image[:, i] - own * (x @ image[:, i])
        # The pair's own direction is moved away from zero, and answers to nothing that is left of the force.
        moved = _solve(shifted + ops.outer(own, own) * shifted.abs().amax().clamp_min(1), force)
        turn = -(moved - x * (own @ moved)) - x * (x @ (metric @ x)) / 2
        columns.append(x + turn - turn.detach())
    return values, ops.stack(columns, 1)


def _parts(t: Tensor | None, count: int) -> list[Any]:
    """The matrices of a batch; one matrix, or none, serves all."""
    if t is None or t.dim() == 2:
        return [t] * count
    return list(t.reshape(-1, *t.shape[-2:]))


def lobpcg(
    A: Tensor,
    k: int | None = None,
    B: Tensor | None = None,
    X: Tensor | None = None,
    n: int | None = None,
    iK: Tensor | None = None,
    niter: int | None = None,
    tol: float | None = None,
    largest: bool | None = None,
    method: str | None = None,
    tracker: Any = None,
    ortho_iparams: dict[str, int] | None = None,
    ortho_fparams: dict[str, float] | None = None,
    ortho_bparams: dict[str, bool] | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` largest (or smallest) eigenvalues of symmetric matrices, and their vectors, without factorising them.

    `A` is a matrix, dense or sparse, or a batch of dense ones; with `B`, positive definite, the problem is `A x = λ B x`. `X`
    holds the first guess, `n` random columns without it; `iK` is a preconditioner. A pair has converged when its residual is
    below `tol` relative to the norms. `method` and the parameters of orthonormalisation are taken and change nothing: one
    procedure serves both of PyTorch's. Gradients are those of dense matrices with distinct eigenvalues."""
    if A.shape[-2] != A.shape[-1]:
        raise AssertionError(f"A must be square, got shape {A.shape}")
    if B is not None and A.shape != B.shape:
        raise AssertionError(f"A and B must have the same shape, got {A.shape} and {B.shape}")
    if A.dtype not in (_flambeau.float32, _flambeau.float64):
        raise RuntimeError(f"lobpcg: expected matrices of float32 or float64, but got {A.dtype}")
    m = A.shape[-1]
    k = (1 if X is None else X.shape[-1]) if k is None else k
    n = (k if X is None else X.shape[-1]) if n is None else n
    if m < 3 * n:
        raise ValueError(
            f"lobpcg: a matrix of {m} rows is too small for blocks of {n} eigenpairs, which need {3 * n} rows; use linalg.eigh"
        )
    if k < 1:
        raise ValueError(f"lobpcg: the number of eigenpairs must be positive, but got {k}")
    if X is not None and tuple(X.shape) != (*A.shape[:-1], n):
        raise AssertionError(f"X shape mismatch: got {X.shape}, expected {(*A.shape[:-1], n)}")
    limit = _flambeau.finfo(A.dtype).eps ** 0.5 if tol is None else tol
    steps = 1000 if niter is None else niter
    batch = A.shape[:-2]
    start = ops.randn((*batch, m, n), dtype=A.dtype, device=A.device) if X is None else X.detach()
    with no_grad():
        if not batch:
            E, V = _pairs(A, k, B, start, iK, steps, limit, largest is not False, tracker)
        else:
            count = math.prod(batch)
            parts = [_parts(t, count) for t in (A, B, start, iK)]
            found = [
                _pairs(a, k, b, x, p, steps, limit, largest is not False, tracker)
                for a, b, x, p in zip(*parts, strict=True)
            ]
            E = ops.stack([f[0] for f in found]).reshape(*batch, -1)
            V = ops.stack([f[1] for f in found]).reshape(*batch, m, -1)
    if not is_grad_enabled() or not (A.requires_grad or (B is not None and B.requires_grad)):
        return E, V
    if A.is_sparse:
        raise RuntimeError("lobpcg: gradients exist for dense matrices only; call it on A.detach() or A.to_dense()")
    if not batch:
        return _differentiable(E, V, A, B)
    parts = [_parts(t, math.prod(batch)) for t in (V, A, B)]
    rows = [_differentiable(e, *part) for e, *part in zip(E.reshape(-1, E.shape[-1]), *parts, strict=True)]
    return ops.stack([r[0] for r in rows]).reshape(E.shape), ops.stack([r[1] for r in rows]).reshape(V.shape)
