"""Special functions: identities, known values, types and gradients."""

from __future__ import annotations

import math

import flambeau as torch
import pytest

X = torch.linspace(0.1, 30, 300, dtype=torch.float64)


def close(a: torch.Tensor, b: torch.Tensor, rtol: float = 1e-12) -> None:
    assert torch.allclose(a, b, rtol=rtol, atol=1e-300), (a - b).abs().max()


def test_bessel_wronskians() -> None:
    """DLMF 10.5.2 and 10.28.2."""
    s = torch.special
    wronskian = s.bessel_j1(X) * s.bessel_y0(X) - s.bessel_j0(X) * s.bessel_y1(X)
    close(wronskian, 2 / (math.pi * X))
    modified = s.modified_bessel_i0(X) * s.modified_bessel_k1(X) + s.modified_bessel_i1(X) * s.modified_bessel_k0(X)
    close(modified, 1 / X)
    close(s.scaled_modified_bessel_k0(X) * torch.exp(-X), s.modified_bessel_k0(X))


def test_airy_solves_its_equation() -> None:
    """y'' = x y by a fourth-order difference, across the series' anchors and the switch to the expansions."""
    h = 1e-2
    x = torch.linspace(-12, 5, 400, dtype=torch.float64)
    y = [torch.special.airy_ai(x + k * h) for k in (-2, -1, 0, 1, 2)]
    second = (-y[0] + 16 * y[1] - 30 * y[2] + 16 * y[3] - y[4]) / (12 * h * h)
    assert torch.allclose(second, x * y[2], atol=2e-5)
    for edge in (9.5, -9.5):
        a, b = torch.special.airy_ai(torch.tensor([edge - 1e-9, edge + 1e-9], dtype=torch.float64)).tolist()
        assert abs(a - b) < 1e-8 * max(abs(a), 0.1)


def test_incomplete_gamma() -> None:
    a = torch.tensor([1e-3, 0.5, 1.0, 3.7, 25.0, 400.0], dtype=torch.float64).unsqueeze(1)
    p, q = torch.special.gammainc(a, X), torch.special.gammaincc(a, X)
    assert torch.allclose(p + q, torch.ones_like(p), atol=1e-12)
    close(torch.special.gammaincc(torch.ones_like(X), X), torch.exp(-X))
    with pytest.raises(NotImplementedError, match="igamma_cpu"):
        torch.igamma(torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64))


def test_polynomials() -> None:
    x = torch.linspace(-0.95, 0.95, 40, dtype=torch.float64)
    t = torch.acos(x)
    s = torch.special
    for n in (0, 1, 4, 7, 15):
        assert torch.allclose(s.chebyshev_polynomial_t(x, n), torch.cos(n * t), atol=1e-12)
        assert torch.allclose(s.chebyshev_polynomial_u(x, n), torch.sin((n + 1) * t) / torch.sin(t), atol=1e-11)
        assert torch.allclose(s.shifted_chebyshev_polynomial_t((x + 1) / 2, n), torch.cos(n * t), atol=1e-11)
    assert s.hermite_polynomial_h(torch.tensor(0.5), 4).item() == 1.0
    assert s.legendre_polynomial_p(torch.tensor(-1.0), 5).item() == -1.0
    assert s.laguerre_polynomial_l(2, torch.tensor(3.0)).item() == pytest.approx(-1 / 3, rel=1e-6)
    assert s.hermite_polynomial_he(torch.tensor(2.0), -1).item() == 0.0


@pytest.mark.parametrize("name", ["entr", "erfcx", "ndtr", "log_ndtr", "ndtri", "i0e", "i1", "i1e"])
def test_gradients(name: str) -> None:
    f = getattr(torch.special, name)
    x = torch.tensor([0.2, 0.45, 0.8], dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(g.sum(), x)
    h = 1e-4
    with torch.no_grad():
        y = [f(x + k * h) for k in (-1, 0, 1)]
    assert torch.allclose(g.detach(), (y[2] - y[0]) / (2 * h), rtol=1e-6)
    assert torch.allclose(second, (y[2] - 2 * y[1] + y[0]) / h**2, rtol=1e-4, atol=1e-5)


def test_types_and_missing_derivatives() -> None:
    assert torch.special.bessel_j0(torch.arange(3)).dtype == torch.float32
    with pytest.raises(NotImplementedError, match="airy_ai_cpu.*Half"):
        torch.special.airy_ai(torch.ones(2).half())
    s = torch.tensor([2.0], requires_grad=True)
    with pytest.raises(NotImplementedError, match="derivative for 'zeta'"):
        torch.special.zeta(s, torch.ones(1)).backward()
    assert not torch.special.bessel_j0(s).requires_grad


def test_frexp() -> None:
    x = torch.tensor([0.0, 1.0, -3.0, 1e-40, math.inf])
    mantissa, exponent = torch.frexp(x)
    assert exponent.dtype == torch.int32
    assert torch.equal(torch.ldexp(mantissa[:3], exponent[:3]), x[:3])
    assert mantissa[4] == math.inf and exponent.tolist()[:3] == [0, 1, 2]


def test_stft_and_back() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 100, dtype=torch.float64, requires_grad=True)
    window = torch.hann_window(16, dtype=torch.float64)
    y = torch.stft(x, 16, hop_length=5, window=window, return_complex=True)
    assert y.shape == (2, 9, 21)
    back = torch.istft(y, 16, hop_length=5, window=window, length=100)
    assert torch.allclose(back, x, atol=1e-12)
    (g,) = torch.autograd.grad(back.sum(), x)
    assert torch.allclose(g, torch.ones_like(g), atol=1e-10)
    with pytest.raises(RuntimeError, match="return_complex"):
        torch.stft(x, 16)
    with pytest.raises(RuntimeError, match="window overlap add min"):
        torch.istft(y.detach(), 16, hop_length=5, window=window * 0)


def test_functions_at_infinity_and_degrees_that_are_no_numbers() -> None:
    x = torch.tensor([math.inf, -math.inf], dtype=torch.float64)
    for name in ("bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1"):
        assert getattr(torch.special, name)(x).isnan().all()
    for name in ("hermite_polynomial_h", "laguerre_polynomial_l", "legendre_polynomial_p", "chebyshev_polynomial_t"):
        degrees = torch.tensor([math.inf, -math.inf, math.nan])
        assert getattr(torch.special, name)(torch.full((3,), 0.5), degrees).tolist() == [0, 0, 0]
