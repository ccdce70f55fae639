"""Sparse tensors: layouts, operators, gradients, printed forms, files, optimizers."""

import copy
import io
import pickle

import flambeau as torch
import flambeau.nn.functional as F
import pytest
from flambeau import nn
from flambeau.autograd import gradcheck


def random_coo(sizes, nnz, dense=(), dtype=torch.float64, seed=0, grad=False):
    """Entries at random positions, some of them twice."""
    torch.manual_seed(seed)
    indices = torch.stack([torch.randint(0, n, (nnz,)) for n in sizes])
    values = torch.randn(nnz, *dense, dtype=dtype) if dtype.is_floating_point else torch.randint(-5, 6, (nnz, *dense), dtype=dtype)
    return torch.sparse_coo_tensor(indices, values, (*sizes, *dense), requires_grad=grad)


def loop_dense(s):
    """The dense tensor, one entry at a time."""
    out = torch.zeros(s.shape, dtype=s.dtype)
    for k in range(s._nnz()):
        out[tuple(int(i) for i in s._indices()[:, k])] += s._values()[k]
    return out


def same(a, b):
    a = a if a.layout is torch.strided else a.to_dense()
    b = b if b.layout is torch.strided else b.to_dense()
    torch.testing.assert_close(a, b)


# ---- layouts -------------------------------------------------------------------------------------------


def test_parts_of_coordinates():
    s = torch.sparse_coo_tensor([[1, 0, 1], [2, 0, 2]], [3.0, 4.0, 5.0], (2, 3))
    assert s.is_sparse and not s.is_sparse_csr and s.layout is torch.sparse_coo
    assert (s._nnz(), s.sparse_dim(), s.dense_dim(), s.shape, s.dtype) == (3, 2, 0, torch.Size([2, 3]), torch.float32)
    assert not s.is_coalesced()
    with pytest.raises(RuntimeError, match="uncoalesced"):
        s.values()
    with pytest.raises(RuntimeError, match="uncoalesced"):
        s.indices()
    c = s.coalesce()
    assert c.is_coalesced() and c.coalesce() is c
    assert c.indices().tolist() == [[0, 1], [0, 2]] and c.values().tolist() == [4.0, 8.0]
    assert s.to_dense().tolist() == [[4.0, 0.0, 0.0], [0.0, 0.0, 8.0]]
    assert torch.sparse_coo_tensor([[0, 3]], [1, 2]).shape == (4,)
    assert torch.sparse_coo_tensor((2, 3))._nnz() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int8, torch.bfloat16])
@pytest.mark.parametrize("sizes,dense", [((7,), ()), ((4, 5), ()), ((3, 4), (2,)), ((2, 3, 2), (2, 2))])
def test_round_trips(sizes, dense, dtype):
    s = random_coo(sizes, 9, dense, dtype)
    d = s.to_dense()
    same(d, s.coalesce())
    if dtype != torch.bfloat16:
        same(d, loop_dense(s))
    back = d.to_sparse(len(sizes))
    assert back.is_coalesced() and back.sparse_dim() == len(sizes)
    same(back, d)
    full = d.to_sparse()
    assert full._nnz() == int((d != 0).sum())
    same(full, d)


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc])
def test_compressed(layout):
    d = random_coo((5, 6), 11).to_dense()
    c = d.to_sparse(layout=layout)
    assert c.layout is layout and c.is_sparse_csr == (layout is torch.sparse_csr) and not c.is_sparse
    same(c, d)
    same(c.to_sparse(), d)
    same(c.t(), d.t())
    pointers, indices = (c.crow_indices(), c.col_indices()) if layout is torch.sparse_csr else (c.ccol_indices(), c.row_indices())
    again = torch.sparse_compressed_tensor(pointers, indices, c.values(), (5, 6), layout=layout)
    same(again, d)
    assert pointers[-1] == c._nnz() == len(c.values())
    assert d.to_sparse_csr().t().layout is torch.sparse_csc


