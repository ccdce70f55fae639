"""The generalized Pareto distribution."""

from __future__ import annotations

import math
from typing import Any

import flambeau as torch
from flambeau import Tensor

from . import constraints
from .distribution import Distribution
from .utils import broadcast_all


class GeneralizedPareto(Distribution):
    """Tails beyond a threshold `loc`, with scale `scale` and shape `concentration`."""

    arg_constraints = {  # type: ignore[assignment]
        "loc": constraints.real,
        "scale": constraints.positive,
        "concentration": constraints.real,
    }
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.size(), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        parts = {k: getattr(self, k).expand(batch_shape) for k in ("loc", "scale", "concentration")}
        return self._expanded(GeneralizedPareto, batch_shape, _instance, **parts)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.icdf(u)

    def _near_zero(self) -> Tensor:
        return torch.isclose(self.concentration, torch.zeros_like(self.concentration))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        y = (value - self.loc) / self.scale
        zero = self._near_zero()
        safe = torch.where(zero, torch.ones_like(self.concentration), self.concentration)
        power = 1 / safe + torch.ones_like(safe)
        log_density = torch.where(zero, y, power * torch.log1p(safe * y))
        return -torch.log(self.scale) - log_density

    def log_survival_function(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of more than `value`."""
        if self._validate_args:
            self._validate_sample(value)
        y = (value - self.loc) / self.scale
        zero = self._near_zero()
        safe = torch.where(zero, torch.ones_like(self.concentration), self.concentration)
        return torch.where(zero, -y, -torch.log1p(safe * y) / safe)

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of the distribution function."""
        return torch.log1p(-torch.exp(self.log_survival_function(value)))

    def cdf(self, value: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        zero = self._near_zero()
        safe = torch.where(zero, torch.ones_like(self.concentration), self.concentration)
        log_u = torch.log1p(-value)
        return torch.where(zero, self.loc - self.scale * log_u, self.loc + self.scale * torch.expm1(-safe * log_u) / safe)

    @property
    def mean(self) -> Tensor:
        valid = self.concentration < 1
        safe = torch.where(valid, self.concentration, 0.5)
        return torch.where(valid, self.loc + self.scale / (1 - safe), torch.nan)

    @property
    def variance(self) -> Tensor:
        valid = self.concentration < 0.5
        safe = torch.where(valid, self.concentration, 0.25)
        return torch.where(valid, self.scale**2 / ((1 - safe) ** 2 * (1 - 2 * safe)), torch.nan)

    def entropy(self) -> Tensor:
        return (torch.log(self.scale) + self.concentration + 1).expand(self._batch_shape)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:  # type: ignore[override]
        """From `loc` on; bounded where `concentration` is negative."""
        upper = torch.where(self.concentration < 0, self.loc - self.scale / self.concentration, math.inf)
        return constraints.interval(self.loc, upper)
