"""Conjugates that are views: of the same memory, written out where somebody computes with them."""

import copy
import io
import pickle

import flambeau as torch
import pytest


def numbers():
    return torch.tensor([[1 + 2j, 3 - 4j], [-1j, 5 + 0j]], dtype=torch.complex128)


def written_out(t):
    """The values, from Python's own numbers."""
    return torch.tensor(t.tolist(), dtype=t.dtype)


def test_a_conjugate_is_a_view():
    x = numbers()
    y = x.conj()
    assert y.is_conj() and not x.is_conj() and y.data_ptr() == x.data_ptr() and y._is_view()
    assert y.tolist() == [[1 - 2j, 3 + 4j], [1j, 5 - 0j]]
    assert not y.conj().is_conj() and y.conj().tolist() == x.tolist()
    for view in (
        y[0],
        y.T,
        y.reshape(4),
        y.detach(),
        y.data,
        y.expand(3, 2, 2),
        y.contiguous(),
        y.to("cpu"),
        *y.unbind(),
        *y.chunk(2),
    ):
        assert view.is_conj()
    assert x.mH.is_conj() and x.mH.tolist() == [[1 - 2j, 1j], [3 + 4j, 5 - 0j]]
    for copied in (
        y.clone(),
        y * 1,
        y.to(torch.complex64),
        torch.stack([y, y]),
        y.resolve_conj(),
        torch.empty_like(y),
        copy.deepcopy(y),
    ):
        assert not copied.is_conj()
    assert x.resolve_conj() is x and torch.equal(y.resolve_conj(), written_out(y))
    real = torch.ones(2)
    assert real.conj() is real


def test_parts_of_a_conjugate():
    x = numbers()
    y = x.conj()
    assert not y.real.is_neg() and y.imag.is_neg() and not y.imag.is_conj()
    assert y.imag.tolist() == [[-2.0, 4.0], [1.0, 0.0]] and y.imag.data_ptr() == x.imag.data_ptr()
    assert not y.imag.resolve_neg().is_neg() and torch.equal(y.imag.resolve_neg(), -x.imag)
    assert torch.equal(y.imag + 1, 1 - x.imag) and not y.imag.clone().is_neg()
    for refused in (lambda: torch.view_as_real(y), lambda: y.view(torch.float64), lambda: y.imag.view(torch.int64)):
        with pytest.raises(RuntimeError, match="conj|negative"):
            refused()
    assert torch.equal(torch.view_as_real(y.resolve_conj())[..., 1], -x.imag)
    assert torch._neg_view(x).tolist() == (-x).tolist()


def test_what_reads_memory_refuses_or_writes_out():
    y = numbers().conj()
    with pytest.raises(RuntimeError, match="conjugate bit"):
        y.numpy()
    with pytest.raises(RuntimeError, match="negative bit"):
        y.imag.numpy()
    with pytest.raises(BufferError, match="conjugate"):
        y.__dlpack__()
    assert y.numpy(force=True).tolist() == y.resolve_conj().numpy().tolist()
    assert repr(y) == repr(y.resolve_conj()) and y[0, 0].item() == 1 - 2j and complex(y[0, 1]) == 3 + 4j
    assert y.nonzero().tolist() == y.resolve_conj().nonzero().tolist() and y[y.real > 0].tolist() == [
        1 - 2j,
        3 + 4j,
        5 - 0j,
    ]
    assert torch.equal(pickle.loads(pickle.dumps(y)), y)
    file = io.BytesIO()
    torch.save(y, file)
    file.seek(0)
    assert torch.equal(torch.load(file), y)


def test_writes_go_to_the_memory_conjugated():
    x = numbers()
    y = x.conj()
    before = x.clone()
    assert y.add_(1j) is y and torch.equal(x, before - 1j) and y.is_conj()
    y.copy_(torch.tensor([1j, 2j]))
    assert x.tolist() == [[-1j, -2j]] * 2
    y.imag.add_(1)
    assert x.tolist() == [[-2j, -3j]] * 2
    y[0] = 3j
    assert x[0].tolist() == [-3j, -3j]
    y[torch.tensor([[True, False], [False, False]])] = 7j
    assert x[0].tolist() == [-7j, -3j]
    y.index_fill_(0, torch.tensor([1]), 1 + 1j)
    assert x[1].tolist() == [1 - 1j, 1 - 1j]
    torch.mul(y, 2, out=y)
    assert x[1].tolist() == [2 - 2j, 2 - 2j]
    y.fill_(1j)
    assert x.tolist() == [[-1j, -1j]] * 2
    y.zero_()
    assert (x == 0).all()