def test_factories_and_layout_arguments():
    z = torch.zeros(10**6, 10**6, layout=torch.sparse_coo)
    assert z._nnz() == 0 and z.shape == (10**6, 10**6)
    assert torch.empty(2, 3, layout=torch.sparse_csr).is_sparse_csr
    s = torch.eye(3).to_sparse()
    assert torch.zeros_like(s).is_sparse and torch.zeros_like(s)._nnz() == 0
    assert torch.zeros_like(s, layout=torch.strided).layout is torch.strided
    with pytest.raises((NotImplementedError, RuntimeError)):
        torch.ones(2, 2, layout=torch.sparse_coo)


def test_bad_parts():
    for indices, values, size in [
        ([[0, 5]], [1.0, 2.0], (2,)), ([[0, -1]], [1.0, 2.0], (2,)), ([[0, 1]], [1.0, 2.0, 3.0], (2,)),
        ([0, 1], [1.0, 2.0], (2,)), ([[0, 1]], [1.0, 2.0], (2, 2)), ([[0, 1]], [[1.0], [2.0]], (2, 3)),
    ]:  # fmt: skip
        with pytest.raises(RuntimeError):
            torch.sparse_coo_tensor(indices, values, size)
    for rows, columns, size in [([0, 1, 5], [0, 1], (2, 2)), ([0, 1, 2], [0, 5], (2, 2)), ([0, 2], [0, 1], (2, 2)), ([1, 1, 2], [0, 1], (2, 2)), ([0, 3, 2], [0, 1], (2, 2))]:
        with pytest.raises(RuntimeError):
            torch.sparse_csr_tensor(rows, columns, [1.0, 2.0], size)
    with pytest.raises(RuntimeError, match="sorted"):
        torch.sparse_csr_tensor([0, 2], [1, 0], [1.0, 2.0], (1, 2), check_invariants=True)
    with torch.sparse.check_sparse_tensor_invariants(), pytest.raises(RuntimeError, match="sorted"):
        torch.sparse_csr_tensor([0, 2], [1, 0], [1.0, 2.0], (1, 2))
    assert not torch.sparse.check_sparse_tensor_invariants.is_enabled()
    same(torch.sparse_csr_tensor([0, 2], [1, 0], [1.0, 2.0], (1, 2)), torch.tensor([[2.0, 1.0]]))
    for block in ((3, 1), (0, 1)):
        with pytest.raises((RuntimeError, TypeError), match="block"):
            torch.eye(2).to_sparse_bsr(block)
    for values, size in [([1.0, 2.0], (2, 4)), ([[[1.0, 2.0]], [[3.0, 4.0]]], (2, 5)), ([[[1.0, 2.0]], [[3.0, 4.0]]], (3, 4))]:
        with pytest.raises(RuntimeError):
            torch.sparse_bsr_tensor([0, 1, 2], [1, 0], values, size)
    dense = torch.eye(2)
    for name, error in [("indices", RuntimeError), ("values", RuntimeError), ("coalesce", RuntimeError), ("is_coalesced", RuntimeError), ("_nnz", NotImplementedError), ("crow_indices", RuntimeError)]:
        with pytest.raises(error):
            getattr(dense, name)()


def test_printed_forms():
    s = torch.tensor([[0, 1.0], [2, 0]]).to_sparse()
    assert repr(s) == (
        "tensor(indices=tensor([[0, 1],\n                       [1, 0]]),\n       values=tensor([1., 2.]),\n"
        "       size=(2, 2), nnz=2, layout=torch.sparse_coo)"
    )
    assert repr(s.double().to_sparse_csr()) == (
        "tensor(crow_indices=tensor([0, 1, 2]),\n       col_indices=tensor([1, 0]),\n"
        "       values=tensor([1., 2.]), size=(2, 2), nnz=2, dtype=torch.float64,\n       layout=torch.sparse_csr)"
    )
    assert repr(torch.sparse_coo_tensor((2, 3))) == (
        "tensor(indices=tensor([], size=(2, 0)),\n       values=tensor([], size=(0,)),\n"
        "       size=(2, 3), nnz=0, layout=torch.sparse_coo)"
    )


