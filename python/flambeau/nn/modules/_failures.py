"""What an exception says of the network that it passed through: which module it comes from, and what met there."""

from __future__ import annotations

from typing import Any

from ..._flambeau import Tensor

# Where an exception keeps what it has passed: the innermost module, the path to it so far, and its note.
_KEY = "_flambeau_module"
_LONG = 6


def note_failure(module: Any, failure: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Adds a note to an exception on its way out of `module`. Never raises: the exception matters, the note only helps."""
    try:
        found = failure.__dict__.get(_KEY)
        if found is None:
            found = failure.__dict__[_KEY] = {
                "outermost": module,
                "path": "",
                "said": _situation(module, args, kwargs),
                "note": None,
            }
        elif found["outermost"] is not module:
            name = next((n for n, m in module.named_modules() if m is found["outermost"]), None)
            step = name if name is not None else type(found["outermost"]).__name__
            found["path"] = f"{step}.{found['path']}" if found["path"] else step
            found["outermost"] = module
        place = ".".join(filter(None, (type(module).__name__, found["path"])))
        text = f"in module {place}{found['said']}"
        notes = getattr(failure, "__notes__", [])
        if found["note"] in notes:
            notes[notes.index(found["note"])] = text
        else:
            failure.add_note(text)
        found["note"] = text
    except Exception:
        return


def _situation(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The module's settings, what it was called with, and the sizes of its own tensors."""
    settings = module.extra_repr()
    text = f" = {type(module).__name__}({settings})" if settings else ""
    given = [_describe(a) for a in args] + [f"{name}={_describe(a)}" for name, a in kwargs.items()]
    text += f"\n  called with ({', '.join(given)})"
    own = [
        f"{name} {_describe(t)}"
        for kept in (module._parameters, module._buffers)
        for name, t in kept.items()
        if t is not None
    ]
    if own:
        text += "\n  which has " + ", ".join(own[:_LONG]) + (", …" if len(own) > _LONG else "")
    return text


def _describe(value: Any, depth: int = 0) -> str:
    if isinstance(value, Tensor):
        try:
            sizes = list(value.shape)
        except Exception:
            return type(value).__name__
        place = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{sizes} {str(value.dtype).removeprefix('torch.')}{place}"
    if isinstance(value, (list, tuple)) and depth < 2:
        parts = [_describe(v, depth + 1) for v in value[:_LONG]] + (["…"] if len(value) > _LONG else [])
        return f"({', '.join(parts)})" if isinstance(value, tuple) else f"[{', '.join(parts)}]"
    if isinstance(value, dict) and depth < 2:
        return "{" + ", ".join(f"{k}: {_describe(v, depth + 1)}" for k, v in list(value.items())[:_LONG]) + "}"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return type(value).__name__


__all__ = ["note_failure"]
