"""Nested tensors' names. There are no tensors of ragged shape here; each function says what does the same work."""

from __future__ import annotations

from typing import Any

__all__ = ["as_nested_tensor", "nested_tensor", "nested_tensor_from_jagged", "to_padded_tensor"]


def _refuse(name: str) -> Any:
    raise NotImplementedError(
        f"nested.{name}: tensors of ragged shape are not supported; pad them by nn.utils.rnn.pad_sequence and mask what is padding, "
        "or keep their values in one tensor with offsets (nn.functional.embedding_bag, flambeau.segment_reduce)"
    )


def nested_tensor(tensor_list: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Any:
    """Raises NotImplementedError: use `nn.utils.rnn.pad_sequence`."""
    _refuse("nested_tensor")


def as_nested_tensor(ts: Any, dtype: Any = None, device: Any = None, layout: Any = None) -> Any:
    """Raises NotImplementedError: use `nn.utils.rnn.pad_sequence`."""
    _refuse("as_nested_tensor")


def nested_tensor_from_jagged(
    values: Any, offsets: Any = None, lengths: Any = None, jagged_dim: int | None = None, min_seqlen: int | None = None, max_seqlen: int | None = None
) -> Any:
    """Raises NotImplementedError: keep values and offsets beside each other."""
    _refuse("nested_tensor_from_jagged")


def to_padded_tensor(input: Any, padding: float, output_size: Any = None) -> Any:
    """Raises NotImplementedError: use `nn.utils.rnn.pad_sequence`."""
    _refuse("to_padded_tensor")
