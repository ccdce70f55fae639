"""Window functions: `bartlett`, `blackman`, `cosine`, `exponential`, `gaussian`, `general_cosine`, `general_hamming`, `hamming`,
`hann`, `kaiser` and `nuttall`."""

from __future__ import annotations

from .. import _flambeau

_PREFIX = "signal.windows."

__all__ = sorted(name[len(_PREFIX) :] for name in _flambeau.operators if name.startswith(_PREFIX))
globals().update({name: _flambeau.operators[_PREFIX + name] for name in __all__})
