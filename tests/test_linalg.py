"""Decompositions: the equations they satisfy, batches and empty matrices, errors, and gradients of both orders."""

import flambeau as fl
import numpy as np
import pytest

DTYPES = ["float32", "float64", "complex64", "complex128"]
TOLERANCE = {"float32": 2e-4, "float64": 1e-11, "complex64": 2e-4, "complex128": 1e-11}


def random(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape)
    if "complex" in dtype:
        a = a + 1j * rng.standard_normal(shape)
    return fl.tensor(a.astype(dtype))


def near(a, b, dtype):
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=TOLERANCE[dtype], atol=40 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 3), (3, 5), (40, 37), (2, 0, 3), (0, 3, 3)])
def test_factors_give_the_matrix_back(dtype, shape):
    a = random(shape, dtype)
    q, r = fl.linalg.qr(a)
    near(q @ r, a, dtype)
    p, lower, upper = fl.linalg.lu(a)
    near(p @ lower @ upper, a, dtype)
    u, s, vh = fl.linalg.svd(a, full_matrices=False)
    near((u * s.unsqueeze(-2).to(u.dtype)) @ vh, a, dtype)
    near(fl.linalg.svdvals(a), s, dtype)
    near(a @ fl.linalg.pinv(a) @ a, a, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 2, 5, 70])
def test_square_matrices(dtype, n):
    a = random((2, n, n), dtype) + 3 * n**0.5 * fl.eye(n).to(getattr(fl, dtype))
    b = random((2, n, 3), dtype, seed=1)
    near(a @ fl.linalg.solve(a, b), b, dtype)
    near(fl.linalg.lu_solve(*fl.linalg.lu_factor(a), a @ b), b, dtype)
    h = a + a.mH
    w, v = fl.linalg.eigh(h)
    near((v * w.unsqueeze(-2).to(v.dtype)) @ v.mH / (n + 1), h / (n + 1), dtype)
    ld, pivots = fl.linalg.ldl_factor(h, hermitian=True)
    near(h @ fl.linalg.ldl_solve(ld, pivots, b, hermitian=True), b, dtype)
    lower = fl.linalg.cholesky(h)
    near(lower @ lower.mH / (n + 1), h / (n + 1), dtype)


def test_errors():
    with pytest.raises(fl.linalg.LinAlgError, match="not positive-definite"):
        fl.linalg.cholesky(-fl.eye(2))
    with pytest.raises(fl.linalg.LinAlgError, match="singular"):
        fl.linalg.inv(fl.zeros(2, 2))
    with pytest.raises(RuntimeError, match="square"):
        fl.linalg.det(fl.zeros(2, 3))
    with pytest.raises(RuntimeError, match="Low precision"):
        fl.linalg.svd(fl.zeros(2, 2, dtype=fl.float16))


def reconstruct(a):
    u, s, vh = fl.linalg.svd(a, full_matrices=False)
    return (u * (s * s).unsqueeze(-2).to(u.dtype)) @ vh


def cube(a):
    w, v = fl.linalg.eigh(a + a.mH)
    return (v * (w**3).unsqueeze(-2).to(v.dtype)) @ v.mH


