"""What checkpoints name: how their tensors and parameters are made again from storages."""

from __future__ import annotations

from typing import Any

from . import _flambeau
from ._flambeau import Tensor
from ._ops import ops
from .storage import TypedStorage, UntypedStorage


def _over(storage: Any, dtype: Any, offset: int, size: Any, stride: Any) -> Tensor:
    if isinstance(storage, TypedStorage):
        storage = storage._untyped_storage
    if not isinstance(storage, UntypedStorage):
        raise RuntimeError(
            f"a checkpoint's tensor must be over a storage, not over an object of type {type(storage).__name__}"
        )
    return _flambeau._storage_tensor(storage._bytes, dtype, offset, list(size), list(stride))


def _rebuild_tensor(storage: Any, storage_offset: int, size: Any, stride: Any) -> Tensor:
    """A tensor over a typed storage; offset and strides in elements."""
    if not isinstance(storage, TypedStorage):
        raise RuntimeError(
            f"a checkpoint's tensor must be over a typed storage, not over an object of type {type(storage).__name__}"
        )
    return _over(storage, storage.dtype, storage_offset, size, stride)


def _rebuild_tensor_v2(
    storage: Any,
    storage_offset: int,
    size: Any,
    stride: Any,
    requires_grad: bool,
    backward_hooks: Any,
    metadata: Any = None,
) -> Tensor:
    """A tensor over a typed storage, with what autograd knows of it."""
    return _restored(_rebuild_tensor(storage, storage_offset, size, stride), requires_grad, backward_hooks, metadata)


def _rebuild_tensor_v3(
    storage: Any,
    storage_offset: int,
    size: Any,
    stride: Any,
    requires_grad: bool,
    backward_hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    """A tensor of a given dtype over bytes."""
    return _restored(_over(storage, dtype, storage_offset, size, stride), requires_grad, backward_hooks, metadata)


# How many tensors were made by calculating with the values of their storage, which had to be there.
unresolved = 0
# Whether the storages of the file that is being read are still empty.
filling = False


def _restored(t: Tensor, requires_grad: bool, backward_hooks: Any, metadata: Any) -> Tensor:
    # Values that the writer had still to conjugate or to negate.
    if metadata and (metadata.get("conj") or metadata.get("neg")):
        global unresolved
        unresolved += 1
        if metadata.get("conj"):
            t = t.conj().resolve_conj()
        if metadata.get("neg"):
            t = t.neg()
    if requires_grad:
        t.requires_grad_(True)
    # Programs that set it read it back; nothing else looks at it.
    if backward_hooks:
        t._backward_hooks = backward_hooks
    return t


def _reduce_sparse_tensor(t: Tensor) -> Any:
    """What a file keeps of a sparse tensor: its layout and its parts."""
    if t.is_sparse:
        parts: Any = (t._indices(), t._values(), t.size(), t.is_coalesced())
    elif t.layout in (_flambeau.sparse_csr, _flambeau.sparse_bsr):
        parts = (t.crow_indices(), t.col_indices(), t.values().detach(), t.size())
    else:
        parts = (t.ccol_indices(), t.row_indices(), t.values().detach(), t.size())
    return _rebuild_sparse_tensor, (t.layout, parts)


def _rebuild_sparse_tensor(layout: Any, data: Any) -> Tensor:
    """A sparse tensor of its parts, which are checked: a file is not to be trusted."""
    if filling:
        # Indices are checked, which they can be when they have been read.
        global unresolved
        unresolved += 1
        plain = _flambeau.sparse_csr if layout in (_flambeau.sparse_bsr, _flambeau.sparse_bsc) else layout
        return ops.empty(data[-2] if layout is _flambeau.sparse_coo and len(data) > 3 else data[-1], layout=plain)
    if layout is _flambeau.sparse_coo:
        # Files of old versions do not say whether the entries are in order.
        indices, values, size = data[:3]
        coalesced = data[3] if len(data) > 3 else None
        t = ops.sparse_coo_tensor(indices, values, size)
        if coalesced:
            again = t.coalesce()
            if again._nnz() != t._nnz() or not ops.equal(again._indices(), t._indices()):
                raise RuntimeError("a checkpoint's sparse tensor is marked as coalesced, but its indices are not in order and distinct")
            t = again
        return t
    if layout in (_flambeau.sparse_csr, _flambeau.sparse_csc, _flambeau.sparse_bsr, _flambeau.sparse_bsc):
        pointers, indices, values, size = data
        return ops.sparse_compressed_tensor(pointers, indices, values, size, layout=layout)
    raise NotImplementedError(f"rebuilding sparse tensor for layout {layout}")


def _rebuild_parameter(data: Tensor, requires_grad: bool, backward_hooks: Any = None) -> Any:
    """A parameter over a tensor."""
    from .nn.parameter import Parameter

    return Parameter(data, requires_grad)


def _rebuild_parameter_with_state(data: Tensor, requires_grad: bool, backward_hooks: Any, state: Any) -> Any:
    """A parameter over a tensor, with attributes."""
    return _set_state(_rebuild_parameter(data, requires_grad), state)


def _rebuild_from_type_v2(function: Any, kind: type, args: Any, state: Any) -> Any:
    """A tensor of another class, or with attributes."""
    from .nn.parameter import Buffer

    t = function(*args)
    if kind is Tensor and isinstance(state, dict) and state.get("_is_buffer"):
        # PyTorch's buffers are tensors with a mark.
        kind, state = Buffer, {name: value for name, value in state.items() if name != "_is_buffer"}
    if type(t) is not kind:
        t = t.as_subclass(kind)
    if hasattr(type(t), "__setstate__"):
        t.__setstate__(state)
        return t
    return _set_state(t, state)


# Where files look for it.
_rebuild_from_type_v2.__module__ = "flambeau._tensor"


def _set_state(t: Any, state: Any) -> Any:
    if isinstance(state, tuple):
        if len(state) != 2:
            raise RuntimeError(
                f"the state of a {type(t).__name__} must be a dict or a pair of dicts, got {len(state)} parts"
            )
        parts = [part for part in state if part]
    else:
        parts = [state] if state else []
    for part in parts:
        for name, value in part.items():
            setattr(t, name, value)
    return t
