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


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "c8", "c16"])
def test_masks_of_every_width(dtype, threads):
    x = (rng.normal(size=99_991) * 50).astype(dtype)
    for every in (1, 2, 7, 5000):
        m = np.arange(x.size) % every == 0
        (y,) = bits(threads, lambda m=m: [flambeau.tensor(x)[flambeau.tensor(m)]])
        np.testing.assert_array_equal(y.numpy(), x[m])
        byte = flambeau.tensor(m.astype("u1") * 7).view(flambeau.bool)
        np.testing.assert_array_equal(flambeau.masked_select(flambeau.tensor(x), byte).numpy(), x[m])


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "i4", "i2", "u1", "f2"])
@pytest.mark.parametrize("kind", ["uniform", "normal", "outlier", "few", "one", "steps"])
def test_long_rows_are_sorted(dtype, kind, threads):
    n = 300_000
    x = {
        "uniform": lambda: rng.random(n) * 100,
        "normal": lambda: rng.normal(size=n) * 30,
        # One range of keys holds nearly all.
        "outlier": lambda: np.where(np.arange(n) == 70_000, 120.0, 1 + rng.random(n) * 1e-3),
        "few": lambda: rng.integers(-2, 3, n) * rng.choice([-0.0, 1.0], n),
        "one": lambda: np.full(n, 3.0),
        "steps": lambda: np.arange(n)[::-1] // 1000 % 100 - 50,
    }[kind]()
    x = (np.abs(x) if dtype == "u1" else x).astype(dtype)
    if dtype[0] == "f":
        x[[5, 250_000]] = np.nan
    t = flambeau.tensor(x)
    up, down = t.sort(stable=True), t.sort(descending=True, stable=True)
    bits(threads, lambda: [*t.sort(stable=True), *t.sort(descending=True, stable=True)])
    order = np.argsort(x, kind="stable")
    np.testing.assert_array_equal(up[1].numpy(), order)
    # Bit by bit: zeros keep their signs.
    assert up[0].numpy().tobytes() == x[order].tobytes()
    assert down[0].numpy().tobytes() == x[down[1].numpy()].tobytes()
    reversed_ties = np.argsort(x[::-1], kind="stable")[::-1]
    np.testing.assert_array_equal(down[1].numpy(), n - 1 - reversed_ties)


@pytest.mark.parametrize("sizes", [(2, 3, 30, 37), (1, 2, 64, 64), (1, 1, 5, 5), (2, 2, 40, 16)])
@pytest.mark.parametrize("window", [(3, 2, 1, 1), (2, 2, 0, 1), (3, 1, 1, 1), (3, 3, 0, 1), (2, 1, 1, 2)])
def test_maxima_without_positions_are_the_same(sizes, window, threads):
    x = rng.normal(size=sizes).astype("f4")
    x[0, 0, 3, 4] = np.nan
    kernel, stride, padding, dilation = window
    f = flambeau.nn.functional.max_pool2d
    for t in (flambeau.tensor(x), flambeau.tensor(x).to(memory_format=flambeau.channels_last), flambeau.tensor(x).double()):
        (alone,) = bits(threads, lambda t=t: [f(t, kernel, stride, padding, dilation)])
        both, at = f(t, kernel, stride, padding, dilation, return_indices=True)
        np.testing.assert_array_equal(alone.numpy(), both.numpy())
        np.testing.assert_array_equal(t.flatten(2).gather(2, at.flatten(2)).numpy(), both.flatten(2).numpy())
        leaf = t.clone().requires_grad_()
        f(leaf, kernel, stride, padding, dilation).sum().backward()
        assert leaf.grad.sum().item() == both.numel()


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
