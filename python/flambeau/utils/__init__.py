"""Utilities: data loading, checkpointing, trees, hooks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_SUBMODULES = (
    "_contextlib", "_pytree", "benchmark", "checkpoint", "collect_env", "cpp_extension", "data", "deterministic", "dlpack",
    "flop_counter", "hooks", "model_zoo", "plot", "tensorboard", "weak",
)  # fmt: skip


def swap_tensors(t1: Any, t2: Any) -> None:
    """Lets two names hold each other's tensors: values, gradients, attributes and classes change places."""
    if any(t._backward_hooks for t in (t1, t2) if getattr(t, "_backward_hooks", None)):
        raise RuntimeError("swap_tensors: tensors with hooks stay where they are")
    first, second = dict(t1.__dict__), dict(t2.__dict__)
    one, other = type(t1), type(t2)
    grads = (t1.grad, t2.grad) if t1.is_leaf and t2.is_leaf else (None, None)
    required = t1.requires_grad, t2.requires_grad
    if not (t1.is_leaf and t2.is_leaf):
        raise RuntimeError("swap_tensors: only leaves of the graph can change places")
    t1.grad = t2.grad = None
    kept = t1.detach()
    t1.data, t2.data = t2.detach(), kept
    t1.requires_grad_(required[1])
    t2.requires_grad_(required[0])
    t1.grad, t2.grad = grads[1], grads[0]
    if one is not other:
        t1.__class__, t2.__class__ = other, one
    for tensor, attributes in ((t1, second), (t2, first)):
        tensor.__dict__.clear()
        tensor.__dict__.update(attributes)


def set_module(obj: Any, mod: str) -> None:
    """Says in which module an object is to appear."""
    if not isinstance(mod, str):
        raise TypeError("The mod argument should be a string")
    obj.__module__ = mod


def summary(model: Any, *inputs: Any, **kwargs: Any) -> Any:
    """What a model is made of: its layers with the sizes of their results, parameters and operations. With inputs the model is run once
    on them; see `flambeau.utils._summary.Summary`.
    """
    from ._summary import summarise

    return summarise(model, inputs, kwargs)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
