"""Causal masks that say where their corner is."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from ... import _flambeau
from ..._flambeau import Tensor


class CausalVariant(IntEnum):
    """Which corner of a matrix that is not square the diagonal starts from."""

    UPPER_LEFT = 1
    LOWER_RIGHT = 2


def _causal(variant: CausalVariant, *size: int) -> Tensor:
    if len(size) != 2:
        raise AssertionError("the mask of causal attention has two dimensions")
    rows, columns = size
    diagonal = 0 if variant is CausalVariant.UPPER_LEFT else columns - rows
    return _flambeau.ones(rows, columns, dtype=_flambeau.bool).tril(diagonal=diagonal)


def causal_upper_left(*size: int) -> Any:
    """The mask under which query i sees keys 0 … i."""
    return _causal(CausalVariant.UPPER_LEFT, *size)


def causal_lower_right(*size: int) -> Any:
    """The mask under which the last query sees every key, the one before it all but the last, and so on."""
    return _causal(CausalVariant.LOWER_RIGHT, *size)


__all__ = ["CausalVariant", "causal_lower_right", "causal_upper_left"]
