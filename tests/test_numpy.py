"""Operators against NumPy, on generated shapes, strides and types."""

import flambeau as torch
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

settings.register_profile("suite", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("suite")

FLOATS = [np.float32, np.float64]
INTEGERS = [np.uint8, np.int8, np.int16, np.int32, np.int64]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
BUSY_SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9)


def elements(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return st.floats(-100, 100, width=32)
    if dtype.kind == "b":
        return st.booleans()
    return st.integers(0 if dtype.kind == "u" else -100, 100)


@st.composite
def arrays(draw, dtypes=FLOATS, shapes=SHAPES):
    """An array of one of the types, often with strides that are not contiguous: permuted, stepped, reversed."""
    dtype = draw(st.sampled_from(dtypes))
    a = draw(hnp.arrays(dtype, draw(shapes), elements=elements(dtype)))
    if a.ndim and draw(st.booleans()):
        a = a.transpose(draw(st.permutations(range(a.ndim))))
    if a.ndim and draw(st.booleans()):
        a = a[tuple(slice(None, None, draw(st.integers(1, 3))) for _ in range(a.ndim))]
    return a


def tensor(a):
    """A tensor with the array's strides."""
    a = np.asarray(a)  # indexing and arithmetic turn 0-dimensional arrays into scalars
    return torch.from_numpy(a) if all(s >= 0 for s in a.strides) else torch.tensor(a)


def same(t, a, rtol=0.0, atol=0.0):
    a = np.asarray(a)
    got = t.numpy()
    assert got.dtype == a.dtype, (got.dtype, a.dtype)
    assert got.shape == a.shape, (got.shape, a.shape)
    np.testing.assert_allclose(got, a, rtol=rtol, atol=atol)


# ---- exchange and views ------------------------------------------------------------------------------


@given(arrays(FLOATS + INTEGERS + [np.bool_]))
def test_exchange_keeps_shape_strides_and_type(a):
    t = torch.from_numpy(a)
    assert tuple(t.shape) == a.shape
    if a.size > 1:
        assert [s for s, n in zip(t.stride(), a.shape, strict=True) if n > 1] == [
            s // a.itemsize for s, n in zip(a.strides, a.shape, strict=True) if n > 1
        ]
    same(t, a)
    same(torch.tensor(a), a)
    same(t.contiguous(), a)
    assert t.contiguous().is_contiguous() and t.clone().tolist() == a.tolist()


@given(arrays(shapes=BUSY_SHAPES), st.data())
def test_views(a, data):
    t = tensor(a)
    order = data.draw(st.permutations(range(a.ndim)))
    same(t.permute(*order), a.transpose(order))
    dim = data.draw(st.integers(-a.ndim, a.ndim - 1))
    same(t.unsqueeze(dim), np.expand_dims(a, dim))
    same(t.flip(dim), np.flip(a, dim))
    same(t.reshape(-1), a.reshape(-1))
    same(t.expand(2, *a.shape), np.broadcast_to(a, (2, *a.shape)))
    length = data.draw(st.integers(1, a.shape[dim]))
    start = data.draw(st.integers(0, a.shape[dim] - length))
    same(t.narrow(dim, start, length), a.take(range(start, start + length), axis=dim))
    parts = data.draw(st.integers(1, 4))
    for got, want in zip(t.tensor_split(parts, dim), np.array_split(a, parts, dim), strict=True):
        same(got, want)


# ---- element-wise ------------------------------------------------------------------------------------

BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum}
COMPARISONS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater}
UNARY = {
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "atan": np.arctan, "exp": np.exp, "expm1": np.expm1, "sign": np.sign,
    "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "square": np.square, "neg": np.negative,
    "sinh": np.sinh, "asinh": np.arcsinh,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(UNARY))
@settings(max_examples=20)
@given(a=arrays())
def test_unary(name, a):
    a = (a / 4).astype(a.dtype) if name in ("exp", "expm1", "sinh") else a
    eps = np.finfo(a.dtype).eps
    same(getattr(torch, name)(tensor(a)), UNARY[name](a), rtol=8 * eps, atol=8 * eps)


@st.composite
def broadcast_pairs(draw, dtypes):
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=6)).input_shapes
    dtype = draw(st.sampled_from(dtypes))
    return tuple(draw(strided([dtype], shape)) for shape in shapes)


@st.composite
def strided(draw, dtypes, shape):
    """An array of exactly this shape, often a stepped or transposed view of a larger one."""
    dtype = draw(st.sampled_from(dtypes))
    step = draw(st.integers(1, 2))
    a = draw(hnp.arrays(dtype, tuple(n * step for n in reversed(shape)), elements=elements(dtype)))
    return a.transpose()[tuple(slice(None, None, step) for _ in shape)]


@pytest.mark.parametrize("name", sorted(BINARY))
@settings(max_examples=30)
@given(pair=broadcast_pairs(FLOATS + INTEGERS))
def test_binary(name, pair):
    with np.errstate(over="ignore"):
        want = BINARY[name](*pair)
    same(getattr(torch, name)(*map(tensor, pair)), want)


@pytest.mark.parametrize("name", sorted(COMPARISONS))
@settings(max_examples=20)
@given(pair=broadcast_pairs(FLOATS + INTEGERS))
def test_comparison(name, pair):
    same(getattr(torch, name)(*map(tensor, pair)), COMPARISONS[name](*pair))


@given(arrays(), st.floats(-10, 10, width=32))
def test_numbers_are_weak(a, number):
    same(tensor(a) * number, a * a.dtype.type(number))


