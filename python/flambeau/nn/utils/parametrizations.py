"""Ready-made parametrizations: orthogonal matrices, weight and spectral normalisation."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from ... import _flambeau
from ..._flambeau import Tensor
from ..._ops import ops
from ...autograd.grad_mode import no_grad
from .. import functional
from ..modules.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..modules.module import Module
from .parametrize import register_parametrization


def _identity_like(q: Tensor, size: int) -> Tensor:
    return ops.eye(size, dtype=q.dtype, device=q.device)  # type: ignore[no-any-return]


def _is_orthogonal(q: Tensor) -> bool:
    rows, columns = q.size(-2), q.size(-1)
    tolerance = 10.0 * rows * _flambeau.finfo(q.dtype).eps
    return bool(
        ops.allclose(q.mH @ q, _identity_like(q, columns).expand(*q.shape[:-2], columns, columns), atol=tolerance)
    )


def _orthogonalised(a: Tensor) -> Tensor:
    """The orthogonal factor of a, signed so that an orthogonal matrix is its own."""
    reflectors, tau = ops.geqrf(a)
    q = _flambeau.operators["linalg.householder_product"](reflectors, tau)
    return q * reflectors.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)  # type: ignore[no-any-return]


class _OrthMaps(Enum):
    matrix_exp = auto()
    cayley = auto()
    householder = auto()


class _Orthogonal(Module):
    """A matrix with orthonormal rows or columns, from one without constraint.

    The exponential and the Cayley transform map skew-symmetric matrices to rotations; Householder reflectors give
    rectangular ones directly. `base` moves the map's centre to an assigned value (a dynamic trivialization).
    """

    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: _OrthMaps, *, use_trivialization: bool = True) -> None:
        super().__init__()
        if weight.is_complex() and orthogonal_map is _OrthMaps.householder:
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        rows, columns = X.size(-2), X.size(-1)
        wide = rows < columns
        if wide:
            X = X.mT
            rows, columns = columns, rows
        if self.orthogonal_map is _OrthMaps.householder:
            a = X.tril(diagonal=-1)
            tau = 2.0 / (1.0 + (a * a).sum(dim=-2))
            q = _flambeau.operators["linalg.householder_product"](a, tau)
            q = q * X.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)
        else:
            x = X.tril()
            if rows != columns:
                x = ops.cat([x, x.new_zeros(rows, rows - columns).expand(*x.shape[:-2], -1, -1)], dim=-1)
            skew = x - x.mH
            if self.orthogonal_map is _OrthMaps.matrix_exp:
                q = ops.matrix_exp(skew)
            else:
                one = _identity_like(skew, rows)
                q = _flambeau.operators["linalg.solve"](ops.add(one, skew, alpha=-0.5), ops.add(one, skew, alpha=0.5))
            if rows != columns:
                q = q[..., :columns]
        if hasattr(self, "base"):
            q = self.base @ q
        return q.mT if wide else q  # type: ignore[no-any-return]

    def right_inverse(self, Q: Tensor) -> Tensor:
        """What maps to Q, or to the orthogonal matrix of Q's factorisation."""
        if self.shape != Q.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {Q.shape}."
            )
        given = Q
        rows, columns = Q.size(-2), Q.size(-1)
        wide = rows < columns
        if wide:
            Q = Q.mT
            rows, columns = columns, rows
        with no_grad():
            if not hasattr(self, "base"):
                if self.orthogonal_map is not _OrthMaps.householder:
                    raise NotImplementedError(
                        "It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                        "use_trivialization=False."
                    )
                a, tau = ops.geqrf(Q)
                # Only the signs of the diagonal mean something; a reflector that is none keeps its column.
                diagonal = a.diagonal(dim1=-2, dim2=-1)
                diagonal.copy_(diagonal.sign() * ops.where(tau == 0, -1.0, 1.0))
                return a.mT if wide else a  # type: ignore[no-any-return]
            if rows == columns:
                Q = Q.clone() if _is_orthogonal(Q) else _orthogonalised(Q)
            else:
                rest = ops.randn(*Q.shape[:-2], rows, rows - columns, dtype=Q.dtype, device=Q.device)
                Q = _orthogonalised(ops.cat([Q, rest], dim=-1))
            self.base = Q
            centre = ops.zeros_like(given)
            centre.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
            return centre  # type: ignore[no-any-return]


