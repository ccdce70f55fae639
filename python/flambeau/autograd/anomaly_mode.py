"""Anomaly mode: finds the forward operator behind a backward that fails or gives NaN."""

from __future__ import annotations

import warnings
from typing import Any

from .. import _flambeau


class set_detect_anomaly:
    """Turns anomaly mode on or off at once; as a context manager, until its end."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.prev = bool(_flambeau.is_anomaly_enabled())
        self.prev_check_nan = bool(_flambeau.is_anomaly_check_nan_enabled())
        _flambeau._set_anomaly(mode, check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        _flambeau._set_anomaly(self.prev, self.prev_check_nan)


class detect_anomaly:
    """Within it, operators remember where they were called, and a backward that fails or gives NaN tells."""

    def __init__(self, check_nan: bool = True) -> None:
        self.prev = bool(_flambeau.is_anomaly_enabled())
        self.check_nan = check_nan
        self.prev_check_nan = bool(_flambeau.is_anomaly_check_nan_enabled())
        warnings.warn("Anomaly Detection has been enabled. This mode will increase the runtime and should only be enabled for debugging.", stacklevel=2)

    def __enter__(self) -> None:
        _flambeau._set_anomaly(True, self.check_nan)

    def __exit__(self, *exc: Any) -> None:
        _flambeau._set_anomaly(self.prev, self.prev_check_nan)


__all__ = ["detect_anomaly", "set_detect_anomaly"]
