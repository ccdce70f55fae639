"""What the array API's standard adds to PyTorch's names.

The consortium's test suite (2024.12) is run by hand: `ARRAY_API_TESTS_MODULE=flambeau pytest array_api_tests`. Some 93 of 100 of its
tests pass; what it says of the rest follows from PyTorch's own rules, which come first:

- `equal` answers with one bool, so `test_equal`, `test_binary_with_scalars_real[equal]`, the creation tests that compare through it
  (`full`, `ones`, `zeros` and their `_like` forms, over empty arrays) and `cholesky`, `qr`, `outer` (through its NaN rule) fail;
- `finfo(...).dtype` and `iinfo(...).dtype` are strings;
- `atan2`, `hypot`, `logaddexp`, `maximum`, `minimum`, `nextafter` and `logical_*` refuse Python's numbers;
- `floor_divide` follows Python at infinities (NaN for inf // 2, -1 for 1 // -inf), `remainder` keeps a zero's sign;
- `sort` returns values and indices (`searchsorted` is tested through it), `max` and `min` take one dimension, `nonzero` returns one
  tensor also for a scalar, `meshgrid` a tuple, `reshape` has no `copy`, `take` no `axis`;
- reductions over no axes are over all, sums of uint8 are int64 (`trace` is compared with `sum`), `linalg.vecdot` broadcasts;
- `expm1` and `log1p` of complex infinities are what their formulas give, `sign` of NaN is 0, and it refuses complex numbers;
- `clip` wants a bound;
- `tensordot` wants one dtype, `arange` refuses bounds against its step, slices negative steps, `squeeze` lets other sizes be.
"""

from __future__ import annotations

import flambeau as xp
import pytest


def test_inspection():
    info = xp.__array_namespace_info__()
    assert xp.rand(2).__array_namespace__() is xp
    assert xp.rand(2).__array_namespace__(api_version="2024.12") is xp
    with pytest.raises(ValueError, match="unsupported version"):
        xp.rand(2).__array_namespace__(api_version="1999.01")
    assert info.dtypes(kind="signed integer") == {f"int{n}": getattr(xp, f"int{n}") for n in (8, 16, 32, 64)}
    assert info.default_dtypes()["real floating"] == xp.get_default_dtype()
    assert info.capabilities()["boolean indexing"] and info.devices()[0] == info.default_device()


def test_unique():
    x = xp.asarray([[3, 1], [1, 3]])
    result = xp.unique_all(x)
    assert result.values.tolist() == [1, 3] and result.indices.tolist() == [1, 0]
    assert result.inverse_indices.tolist() == [[1, 0], [0, 1]] and result.counts.tolist() == [2, 2]
    assert xp.unique_values(xp.asarray([float("nan"), 1.0, float("nan")])).shape == (3,)
    assert xp.unique_counts(xp.zeros(0)).counts.shape == (0,)
    assert xp.unique_inverse(xp.asarray([2j, 1 + 0j, 2j])).values.tolist() == [2j, 1 + 0j]


def test_cumulative():
    x = xp.asarray([1, 2, 3], dtype=xp.int32)
    assert xp.cumulative_sum(x, include_initial=True).tolist() == [0, 1, 3, 6]
    assert xp.cumulative_prod(x).tolist() == [1, 2, 6] and xp.cumulative_sum(x).dtype == xp.int64
    with pytest.raises(ValueError, match="axis"):
        xp.cumulative_sum(xp.ones((2, 2)))


def test_dtypes():
    assert xp.isdtype(xp.float32, "real floating") and not xp.isdtype(xp.int8, ("bool", xp.int16))
    assert xp.result_type(xp.int8, xp.ones(2, dtype=xp.int16), 1) == xp.int16
    assert xp.result_type(xp.int8, 1.5) == xp.get_default_dtype()
    assert xp.astype(xp.asarray([1.5]), xp.int64).tolist() == [1]
    assert xp.finfo(xp.ones(2, dtype=xp.float64)).bits == 64
    with pytest.raises(TypeError):
        xp.astype(xp.asarray([1j]), xp.float32)


def test_shapes_and_keywords():
    x = xp.reshape(xp.arange(6), (2, 3))
    assert xp.permute_dims(x, (1, 0)).shape == (3, 2) and xp.expand_dims(x, axis=1).shape == (2, 1, 3)
    assert xp.repeat(x, 2, axis=1).shape == (2, 6) and len(xp.unstack(x, axis=1)) == 3
    assert xp.concat([x, x], axis=None).shape == (12,) and xp.flip(x, axis=None)[0, 0] == 5
    assert xp.roll(x, 1, axis=None)[0, 0] == 5 and xp.matrix_transpose(x).shape == (3, 2)
    assert xp.zeros(shape=(2, 3)).shape == (2, 3) and xp.tril(x, k=-1)[0, 0] == 0
    assert xp.linspace(0, 1, num=4, endpoint=False).tolist() == [0, 0.25, 0.5, 0.75]
    assert xp.eye(3, 4, k=1)[0, 1] == 1 and xp.eye(2, k=5).sum() == 0
    assert xp.prod(x + 1, axis=(0, 1)) == 720 and xp.count_nonzero(x, axis=0, keepdims=True).shape == (1, 3)
    assert xp.take_along_axis(x, xp.asarray([[2], [0]]), axis=1).tolist() == [[2], [3]]
    assert xp.vecdot(xp.asarray([1j, 2]), xp.asarray([1j, 1])) == 3
    assert xp.linalg.trace(x.to(xp.float64)[:, :2]) == 4 and xp.tensordot(x, x, axes=((0, 1), (0, 1))) == 55
