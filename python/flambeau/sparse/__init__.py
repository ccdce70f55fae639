"""Operators of sparse tensors: coordinates (COO), and compressed rows (CSR) or columns (CSC).

A sparse tensor is made by `flambeau.sparse_coo_tensor`, `flambeau.sparse_csr_tensor`, `flambeau.sparse_csc_tensor` or
`Tensor.to_sparse`; `Tensor.to_dense` is the way back. Functions of the top level that keep zero, sums, products and matrix
products take sparse tensors too; what does not know them raises `NotImplementedError`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops

globals().update(
    {
        name.removeprefix("sparse."): function
        for name, function in _flambeau.operators.items()
        if name.startswith("sparse.")
    }
)

addmm: Any
log_softmax: Any
mm: Any
sampled_addmm: Any
softmax: Any
spdiags: Any
sum: Any


class check_sparse_tensor_invariants(contextlib.ContextDecorator):
    """Whether new compressed tensors are checked for the order of their indices where `check_invariants` is not given.

    A context manager and a decorator; `enable()` and `disable()` set it for good. What keeps an operator's reads inside a
    tensor's memory is checked always.
    """

    @staticmethod
    def is_enabled() -> bool:
        """Whether the checks are on."""
        return bool(ops._check_sparse_invariants())

    @staticmethod
    def enable() -> None:
        """Turns the checks on."""
        ops._check_sparse_invariants(True)

    @staticmethod
    def disable() -> None:
        """Turns the checks off."""
        ops._check_sparse_invariants(False)

    def __init__(self, enable: bool = True) -> None:
        self.state = enable
        self.saved_state: bool | None = None

    def __enter__(self) -> None:
        if self.saved_state is not None:
            raise RuntimeError("This context manager instance is already activated. Use a different context manager instance for context nesting.")
        self.saved_state = bool(ops._check_sparse_invariants(self.state))

    def __exit__(self, *_: Any) -> None:
        if self.saved_state is None:
            raise RuntimeError("check_sparse_tensor_invariants: the context was not entered")
        ops._check_sparse_invariants(self.saved_state)
        self.saved_state = None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self.state):
                return function(*args, **kwargs)

        return checked


def as_sparse_gradcheck(gradcheck: Callable[..., Any]) -> Callable[..., Any]:
    """`gradcheck` for functions of sparse tensors: it differentiates by the values at the indices that are there.

    Takes sparse inputs apart into values, which are perturbed, and puts them together again before the function; sparse results
    are compared in their dense form.
    """

    def checked(func: Callable[..., Any], inputs: Any, **kwargs: Any) -> Any:
        kwargs.pop("masked", None)
        given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        values, rebuild = [], []
        for x in given:
            if isinstance(x, Tensor) and x.layout is not _flambeau.strided and x.requires_grad:
                rebuild.append(_rebuilder(x))
                values.append(_values_of(x).detach().clone().requires_grad_(True))
            else:
                rebuild.append(None)
                values.append(x)

        def dense(*args: Any) -> Any:
            result = func(*(a if f is None else f(a) for f, a in zip(rebuild, args, strict=True)))
            if isinstance(result, (tuple, list)):
                return tuple(_dense(r) for r in result)
            return _dense(result)

        return gradcheck(dense, tuple(values), **kwargs)

    return checked


def _dense(x: Any) -> Any:
    return x.to_dense() if isinstance(x, Tensor) and x.layout is not _flambeau.strided else x


def _values_of(x: Tensor) -> Tensor:
    return x._values() if x.is_sparse else x.values()


def _rebuilder(x: Tensor) -> Callable[[Tensor], Tensor]:
    size, layout = x.size(), x.layout
    if x.is_sparse:
        indices, coalesced = x._indices(), x.is_coalesced()
        return lambda v: ops.sparse_coo_tensor(indices, v, size, is_coalesced=coalesced)
    if layout in (_flambeau.sparse_csr, _flambeau.sparse_bsr):
        a, b = x.crow_indices(), x.col_indices()
    else:
        a, b = x.ccol_indices(), x.row_indices()
    return lambda v: ops.sparse_compressed_tensor(a, b, v, size, layout=layout)


__all__ = [
    "addmm", "as_sparse_gradcheck", "check_sparse_tensor_invariants", "log_softmax", "mm", "sampled_addmm", "softmax", "spdiags",
    "sum",
]  # fmt: skip
