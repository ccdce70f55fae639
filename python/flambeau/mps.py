"""MPS devices: there are none, and this module says so."""

from __future__ import annotations

from ._absent import functions as _functions

globals().update(_functions("MPS"))