# ---- operators -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_arithmetic(layout):
    a, b = random_coo((4, 5), 8, seed=1).to_sparse(layout=layout), random_coo((4, 5), 9, seed=2).to_sparse(layout=layout)
    x, y = a.to_dense(), b.to_dense()
    same(a + b, x + y)
    same(a - b, x - y)
    same(torch.add(a, b, alpha=3), x + 3 * y)
    same(a * b, x * y)
    same(a * 2.5, x * 2.5)
    same(2.5 * a, x * 2.5)
    same(a / 2, x / 2)
    same(-a, -x)
    same(a * y, x * y)
    same(y * a, x * y)
    same(y + a, x + y)
    same(torch.add(y, a, alpha=2), y + 2 * x)
    for r in (a + b, a * b, a * 2, a * y):
        assert r.layout is layout
    for name in ("abs", "sin", "tan", "tanh", "asinh", "atan", "sinh", "expm1", "sign", "floor", "ceil", "round", "trunc", "frac", "relu", "erf", "square", "neg", "sgn"):
        same(getattr(torch, name)(a), getattr(torch, name)(x))
    same(a.pow(2), x.pow(2))
    if layout is torch.sparse_coo:
        with pytest.raises(RuntimeError, match="add\\(dense, sparse\\)"):
            a + y
    with pytest.raises(RuntimeError):
        a + torch.sparse_coo_tensor((3, 3)).double().to_sparse(layout=layout)


def test_uncoalesced_functions_see_sums():
    s = torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (2,))
    assert (s * s).to_dense().tolist() == [9.0, 0.0]
    assert s.square().to_dense().tolist() == [9.0, 0.0]
    assert s.abs().to_dense().tolist() == [3.0, 0.0]
    assert (s + s).to_dense().tolist() == [6.0, 0.0]


def test_in_place():
    s = random_coo((4, 5), 8, seed=1)
    d = s.to_dense()
    s.mul_(2)
    same(s, 2 * d)
    s.add_(s)
    same(s, 4 * d)
    e = torch.ones(4, 5, dtype=torch.float64)
    e.add_(s, alpha=-1)
    same(e, 1 - 4 * d)
    t = torch.zeros_like(s)
    t.copy_(s)
    same(t, s)
    assert t.zero_()._nnz() == 0 and s._nnz() != 0
    with pytest.raises(RuntimeError):
        e.copy_(s)
    s.sparse_resize_((6, 5), 2, 0)
    assert s.shape == (6, 5)
    assert s.sparse_resize_and_clear_((3, 3), 2, 0)._nnz() == 0


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_products(layout):
    s, x = random_coo((4, 5), 8).to_sparse(layout=layout), torch.randn(5, 3, dtype=torch.float64)
    d, v = s.to_dense(), torch.randn(5, dtype=torch.float64)
    for product in (torch.mm, torch.matmul, torch.sparse.mm):
        same(product(s, x), d @ x)
    same(s @ x, d @ x)
    same(torch.mv(s, v), d @ v)
    same(s @ v, d @ v)
    y = torch.randn(4, 3, dtype=torch.float64)
    same(torch.addmm(y, s, x, beta=0.5, alpha=2), 0.5 * y + 2 * (d @ x))
    same(torch.sparse.addmm(y, s, x), y + d @ x)
    same(torch.sparse.mm(s, s.t().to_sparse(layout=layout)), d @ d.t())
    with pytest.raises(RuntimeError):
        torch.mm(s, torch.randn(4, 3, dtype=torch.float64))
    with pytest.raises(RuntimeError):
        torch.mm(s, x.float())


