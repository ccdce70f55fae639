"""Fourier transforms: against NumPy, their gradients, and bits that do not depend on threads."""

from __future__ import annotations

import flambeau as torch
import numpy as np
import pytest

NORMS = [None, "forward", "backward", "ortho"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [None, 1, 4, 7, 12])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_one_dimension_like_numpy(name: str, n: int | None, norm: str | None) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 7, 5))
    if name in ("fft", "ifft", "irfft", "hfft"):
        x = x + 1j * rng.standard_normal(x.shape)
    got = getattr(torch.fft, name)(torch.tensor(x), n=n, dim=1, norm=norm)
    want = getattr(np.fft, name)(x, n=n, axis=1, norm=norm)
    np.testing.assert_allclose(got.resolve_conj().numpy(), want, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_several_dimensions_like_numpy(name: str, norm: str | None) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 3, 6))
    if name != "rfftn":
        x = x + 1j * rng.standard_normal(x.shape)
    for axes, s in [((0, 2), None), ((2, 1), (5, 4)), ((0, 1, 2), (3, 3, 9))]:
        got = getattr(torch.fft, name)(torch.tensor(x), s=s, dim=axes, norm=norm)
        want = getattr(np.fft, name)(x, s=s, axes=axes, norm=norm)
        np.testing.assert_allclose(got.numpy(), want, atol=1e-12)


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "rfft2", "irfft2", "hfft2", "ihfft2"])
def test_gradients_to_second_order(name: str) -> None:
    """The directional derivative of a cubic of the spectrum, and of its gradient, against central differences."""
    f = getattr(torch.fft, name)
    torch.manual_seed(0)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    v = torch.randn(3, 5, dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return f(x, norm="ortho").abs().pow(3).sum()

    def grad(x: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss(x), x, create_graph=True)[0]

    h = 1e-5
    (g,) = torch.autograd.grad(loss(x), x)
    slope = (loss(x + h * v) - loss(x - h * v)) / (2 * h)
    assert abs((g * v).sum().item() - slope.item()) < 1e-6 * max(1.0, abs(slope.item()))
    (hv,) = torch.autograd.grad((grad(x) * v).sum(), x)
    difference = (grad(x + h * v) - grad(x - h * v)) / (2 * h)
    assert torch.allclose(hv, difference.detach(), atol=1e-5, rtol=1e-6)


def test_same_bits_at_any_thread_count() -> None:
    x = torch.randn(300, 257)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append((torch.fft.fft2(x), torch.fft.rfft(x, dim=0), torch.fft.irfft(torch.fft.rfft(x), n=257)))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    finally:
        torch.set_num_threads(before)


def test_frequencies_and_shifts() -> None:
    for n in (1, 4, 5):
        np.testing.assert_allclose(torch.fft.fftfreq(n, 0.5, dtype=torch.float64).numpy(), np.fft.fftfreq(n, 0.5))
        np.testing.assert_allclose(torch.fft.rfftfreq(n, 0.5, dtype=torch.float64).numpy(), np.fft.rfftfreq(n, 0.5))
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(torch.fft.fftshift(torch.tensor(x)).numpy(), np.fft.fftshift(x))
    np.testing.assert_array_equal(torch.fft.ifftshift(torch.tensor(x), dim=1).numpy(), np.fft.ifftshift(x, axes=1))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda x: torch.fft.fft(x, n=0), RuntimeError, "Invalid number of data points (0)"),
        (lambda x: torch.fft.fft(x, norm="none"), RuntimeError, "Invalid normalization mode"),
        (lambda x: torch.fft.fft(x, dim=2), IndexError, "Dimension out of range"),
        (lambda x: torch.fft.fft(x.half()), RuntimeError, "Unsupported dtype Half"),
        (lambda x: torch.fft.rfft(x + 0j), RuntimeError, "rfft expects a real input tensor"),
        (lambda x: torch.fft.fftn(x, dim=(0, 0)), RuntimeError, "dims must be unique"),
        (lambda x: torch.fft.fftn(x, s=(1, 2), dim=(0,)), RuntimeError, "must have the same length"),
        (lambda x: torch.fft.rfftn(x, dim=()), RuntimeError, "at least one axis"),
        (lambda x: torch.fft.fft(x, out=torch.empty(0)), RuntimeError, "expects a complex output"),
    ],
)
def test_errors(call: object, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words.replace("(", r"\(").replace(")", r"\)")):
        call(torch.randn(3, 4))  # type: ignore[operator]
