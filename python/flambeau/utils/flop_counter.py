"""Counts the operations of products, convolutions and attention, by module.

    with FlopCounterMode() as counter:
        model(x).sum().backward()
    counter.get_total_flops()

A product of (m, k) and (k, n) counts 2·m·k·n. A backward pass counts for the modules whose forward made its nodes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from .. import _flambeau
from ..nn.modules import module as _module

# What is counted; sums and element-wise products are not.
_COUNTED = {
    "linear": "addmm", "bmm": "bmm", "mm": "mm", "addmm": "addmm", "baddbmm": "baddbmm", "matmul": "mm",
    "convolution": "convolution", "convolution_input_grad": "convolution_backward",
    "convolution_weight_grad": "convolution_backward", "scaled_dot_product_attention": "_scaled_dot_product_attention",
}  # fmt: skip
_RANGE = "flop_counter: "


class FlopCounterMode:
    """Counts what the body of a `with` computes. `depth` is how many levels of modules the table shows at the end (`display=False`
    prints none).
    """

    def __init__(
        self, mods: Any = None, depth: int = 2, display: bool = True, custom_mapping: dict[Any, Any] | None = None
    ) -> None:
        self.depth, self.display = depth, display
        self.flop_counts: dict[str, dict[str, int]] = {}
        self._handles: list[Any] = []
        self._open: list[tuple[str, int | None]] = []

    def __enter__(self) -> FlopCounterMode:
        _flambeau._profile_start(False, False, True, None, None)
        self._open = []
        self._handles = [
            _module.register_module_forward_pre_hook(self._begin),
            _module.register_module_forward_hook(self._end),
        ]
        return self

    def _begin(self, module: Any, args: Any) -> None:
        if not self._open:
            name = type(module).__name__
            self._names = {id(m): f"{name}.{n}" if n else name for n, m in module.named_modules()}
        name = self._names.get(id(module), type(module).__name__)
        self._open.append((name, _flambeau._profile_enter(_RANGE + name)))

    def _end(self, module: Any, args: Any, result: Any) -> None:
        if self._open:
            _, number = self._open.pop()
            if number is not None:
                _flambeau._profile_exit(number)

    def __exit__(self, *exc: Any) -> None:
        for handle in self._handles:
            handle.remove()
        counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        modules: list[tuple[str, ...]] = []
        nodes: list[int | None] = []
        made_in: dict[int, tuple[str, ...]] = {}
        for name, kind, _, _, parent, sequence, _, _, _, flops, _ in _flambeau._profile_stop():
            within = modules[parent] if parent is not None else ()
            node = nodes[parent] if parent is not None else None
            if kind == "user" and name.startswith(_RANGE):
                within = (*within, name[len(_RANGE) :])
            if kind == "backward":
                node = sequence if sequence is not None else node
            elif kind == "operator" and sequence is not None and node is None:
                made_in[sequence] = within
            modules.append(within)
            nodes.append(node)
            label = _COUNTED.get(name) or ("convolution" if name.startswith("conv") else None)
            if not flops or label is None:
                continue
            for place in ("Global", *dict.fromkeys(made_in.get(node, within) if node is not None else within)):
                counts[place][f"aten.{label}"] += flops
        self.flop_counts = {place: dict(ops) for place, ops in counts.items()}
        if self.display:
            print(self.get_table(self.depth))

    def get_total_flops(self) -> int:
        """All operations that were counted."""
        return sum(self.flop_counts.get("Global", {}).values())

    def get_flop_counts(self) -> dict[str, dict[str, int]]:
        """Operations by module and by operator."""
        return {place: dict(ops) for place, ops in self.flop_counts.items()}

    def get_table(self, depth: int | None = None) -> str:
        """The counts as text."""
        depth = self.depth if depth is None else depth
        total = max(self.get_total_flops(), 1)
        rows = [("Module", "FLOP", "% Total")]
        for place, ops in self.flop_counts.items():
            level = 0 if place == "Global" else place.count(".") + 1
            if level > depth:
                continue
            indent = " " * level
            rows.append((indent + place, _short(sum(ops.values())), f"{100 * sum(ops.values()) / total:.2f}%"))
            rows += [(f"{indent} - {op}", _short(n), f"{100 * n / total:.2f}%") for op, n in ops.items()]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join(lines)


def _short(n: int) -> str:
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= unit:
            return f"{n / unit:.3f}{name}"
    return str(n)


__all__ = ["FlopCounterMode"]