def test_sums_softmax_and_sampled_products():
    s = random_coo((4, 5), 9)
    d = s.to_dense()
    same(torch.sparse.sum(s), d.sum())
    for dim in (0, 1, (0, 1), -1):
        same(torch.sparse.sum(s, dim), d.sum(dim))
    h = random_coo((4, 3), 6, (2,))
    for dim in (0, 1, 2, (0, 2), (1, 2)):
        same(torch.sparse.sum(h, dim), h.to_dense().sum(dim))
    c = s.coalesce()
    missing = torch.zeros(4, 5, dtype=torch.float64).masked_fill(torch.sparse_coo_tensor(c.indices(), torch.ones(c._nnz()), (4, 5)).to_dense() == 0, -torch.inf)
    for dim in (0, 1):
        wanted = torch.softmax(d + missing, dim).nan_to_num(0.0)
        same(torch.sparse.softmax(s, dim), wanted)
        found = torch.sparse.log_softmax(s, dim)
        same(torch.sparse_coo_tensor(found.indices(), found.values().exp(), (4, 5)), wanted)
    a, b = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    m = s.to_sparse_csr()
    pattern = (m.to_dense() != 0).double()
    same(torch.sparse.sampled_addmm(m, a, b, beta=2, alpha=3), 2 * d + 3 * (a @ b) * pattern)
    assert (d.sparse_mask(c).to_dense() - d).abs().max() == 0
    ones = torch.ones(4, 5, dtype=torch.float64)
    same(ones.sparse_mask(c), pattern)
    same(torch.sparse.spdiags(torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([0, 1]), (3, 3)), torch.tensor([[1.0, 5, 0], [0, 2, 6], [0, 0, 3]]))


def test_shapes():
    s = random_coo((4, 5), 9)
    d = s.to_dense()
    same(s.t(), d.t())
    same(s.transpose(0, 1), d.t())
    same(s.permute(1, 0), d.t())
    same(s.select(0, 2), d.select(0, 2))
    same(s[1], d[1])
    same(s.narrow(1, 1, 3), d.narrow(1, 1, 3))
    same(s.unsqueeze(0), d.unsqueeze(0))
    same(s.unsqueeze(-1), d.unsqueeze(-1))
    same(s.unsqueeze(1).squeeze(1), d)
    index = torch.tensor([3, 0, 3])
    same(s.index_select(0, index), d.index_select(0, index))
    same(s.index_select(1, index), d.index_select(1, index))
    for dim in (0, 1):
        same(torch.cat([s, s], dim), torch.cat([d, d], dim))
    for dim in (0, 1, 2):
        same(torch.stack([s, s], dim), torch.stack([d, d], dim))
    h = random_coo((4, 3), 6, (2, 3))
    same(h.transpose(2, 3), h.to_dense().transpose(2, 3))
    same(torch.cat([h, h], 2), torch.cat([h.to_dense()] * 2, 2))
    with pytest.raises(RuntimeError):
        h.transpose(0, 2)
    with pytest.raises(RuntimeError):
        torch.cat([s, d])
    same(s.float(), d.float())
    same(s.coalesce().to(torch.int32), d.to(torch.int32))
    same(s.clone(), d)


