"""CPU kernels against their definitions, and the same bits at any number of threads."""

import flambeau
import numpy as np
import pytest

rng = np.random.default_rng(7)


@pytest.fixture
def threads():
    before = flambeau.get_num_threads()
    yield (1, 2, 8)
    flambeau.set_num_threads(before)


def bits(threads, compute):
    """Asserts that every result has the same bytes at each number of threads; returns the last results."""
    first = None
    for n in threads:
        flambeau.set_num_threads(n)
        out = compute()
        now = [t.detach().numpy().tobytes() for t in out]
        first = first or now
        assert first == now, f"results differ at {n} threads"
    return out


def batch_norm_by_definition(x, w, b, eps=1e-5):
    dims = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    mean = x.mean(dims, keepdim=True)
    var = ((x - mean) ** 2).mean(dims, keepdim=True)
    return (x - mean) * (var + eps).rsqrt() * w.view(shape) + b.view(shape)


SHAPES = [(4, 3, 5, 6), (16, 64, 7, 7), (9, 17), (300, 70), (6, 5, 11), (2, 3, 4, 5, 3)]


@pytest.mark.parametrize("shape,channels_last", [(s, False) for s in SHAPES] + [(s, True) for s in SHAPES[:2]])
def test_batch_norm_and_its_gradients(shape, channels_last, threads):
    values, cotangent = rng.normal(size=shape), rng.normal(size=shape)
    w0, b0 = rng.normal(size=shape[1]), rng.normal(size=shape[1])

    def run(f):
        x = flambeau.tensor(values)
        if channels_last:
            x = x.to(memory_format=flambeau.channels_last)
        x = x.detach().requires_grad_()
        w, b = flambeau.tensor(w0).requires_grad_(), flambeau.tensor(b0).requires_grad_()
        y = f(x, w, b)
        g = flambeau.tensor(cotangent)
        plain = flambeau.autograd.grad(y, (x, w, b), g, retain_graph=True)
        again = flambeau.autograd.grad(y, (x, w, b), g, create_graph=True)
        second = flambeau.autograd.grad(sum((q * q).sum() for q in again), (x, w))
        return [y, *plain, *again, *second]

    def fused(x, w, b):
        y = flambeau.nn.functional.batch_norm(x, None, None, w, b, True)
        assert y.stride() == x.stride()
        return y

    ours = bits(threads, lambda: run(fused))
    for a, b in zip(ours, run(batch_norm_by_definition), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-8, 1e-8)


def test_running_statistics():
    x = rng.normal(size=(8, 5, 3, 3))
    m = flambeau.nn.BatchNorm2d(5, dtype=flambeau.float64)
    m(flambeau.tensor(x))
    np.testing.assert_allclose(m.running_mean.numpy(), 0.1 * x.mean((0, 2, 3)))
    np.testing.assert_allclose(m.running_var.numpy(), 0.9 + 0.1 * x.var((0, 2, 3), ddof=1))


@pytest.mark.parametrize(
    "shape,dim,count", [((1000, 64), 0, 4000), ((64, 5000), 1, 900), ((300, 3), 0, 40000), ((20000,), 0, 90000)]
)
def test_scattered_additions(shape, dim, count, threads):
    sizes = list(shape)
    sizes[dim] = count
    x, v = rng.normal(size=shape).astype("f4"), rng.normal(size=sizes).astype("f4")
    i = rng.integers(0, shape[dim], sizes)
    (y,) = bits(threads, lambda: [flambeau.tensor(x).scatter_add(dim, flambeau.tensor(i), flambeau.tensor(v))])
    want = x.copy()
    where = list(np.indices(sizes, sparse=True))
    where[dim] = i
    np.add.at(want, tuple(where), v)
    # Both add in index order, each time rounding to float32.
    np.testing.assert_array_equal(y.numpy(), want)
    (z,) = bits(threads, lambda: [flambeau.tensor(x).gather(dim, flambeau.tensor(i))])
    np.testing.assert_array_equal(z.numpy(), np.take_along_axis(x, i, dim))


