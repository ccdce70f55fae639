"""`vmap`: views and writes inside it, operators without a rule, random numbers, nesting."""

from __future__ import annotations

import flambeau as torch
import flambeau.nn.functional as F
import pytest
from flambeau.func import functional_call, grad, jacrev, vmap


def by_example(function, *batches):
    return torch.stack([function(*row) for row in zip(*batches, strict=True)])


def write(view, value):
    def function(x, y):
        copy = x.clone()
        view(copy).copy_(y * value)
        return copy

    return function


VIEWS = {
    "select": lambda t: t.select(1, 1),
    "slice": lambda t: t[1:][1],
    "transpose": lambda t: t.t()[0],
    "diagonal": lambda t: t.diagonal(),
    "reshape": lambda t: t.view(9)[2:5],
    "unsqueeze": lambda t: t.unsqueeze(0)[0, 2],
    "squeeze": lambda t: t[:1].squeeze(0),
    "unfold": lambda t: t.unfold(0, 3, 1)[0, 0],
    "as_strided": lambda t: t.as_strided((3,), (2,), t.storage_offset()),
    "unbind": lambda t: t[:, 2],
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dim", [0, 2])
def test_writes_through_views_reach_the_batch(name, dim):
    if name == "as_strided" and dim:
        pytest.skip("the strides are those of the batch's own memory")
    x, y = torch.rand(4, 3, 3), torch.rand(4, 3)
    function = write(VIEWS[name], 2.0)
    want = by_example(function, x, y)
    got = vmap(function, in_dims=(dim, 0))(x.movedim(0, dim).contiguous(), y)
    assert torch.equal(got, want)


def test_writes_in_place_reach_the_argument():
    x = torch.zeros(3, 2)
    vmap(lambda row, k: row.add_(k).mul_(2))(x, torch.arange(3.0))
    assert x.tolist() == [[0, 0], [2, 2], [4, 4]]


OPERATORS = {
    "cholesky": lambda m: torch.linalg.cholesky(m @ m.mT + 3 * torch.eye(3)),
    "inv": lambda m: torch.linalg.inv(m + 3 * torch.eye(3)),
    "solve": lambda m: torch.linalg.solve(m + 3 * torch.eye(3), m[0]),
    "matrix_power": lambda m: torch.linalg.matrix_power(m, 3),
    "scatter": lambda m: torch.zeros(3, 3).scatter(1, m.argsort(1), m),
    "index_put": lambda m: torch.zeros(3).index_put((m[0].argsort(),), m[1]),
    "index_reduce": lambda m: torch.ones(3, 3).index_reduce(0, m[0].argsort(), m, "prod"),
    "quantile": lambda m: torch.quantile(m, m[0], dim=0),
    "masked_scatter": lambda m: m.masked_scatter(m > 0.5, m.flip(0)),
    "diag_embed": lambda m: torch.diag_embed(m[0]),
    "histc": lambda m: torch.histc(m, 5, 0, 1),
    "one_hot": lambda m: F.one_hot(m.argmax(1), 3),
    "nll_loss": lambda m: F.nll_loss(m, m.argmax(1)),
    "cross_entropy": lambda m: F.cross_entropy(m, m.argmax(1), label_smoothing=0.1),
    "max_unpool1d": lambda m: F.max_unpool1d(*F.max_pool1d(m, 2, return_indices=True), 2),
    "embedding_bag": lambda m: F.embedding_bag(m.argsort(1), m, mode="sum"),
    "ctc_loss": lambda m: F.ctc_loss(
        m.log_softmax(1), m.argsort(1)[:1, :2] + 0, torch.tensor([3]), torch.tensor([1]), blank=0
    ),
    "logsumexp": lambda m: m.logsumexp(0),
    "max": lambda m: m.max(0).values + m.max(),
    "var": lambda m: m.var(1) + m.std(),
    "prod": lambda m: m.prod(0),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_agree_with_a_loop(name):
    torch.manual_seed(0)
    x = torch.rand(4, 3, 3)
    function = OPERATORS[name]
    want = by_example(function, x)
    assert torch.allclose(vmap(function)(x), want, rtol=1e-5, atol=1e-6)
    assert torch.allclose(vmap(function, in_dims=-1)(x.movedim(0, -1)), want, rtol=1e-5, atol=1e-6)
    # Two levels, and a gradient inside one.
    twice = vmap(vmap(function))(x.reshape(2, 2, 3, 3))
    assert torch.allclose(twice.reshape(want.shape), want, rtol=1e-5, atol=1e-6)
    if want.is_floating_point() and name != "histc":
        scalar = lambda m: function(m).sum()  # noqa: E731
        assert torch.allclose(vmap(grad(scalar))(x), by_example(grad(scalar), x), rtol=1e-4, atol=1e-5)


def test_what_a_batch_cannot_tell():
    x = torch.rand(3, 2)
    with pytest.raises(RuntimeError, match="item"):
        vmap(lambda row: row.sum().item())(x)
    with pytest.raises(RuntimeError, match="not possible"):
        vmap(lambda row: torch.zeros(2).copy_(row))(x)
    with pytest.raises(RuntimeError):
        vmap(lambda row: row[row > 0.5].nonzero())(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="out_dims"):
        vmap(lambda row: row * 2, out_dims=None)(x)
    assert vmap(lambda row: torch.ones(2), out_dims=None)(x).shape == (2,)


def test_random_numbers():
    x = torch.zeros(3, 2)
    for draw in (torch.rand, torch.randn):
        add = lambda row, draw=draw: row + draw(2)  # noqa: E731
        torch.manual_seed(0)
        assert torch.equal(vmap(add, randomness="same")(x), x + _seeded(draw, 2))
        torch.manual_seed(0)
        assert torch.equal(vmap(add, randomness="different")(x), _seeded(draw, 3, 2))
        with pytest.raises(RuntimeError, match="randomness"):
            vmap(add)(x)
    for function in (
        lambda row: F.dropout(row + 1),
        lambda row: torch.bernoulli(row, 0.5),
        lambda row: row.clone().normal_(),
    ):
        torch.manual_seed(0)
        same = vmap(function, randomness="same")(torch.zeros(8, 20))
        assert all(torch.equal(row, same[0]) for row in same)
        different = vmap(function, randomness="different")(torch.zeros(8, 20))
        assert not any(torch.equal(row, different[0]) for row in different[1:])
    orders = vmap(lambda row: torch.randperm(20), randomness="different")(x)
    assert not torch.equal(orders[0], orders[1]) and orders.sort(1).values.tolist() == [list(range(20))] * 3
    with pytest.raises(RuntimeError, match="unbatched"):
        vmap(lambda row: torch.zeros(2).normal_(), randomness="different")(x)


def _seeded(draw, *shape):
    torch.manual_seed(0)
    return draw(*shape)


def test_gradients_by_what_examples_share():
    weight, x = torch.rand(2, 3), torch.rand(4, 3)
    loss = lambda w, row: (w @ row).square().sum()  # noqa: E731
    want = torch.stack([grad(loss)(weight, row) for row in x])
    assert torch.allclose(vmap(grad(loss), in_dims=(None, 0))(weight, x), want)
    net = torch.nn.Linear(3, 2)
    state = {k: v.detach() for k, v in net.named_parameters()}
    total = lambda state, row: functional_call(net, state, (row,)).sin().sum()  # noqa: E731
    each = vmap(grad(total), in_dims=(None, 0))(state, x)
    assert torch.allclose(each["bias"], torch.stack([grad(total)(state, row)["bias"] for row in x]))
    # Keyword arguments are not mapped over.
    assert vmap(lambda row, k: row + k)(x, k=torch.ones(4, 3)).shape == (4, 4, 3)


def test_jacobians_of_views():
    x = torch.rand(3, 3)
    for function in (
        lambda t: t[1],
        lambda t: t.diagonal(),
        lambda t: t.unfold(1, 2, 1),
        lambda t: t.t()[::2],
        lambda t: t.amax(0),
    ):
        y = function(x)
        rows = [
            torch.autograd.functional.jacobian(lambda t, i=i, function=function: function(t).reshape(-1)[i], x)
            for i in range(y.numel())
        ]
        assert torch.allclose(jacrev(function)(x), torch.stack(rows).reshape(*y.shape, 3, 3))