def test_what_does_not_know_sparse_tensors_says_so():
    s = torch.eye(4).to_sparse()
    c = torch.eye(4).to_sparse_csr()
    names = ("exp", "cos", "sigmoid", "mean", "max", "cumsum", "argmax", "sort", "nonzero", "flatten", "tolist", "numpy", "view", "reshape", "diagonal", "var", "triu", "median", "data_ptr", "softplus", "roll", "topk", "unique", "prod")
    arguments = {"cumsum": (0,), "view": (16,), "reshape": (16,), "roll": (1,), "topk": (2,)}
    for t in (s, c):
        for name in names:
            function = getattr(t, name, None) or (lambda t=t, name=name: getattr(F, name)(t))
            with pytest.raises((NotImplementedError, RuntimeError, TypeError, AttributeError)):
                function(*arguments.get(name, ()))
        for call in (
            lambda t: torch.exp(t), lambda t: t == t, lambda t: t > 0, lambda t: t + 1, lambda t: torch.where(t, t, t), lambda t: F.conv1d(t, t),
            lambda t: F.layer_norm(t, (4,)), lambda t: torch.fft.fft(t), lambda t: torch.linalg.inv(t), lambda t: t.fill_(1),
            lambda t: torch.ones(4, 4).masked_fill(t, 1), lambda t: F.cross_entropy(t, torch.arange(4)), lambda t: torch.ones(4, 4).maximum(t),
            lambda t: t.normal_(), lambda t: torch.gather(t, 0, torch.zeros(4, 4, dtype=torch.int64)), lambda t: t.expand(2, 4, 4),
        ):  # fmt: skip
            with pytest.raises((NotImplementedError, RuntimeError, TypeError)):
                call(t)


# ---- gradients -----------------------------------------------------------------------------------------


