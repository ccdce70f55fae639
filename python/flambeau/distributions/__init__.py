"""Probability distributions with samples, densities and gradients."""

from . import constraints, utils
from .distribution import Distribution, ExponentialFamily
from .normal import Normal

__all__ = ["Distribution", "ExponentialFamily", "Normal", "constraints", "utils"]
