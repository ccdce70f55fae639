"""What figures of training need: arrays in the form that matplotlib takes, and three drawings of them.

matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._flambeau import Tensor


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as missing:
        raise ImportError("flambeau.utils.plot draws with matplotlib: pip install matplotlib") from missing
    return plt.gca()


def array(values: Any) -> Any:
    """Values as a NumPy array of numbers that matplotlib knows: off the graph, on the host, half precision as float32."""
    import numpy as np

    if not isinstance(values, Tensor):
        return np.asarray(
            [v.item() if isinstance(v, Tensor) else v for v in values] if isinstance(values, Sequence) else values
        )
    values = values.detach().cpu()
    if values.is_floating_point() and values.element_size() < 4:
        values = values.float()
    return values.numpy()


def grid(images: Tensor, columns: int = 8, padding: int = 2, value_range: tuple[float, float] | None = None) -> Any:
    """Images [N, C, H, W] (or [N, H, W]) side by side as one array [H, W, C] of float32 in 0 … 1, as `imshow` takes it."""
    import numpy as np

    pictures = array(images.float())
    if pictures.ndim == 3:
        pictures = pictures[:, None]
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3, 4):
        raise ValueError(
            f"grid: expected [N, C, H, W] with 1, 3 or 4 channels, or [N, H, W], but got {list(images.shape)}"
        )
    low, high = (
        value_range if value_range is not None else (float(pictures.min(initial=0)), float(pictures.max(initial=1)))
    )
    pictures = np.clip((pictures - low) / max(high - low, 1e-12), 0, 1)
    n, channels, height, width = pictures.shape
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    sheet = np.ones((rows * (height + padding) + padding, columns * (width + padding) + padding, channels), np.float32)
    for i, picture in enumerate(pictures):
        y, x = padding + (i // columns) * (height + padding), padding + (i % columns) * (width + padding)
        sheet[y : y + height, x : x + width] = picture.transpose(1, 2, 0)
    return sheet[..., 0] if channels == 1 else sheet


def images(batch: Tensor, ax: Any = None, **options: Any) -> Any:
    """Draws images side by side; `options` are those of `grid`."""
    ax = _axes(ax)
    sheet = grid(batch, **options)
    ax.imshow(sheet, cmap="gray" if sheet.ndim == 2 else None, vmin=0, vmax=1)
    ax.set_axis_off()
    return ax


def curves(history: Mapping[str, Any], ax: Any = None, x: Any = None, xlabel: str = "step", log: bool = False) -> Any:
    """Draws one line for each name, over `x` or over the steps."""
    ax = _axes(ax)
    for name, values in history.items():
        line = array(values)
        ax.plot(range(len(line)) if x is None else array(x), line, label=name)
    ax.set_xlabel(xlabel)
    if log:
        ax.set_yscale("log")
    ax.legend()
    return ax


def histogram(values: Tensor, bins: int = 50, ax: Any = None, label: str | None = None) -> Any:
    """Draws how often values occur."""
    ax = _axes(ax)
    ax.hist(array(values).ravel(), bins=bins, label=label)
    return ax


__all__ = ["array", "curves", "grid", "histogram", "images"]
