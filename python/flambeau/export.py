"""Names of PyTorch's export of programs; nothing is exported here."""

from __future__ import annotations

from typing import Any

__all__ = ["Dim", "ExportedProgram", "export"]

_MESSAGE = "programs are not exported; save `state_dict()` and ship the module's code, which flambeau.compile makes fast as it is"


class _Hint:
    """A word about a dimension."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __repr__(self) -> str:
        return f"Dim.{self.__name__}"


class Dim:
    """The name of a dimension whose size may vary, with its bounds."""

    AUTO, DYNAMIC, STATIC = _Hint("AUTO"), _Hint("DYNAMIC"), _Hint("STATIC")

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None) -> None:
        if not name.isidentifier():
            raise ValueError(f"Dim: a name must be an identifier, not {name!r}")
        if min is not None and max is not None and max <= min:
            raise ValueError(f"Dim {name}: max ({max}) must be greater than min ({min})")
        self.__name__, self.min, self.max = name, 0 if min is None else min, max


class ExportedProgram:
    """Kept for programs that test for it; nothing is an instance of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(_MESSAGE)


def export(mod: Any, args: Any = (), kwargs: Any = None, *, dynamic_shapes: Any = None, strict: bool = False, **options: Any) -> Any:
    """Raises NotImplementedError: ship the module's code and its `state_dict`."""
    raise NotImplementedError(_MESSAGE)
