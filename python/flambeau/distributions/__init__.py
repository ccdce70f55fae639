"""Probability distributions with samples, densities and gradients."""

from . import constraints, utils
from .categorical import Categorical
from .distribution import Distribution, ExponentialFamily
from .normal import Normal

__all__ = ["Categorical", "Distribution", "ExponentialFamily", "Normal", "constraints", "utils"]
