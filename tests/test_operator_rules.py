"""Rules of operators that a value alone does not show: which of equals is chosen, what may be written where, what a gradient
leads to. Numbers are PyTorch's."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import flambeau as torch
import pytest

F = torch.nn.functional


def double(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_which_of_equals() -> None:
    x = torch.tensor([3, 1, 3, 2, 3, 1, 2, 3, 0, 3])
    assert torch.topk(x, 3).indices.tolist() == [4, 7, 0]
    assert torch.topk(torch.arange(400) % 7, 3).indices.tolist() == [20, 13, 6]
    assert torch.kthvalue(x, 6).indices.item() == 4
    assert torch.mode(x).indices.item() == 9


def test_selection_agrees_with_sorting() -> None:
    torch.manual_seed(0)
    for n in (1, 2, 3, 17, 200, 3000):
        for x in (torch.randint(0, 9, (4, n)), torch.randn(4, n)):
            order = x.sort(-1).values
            for k in {1, (n + 1) // 2, n}:
                values, at = x.kthvalue(k, -1)
                assert torch.equal(values, order[:, k - 1]) and torch.equal(x.gather(1, at[:, None])[:, 0], values)
                values, at = x.topk(k, -1, largest=False)
                assert torch.equal(values, order[:, :k]) and torch.equal(x.gather(1, at), values)
                assert all(len(set(row)) == k for row in at.tolist())


def test_second_gradient_after_a_write() -> None:
    def second(write: bool) -> list[float]:
        x = double([0.5, 0.25])
        y = x * x
        y = y.sin_() if write else y.sin()
        (g,) = torch.autograd.grad(y.sum(), [x], create_graph=True)
        (g * g).sum().backward()
        assert x.grad is not None
        return x.grad.tolist()

    assert second(True) == second(False)


def test_a_view_made_without_recording_collects_nothing() -> None:
    x = double([1.0, 2.0])
    with torch.no_grad():
        v = x.view(-1)
    assert v.requires_grad and v.is_leaf
    (v * 2).sum().backward()
    assert v.grad is None and x.grad is None
    assert torch.autograd.grad((v * 2).sum(), [v], allow_unused=True) == (None,)


def test_a_detached_leaf_collects_nothing() -> None:
    x, y = double([1.0, 2.0]), double([3.0, 4.0])
    z = (x * y).sum()
    x.detach_()
    z.backward()
    assert x.grad is None and y.grad is not None


@pytest.mark.parametrize("name", ["logsumexp", "norm"])
def test_saved_results_are_guarded(name: str) -> None:
    for written in ("operand", "result"):
        x = double([1.0, 2.0])
        h = x * 1
        y = h.logsumexp(0) if name == "logsumexp" else h.norm()
        (h if written == "operand" else y).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_partial_overlap_is_refused() -> None:
    for write in (lambda x: x[1:].add_(x[:-1]), lambda x: x[1:].copy_(x[:-1]), lambda x: torch.exp(x[1:], out=x[:-1]),
                  lambda x: x.index_add_(0, torch.tensor([0]), x[:1])):  # fmt: skip
        x = torch.arange(6.0)
        with pytest.raises(RuntimeError, match="refer to a single memory location"):
            write(x)
        assert x.tolist() == [0, 1, 2, 3, 4, 5]
    x = torch.arange(6.0)
    x[::2].add_(x[1::2])
    x.add_(x)
    assert x.tolist() == [2, 2, 10, 6, 18, 10]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.kthvalue(x, 2, out=(x[:1], torch.zeros(1, dtype=torch.int64))),
        lambda x: torch.topk(x, 2, out=(x[:2], torch.zeros(2, dtype=torch.int64))),
        lambda x: torch.mode(x, out=(x[0], torch.tensor(0))),
        lambda x: torch.max(x.view(2, 3), 0, out=(x[:3], torch.zeros(3, dtype=torch.int64))),
        lambda x: torch.cat([x[:3], x[3:]], out=x),
        lambda x: torch.stack([x[:3], x[3:]], out=x.view(2, 3)),
        lambda x: torch.outer(x[:2], x[:3], out=x.view(2, 3)),
        lambda x: torch.linalg.cross(x[:3], x[3:], out=x[:3]),
        lambda x: torch.scatter(x.clone(), 0, torch.tensor([0, 1]), x[:2], out=x),
    ],
)
def test_out_may_not_hold_what_is_read(call: Callable[[torch.Tensor], object]) -> None:
    x = torch.arange(6.0)
    with pytest.raises(RuntimeError, match="refer to a single memory location"):
        call(x)
    assert x.tolist() == [0, 1, 2, 3, 4, 5]


def test_scattering_and_sorting_onto_their_own_input() -> None:
    x = torch.arange(4.0)
    torch.scatter(x, 0, torch.tensor([0, 1]), torch.ones(2), out=x)
    assert x.tolist() == [1, 1, 2, 3]
    torch.sort(x, descending=True, out=(x, torch.zeros(4, dtype=torch.int64)))
    assert x.tolist() == [3, 2, 1, 1]


def test_as_strided_scatter_writes_places_of_memory() -> None:
    src = torch.full((2, 2), -1.0)
    x = torch.arange(12.0).reshape(3, 4).t()
    y = torch.as_strided_scatter(x, src, (2, 2), (1, 2), 1)
    assert y.tolist() == [[0, -1, 8], [-1, 5, 9], [-1, 6, 10], [-1, 7, 11]]
    x = torch.arange(24.0).reshape(3, 4, 2)[..., 1]
    y = torch.as_strided_scatter(x, src, (2, 2), (1, 2))
    assert y.tolist() == [[-1, -1, 5, 7], [9, 11, 13, 15], [17, 19, 21, 23]] and y.stride() == (8, 2)
    with pytest.raises(RuntimeError, match="contiguous"):
        torch.as_strided_scatter(x.requires_grad_(), src, (2, 2), (1, 2))


def test_checksums_are_the_exclusive_or_of_bits() -> None:
    assert torch.hash_tensor(torch.arange(5.0)).item() == 9216616637413720064
    h = torch.hash_tensor(torch.arange(6).reshape(2, 3), 0, keepdim=True)
    assert h.tolist() == [[3, 5, 7]] and h.dtype == torch.uint64
    assert torch.hash_tensor(torch.arange(7, dtype=torch.uint8)).item() == 7
    assert torch.hash_tensor(torch.empty(0, 2), 0).tolist() == [0, 0]


def test_whether_bools_are_among_others_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Bool"):
        torch.isin(torch.tensor([True]), torch.tensor([True]))


def test_histograms_of_edges_out_of_order_are_empty() -> None:
    edges = [torch.tensor([-8.0, 3.6, -8.1]), torch.tensor([-9.0, 9.0])]
    assert not torch.histogramdd(torch.rand(5, 2), edges).hist.any()


def test_writes_to_expanded_tensors() -> None:
    base = torch.zeros(3)
    wide = base.expand(2, 3)
    wide.index_fill_(1, torch.tensor([0]), 2.0)
    wide.masked_fill_(torch.tensor([[False, True, False], [False, False, False]]), 3.0)
    assert base.tolist() == [2, 3, 0]
    wide.fill_(1.0)
    assert base.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="single memory location"):
        wide.add_(1)


def test_complex_convolution_gradients() -> None:
    w = torch.tensor([[[1 + 2j]]], dtype=torch.complex128, requires_grad=True)
    z = torch.tensor([[[3 - 1j, 2j]]], dtype=torch.complex128, requires_grad=True)
    F.conv1d(z, w).abs().sum().backward()
    assert z.grad is not None and w.grad is not None
    want = torch.tensor([[[1.5 * 2**0.5 - 0.5 * 2**0.5 * 1j, 5**0.5 * 1j]]], dtype=torch.complex128)
    assert torch.allclose(z.grad, want)
    assert torch.allclose(w.grad, w.detach() / 5**0.5 * (10**0.5 + 2))


def test_as_strided_scatter_gradient() -> None:
    x, part = double([1.0, 2.0, 3.0]), double([9.0])
    out = torch.as_strided_scatter(x, part, (1,), (1,), 0)
    gx, gp = torch.autograd.grad(out, [x, part], torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert out.tolist() == [9, 2, 3] and gx.tolist() == [1, 0, 0] and gp.tolist() == [1]


def test_bytes_are_resized_in_fixed_point() -> None:
    x = torch.tensor([[[[0, 50, 100], [150, 200, 250], [3, 5, 7]]]], dtype=torch.uint8)
    assert F.interpolate(x, size=(2, 5), mode="bilinear").tolist() == [[[[38, 58, 88, 118, 138], [40, 46, 54, 62, 68]]]]
    assert F.interpolate(x, size=(4, 2), mode="bicubic").tolist() == [[[[0, 79], [123, 212], [120, 173], [0, 0]]]]
    assert F.interpolate(x, size=(2, 2), mode="bilinear", antialias=True).tolist() == [[[[75, 137], [66, 90]]]]


def test_spaced_whole_numbers() -> None:
    assert torch.linspace(4.3, 0, 4, dtype=torch.uint8).tolist() == [4, 2, 1, 0]
    assert torch.linspace(torch.tensor(1), torch.tensor(5.0), 3).tolist() == [1, 3, 5]
    with pytest.raises(RuntimeError, match="0-dimensional"):
        torch.linspace(torch.tensor([1.0]), 5, 3)
    assert torch.arange(0.7, 5.9, 1.2, dtype=torch.int64).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="step must be nonzero"):
        torch.arange(0, 64, 0.5, out=torch.empty(0, dtype=torch.int64))


def test_out_of_the_very_dtype() -> None:
    one = torch.ones(2)
    with pytest.raises(RuntimeError, match="scalar type"):
        torch.complex(one, one, out=torch.empty(2, dtype=torch.complex128))
    with pytest.raises(RuntimeError, match="scalar type"):
        torch.multinomial(one, 1, out=torch.empty(1))
    with pytest.raises(RuntimeError, match="does not match dtype of out"):
        torch.zeros(2, dtype=torch.float64, out=torch.empty(2))


def test_values_and_indices_are_stored_in_out() -> None:
    x = torch.tensor([[3.0, 1.0, 2.0]])
    for call, want in (
        (lambda out: torch.sort(x, out=out), ([[1.0, 2.0, 3.0]], [[1, 2, 0]])),
        (lambda out: torch.topk(x, 2, out=out), ([[3.0, 2.0]], [[0, 2]])),
        (lambda out: torch.kthvalue(x, 2, out=out), ([2.0], [2])),
        (lambda out: torch.cummax(x, 1, out=out), ([[3.0, 3.0, 3.0]], [[0, 0, 0]])),
    ):
        out = (torch.empty(0), torch.empty(0, dtype=torch.int64))
        call(out)
        assert (out[0].tolist(), out[1].tolist()) == want
        with pytest.raises(RuntimeError, match="dtype"):
            call((torch.empty(0, dtype=torch.float64), out[1]))
    parts = [torch.empty(0), torch.empty(0)]
    torch.split_with_sizes_copy(x, [1, 2], 1, out=parts)
    assert [p.tolist() for p in parts] == [[[3.0]], [[1.0, 2.0]]]


def test_kronecker_product_pads_the_shorter_shape() -> None:
    a, b = torch.tensor([1, 2]), torch.tensor([[1, 0], [0, 3]])
    assert torch.kron(a, b).tolist() == [[1, 0, 2, 0], [0, 3, 0, 6]]
    assert torch.kron(b, a).tolist() == [[1, 2, 0, 0], [0, 0, 3, 6]]


def test_low_rank_decompositions_find_the_matrix() -> None:
    torch.manual_seed(0)
    a = torch.randn(7, 2, dtype=torch.float64) @ torch.randn(2, 5, dtype=torch.float64)
    for m in (a, a.T):
        u, s, v = torch.svd_lowrank(m, q=2)
        assert torch.allclose(u * s @ v.T, m)
    u, s, v = torch.pca_lowrank(a, q=3)
    assert torch.allclose(u * s @ v.T, a - a.mean(0))
    with pytest.raises(ValueError, match="q"):
        torch.pca_lowrank(a, q=6)


def test_norms_of_powers_below_one_have_gradient_zero_at_zero() -> None:
    x = torch.tensor([-1.0, 0.0, 4.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(torch.linalg.vector_norm(x, 0.5), x)
    assert grad.tolist() == [-3.0, 0.0, 1.5]


def test_norms_of_matrices_without_rows() -> None:
    assert torch.linalg.norm(torch.zeros(0, 5), float("inf")).item() == 0
    with pytest.raises(IndexError):
        torch.linalg.norm(torch.zeros(0, 5), -float("inf"))


def test_determinants_of_nothing_have_second_gradients() -> None:
    x = torch.zeros(2, 0, 0, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(torch.logdet(x).sum(), x, create_graph=True)
    assert grad.requires_grad
    assert grad.shape == x.shape


def test_permuted_memory_and_strides_of_new_tensors() -> None:
    assert torch.empty_permuted((2, 3, 4), (0, 2, 1)).stride() == (12, 1, 3)
    with pytest.raises(RuntimeError, match="Duplicate"):
        torch.empty_permuted((2, 3), (0, 0))
    assert torch.zeros(1).new_empty_strided((2, 3), (1, 2)).stride() == (1, 2)


def test_index_grids_of_absurd_sizes_are_refused() -> None:
    assert torch.tril_indices(3, 3, -1).tolist() == [[1, 2, 2], [0, 0, 1]]
    assert torch.triu_indices(2**40, 2, 1).tolist() == [[0], [1]]
    with pytest.raises(RuntimeError, match="memory"):
        torch.tril_indices(2**62, 2, 1)


def test_sizes_beyond_reason_are_refused():
    x = torch.ones(1)
    for call in (
        lambda: x.broadcast_to((2, -3)), lambda: x.expand(-3), lambda: x.mvlgamma(2**31), lambda: x.mvlgamma(2**62),
        lambda: torch.as_strided(torch.ones(4), (3,), (2**62,)), lambda: torch.empty_strided((3,), (2**62,)),
        lambda: torch.adaptive_avg_pool1d(torch.ones(4, 0, 4), 2**31), lambda: torch.nn.functional.adaptive_max_pool1d(torch.ones(1, 1, 4), 2**31),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            call()
    assert torch.isnan(torch.empty(0, 3).var(0)).all() and torch.isnan(torch.empty(0, 3).std(0, correction=0)).all()


def test_gradients_end_at_draws_and_at_constants():
    x = torch.ones(3, requires_grad=True)
    for fill in (
        lambda t: t.uniform_(),
        lambda t: t.normal_(),
        lambda t: t.bernoulli_(0.5),
        lambda t: t.exponential_(),
        lambda t: t.random_(3),
    ):
        (g,) = torch.autograd.grad(fill(x.clone()).sum(), x)
        assert (g == 0).all()
    (g,) = torch.autograd.grad(x.std(), x)
    assert (g == 0).all()
    y = x * 2
    (g,) = torch.autograd.grad(y.clone().double().float_power_(torch.full((3,), 2.0)).sum(), x)
    assert torch.allclose(g, torch.full((3,), 8.0))


@pytest.mark.parametrize("columns", [1, 15, 16, 300])
def test_sums_over_nothing(columns):
    assert torch.ones(0, columns).sum(0).tolist() == [0.0] * columns
    assert torch.ones(0, columns).prod(0).tolist() == [1.0] * columns


# ---- arguments that ask for more than there is ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: torch.combinations(torch.ones(1), 2**50, True),
            "combinations: can't allocate memory for 1 combinations",
        ),
        (lambda: torch.combinations(torch.arange(1000), 500), "combinations: can't allocate memory"),
        (
            lambda: torch.tensor_split(torch.ones(0, 3), 2**62),
            f"tensor_split: can't allocate memory for {2**62} pieces",
        ),
        (lambda: torch.vsplit(torch.ones(0, 3), 2**48), f"can't allocate memory for {2**48} pieces"),
        (lambda: torch.chunk(torch.ones(0, 3), 2**63 - 1), "chunk: can't allocate memory"),
        (lambda: torch.fft.fftfreq(2**62), f"fftfreq: can't allocate memory for {2**62} numbers"),
        (lambda: torch.fft.rfftfreq(2**63 - 1), "rfftfreq: can't allocate memory"),
        (lambda: torch.linspace(0, 1, 2**62), f"linspace: can't allocate memory for {2**62} numbers"),
        (lambda: torch.arange(2, 1e30, dtype=torch.uint8), "arange: can't allocate memory"),
        (lambda: torch.hann_window(2**60), "window: can't allocate memory"),
        (
            lambda: torch.fft.hfft(torch.ones(4, 0, 2).requires_grad_(), 2**61).sum().backward(),
            "irfft: can't allocate memory",
        ),
    ],
)
def test_too_much_is_refused_before_it_is_made(call: Callable[[], object], words: str) -> None:
    with pytest.raises(torch.OutOfMemoryError, match=words):
        call()


def test_large_counts_that_are_small_enough() -> None:
    with pytest.raises(RuntimeError, match="sizes"):
        torch.linalg.vander(torch.ones(3), N=2**62)
    with pytest.raises(RuntimeError, match="numel: integer multiplication overflow"):
        torch.broadcast_to(torch.ones(()), (3, 2**62))
    assert torch.ones(()).expand(2**62).shape == (2**62,)
    assert [p.shape[0] for p in torch.chunk(torch.ones(2, 3), 2**63 - 1)] == [1, 1]
    assert torch.combinations(torch.arange(3), 2**40).shape == (0, 2**40)
    x = double([1.0, 2.0])
    torch.combinations(x, 4).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]
    for n, r, again in itertools.product(range(5), range(1, 5), (False, True)):
        choose = itertools.combinations_with_replacement if again else itertools.combinations
        assert torch.combinations(torch.arange(n), r, again).tolist() == [list(c) for c in choose(range(n), r)]
    assert torch.linalg.vander(torch.tensor([2, 3, -1])).tolist() == [[1, 2, 4], [1, 3, 9], [1, -1, 1]]
    assert torch.linalg.vander(torch.ones(2, 0), N=3).shape == (2, 0, 3)


@pytest.mark.parametrize("product", [torch.smm, torch.hspmm, torch.sparse.mm])
def test_sparse_products_of_dense_batches_are_refused(product: Callable[..., object]) -> None:
    x = torch.ones(2, 3, 3)
    with pytest.raises((RuntimeError, NotImplementedError), match="dense|sparse"):
        product(x, x)
