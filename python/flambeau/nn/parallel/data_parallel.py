"""`DataParallel`: a batch parted over the CUDA devices of one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ... import _flambeau
from ..modules.module import Module
from .parallel_apply import parallel_apply
from .replicate import replicate
from .scatter_gather import _device, gather, scatter_kwargs


class DataParallel(Module):
    """Runs `module` on parts of the batch, one on each device, and joins the results on one. Without CUDA devices, or with one,
    it calls the module.

    `device_ids` are all devices by default; the module has to be on the first of them.
    """

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        count = _flambeau._cuda_device_count()
        self.module, self.dim = module, dim
        self.device_ids: list[int] = []
        if count == 0:
            return
        chosen = range(count) if device_ids is None else device_ids
        self.device_ids = [_device(d).index or 0 for d in chosen]
        if not self.device_ids:
            raise RuntimeError("DataParallel: device_ids names no device")
        first = _device(self.device_ids[0] if output_device is None else output_device)
        self.output_device = first.index or 0
        self.src_device_obj = _device(self.device_ids[0])
        if len(self.device_ids) == 1:
            self.module.to(self.src_device_obj)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if not self.device_ids:
            return self.module(*inputs, **kwargs)
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            if tensor.device != self.src_device_obj:
                raise RuntimeError(
                    f"module must have its parameters and buffers on device {self.src_device_obj} (device_ids[0]) but found one of "
                    f"them on device: {tensor.device}"
                )
        rows, named = self.scatter(inputs, kwargs, self.device_ids)
        if not rows and not named:
            rows, named = ((),), ({},)
        if len(self.device_ids) == 1:
            return self.module(*rows[0], **named[0])
        replicas = self.replicate(self.module, self.device_ids[: len(rows)])
        return self.gather(self.parallel_apply(replicas, rows, named), self.output_device)

    def replicate(self, module: Module, device_ids: Sequence[Any]) -> list[Module]:
        """Copies of the module."""
        return replicate(module, device_ids, not _flambeau.is_grad_enabled())

    def scatter(self, inputs: tuple[Any, ...], kwargs: dict[str, Any] | None, device_ids: Sequence[Any]) -> Any:
        """The arguments for each device."""
        return scatter_kwargs(inputs, kwargs, device_ids, dim=self.dim)

    def parallel_apply(self, replicas: Sequence[Module], inputs: Sequence[Any], kwargs: Any) -> list[Any]:
        """The results of each device."""
        return parallel_apply(replicas, inputs, kwargs, self.device_ids[: len(replicas)])

    def gather(self, outputs: Any, output_device: Any) -> Any:
        """The results as one."""
        return gather(outputs, output_device, dim=self.dim)


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Sequence[Any] | None = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """`DataParallel` for one call."""
    args = inputs if isinstance(inputs, tuple) else () if inputs is None else (inputs,)
    return DataParallel(module, device_ids, output_device, dim)(*args, **(module_kwargs or {}))


__all__ = ["DataParallel", "data_parallel"]