def test_gradients_by_finite_differences():
    i = torch.tensor([[0, 2, 1, 2], [1, 0, 3, 0]])
    v = torch.randn(4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    d = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    make = lambda v: torch.sparse_coo_tensor(i, v, (3, 4))  # noqa: E731
    csr = lambda v: make(v).to_sparse_csr()  # noqa: E731
    for f, inputs in [
        (lambda v: make(v).to_dense(), (v,)),
        (lambda v: make(v).coalesce().values(), (v,)),
        (lambda v, x: torch.sparse.mm(make(v), x), (v, x)),
        (lambda v, x: csr(v) @ x, (v, x)),
        (lambda v, d: (make(v) * d).to_dense(), (v, d)),
        (lambda v, d: d + make(v), (v, d)),
        (lambda v: (make(v) + make(v * 2)).to_dense(), (v,)),
        (lambda v: (make(v) * make(v)).to_dense(), (v,)),
        (lambda v: torch.sparse.sum(make(v), 0).to_dense(), (v,)),
        (lambda v: torch.sparse.softmax(make(v), 1).to_dense(), (v,)),
        (lambda v: torch.sparse.log_softmax(make(v), 0).to_dense(), (v,)),
        (lambda v: torch.sparse.mm(make(v), make(v).t()).to_dense(), (v,)),
        (lambda d: d.to_sparse().to_dense(), (d,)),
        (lambda d: (d.to_sparse() * 3).values(), (d,)),
        (lambda v: make(v).sin().to_dense(), (v,)),
        (lambda v: torch.cat([make(v), make(v)], 1).to_dense(), (v,)),
        (lambda v: make(v).t().index_select(0, torch.tensor([1, 0])).to_dense(), (v,)),
        (lambda v, d, x: torch.sparse.sampled_addmm(csr(v), d, x), None),
    ]:
        if inputs is not None:
            assert gradcheck(f, inputs)


def test_gradients_of_sparse_leaves_are_sparse():
    s = random_coo((3, 4), 5, grad=True)
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert s.is_leaf and s.requires_grad
    (torch.sparse.mm(s, x) ** 2).sum().backward()
    assert s.grad.is_sparse and s.grad.shape == s.shape
    d = s.detach().to_dense().requires_grad_()
    ((d @ x.detach()) ** 2).sum().backward()
    pattern = torch.ones(3, 4, dtype=torch.float64).sparse_mask(s.detach().coalesce()).to_dense()
    # Entries of one position share a gradient, which is there once.
    assert s.grad.is_coalesced() and s._nnz() > 0
    torch.testing.assert_close(s.grad.indices(), s.detach().coalesce().indices())
    same(s.grad, d.grad * pattern)
    u = torch.sparse_coo_tensor([[1, 1, 0]], [1.0, 2.0, 3.0], (2,), requires_grad=True)
    (u.to_dense() ** 2).sum().backward()
    assert u.grad.to_dense().tolist() == [6.0, 6.0]
    u.grad = torch.tensor([1.0, 5.0]).to_sparse()
    assert u.grad.to_dense().tolist() == [1.0, 5.0]
    g = torch.autograd.grad(torch.sparse.sum(s * 2), s)[0]
    assert g.is_sparse and set(g._values().tolist()) == {2.0}


@pytest.mark.parametrize("padding", [None, 2])
def test_embedding(padding):
    torch.manual_seed(0)
    index = torch.tensor([[1, 2, 1], [0, 4, 2]])
    a = nn.Embedding(6, 3, padding_idx=padding, sparse=True)
    b = nn.Embedding(6, 3, padding_idx=padding)
    b.load_state_dict(a.state_dict())
    w = torch.randn(2, 3, 3)
    for m in (a, b):
        (m(index) * w).sum().backward()
    assert a.weight.grad.is_sparse and not a.weight.grad.is_coalesced() and a.weight.grad.shape == (6, 3)
    same(a.weight.grad, b.weight.grad)
    # A second pass adds up.
    for m in (a, b):
        (m(index[:1]) ** 2).sum().backward()
    assert a.weight.grad.is_sparse
    same(a.weight.grad, b.weight.grad)
    # Sparse onto dense, and dense onto sparse, are dense.
    for m in (a, b):
        (m.weight**2).sum().backward()
    assert not a.weight.grad.is_sparse
    same(a.weight.grad, b.weight.grad)
    for m in (a, b):
        m(index).sum().backward()
    same(a.weight.grad, b.weight.grad)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_embedding_bag(mode):
    a = nn.EmbeddingBag(6, 3, mode=mode, sparse=True)
    b = nn.EmbeddingBag(6, 3, mode=mode)
    b.load_state_dict(a.state_dict())
    for m in (a, b):
        (m(torch.tensor([1, 2, 4, 5, 4, 3]), torch.tensor([0, 3])) ** 2).sum().backward()
    assert a.weight.grad.is_sparse
    same(a.weight.grad, b.weight.grad)


# ---- optimizers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,options", [("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9}), ("SGD", {"lr": 0.1, "maximize": True}), ("Adagrad", {"lr": 0.1})])
def test_optimizers_equal_their_dense_run(name, options):
    torch.manual_seed(1)
    start = torch.randn(8, 3)
    weights = []
    for sparse in (True, False):
        w = nn.Parameter(start.clone())
        o = getattr(torch.optim, name)([w], **options)
        for index in ([0, 1, 1], [3, 7, 0], [1, 1, 2]):
            o.zero_grad()
            (F.embedding(torch.tensor(index), w, sparse=sparse) ** 2).sum().backward()
            assert w.grad.is_sparse == sparse
            o.step()
        weights.append(w.detach())
    same(*weights)


def test_sparse_adam():
    torch.manual_seed(1)
    w = nn.Parameter(torch.randn(8, 3))
    before = w.detach().clone()
    o = torch.optim.SparseAdam([w], lr=0.1)
    F.embedding(torch.tensor([0, 1, 1]), w, sparse=True).pow(2).sum().backward()
    g = w.grad.to_dense()
    o.step()
    # The first step is lr * sign(g) where there is a gradient, and nothing elsewhere.
    torch.testing.assert_close(w.detach(), before - 0.1 * g.sign(), atol=1e-5, rtol=0)
    w.grad = torch.ones(8, 3)
    with pytest.raises(RuntimeError, match="dense gradients"):
        o.step()


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop", "Adadelta", "NAdam", "RAdam", "Adamax", "Rprop", "ASGD"])
def test_other_optimizers_refuse(name):
    w = nn.Parameter(torch.ones(3, 2))
    w.grad = torch.eye(3, 2).to_sparse()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        getattr(torch.optim, name)([w]).step()


# ---- files ---------------------------------------------------------------------------------------------


def test_files_and_copies():
    s = random_coo((4, 5), 9, (2,))
    tensors = {"coo": s, "coalesced": s.coalesce(), "csr": random_coo((4, 5), 9).to_sparse_csr(), "csc": random_coo((4, 5), 9).to_sparse_csc(), "half": random_coo((3,), 2).half()}
    file = io.BytesIO()
    torch.save(tensors, file)
    file.seek(0)
    for found in (torch.load(file), pickle.loads(pickle.dumps(tensors)), copy.deepcopy(tensors)):
        for name, t in tensors.items():
            assert found[name].layout is t.layout and found[name].dtype is t.dtype and found[name].shape == t.shape
            same(found[name], t)
        assert found["coalesced"].is_coalesced() and not found["coo"].is_coalesced()
    old = io.BytesIO()
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    old.seek(0)
    for name, t in torch.load(old).items():
        assert t.layout is tensors[name].layout
        same(t, tensors[name])
    with pytest.raises(Exception, match="index 9|coalesced"):
        from flambeau import _utils

        _utils._rebuild_sparse_tensor(torch.sparse_coo, (torch.tensor([[9]]), torch.ones(1), (3,), True))


def test_shapes_in_place_and_what_has_no_strides():
    s = random_coo((4, 5), 9)
    d = s.to_dense()
    same(s.t_(), d.t())
    assert s.shape == (5, 4)
    same(s.unsqueeze_(0).squeeze_(0).transpose_(0, 1), d)
    assert s.stride() == (0, 0) and not s.is_contiguous()
    c = d.to_sparse_csr()
    for call in (lambda: c.stride(), lambda: c.is_contiguous(), lambda: c.t_(), lambda: s.resize_(3, 3), lambda: s.nbytes):
        with pytest.raises((RuntimeError, NotImplementedError)):
            call()
    assert s.new_zeros(3, 3).is_sparse and s.new_empty(2)._nnz() == 0
    with pytest.raises(TypeError, match="to_dense"):
        s.numpy()


BLOCKS = torch.tensor([[1.0, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 5, 6]], dtype=torch.float64)


@pytest.mark.parametrize("layout", [torch.sparse_bsr, torch.sparse_bsc])
def test_blocks(layout):
    b = BLOCKS.to_sparse(layout=layout, blocksize=(2, 2))
    assert b.layout is layout and b._nnz() == 2 and not b.is_sparse and not b.is_sparse_csr
    assert torch.equal(b.values(), torch.stack([BLOCKS[:2, :2], BLOCKS[2:, 2:]]))
    same(b, BLOCKS)
    same(b.to_sparse(), BLOCKS)
    same(b.to_sparse_csr(), BLOCKS)
    same(b.to_sparse_bsc((1, 2)), BLOCKS)
    turned = b.t()
    assert turned.layout is (torch.sparse_bsc if layout is torch.sparse_bsr else torch.sparse_bsr)
    same(turned, BLOCKS.t())
    x = torch.rand(4, 3, dtype=torch.float64)
    same(b @ x, BLOCKS @ x)
    same(x.t() @ b, x.t() @ BLOCKS)
    same(F.linear(x.t(), b), x.t() @ BLOCKS.t())
    for f in (lambda t: t * 2, lambda t: -t, torch.sin, lambda t: t + t, lambda t: t * BLOCKS, torch.clone):
        assert f(b).layout is layout
        same(f(b), f(BLOCKS))
    same(BLOCKS + b, 2 * BLOCKS)
    assert b.sum() == BLOCKS.sum() and "layout=torch." + layout.__reduce__() in repr(b)
    again = pickle.loads(pickle.dumps(b))
    assert again.layout is layout and torch.equal(again.values(), b.values())
    leaf = BLOCKS.clone().requires_grad_()
    weights = torch.arange(16.0, dtype=torch.float64).view(4, 4)
    (leaf.to_sparse(layout=layout, blocksize=(2, 2)).to_dense() * weights).sum().backward()
    assert torch.equal(leaf.grad, torch.block_diag(weights[:2, :2], weights[2:, 2:]))


def test_batches_and_dense_dimensions_of_compressed_tensors():
    batch = torch.stack([BLOCKS, BLOCKS * 2])
    c = batch.to_sparse_csr()
    assert c.crow_indices().shape == (2, 5) and c.values().shape == (2, 5) and c._nnz() == 5
    assert (c.sparse_dim(), c.dense_dim()) == (2, 0)
    same(c, batch)
    same(c.to_sparse(), batch)
    same(c[1], batch[1])
    same(c * 3, batch * 3)
    same(c.transpose(1, 2), batch.transpose(1, 2))
    blocks = batch.to_sparse_bsr((2, 2))
    assert blocks.values().shape == (2, 2, 2, 2)
    same(blocks, batch)
    with pytest.raises(RuntimeError, match="same number of specified elements per batch"):
        torch.stack([BLOCKS, torch.zeros_like(BLOCKS)]).to_sparse_csr()
    d = torch.zeros(2, 3, 2)
    d[0, 1], d[1, 2] = torch.tensor([1.0, 2]), torch.tensor([0.0, 4])
    for t in (d.to_sparse_csr(dense_dim=1), d.to_sparse_csc(dense_dim=1), d.to_sparse_bsr((1, 3), dense_dim=1)):
        assert t.dense_dim() == 1 and t.values().shape[-1] == 2
        same(t, d)
    made = torch.sparse_csr_tensor([[0, 1, 2], [0, 0, 2]], [[1, 2], [0, 1]], [[1.0, 2], [0, 4]], (2, 2, 3))
    same(made, torch.tensor([[[0.0, 1, 0], [0, 0, 2]], [[0, 0, 0], [0, 4, 0]]]))


def test_products_of_batches():
    batch = torch.stack([BLOCKS, BLOCKS * 2])
    x = torch.rand(2, 4, 3, dtype=torch.float64, requires_grad=True)
    for s in (batch.to_sparse(), batch.to_sparse_csr(), batch.to_sparse_bsr((2, 2))):
        same(torch.bmm(s, x), batch @ x)
    same(torch.bmm(x.transpose(1, 2), batch.to_sparse()), x.transpose(1, 2) @ batch)
    s = batch.to_sparse().requires_grad_()
    torch.bmm(s, x).sum().backward()
    assert torch.allclose(x.grad, batch.transpose(1, 2).sum(2, keepdim=True).expand(2, 4, 3))
    same(s.grad, x.detach().sum(2)[:, None, :].expand(2, 4, 4) * (batch != 0))
    with pytest.raises(RuntimeError):
        torch.bmm(s, torch.rand(2, 3, 3, dtype=torch.float64))


def test_writes_to_the_gradient_of_a_sparse_leaf_stay():
    x = BLOCKS.to_sparse().requires_grad_()
    ones = torch.ones(4, 2, dtype=torch.float64)
    torch.sparse.mm(x, ones).sum().backward()
    assert x.grad is x.grad
    x.grad.mul_(2)
    assert x.grad.to_dense().sum() == 20
    torch.sparse.mm(x, ones).sum().backward()
    assert x.grad.to_dense().sum() == 30
    x.grad.zero_()
    assert x.grad.to_dense().sum() == 0
    torch.sparse.mm(x, ones).sum().backward()
    assert x.grad.to_dense().sum() == 10


def test_sparse_dimensions_of_a_number():
    assert torch.tensor(3).to_sparse(0).to_dense().item() == 3
    for dims in (-1, 1, -(2**63)):
        with pytest.raises(RuntimeError, match=r"sparse_dim must be in \[0, 0\]"):
            torch.tensor(3).to_sparse(dims)