FUNCTIONS = {
    "cholesky": lambda a: fl.linalg.cholesky(a @ a.mH + fl.eye(3).to(a.dtype)),
    "inv": fl.linalg.inv,
    "det": fl.linalg.det,
    "slogdet": lambda a: fl.linalg.slogdet(a)[1],
    "solve": lambda a: fl.linalg.solve(a, a @ a + 1),
    "lu": lambda a: fl.linalg.lu(a)[1] + fl.linalg.lu(a)[2],
    "qr": lambda a: fl.linalg.qr(a)[0] + fl.linalg.qr(a)[1],
    "svd": reconstruct,
    "eigh": cube,
    "pinv": lambda a: fl.linalg.pinv(a[:, :2]),
    "matrix_exp": fl.linalg.matrix_exp,
    "triangular": lambda a: fl.linalg.solve_triangular(a, a + 1, upper=True),
}


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_gradients_of_both_orders(name, dtype):
    """Against central differences along a random direction."""
    f = FUNCTIONS[name]
    a = random((3, 3), dtype, seed=3) + 2 * fl.eye(3).to(getattr(fl, dtype))
    d = random((3, 3), dtype, seed=4)

    def loss(x):
        y = f(x)
        weight = fl.arange(y.numel()).reshape(y.shape).double() + 1
        return ((y.abs() ** 2 if y.is_complex() else y * y + y) * weight).sum()

    def slope(x, keep=False):
        x = x.detach().requires_grad_() if not keep else x
        (g,) = fl.autograd.grad(loss(x), x, create_graph=keep)
        return ((g.conj() * d).real if g.is_complex() else g * d).sum()

    h = 1e-5
    want = (loss(a + h * d) - loss(a - h * d)).item() / (2 * h)
    assert slope(a).item() == pytest.approx(want, rel=1e-6, abs=1e-6)
    x = a.detach().requires_grad_()
    (g,) = fl.autograd.grad(slope(x, keep=True), x)
    second = ((g.conj() * d).real if g.is_complex() else g * d).sum().item()
    want = (slope(a + h * d) - slope(a - h * d)).item() / (2 * h)
    assert second == pytest.approx(want, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_lobpcg_finds_the_outermost_pairs(largest, sparse):
    fl.manual_seed(0)
    d = fl.arange(1.0, 31.0, dtype=fl.float64)
    q = fl.linalg.qr(fl.randn(30, 30, dtype=fl.float64))[0]
    a = (q * d) @ q.mT
    e, x = fl.lobpcg(a.to_sparse() if sparse else a, 3, largest=largest)
    expected = d.flip(0)[:3] if largest else d[:3]
    assert fl.allclose(e, expected, rtol=1e-9)
    assert fl.allclose(a @ x, x * e, atol=1e-5)
    assert fl.allclose(x.mT @ x, fl.eye(3, dtype=fl.float64), atol=1e-12)


def test_lobpcg_with_a_metric_a_preconditioner_and_batches():
    fl.manual_seed(0)
    d = fl.arange(1.0, 31.0, dtype=fl.float64)
    a, b = fl.diag(d), fl.diag(d.flip(0))
    seen = []
    e, x = fl.lobpcg(a, 2, B=b, iK=fl.diag(1 / d), largest=False, tracker=lambda w: seen.append(w.ivars["istep"]))
    assert fl.allclose(e, fl.tensor([1 / 30, 2 / 29], dtype=fl.float64), rtol=1e-9)
    assert fl.allclose(x.mT @ b @ x, fl.eye(2, dtype=fl.float64), atol=1e-10)
    assert seen[:2] == [0, 1]
    e, x = fl.lobpcg(fl.stack([a, 2 * a]), 2, n=4)
    assert e.shape == (2, 2) and x.shape == (2, 30, 2)
    assert fl.allclose(e, fl.tensor([[30.0, 29.0], [60.0, 58.0]], dtype=fl.float64))


def test_lobpcg_has_gradients():
    fl.manual_seed(0)
    a = fl.diag(fl.arange(1.0, 10.0, dtype=fl.float64)) + 0.1
    weights = fl.rand(9, 2, dtype=fl.float64)
    grads = []
    for solve in (lambda t: fl.lobpcg(t, 2, tol=1e-12), lambda t: [u.flip(-1)[..., :2] for u in fl.linalg.eigh(t)]):
        t = a.clone().requires_grad_()
        e, x = solve((t + t.mT) / 2)
        (e.square().sum() + (weights * x.square()).sum()).backward()
        grads.append(t.grad)
    assert fl.allclose(*grads, atol=1e-7)
    t = fl.stack([a, 2 * a]).requires_grad_()
    fl.lobpcg(t, 2, tol=1e-12)[0].square().sum().backward()
    values = fl.linalg.eigvalsh(a)[-2:]
    assert t.grad[0].trace().item() == pytest.approx(2 * values.sum().item())
    assert t.grad[1].trace().item() == pytest.approx(4 * values.sum().item())


def test_lobpcg_refuses_small_and_crooked_matrices():
    for error, call in (
        (ValueError, lambda: fl.lobpcg(fl.eye(4), 2)),
        (AssertionError, lambda: fl.lobpcg(fl.ones(9, 8), 2)),
        (AssertionError, lambda: fl.lobpcg(fl.eye(9), 2, X=fl.ones(8, 2))),
        (RuntimeError, lambda: fl.lobpcg(fl.eye(9, dtype=fl.int64), 2)),
    ):
        with pytest.raises(error):
            call()
