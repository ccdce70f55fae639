"""ONNX's names: programs ask whether they are being exported, and they never are."""

from __future__ import annotations

from typing import Any

_MESSAGE = "ONNX files are not written; save `state_dict()` (flambeau.save or safetensors) and export it where PyTorch is installed"


def is_in_onnx_export() -> bool:
    """False."""
    return False


class ONNXProgram:
    """Kept for programs that test for it; nothing is an instance of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(_MESSAGE)


def export(*args: Any, **kwargs: Any) -> Any:
    """Raises NotImplementedError: save the weights instead."""
    raise NotImplementedError(_MESSAGE)