def test_the_lowest_bad_position_is_named():
    i = np.zeros((50000, 4), "i8")
    i[30000, 1], i[40000, 0] = 77, 88
    with pytest.raises(Exception, match="77"):
        flambeau.zeros(10, 4).scatter_add(0, flambeau.tensor(i), flambeau.ones(50000, 4))


@pytest.mark.parametrize("shape", [(50, 70), (3, 4, 5), (70000,), (200, 3000)])
@pytest.mark.parametrize("above", [0.0, 2.0, -9.0, 9.0])
def test_masks(shape, above, threads):
    x = rng.normal(size=shape).astype("f4")
    m = x > above

    def run():
        t = flambeau.tensor(x).requires_grad_()
        y = t[flambeau.tensor(m)]
        (y * y).sum().backward()
        return [y, t.grad, flambeau.tensor(m).nonzero(), flambeau.masked_select(t, flambeau.tensor(m))]

    y, grad, where, selected = bits(threads, run)
    np.testing.assert_array_equal(y.detach().numpy(), x[m])
    np.testing.assert_array_equal(selected.detach().numpy(), x[m])
    np.testing.assert_array_equal(grad.numpy(), np.where(m, 2 * x, 0))
    np.testing.assert_array_equal(where.numpy(), np.argwhere(m))
    if len(shape) == 2:
        np.testing.assert_array_equal(flambeau.tensor(x).t()[flambeau.tensor(m).t()].numpy(), x.T[m.T])


@pytest.mark.parametrize("shape", [(5, 7), (300, 2500), (3, 70001)])
def test_extremes_take_the_first_of_equals_and_nan(shape, threads):
    x = np.round(rng.normal(size=shape), 1).astype("f4")
    x[1, 3:5] = np.nan
    t = flambeau.tensor(x)
    y = bits(threads, lambda: [t.argmax(1), t.argmin(1), t.max(1)[1], t.max(1)[0], t.argmax(0)])
    np.testing.assert_array_equal(y[0].numpy(), x.argmax(1))
    np.testing.assert_array_equal(y[1].numpy(), x.argmin(1))
    np.testing.assert_array_equal(y[2].numpy(), x.argmax(1))
    np.testing.assert_array_equal(y[3].numpy(), x.max(1))
    np.testing.assert_array_equal(y[4].numpy(), x.argmax(0))


def test_memory_does_not_grow():
    stats = flambeau.cpu.memory_stats
    sizes = [int(n) for n in rng.integers(1, 200_000, 500)]

    def churn(rounds):
        held = []
        for _ in range(rounds):
            for n in sizes:
                held.append(flambeau.empty(n))
                if len(held) > 50:
                    held.pop(n % 50)

    churn(4)
    before = stats()
    churn(20)
    after = stats()
    assert after["allocated_bytes.all.current"] <= before["allocated_bytes.all.current"] + (1 << 20)
    assert after["reserved_bytes.all.current"] <= before["reserved_bytes.all.current"] + (32 << 20)
    big = flambeau.empty(1 << 20)
    assert stats()["allocated_bytes.all.current"] >= after["allocated_bytes.all.current"] + big.nbytes - (1 << 19)
    assert flambeau.cpu.memory_allocated() >= big.nbytes
    flambeau.cpu.reset_peak_memory_stats()
    del big
    larger = flambeau.empty(1 << 21).nbytes
    peak = flambeau.cpu.max_memory_allocated()
    assert larger <= peak - flambeau.cpu.memory_allocated() < larger + (1 << 20)
    assert flambeau.cpu.memory_stats()["reserved_bytes.all.peak"] >= peak
    flambeau.cpu.empty_cache()
    assert stats()["reserved_bytes.all.current"] < stats()["allocated_bytes.all.current"] + (1 << 20)
