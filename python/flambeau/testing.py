"""What tests are written with: `assert_close`, `make_tensor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _flambeau
from ._flambeau import Tensor
from ._ops import ops

__all__ = ["assert_allclose", "assert_close", "make_tensor"]

# Relative and absolute tolerance by dtype; exact for what is not listed.
_TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}


def _tolerances(*dtypes: Any) -> tuple[float, float]:
    found = [_TOLERANCES.get(str(d).removeprefix("torch."), (0.0, 0.0)) for d in dtypes]
    return max(r for r, _ in found), max(a for _, a in found)


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Raises `AssertionError` unless `|actual - expected| <= atol + rtol |expected|` everywhere.

    Tensors, numbers, and sequences and mappings of them. Tolerances default by dtype, 1.3e-6 relative and 1e-5 absolute for
    float32; only one of them cannot be given.
    """
    if (rtol is None) != (atol is None):
        raise ValueError("assert_close: 'rtol' and 'atol' must be given together or not at all")

    def fail(text: str, where: str) -> None:
        text = f"{text}{f' (at {where})' if where else ''}"
        if msg is not None:
            text = msg(text) if callable(msg) else msg
        raise AssertionError(text)

    def compare(a: Any, b: Any, where: str) -> None:
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if set(a) != set(b):
                fail(f"The keys of the mappings do not match: {sorted(map(str, a))} != {sorted(map(str, b))}", where)
            for key in a:
                compare(a[key], b[key], f"{where}[{key!r}]")
            return
        listed = (Sequence,)
        if isinstance(a, listed) and isinstance(b, listed) and not isinstance(a, str) and not isinstance(b, str):
            if len(a) != len(b):
                fail(f"The length of the sequences mismatch: {len(a)} != {len(b)}", where)
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(x, y, f"{where}[{i}]")
            return
        if a is None or b is None:
            if a is not b:
                fail(f"None mismatch: {a!r} is not {b!r}", where)
            return
        if isinstance(a, str) or isinstance(b, str):
            if a != b:
                fail(f"{a!r} is not equal to {b!r}", where)
            return
        plain = not isinstance(a, Tensor) and not isinstance(b, Tensor)
        if (
            isinstance(a, Tensor) != isinstance(b, Tensor)
            and not plain
            and (isinstance(a, (bool, int, float, complex)) or isinstance(b, (bool, int, float, complex)))
        ):
            raise TypeError(
                f"assert_close: cannot compare {type(a).__name__} and {type(b).__name__}{f' (at {where})' if where else ''}"
            )
        x, y = (v if isinstance(v, Tensor) else ops.as_tensor(v, dtype=_number_dtype(v)) for v in (a, b))
        tensors(x.detach(), y.detach(), where, "Scalars" if plain and x.dim() == 0 else "Tensor-likes")

    def tensors(x: Tensor, y: Tensor, where: str, what: str) -> None:
        if x.shape != y.shape:
            fail(f"The values for attribute 'shape' do not match: {x.shape} != {y.shape}.", where)
        if check_layout and x.layout != y.layout:
            fail(f"The values for attribute 'layout' do not match: {x.layout} != {y.layout}.", where)
        if check_stride and x.stride() != y.stride():
            fail(f"The values for attribute 'stride()' do not match: {x.stride()} != {y.stride()}.", where)
        if check_device and x.device != y.device:
            fail(f"The values for attribute 'device' do not match: {x.device} != {y.device}.", where)
        if check_dtype and what != "Scalars" and x.dtype != y.dtype:
            fail(f"The values for attribute 'dtype' do not match: {x.dtype} != {y.dtype}.", where)
        relative, absolute = (rtol, atol) if rtol is not None and atol is not None else _tolerances(x.dtype, y.dtype)
        dtype = ops.promote_types(x.dtype, y.dtype)
        x, y = x.cpu().to(dtype), y.cpu().to(dtype)
        close = ops.isclose(x, y, rtol=relative, atol=absolute, equal_nan=equal_nan)
        if bool(close.all()):
            return
        exact = relative == 0 and absolute == 0
        wide = _flambeau.complex128 if dtype.is_complex else _flambeau.float64
        gap = (x.to(wide) - y.to(wide)).abs()
        gap = gap.masked_fill(close, 0)
        ratio = (gap / y.to(wide).abs()).nan_to_num(nan=float("nan"), posinf=float("inf")).masked_fill(close, 0)
        if what == "Scalars":
            fail(
                f"Scalars are not {'equal' if exact else 'close'}!\n\nExpected {y.item()} but got {x.item()}.\n"
                f"Absolute difference: {gap.item()}{'' if exact else f' (up to {absolute} allowed)'}\n"
                f"Relative difference: {ratio.item()}{'' if exact else f' (up to {relative} allowed)'}",
                where,
            )

        def worst(values: Tensor) -> str:
            flat = values.flatten()
            at = int(flat.nan_to_num(nan=float("inf")).argmax())
            index = tuple(int(i) for i in ops.unravel_index(ops.tensor(at), values.shape)) if values.dim() else ()
            return f"{flat[at].item()} at index {index}"

        bad = int((~close).sum())
        fail(
            f"{what} are not {'equal' if exact else 'close'}!\n\nMismatched elements: {bad} / {close.numel()} ({bad / close.numel():.1%})\n"
            f"Greatest absolute difference: {worst(gap)}{'' if exact else f' (up to {absolute} allowed)'}\n"
            f"Greatest relative difference: {worst(ratio)}{'' if exact else f' (up to {relative} allowed)'}",
            where,
        )

    compare(actual, expected, "")


