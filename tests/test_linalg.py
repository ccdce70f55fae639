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
