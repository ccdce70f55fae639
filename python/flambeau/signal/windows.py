"""Window functions: `bartlett`, `blackman`, `cosine`, `exponential`, `gaussian`, `general_cosine`, `general_hamming`, `hamming`,
`hann`, `kaiser` and `nuttall`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import _flambeau

_PREFIX = "signal.windows."

__all__ = sorted(name[len(_PREFIX) :] for name in _flambeau.operators if name.startswith(_PREFIX))


def _strided(name: str) -> Callable[..., Any]:
    operator = _flambeau.operators[_PREFIX + name]

    @functools.wraps(operator)
    def window(*args: Any, layout: Any = _flambeau.strided, **kwargs: Any) -> Any:
        if layout is not None and layout is not _flambeau.strided:
            raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
        return operator(*args, **kwargs)

    return window


globals().update({name: _strided(name) for name in __all__})
