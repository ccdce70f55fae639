"""The array API's standard: its names in the package itself, and the strict namespace, `flambeau.array_api`.

The consortium's test suite (2024.12) is run by hand; docs/array_api.md has its figures and explains what remains.
"""

from __future__ import annotations

import math

import flambeau as xp
import flambeau.array_api as strict
import pytest


def test_inspection():
    info = xp.__array_namespace_info__()
    assert xp.rand(2).__array_namespace__() is strict
    assert xp.rand(2).__array_namespace__(api_version="2024.12") is strict
    assert all(hasattr(strict, name) for name in strict.__all__)
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


def test_strict_dtypes():
    narrow, wide = strict.ones((2,), dtype=strict.float32), strict.asarray(1.0, dtype=strict.float64)
    assert strict.add(narrow, wide).dtype == strict.float64 and xp.add(narrow, wide).dtype == xp.float32
    assert strict.sum(strict.ones((3,), dtype=strict.uint8)).dtype == strict.uint64
    assert strict.finfo(strict.complex128).dtype == strict.float64 and strict.iinfo(strict.int8).max == 127
    assert strict.can_cast(strict.int8, strict.int16) and not strict.can_cast(strict.float64, strict.float32)
    assert strict.result_type(strict.int8, wide) == strict.float64
    assert strict.maximum(narrow, 3).tolist() == [3, 3] and strict.arange(5, 2).shape == (0,)


def test_strict_results():
    x = strict.asarray([[3.0, 1.0], [2.0, 2.0]])
    assert strict.equal(x, 2.0).tolist() == [[False, False], [True, True]] and strict.sort(x).tolist() == [[1, 3], [2, 2]]
    assert strict.max(x, axis=(0, 1)) == 3 and strict.sum(x, axis=()).tolist() == x.tolist()
    assert [t.tolist() for t in strict.nonzero(x > 2)] == [[0], [0]]
    assert strict.var(x) == 0.5 and math.isnan(strict.std(strict.asarray(math.nan)))
    assert isinstance(strict.meshgrid(x[0], x[1]), list) and strict.clip(x).tolist() == x.tolist()
    with pytest.raises(ValueError, match="squeeze"):
        strict.squeeze(x, 0)
    with pytest.raises(ValueError, match="copy"):
        strict.reshape(x.mT, (4,), copy=False)
    assert strict.take(x, strict.asarray([-1]), axis=0).tolist() == [[2, 2]]


def test_strict_special_values():
    inf = strict.asarray([math.inf, 1.0])
    assert strict.floor_divide(inf, strict.asarray([2.0, -math.inf])).tolist() == [math.inf, 0]
    assert math.isnan(strict.sign(strict.asarray(math.nan))) and strict.sign(strict.asarray(3j)) == 1j
    assert strict.expm1(strict.asarray(complex(-math.inf, math.inf))) == -1
    assert strict.tanh(strict.asarray(complex(math.inf, 1.0))) == 1
    # A zero that is left has the divisor's sign, in the package too.
    assert math.copysign(1, float(xp.asarray(-0.0) % 2)) == 1 and math.copysign(1, float(xp.asarray(4.0) % -2)) == -1


def test_strict_arrays():
    x = strict.asarray([1.0, math.inf])
    assert isinstance(x, xp.Tensor) and (x // 2).tolist() == [0, math.inf] and (1 // x).tolist() == [1, 0]
    assert (strict.asarray(1, dtype=strict.int16) + strict.asarray([1], dtype=strict.int8)).dtype == strict.int16
    y = strict.reshape(strict.arange(6), (2, 3))
    assert y[::-1, ::-2].tolist() == [[5, 3], [2, 0]] and y[..., None, 1:0:-1].tolist() == [[[1]], [[4]]]
    y[0, ::-1] = strict.asarray([7, 8, 9])
    assert y[0].tolist() == [9, 8, 7] and y[5:0:-1, 0].tolist() == [3] and y[0:1:-1].shape == (0, 3)
    z = x
    z += 1
    assert z is x and x[0] == 2
    with pytest.raises(RuntimeError, match="cannot be written"):
        z += strict.ones((2,), dtype=strict.float64)
    large = strict.asarray([0, 5], dtype=strict.uint64)
    large[0] = 2**63
    assert int(large[0]) == 2**63 and (large == 2**63).tolist() == [True, False] and int(~large[1]) == 2**64 - 6


def test_strict_linear_algebra():
    x = strict.asarray([[9e18, 9e18], [9e18, 9e18]], dtype=strict.float32)
    assert float(strict.linalg.svdvals(x)[0]) == pytest.approx(1.8e19) and strict.linalg.pinv(x).isfinite().all()
    assert strict.linalg.qr(x * 1j).R.isfinite().all()
    assert float(strict.linalg.eigvalsh(x * 1e-36)[1]) == pytest.approx(1.8e-17, rel=1e-6)
    assert strict.linalg.cross(strict.ones((2, 3)), strict.asarray([1.0, 0, 0])).shape == (2, 3)
    a, b = strict.eye(2, dtype=strict.float64), strict.ones((2,), dtype=strict.float32)
    assert strict.linalg.solve(a, b).tolist() == [1, 1]
