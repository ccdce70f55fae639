"""Element-by-element work that follows a matrix product runs in its epilogue when compiled: the same bits as eagerly, at every
blocking of the product, whoever else reads or writes its memory; and products of 8-bit integers."""

import flambeau as torch
import pytest
from flambeau.nn import functional as F

# Few rows, few columns, blocks of rows, several slices of the summed dimension, vectors, nothing, a product beyond the caches.
SHAPES = [
    (3, 5, 4),
    (20, 40, 32),
    (128, 784, 512),
    (1000, 700, 70),
    (700, 1500, 530),
    (1, 64, 64),
    (64, 64, 1),
    (30, 0, 20),
    (2100, 40, 2050),
]


def same(f, *arguments):
    """Runs `f` eagerly and compiled over copies of the arguments; results and arguments must agree in every bit."""

    def run(g):
        own = [a.clone() for a in arguments]
        results = g(*own)
        return [*(results if isinstance(results, tuple) else (results,)), *own]

    for a, b in zip(run(f), run(torch.compile(f)), strict=True):
        assert a.dtype == b.dtype and a.stride() == b.stride()
        assert torch.equal(a, b)


def operands(shape, dtype=torch.float32):
    torch.manual_seed(0)
    m, k, n = shape
    return [torch.randn(s).to(dtype) for s in ((m, k), (n, k), (n,), (m, n))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_blocking(shape, dtype):
    x, w, b, r = operands(shape, dtype)
    same(lambda x, w, b: F.relu(F.linear(x, w, b)), x, w, b)
    same(lambda x, w, b, r: F.gelu(F.linear(x, w, b)) * 0.5 + r, x, w, b, r)
    same(lambda x, w, r: (x @ w.t()).sigmoid() * r.t().contiguous().t(), x, w, r)
    same(lambda x, w, r: torch.where((x @ w.t()) > r, 1, 0), x, w, r)


def test_who_else_reads_or_writes():
    x, w, b, r = operands((96, 96, 96))

    def kept(x, w, b):
        y = F.linear(x, w, b)
        return y.tanh(), y

    def written_in_place(x, w, b):
        return F.linear(x, w, b).relu_()

    def onto_another(x, w, b, r):
        r.add_(F.linear(x, w, b))
        return r * 2

    def onto_its_operand(x, w, b):
        x.add_(F.linear(x, w, b))
        return x

    def onto_its_weight(x, w):
        w.copy_((x @ w).exp())
        return w

    def its_first_row(x, w):
        y = x @ w
        return y + y[:1]

    def its_transpose(x, w):
        y = x @ w
        return y * y.t()

    def two_products(x, w, r):
        return F.silu(x @ w) * (x @ r)

    def read_in_between(x, w):
        y = x @ w
        s = y.sum()
        return y.relu() + s

    def operand_changed_afterwards(x, w):
        y = x @ w
        x.zero_()
        return y.relu()

    def reduced(x, w, b):
        return F.linear(x, w, b).relu().sum(1)

    def chained(x, w, b):
        for _ in range(3):
            x = F.relu(F.linear(x, w, b)) * 0.1
        return x

    same(kept, x, w, b)
    same(written_in_place, x, w, b)
    same(onto_another, x, w, b, r)
    same(onto_its_operand, x, w, b)
    for f in (onto_its_weight, its_first_row, its_transpose, read_in_between, operand_changed_afterwards):
        same(f, x, w * 0.1)
    same(two_products, x, w, r)
    same(reduced, x, w, b)
    same(chained, x, w, b)


def test_leading_dimensions():
    x, w, b = torch.randn(3, 20, 40), torch.randn(50, 40), torch.randn(50)
    position, each = torch.randn(20, 50), torch.randn(3, 1, 50)
    same(lambda x, w, b: F.gelu(F.linear(x, w, b)), x, w, b)
    same(lambda x, w, b, p: F.linear(x, w, b) + p, x, w, b, position)
    same(lambda x, w, b, e: F.linear(x, w, b) * e, x, w, b, each)
    same(lambda x, w, b: F.relu(F.linear(x.transpose(0, 1), w, b)), x, w, b)
    same(lambda x: (x @ x.transpose(1, 2)).relu(), x)


def test_the_product_and_what_follows_run_as_one():
    x, w, b, _ = operands((64, 32, 48))
    step = torch.compile(lambda x, w, b: F.gelu(F.linear(x, w, b)))
    step(x, w, b)
    with torch.profiler.profile() as prof:
        step(x, w, b)
    names = [e.key for e in prof.key_averages()]
    assert "flambeau::fused(linear, gelu)" in names, names


def test_gradients():
    x, w, b, r = operands((40, 30, 20))
    x.requires_grad_()
    w.requires_grad_()

    def step(x, w, b, r):
        loss = (F.gelu(F.linear(x, w, b)) * r).sum()
        return torch.autograd.grad(loss, (x, w))

    for a, c in zip(step(x, w, b, r), torch.compile(step)(x, w, b, r), strict=True):
        assert torch.equal(a, c)


def test_a_bias_of_columns_is_added_by_the_product():
    x, w, b, r = operands((40, 30, 20))
    assert torch.equal(torch.addmm(b, x, w.t()), F.linear(x, w, b))
    assert torch.allclose(torch.addmm(r, x, w.t(), beta=0.5, alpha=2), 0.5 * r + 2 * (x @ w.t()), atol=1e-4)
    assert torch.equal(torch._addmm_activation(b, x, w.t()), F.relu(F.linear(x, w, b)))
    assert torch.equal(torch._addmm_activation(b, x, w.t(), use_gelu=True), F.gelu(F.linear(x, w, b)))


@pytest.mark.parametrize("left", [torch.int8, torch.uint8], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_bytes(shape, left):
    m, k, n = shape
    info = torch.iinfo(left)
    torch.manual_seed(0)
    a = torch.randint(info.min, info.max + 1, (m, k), dtype=left)
    b = torch.randint(-128, 128, (k, n), dtype=torch.int8)
    want = a.int() @ b.int()
    for x in (a, a.t().contiguous().t()):
        for y in (b, b.t().contiguous().t()):
            assert torch.equal(torch._int_mm(x, y), want)
    out = torch.empty(m, n, dtype=torch.int32)
    assert torch._int_mm(a, b, out=out) is out and torch.equal(out, want)


def test_products_of_bytes_refuse():
    a, b = torch.ones(2, 3, dtype=torch.int8), torch.ones(3, 4, dtype=torch.int8)
    for bad in ((a.float(), b), (a, b.to(torch.uint8)), (a, a), (a[0], b), (a, b[0])):
        with pytest.raises(RuntimeError, match="_int_mm: "):
            torch._int_mm(*bad)
    with pytest.raises(RuntimeError, match="result dtype"):
        torch._int_mm(a, b, out=torch.empty(2, 4))
