"""Names of PyTorch's graph capture. Programs are recorded as they run (`flambeau.compile`), so there are no graphs of Python programs to
rewrite; what makes one raises and says so. Walking over arguments works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .nn import Module

__all__ = ["Graph", "GraphModule", "Interpreter", "Node", "Proxy", "Tracer", "Transformer", "map_arg", "symbolic_trace", "wrap"]

_MESSAGE = (
    "graphs of Python programs are not captured; flambeau.compile makes a module fast as it is, module hooks "
    "(register_forward_hook) see what flows through it, and flambeau.profiler lists what runs"
)


def _refused(name: str, *parents: type) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"fx.{name}: {_MESSAGE}")

    doc = "Kept for programs that test for it or inherit from it; making one raises NotImplementedError."
    return type(name, parents or (object,), {"__init__": __init__, "__doc__": doc, "__module__": __name__})


Graph, Interpreter, Transformer, Node, Proxy, Tracer, GraphAppendingTracer = (
    _refused(name) for name in ("Graph", "Interpreter", "Transformer", "Node", "Proxy", "Tracer", "GraphAppendingTracer")
)
GraphModule = _refused("GraphModule", Module)
Argument = Target = Any


def map_aggregate(a: Any, fn: Callable[[Any], Any]) -> Any:
    """Calls `fn` with every leaf of nested tuples, lists, dicts and slices, and builds the same of the results."""
    if isinstance(a, tuple):
        parts = [map_aggregate(x, fn) for x in a]
        return type(a)(*parts) if hasattr(a, "_fields") else tuple(parts)
    if isinstance(a, list):
        return [map_aggregate(x, fn) for x in a]
    if isinstance(a, dict):
        return {k: map_aggregate(v, fn) for k, v in a.items()}
    if isinstance(a, slice):
        return slice(*(map_aggregate(x, fn) for x in (a.start, a.stop, a.step)))
    return fn(a)


def map_arg(a: Any, fn: Callable[[Any], Any]) -> Any:
    """`map_aggregate` for the nodes among the leaves."""
    return map_aggregate(a, lambda x: fn(x) if isinstance(x, Node) else x)


def wrap(fn_or_name: Any) -> Any:
    """The function itself: nothing looks into functions."""
    return fn_or_name


def symbolic_trace(root: Any, concrete_args: Any = None) -> Any:
    """Raises NotImplementedError: use `flambeau.compile`."""
    raise NotImplementedError(f"fx.symbolic_trace: {_MESSAGE}")


def _part(name: str, **values: Any) -> ModuleType:
    full = f"{__name__}.{name}"
    made = sys.modules[full] = ModuleType(full, f"fx's names in {name}.")
    made.__spec__ = ModuleSpec(full, None)
    made.__dict__.update(values)
    return made


__path__: list[str] = []
node = _part("node", Argument=Argument, Node=Node, Target=Target, map_aggregate=map_aggregate, map_arg=map_arg)
proxy = _part("proxy", GraphAppendingTracer=GraphAppendingTracer, Proxy=Proxy)
graph = _part("graph", Graph=Graph)
graph_module = _part("graph_module", GraphModule=GraphModule)