@given(arrays(FLOATS + INTEGERS), st.sampled_from(FLOATS + INTEGERS))
def test_conversion(a, dtype):
    if a.dtype.kind == "f" and np.dtype(dtype).kind in "ui":
        a = np.abs(a)  # a negative number has no meaning as an unsigned one
    same(tensor(a).to(getattr(torch, np.dtype(dtype).name)), a.astype(dtype))


@given(arrays(), st.data())
def test_in_place_on_a_view(a, data):
    a = a.copy()
    t = torch.tensor(a)
    if a.ndim:
        step = data.draw(st.integers(1, 3))
        t[..., ::step] += 1
        a[..., ::step] += 1
    else:
        t += 1
        a += 1
    same(t, a)


# ---- reductions --------------------------------------------------------------------------------------


@given(arrays(shapes=BUSY_SHAPES), st.data())
def test_reductions(a, data):
    dims = tuple(data.draw(st.sets(st.integers(0, a.ndim - 1), min_size=1)))
    keep = data.draw(st.booleans())
    t, wide = tensor(a), a.astype("f8")
    eps = np.finfo(a.dtype).eps * max(1, a.size)
    close = {"rtol": 4 * eps, "atol": 400 * eps}
    same(t.sum(dims, keepdim=keep), wide.sum(dims, keepdims=keep).astype(a.dtype), **close)
    same(t.mean(dims, keepdim=keep), wide.mean(dims, keepdims=keep).astype(a.dtype), **close)
    same(t.amax(dims, keepdim=keep), a.max(dims, keepdims=keep))
    same(t.amin(dims, keepdim=keep), a.min(dims, keepdims=keep))
    dim = dims[0]
    same(t.argmax(dim), a.argmax(dim))
    same(t.cumsum(dim), wide.cumsum(dim).astype(a.dtype), **close)
    same(t.sort(dim).values, np.sort(a, dim))


@given(arrays(INTEGERS, BUSY_SHAPES))
def test_integer_sums_are_wide(a):
    same(tensor(a).sum(), a.astype("i8").sum())
    same(tensor(a).min(), a.min())


@settings(max_examples=15)
@given(st.integers(1, 9000))
def test_long_sums(n):
    a = np.random.default_rng(n).standard_normal(n)
    same(torch.tensor(a).sum(), a.sum(), rtol=1e-12, atol=1e-10)


# ---- indexing ----------------------------------------------------------------------------------------


@given(arrays(FLOATS + INTEGERS, BUSY_SHAPES), st.data())
def test_basic_indexing(a, data):
    index = data.draw(hnp.basic_indices(a.shape, allow_newaxis=True, allow_ellipsis=True))
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(p, slice) and p.step is not None and p.step < 0 for p in parts):
        with pytest.raises(ValueError):
            tensor(a)[index]
    else:
        same(tensor(a)[index], a[index])


@given(arrays(FLOATS + INTEGERS, BUSY_SHAPES), st.data())
def test_integer_array_indexing(a, data):
    index = data.draw(
        hnp.integer_array_indices(a.shape, result_shape=hnp.array_shapes(min_dims=1, max_dims=2, max_side=4))
    )
    where = tuple(torch.tensor(i) for i in index)
    same(tensor(a)[where], a[index])
    written, t = a.copy(), torch.tensor(a)
    written[index] = 1
    t[where] = 1
    same(t, written)


@given(arrays(shapes=BUSY_SHAPES))
def test_masks(a):
    mask = a > 0
    t = torch.tensor(a)
    same(t[torch.tensor(mask)], a[mask])
    same(torch.where(t > 0, t, 0), np.where(mask, a, a.dtype.type(0)))
    same(t.nonzero(), np.argwhere(a))
    t[torch.tensor(mask)] = -1
    same(t, np.where(mask, a.dtype.type(-1), a))


@given(arrays(FLOATS + INTEGERS, BUSY_SHAPES), st.data())
def test_gather_and_select(a, data):
    dim = data.draw(st.integers(0, a.ndim - 1))
    rows = data.draw(st.lists(st.integers(0, a.shape[dim] - 1), min_size=1, max_size=5))
    same(tensor(a).index_select(dim, torch.tensor(rows)), a.take(rows, axis=dim))
    order = np.argsort(a, dim, kind="stable")
    same(tensor(a).gather(dim, torch.tensor(order)), np.take_along_axis(a, order, dim))


@given(st.lists(arrays([np.float32], st.just((2, 3))), min_size=1, max_size=4))
def test_joining(parts):
    shape = parts[0].shape
    parts = [p for p in parts if p.shape == shape]
    for dim in range(len(shape)):
        same(torch.cat([tensor(p) for p in parts], dim), np.concatenate(parts, dim))
        same(torch.stack([tensor(p) for p in parts], dim), np.stack(parts, dim))


# ---- products ----------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(FLOATS + [np.int64]))
def test_matmul(data, dtype):
    m, k, n = (data.draw(st.integers(1, 70)) for _ in range(3))
    batch = data.draw(st.sampled_from([(), (3,), (2, 1)]))
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)

    def operand(rows, columns, lead):
        a = rng.integers(-4, 5, (*lead, columns, rows) if data.draw(st.booleans()) else (*lead, rows, columns))
        a = a.astype(dtype)
        return a if a.shape[-2:] == (rows, columns) else a.swapaxes(-1, -2)

    a, b = operand(m, k, batch), operand(k, n, data.draw(st.sampled_from([(), (3,)])))
    same(tensor(a) @ tensor(b), a @ b)  # small integers: exact in every type
    if a.ndim == 2:
        same(tensor(a[0]) @ tensor(b), a[0] @ b)
