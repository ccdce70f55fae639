"""Copies of a module on several devices, through which gradients flow back to the original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..modules.module import Module, _Registry
from .scatter_gather import _device


def replicate(network: Module, devices: Sequence[Any], detach: bool = False) -> list[Module]:
    """One copy for each device, whose parameters are differentiable copies of `network`'s."""
    return [_copy(network, _device(d), detach) for d in devices]


def _copy(network: Module, device: Any, detach: bool) -> Module:
    copies: dict[int, Module] = {}
    tensors: dict[int, Any] = {}

    def moved(t: Any) -> Any:
        if t is None:
            return None
        if id(t) not in tensors:
            tensors[id(t)] = (t.detach() if detach else t).to(device)
        return tensors[id(t)]

    def copy(module: Module) -> Module:
        found = copies.get(id(module))
        if found is not None:
            return found
        replica = module.__new__(type(module))
        replica.__dict__ = dict(module.__dict__)
        copies[id(module)] = replica
        replica.__dict__["_parameters"] = _Registry(replica, {name: moved(p) for name, p in module._parameters.items()})
        replica.__dict__["_buffers"] = _Registry(replica, {name: moved(b) for name, b in module._buffers.items()})
        replica.__dict__["_modules"] = _Registry(
            replica, {name: None if child is None else copy(child) for name, child in module._modules.items()}
        )
        replica.__dict__["_is_replica"] = True
        return replica

    return copy(network)


__all__ = ["replicate"]
