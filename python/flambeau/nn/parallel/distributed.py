"""`DistributedDataParallel`: one process a device."""

from __future__ import annotations

from typing import Any

from ..modules.module import Module


class DistributedDataParallel(Module):
    """Gradients averaged over a group of processes. There are no groups of processes yet, so that making one says so; the class is
    there for programs that ask whether a model is wrapped in it.
    """

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        raise RuntimeError(
            "Default process group has not been initialized: flambeau does not train over several processes yet. Call the module "
            "itself, or use flambeau.nn.DataParallel for the devices of one process."
        )


__all__ = ["DistributedDataParallel"]