@pytest.mark.parametrize(
    "name",
    [
        "matmul",
        "linalg.solve",
        "linalg.eigvals",
        "fft.fft",
        "cumsum",
        "sort_real",
        "index",
        "where",
        "cat",
        "einsum",
        "norm",
    ],
)
def test_operators_see_values(name):
    x = numbers()
    y, z = x.conj(), written_out(x.conj())
    run = {
        "matmul": lambda t: t @ t,
        "linalg.solve": lambda t: torch.linalg.solve(t, t[0]),
        "linalg.eigvals": lambda t: torch.linalg.eigvals(t).sum(),
        "fft.fft": torch.fft.fft,
        "cumsum": lambda t: t.cumsum(0),
        "sort_real": lambda t: t.imag.sort().values,
        "index": lambda t: t[torch.tensor([1, 0])],
        "where": lambda t: torch.where(t.real > 0, t, t * 2),
        "cat": lambda t: torch.cat([t, t], 1),
        "einsum": lambda t: torch.einsum("ij,kj->ik", t, t.conj()),
        "norm": lambda t: t.norm(),
    }[name]
    assert torch.allclose(run(y), run(z))


def test_gradients_through_conjugates():
    x = numbers().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: (t.conj() * t, t.conj().imag, t.mH @ t), x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda t: t.conj().imag * t.conj(), x)

    def written(t):
        t = t * 1
        t.conj().imag.mul_(2)
        return t.conj() * 3j

    assert torch.autograd.gradcheck(written, x)
    leaf = numbers().conj().requires_grad_()
    (leaf * leaf).real.sum().backward()
    assert torch.allclose(leaf.grad, 2 * leaf.detach().conj())
    given = numbers()
    y = numbers().requires_grad_()
    y.conj().backward(given)
    y.grad.zero_()
    assert torch.equal(given, numbers())


def test_conjugates_inside_transforms():
    x = torch.stack([numbers(), numbers() * 2j])
    assert torch.allclose(torch.func.vmap(lambda t: t.conj() @ t)(x), x.conj() @ x)
    assert torch.allclose(torch.compile(lambda t: t.conj() * 2 + t)(x), x.conj() * 2 + x)
    shifted = torch.func.vmap(lambda t: t.conj().add_(1))(x.clone())
    assert torch.allclose(shifted, x.conj() + 1)


def test_half_complex_numbers():
    x = torch.tensor([1 + 2j, 3.5 - 4j], dtype=torch.complex32)
    assert x.dtype is torch.chalf is torch.complex32 and x.element_size() == 4 and x.is_complex()
    assert x.tolist() == [1 + 2j, 3.5 - 4j] and x.real.dtype is torch.float16 and x.imag.tolist() == [2.0, -4.0]
    assert repr(x) == "tensor([1.0000+2.j, 3.5000-4.j], dtype=torch.complex32)"
    assert (x + x).dtype is torch.complex32 and (x * 2).tolist() == [2 + 4j, 7 - 8j]
    assert x.to(torch.complex64).tolist() == x.tolist() and torch.ones(2).chalf().dtype is torch.complex32
    assert (
        torch.view_as_real(x).dtype is torch.float16
        and torch.view_as_complex(torch.ones(2, 2).half()).dtype is torch.complex32
    )
    assert torch.promote_types(torch.complex32, torch.float32) is torch.complex64
    assert torch.promote_types(torch.float16, torch.complex32) is torch.complex32
    assert torch.promote_types(torch.bfloat16, torch.complex32) is torch.complex64
    assert (torch.ones(2).half() * 1j).dtype is torch.complex32 and torch.half.to_complex() is torch.complex32
    assert torch.zeros(2, dtype=torch.complex32).count_nonzero() == 0 and x.any() and x.sum().item() == 4.5 - 2j
    with pytest.raises((TypeError, RuntimeError)):
        x.numpy()
    with pytest.raises((NotImplementedError, RuntimeError), match="ComplexHalf"):
        x.reshape(1, 2) @ x.reshape(2, 1)


def test_views_as_other_dtypes():
    x = torch.arange(6.0).reshape(2, 3)
    assert x.view(torch.int16).shape == (2, 6) and x.view(torch.uint8).shape == (2, 12)
    assert torch.equal(x.view(torch.uint8).view(torch.float32), x) and x.view(torch.int16).data_ptr() == x.data_ptr()
    assert torch.ones(2, dtype=torch.complex64).view(torch.float32).tolist() == [1.0, 0.0, 1.0, 0.0]
    assert torch.zeros(2, 4).view(torch.float64).shape == (2, 2) and x[:, 1:].view(torch.int16).tolist() == x[:, 1:].clone().view(torch.int16).tolist()
    for refused in (lambda: x.view(torch.float64), lambda: x.T.view(torch.int16), lambda: torch.tensor(1.0).view(torch.int16)):
        with pytest.raises(RuntimeError, match="different element sizes"):
            refused()