def _tensor_of(module: Module, name: str) -> Tensor:
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    return weight


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Makes a matrix of a module orthogonal, or one with orthonormal rows or columns if it is not square."""
    weight = _tensor_of(module, name)
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    chosen = getattr(_OrthMaps, orthogonal_map, None)
    if chosen is None:
        raise ValueError(
            f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}'
        )
    register_parametrization(
        module, name, _Orthogonal(weight, chosen, use_trivialization=use_trivialization), unsafe=True
    )
    return module


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """The norms of v's slices along one dimension, which keeps its size; -1 is the norm of all of v."""
    if dim == -1:
        return v.norm(pow)  # type: ignore[no-any-return]
    others = [d for d in range(v.dim()) if d != dim]
    if not others:
        return v.abs()  # type: ignore[no-any-return]
    return _flambeau.operators["linalg.vector_norm"](v, pow, dim=others, keepdim=True)  # type: ignore[no-any-return]


def normalised(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ‖v‖ (Salimans and Kingma, 2016)."""
    return v * (g / norm_except_dim(v, 2, dim))  # type: ignore[no-any-return]


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return normalised(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Splits a weight into its sizes along `dim` (`original0`) and its direction (`original1`)."""
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def take_older_keys(state_dict: Any, prefix: str, *_: Any) -> None:
        old = [f"{prefix}{name}_g", f"{prefix}{name}_v"]
        if all(key in state_dict for key in old):
            for i, key in enumerate(old):
                state_dict[f"{prefix}parametrizations.{name}.original{i}"] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(take_older_keys)
    return module


class _SpectralNorm(Module):
    """A weight over its largest singular value, which power iterations follow (Miyato et al., 2018)."""

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        ndim = weight.ndim
        if dim >= ndim or dim < -ndim:
            raise IndexError(f"Dimension out of range (expected to be in range of [-{ndim}, {ndim - 1}] but got {dim})")
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.dim = dim if dim >= 0 else dim + ndim
        self.eps = eps
        if ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = self._as_matrix(weight).detach()
            for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
                start = matrix.new_empty(size).normal_(0, 1)
                self.register_buffer(name, functional.normalize(start, dim=0, eps=self.eps))
            self._iterate(matrix, 15)

    def _as_matrix(self, weight: Tensor) -> Tensor:
        if self.dim != 0:
            weight = weight.movedim(self.dim, 0)
        return weight.flatten(1)  # type: ignore[no-any-return]

    def _iterate(self, matrix: Tensor, times: int) -> None:
        with no_grad():
            matrix = matrix.detach()
            for _ in range(times):
                self._u.copy_(functional.normalize(ops.mv(matrix, self._v), dim=0, eps=self.eps))
                self._v.copy_(functional.normalize(ops.mv(matrix.mH, self._u), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return functional.normalize(weight, dim=0, eps=self.eps)
        matrix = self._as_matrix(weight)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        # Later iterations write onto the buffers, so the graph holds copies.
        sigma = ops.vdot(self._u.clone(), ops.mv(matrix, self._v.clone()))
        return weight / sigma  # type: ignore[no-any-return]

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def default_spectral_dim(module: Module) -> int:
    """The dimension of a layer's outputs in its weight."""
    return 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divides a weight by its largest singular value."""
    weight = _tensor_of(module, name)
    if dim is None:
        dim = default_spectral_dim(module)
    register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))
    return module


__all__ = ["orthogonal", "spectral_norm", "weight_norm"]
