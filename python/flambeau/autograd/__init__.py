"""Differentiation: `backward`, `grad`, custom functions."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor, is_anomaly_check_nan_enabled, is_anomaly_enabled
from .function import Function, FunctionCtx, NestedIOFunction
from .grad_mode import (
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
    set_multithreading_enabled,
)


def _seeds(outputs: tuple[Any, ...], grads: Any, batched: bool = False) -> tuple[Any, ...]:
    """The cotangents to start from: those given, checked, or 1 for scalars."""
    seeds = []
    for out, grad in zip(outputs, grads, strict=True):
        if grad is None:
            if out.requires_grad:
                if out.numel() != 1:
                    raise RuntimeError("grad can be implicitly created only for scalar outputs")
                if not out.is_floating_point():
                    raise RuntimeError(f"grad can be implicitly created only for real scalar outputs but got {out.dtype}")
                seeds.append(_flambeau.operators["ones_like"](out.detach()))
            else:
                seeds.append(None)
        elif not isinstance(grad, Tensor):
            raise TypeError(f"gradients can be either Tensors or None, but got {type(grad).__name__}")
        else:
            if not batched and grad.shape != out.shape:
                raise RuntimeError(
                    f"Mismatch in shape: grad_output[{len(seeds)}] has a shape of {grad.shape} and output[{len(seeds)}] has a shape "
                    f"of {out.shape}."
                )
            if out.is_complex() != grad.is_complex():
                raise RuntimeError(
                    "For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in dtype: "
                    f"grad_output[{len(seeds)}] has a dtype of {grad.dtype} and output[{len(seeds)}] has a dtype of {out.dtype}."
                )
            seeds.append(grad)
    return tuple(seeds)


def _as_tuple(value: Any, count: int | None = None) -> tuple[Any, ...]:
    if value is None:
        return (None,) * (count or 0)
    return (value,) if isinstance(value, Tensor) or _is_edge(value) else tuple(value)


def _is_edge(value: Any) -> bool:
    """Whether a value is a `graph.GradientEdge`."""
    return isinstance(value, tuple) and hasattr(value, "output_nr")


def _by_edges(
    outputs: tuple[Any, ...], inputs: tuple[Any, ...] | None, grads: Any, retain: bool, create: bool, allow_unused: bool
) -> Any:
    """A backward pass where some outputs or inputs are given as edges of the graph."""
    from .graph import get_gradient_edge

    def edge(t: Any) -> tuple[Any, int]:
        e = t if _is_edge(t) else get_gradient_edge(t)
        return (e.node, e.output_nr)

    seeds = []
    for out, given in zip(outputs, grads, strict=True):
        if given is None and _is_edge(out):
            info = out.node._input_metadata[out.output_nr]
            if info.shape.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            given = _flambeau.operators["ones"](info.shape, dtype=info.dtype, device=info.device)
        elif not _is_edge(out):
            given = _seeds((out,), (given,))[0]
        seeds.append(given)
    wanted = None if inputs is None else [edge(t) for t in inputs]
    return _flambeau._engine_backward_edges([edge(t) for t in outputs], tuple(seeds), wanted, retain, create, allow_unused)


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Adds the gradients of `tensors` to the leaves' `.grad`."""
    if grad_variables is not None:
        if grad_tensors is not None:
            raise RuntimeError("'grad_tensors' and 'grad_variables' are the same argument: give one")
        grad_tensors = grad_variables
    outputs = _as_tuple(tensors)
    wanted = None if inputs is None else _as_tuple(inputs)
    if wanted is None and any(isinstance(t, tuple) for t in outputs):
        retain = create_graph if retain_graph is None else retain_graph
        _by_edges(outputs, None, _as_tuple(grad_tensors, len(outputs)), retain, create_graph, True)
        return
    if wanted is not None and not wanted:
        raise RuntimeError("'inputs' argument to backward() cannot be empty.")
    grads = _as_tuple(grad_tensors, len(outputs))
    retain = create_graph if retain_graph is None else retain_graph
    _flambeau._engine_backward(outputs, _seeds(outputs, grads), retain, create_graph, wanted, True, True)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of `outputs` with respect to `inputs`; `.grad` stays as it is."""
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False.")
    allow_unused = materialize_grads if allow_unused is None else allow_unused
    outs, wanted = _as_tuple(outputs), _as_tuple(inputs)
    if not wanted:
        raise RuntimeError("`inputs` argument to `grad()` cannot be empty.")
    grads = _as_tuple(grad_outputs, len(outs))
    retain = create_graph if retain_graph is None else retain_graph
    if any(isinstance(t, tuple) for t in (*outs, *wanted)):
        return _by_edges(outs, wanted, grads, retain, create_graph, allow_unused)
    if is_grads_batched:
        from ..func import vmap

        def one(*cotangents: Any) -> tuple[Tensor, ...]:
            return _flambeau._engine_backward(outs, cotangents, True, create_graph, wanted, False, allow_unused)  # type: ignore[no-any-return]

        result = vmap(one)(*_seeds(outs, grads, batched=True))
    else:
        result = _flambeau._engine_backward(outs, _seeds(outs, grads), retain, create_graph, wanted, False, allow_unused)
    if materialize_grads:
        result = tuple(
            _flambeau.operators["zeros_like"](x.detach()) if g is None else g for g, x in zip(result, wanted, strict=True)
        )
    return tuple(result)


# Now, since a later import of the module would put it where its namesake, the function, belongs.
from .gradcheck import GradcheckError, gradcheck, gradgradcheck  # noqa: E402

_SUBMODULES = ("forward_ad", "functional", "graph", "profiler", "anomaly_mode")
_NAMES = {
    "detect_anomaly": "anomaly_mode",
    "set_detect_anomaly": "anomaly_mode",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _NAMES:
        value = getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    if name == "Variable":
        from ._variable import Variable

        return Variable
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "Function",
    "GradcheckError",
    "gradcheck",
    "gradgradcheck",
    "FunctionCtx",
    "NestedIOFunction",
    "backward",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled",
    "no_grad",
    "set_grad_enabled",
    "set_multithreading_enabled",
]
