"""What a model is made of, as a table."""

from __future__ import annotations

from typing import Any

from .._flambeau import Tensor
from ..autograd.grad_mode import no_grad
from ..nn.modules.module import Module


class Layer:
    """One row: a module by its path, the sizes of what it gave, its own parameters, the operations of one call."""

    def __init__(self, path: str, kind: str, depth: int) -> None:
        self.path, self.kind, self.depth = path, kind, depth
        self.output: Any = None
        self.parameters = self.trainable = self.flops = 0


class Summary:
    """The layers of a model; `str` is the table."""

    def __init__(self, layers: list[Layer], total: int, trainable: int, nbytes: int, flops: int | None) -> None:
        self.layers, self.total_parameters, self.trainable_parameters = layers, total, trainable
        self.total_bytes, self.total_flops = nbytes, flops

    def __str__(self) -> str:
        head = ("Layer", "Output", "Parameters") + (("FLOPs",) if self.total_flops is not None else ())
        rows = [head]
        for layer in self.layers:
            name = layer.path.rpartition(".")[2]
            label = "  " * layer.depth + (f"{name}: {layer.kind}" if layer.path else layer.kind)
            row = (label, _sizes(layer.output), f"{layer.parameters:,}" if layer.parameters else "–")
            rows.append(row + ((f"{layer.flops:,}" if layer.flops else "–",) if self.total_flops is not None else ()))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

        def line(row: tuple[str, ...]) -> str:
            return "  ".join(
                c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()

        out = [line(rows[0]), rule, *map(line, rows[1:]), rule]
        frozen = self.total_parameters - self.trainable_parameters
        out.append(f"Parameters: {self.total_parameters:,} ({self.trainable_parameters:,} trainable, {frozen:,} not)")
        out.append(f"Parameters and buffers: {self.total_bytes / 1e6:,.2f} MB")
        if self.total_flops is not None:
            out.append(f"FLOPs of a call: {self.total_flops:,}")
        return "\n".join(out)

    __repr__ = __str__


def _sizes(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(filter(None, map(_sizes, value))) + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_sizes(v)}" for k, v in value.items()) + "}"
    return ""


def summarise(model: Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Summary:
    """The summary of a model, run once on `inputs` (in evaluation, without gradients) if there are any."""
    layers: dict[int, Layer] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        layer = Layer(path, type(module).__name__, path.count(".") + 1 if path else 0)
        for p in module.parameters(recurse=False):
            # A shared parameter counts where it is first met.
            if id(p) not in seen:
                seen.add(id(p))
                layer.parameters += p.numel()
                layer.trainable += p.numel() if p.requires_grad else 0
        layers[id(module)] = layer
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    nbytes = sum(t.numel() * t.element_size() for t in (*parameters, *model.buffers()))
    flops = _run(model, layers, inputs, kwargs) if inputs or kwargs else None
    return Summary(list(layers.values()), total, trainable, nbytes, flops)


def _run(model: Module, layers: dict[int, Layer], inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    from .flop_counter import FlopCounterMode

    def keep(module: Module, args: Any, result: Any) -> None:
        layers[id(module)].output = _detached(result)

    modes = [(m, m.training) for m in model.modules()]
    handles = [m.register_forward_hook(keep) for m in model.modules()]
    try:
        model.eval()
        with no_grad(), FlopCounterMode(display=False) as counter:
            model(*inputs, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    counts = counter.get_flop_counts()
    root = type(model).__name__
    for layer in layers.values():
        layer.flops = sum(counts.get(f"{root}.{layer.path}" if layer.path else root, {}).values())
    return counter.get_total_flops()


def _detached(value: Any) -> Any:
    """The result's shape without its memory's history."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, tuple):
        return tuple(map(_detached, value))
    return value


__all__ = ["Layer", "Summary", "summarise"]