def _number_dtype(value: Any) -> Any:
    if isinstance(value, bool):
        return _flambeau.bool
    if isinstance(value, int):
        return _flambeau.int64
    if isinstance(value, float):
        return _flambeau.float64
    return _flambeau.complex128 if isinstance(value, complex) else None


def make_tensor(
    *shape: Any,
    dtype: Any,
    device: Any = "cpu",
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """A tensor of random numbers in [low, high), by default [-9, 9) for floating point and [-9, 10) for integers.

    Raises `ValueError` for an empty interval, and for `noncontiguous` together with `memory_format`.
    """
    if len(shape) == 1 and not isinstance(shape[0], int):
        shape = tuple(shape[0])
    if noncontiguous and memory_format is not None:
        raise ValueError("make_tensor: 'noncontiguous' and 'memory_format' cannot be given together")
    if dtype == _flambeau.bool:
        low, high = (0 if low is None else low), (2 if high is None else high)
    elif not dtype.is_floating_point and not dtype.is_complex:
        low = (0 if dtype == _flambeau.uint8 else -9) if low is None else low
        high = 10 if high is None else high
    else:
        low, high = (-9 if low is None else low), (9 if high is None else high)
    if low >= high:
        raise ValueError(f"make_tensor: low must be less than high, got {low} and {high}")
    size = (*shape[:-1], 2 * shape[-1]) if noncontiguous and shape else shape
    if dtype.is_complex:
        part = _flambeau.float64 if dtype == _flambeau.complex128 else _flambeau.float32
        t = ops.complex(*(ops.empty(size, dtype=part, device=device).uniform_(low, high) for _ in range(2)))
    elif dtype.is_floating_point:
        t = ops.empty(size, dtype=dtype, device=device).uniform_(low, high)
    else:
        t = ops.randint(int(low), int(high), size, device=device).to(dtype)
    if noncontiguous and shape:
        t = t[..., ::2]
    elif memory_format is not None:
        t = t.contiguous(memory_format=memory_format)
    if exclude_zero:
        t[t == 0] = 1 if not (dtype.is_floating_point or dtype.is_complex) else _flambeau.finfo(dtype).tiny
    return t.requires_grad_(requires_grad)


def assert_allclose(
    actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None, equal_nan: bool = True, msg: str = ""
) -> None:
    """`assert_close` as it was before: dtypes and devices may differ, and NaN is close to NaN."""
    actual = actual if isinstance(actual, Tensor) else ops.as_tensor(actual)
    expected = expected if isinstance(expected, Tensor) else ops.as_tensor(expected, dtype=actual.dtype)
    if (rtol is None) != (atol is None):
        raise ValueError("assert_allclose: 'rtol' and 'atol' must be given together or not at all")
    assert_close(
        actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan, check_device=False, check_dtype=False, check_layout=False, msg=msg or None
    )
