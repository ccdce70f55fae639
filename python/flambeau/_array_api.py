"""The Python array API standard's inspection functions, and its names where PyTorch has none of its own."""

from __future__ import annotations

from typing import Any

from . import _flambeau
from ._flambeau import Tensor

__array_api_version__ = "2024.12"

_KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "signed integer": ("int8", "int16", "int32", "int64"),
    "unsigned integer": ("uint8", "uint16", "uint32", "uint64"),
    "real floating": ("float32", "float64"),
    "complex floating": ("complex64", "complex128"),
}
_KINDS["integral"] = _KINDS["signed integer"] + _KINDS["unsigned integer"]
_KINDS["numeric"] = _KINDS["integral"] + _KINDS["real floating"] + _KINDS["complex floating"]


class ArrayNamespaceInfo:
    """What this namespace offers, as the standard asks for it."""

    def capabilities(self) -> dict[str, Any]:
        """Which optional behaviour there is."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Any:
        """The device of new arrays."""
        return _flambeau.device("cpu")

    def default_dtypes(self, *, device: Any = None) -> dict[str, Any]:
        """The dtypes of new arrays for which none is asked."""
        default = _flambeau.get_default_dtype()
        return {
            "real floating": default,
            "complex floating": _flambeau.complex128 if default == _flambeau.float64 else _flambeau.complex64,
            "integral": _flambeau.int64,
            "indexing": _flambeau.int64,
        }

    def dtypes(self, *, device: Any = None, kind: str | tuple[str, ...] | None = None) -> dict[str, Any]:
        """The standard's dtypes that there are, of one kind or several."""
        if kind is None:
            names = _KINDS["bool"] + _KINDS["numeric"]
        else:
            kinds = (kind,) if isinstance(kind, str) else kind
            unknown = [k for k in kinds if k not in _KINDS]
            if unknown:
                raise ValueError(f"unsupported kind: {unknown[0]!r}; the kinds are {', '.join(map(repr, _KINDS))}")
            names = tuple(n for k in kinds for n in _KINDS[k])
        return {n: getattr(_flambeau, n) for n in dict.fromkeys(names)}

    def devices(self) -> list[Any]:
        """The devices there are."""
        return [_flambeau.device("cpu"), *(_flambeau.device(f"cuda:{i}") for i in range(_flambeau._cuda_device_count()))]


def __array_namespace_info__() -> ArrayNamespaceInfo:
    """What this namespace offers."""
    return ArrayNamespaceInfo()


__all__ = ["ArrayNamespaceInfo", "Tensor", "__array_api_version__", "__array_namespace_info__"]
