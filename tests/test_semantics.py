"""What a PyTorch program relies on, as short programs."""

import gc
import math
import resource
import subprocess
import sys
import threading

import flambeau as torch
import pytest
from flambeau import nn


def mlp(seed=0, width=16):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))


def data(seed=1, n=64):
    torch.manual_seed(seed)
    x = torch.randn(n, 4)
    return x, x.sum(1, keepdim=True).sin()


def train(model, steps, x, y, optimizer=None, compiled=False):
    """Losses of a training loop with Adam and mean squared error."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.MSELoss()

    def step():
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if compiled:
        step = torch.compile(step)
    return [step().item() for _ in range(steps)]


def values(model):
    return [p.detach().flatten().tolist() for p in model.parameters()]


# ---- tensors -----------------------------------------------------------------------------------------


def test_creation():
    t = torch.tensor([[1, 2], [3, 4]])
    assert t.dtype == torch.int64
    assert t.shape == (2, 2) and t.size(0) == 2 and t.ndim == 2
    assert torch.tensor([1.0]).dtype == torch.float32
    assert torch.tensor(True).dtype == torch.bool
    assert torch.tensor(1j).dtype == torch.complex64
    assert torch.zeros(2, 3).tolist() == [[0.0] * 3] * 2
    assert torch.arange(0, 10, 3).tolist() == [0, 3, 6, 9]
    assert torch.eye(2).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert torch.full((2,), 7).dtype == torch.int64
    assert torch.ones_like(t).dtype == torch.int64
    assert torch.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("torch.tensor([1.0, 2.0])", "tensor([1., 2.])"),
        ("torch.tensor(4.0)", "tensor(4.)"),
        ("torch.tensor([1, 2])", "tensor([1, 2])"),
        ("torch.tensor([True])", "tensor([True])"),
        ("torch.zeros(2, 2)", "tensor([[0., 0.],\n        [0., 0.]])"),
        ("torch.tensor([1.5], dtype=torch.float64)", "tensor([1.5000], dtype=torch.float64)"),
        ("torch.tensor([1.0], requires_grad=True)", "tensor([1.], requires_grad=True)"),
        ("torch.empty(0)", "tensor([])"),
        ("torch.Size([2, 3])", "torch.Size([2, 3])"),
    ],
)
def test_repr(expression, text):
    assert repr(eval(expression)).replace("flambeau.", "torch.") == text


def test_promotion():
    i, f, d = torch.tensor([1]), torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)
    assert (i + f).dtype == torch.float32
    assert (f + d).dtype == torch.float64
    assert (i + 1.5).dtype == torch.float32
    assert (i / 2).dtype == torch.float32
    assert (f * torch.tensor(2.0, dtype=torch.float64)).dtype == torch.float32
    assert (f.to(torch.bfloat16) + f.half()).dtype == torch.float32
    assert (i > 0).dtype == torch.bool


def test_indexing():
    t = torch.arange(12).reshape(3, 4)
    assert t[1].tolist() == [4, 5, 6, 7]
    assert t[:, -1].tolist() == [3, 7, 11]
    assert t[..., None].shape == (3, 4, 1)
    assert t[torch.tensor([2, 0])].tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert t[t > 8].tolist() == [9, 10, 11]
    t[0] = 5
    t[t == 5] = -1
    assert t.tolist() == [[-1] * 4, [4, -1, 6, 7], [8, 9, 10, 11]]


# ---- autograd ----------------------------------------------------------------------------------------


def test_square(capsys):
    x = torch.tensor(2.0, requires_grad=True)
    (x**2).backward()
    print(x.grad)
    assert capsys.readouterr().out == "tensor(4.)\n"


def test_gradients_accumulate():
    x = torch.ones(3, requires_grad=True)
    for _ in range(2):
        (x * 3).sum().backward()
    assert x.grad.tolist() == [6.0] * 3
    assert x.grad is x.grad


def test_second_gradient():
    x = torch.tensor(3.0, requires_grad=True)
    (g,) = torch.autograd.grad(x**3, x, create_graph=True)
    (h,) = torch.autograd.grad(g, x)
    assert (g.item(), h.item()) == (27.0, 18.0)


def test_no_grad_and_detach():
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    assert not x.detach().requires_grad
    assert x.detach().data_ptr() == x.data_ptr()


def test_graph_is_freed_after_backward():
    x = torch.ones(2, requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError):
        y.backward()


def test_custom_function():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * x**2 * g

    x = torch.tensor(2.0, requires_grad=True)
    Cube.apply(x).backward()
    assert x.grad.item() == 12.0


def test_tensor_hooks():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    seen = []
    handle = y.register_hook(lambda g: seen.append(g.tolist()) or g * 10)
    y.sum().backward()
    assert seen == [[1.0, 1.0]]
    assert x.grad.tolist() == [20.0, 20.0]
    handle.remove()
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_module_hooks():
    layer = nn.Linear(2, 2)
    calls = []
    handles = [
        layer.register_forward_pre_hook(lambda m, args: calls.append("before")),
        layer.register_forward_hook(lambda m, args, out: calls.append("after")),
        layer.register_full_backward_hook(lambda m, gi, go: calls.append("backward")),
    ]
    layer(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert calls == ["before", "after", "backward"]
    for handle in handles:
        handle.remove()
    layer(torch.ones(1, 2))
    assert len(calls) == 3


# ---- views and in-place writes -----------------------------------------------------------------------


def test_views_share_memory():
    base = torch.zeros(2, 3)
    row, column = base[0], base.t()[1]
    row.add_(1)
    assert base.tolist() == [[1.0] * 3, [0.0] * 3]
    assert column.tolist() == [1.0, 0.0]
    assert base.view(-1).data_ptr() == base.data_ptr()
    assert row._base is base
    assert row.is_contiguous() and not base.t().is_contiguous()


def test_in_place_returns_its_tensor():
    x = torch.zeros(2)
    assert x.add_(1) is x
    same = x
    x += 1
    assert x is same


def test_write_to_a_view_reaches_the_gradient():
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    y[1] *= 5
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 10.0, 2.0]


def test_write_to_a_base_reaches_its_views():
    x = torch.ones(2, requires_grad=True)
    base = x * 1
    view = base[0]
    base.mul_(3)
    view.backward()
    assert x.grad.tolist() == [3.0, 0.0]


def test_saved_tensors_are_guarded():
    x = torch.ones(2, requires_grad=True)
    y = x * 1
    z = y * y
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace|in-place|inplace|version"):
        z.sum().backward()


def test_leaf_that_requires_grad_is_not_written():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError):
        x.add_(1)
    with torch.no_grad():
        x.add_(1)
    assert x.tolist() == [2.0, 2.0]


def test_expanded_memory_is_not_written():
    with pytest.raises(RuntimeError):
        torch.zeros(1).expand(3).add_(torch.arange(3))


def test_view_of_strided_memory_is_refused():
    with pytest.raises(RuntimeError):
        torch.zeros(2, 3).t().view(6)
    assert torch.zeros(2, 3).t().reshape(6).shape == (6,)


# ---- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("torch.zeros(2) + torch.zeros(3)", RuntimeError),
        ("torch.zeros(2, 3) @ torch.zeros(2, 3)", RuntimeError),
        ("torch.zeros(3)[5]", IndexError),
        ("torch.zeros(3)[0, 0]", IndexError),
        ("torch.zeros(2).sum(3)", IndexError),
        ("torch.zeros(2).view(3)", RuntimeError),
        ("torch.zeros(2).item()", RuntimeError),
        ("torch.zeros(2).add()", TypeError),
        ("torch.zeros(2).add('a')", TypeError),
        ("torch.zeros(2).backward()", RuntimeError),
        ("torch.zeros(2, requires_grad=True).numpy()", RuntimeError),
        ("torch.cat([])", (RuntimeError, ValueError)),
        ("torch.zeros(-1)", RuntimeError),
        ("bool(torch.zeros(2))", RuntimeError),
        ("torch.no_such_operator", AttributeError),
        ("torch.optim.SGD([], lr=0.1)", ValueError),
        ("nn.Linear(2, 2)(torch.zeros(1, 3))", RuntimeError),
    ],
)
def test_refusals(expression, error):
    with pytest.raises(error) as caught:
        eval(expression)
    assert len(str(caught.value)) >= 8


# ---- modules, training -------------------------------------------------------------------------------


def test_module():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 5)
            self.second = nn.Linear(5, 2, bias=False)
            self.register_buffer("scale", torch.ones(1))

        def forward(self, x):
            return self.second(torch.relu(self.first(x))) * self.scale

    net = Net()
    assert list(net.state_dict()) == ["scale", "first.weight", "first.bias", "second.weight"]
    assert sum(p.numel() for p in net.parameters()) == 30
    assert net(torch.zeros(7, 3)).shape == (7, 2)
    assert repr(net) == (
        "Net(\n  (first): Linear(in_features=3, out_features=5, bias=True)\n"
        "  (second): Linear(in_features=5, out_features=2, bias=False)\n)"
    )
    other = Net()
    assert str(other.load_state_dict(net.state_dict())) == "<All keys matched successfully>"
    assert values(other) == values(net)
    assert not net.eval().training and net.first.training is False


def test_model_moves_to_the_chosen_device():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = mlp().to(device)
    assert all(p.device.type == device.type for p in model.parameters())
    assert model(torch.zeros(2, 4, device=device)).device.type == device.type


def test_training_converges():
    losses = train(mlp(), 300, *data())
    assert losses[-1] < losses[0] / 10


def test_two_threads_train_two_models():
    want = [values_after(seed) for seed in (1, 2)]
    got = [None, None]

    def work(i):
        got[i] = train(models[i], 50, x, y), values(models[i])

    x, y = data()
    models = [mlp(1), mlp(2)]
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == want


def values_after(seed):
    x, y = data()
    model = mlp(seed)
    return train(model, 50, x, y), values(model)


def test_checkpoint_file(tmp_path):
    model = mlp()
    torch.save(model.state_dict(), tmp_path / "model")
    other = mlp(5)
    other.load_state_dict(torch.load(tmp_path / "model"))
    assert values(other) == values(model)


def test_load_runs_nothing(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    (tmp_path / "evil").write_bytes(pickle.dumps(Evil()))
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        torch.load(tmp_path / "evil")
    assert not (tmp_path / "ran").exists()


# ---- scale -------------------------------------------------------------------------------------------


def test_backward_through_a_million_operators():
    x = torch.ones(1, requires_grad=True)
    y = x
    for _ in range(1_000_000):
        y = y + 0.0
    y.backward()
    assert x.grad.tolist() == [1.0]
    del y  # freeing the graph does not recurse either


def test_dropping_a_long_graph():
    x = torch.ones(1, requires_grad=True)
    y = x
    for _ in range(300_000):
        y = y * 1.0
    del y
    gc.collect()


def test_memory_is_flat():
    x, y = data(n=8)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    train(model, 2000, x, y, optimizer)
    before = peak()
    train(model, 10_000, x, y, optimizer)
    assert peak() - before < 8 * 1024, "KiB of growth over 10,000 steps"


# ---- determinism -------------------------------------------------------------------------------------


def bits():
    """A computation that takes every parallel path: products, convolution, reductions, softmax, gradients."""
    torch.manual_seed(0)
    x = torch.randn(300, 257, requires_grad=True)
    w = torch.randn(257, 130, requires_grad=True)
    loss = torch.softmax(torch.tanh(x @ w), -1).pow(2).sum() + x.sum(0).square().mean()
    image = torch.randn(4, 3, 32, 32, requires_grad=True)
    kernel = torch.randn(8, 3, 3, 3, requires_grad=True)
    loss = loss + nn.functional.conv2d(image, kernel, padding=1).relu().mean()
    loss.backward()
    large = torch.randn(1 << 20)
    results = [loss, x.grad, w.grad, image.grad, kernel.grad, large.sum(), large.exp().mean(), large.cumsum(0)]
    return [r.detach().numpy().tobytes() for r in results]


def test_bits_do_not_depend_on_threads(restore_threads):
    results = []
    for threads in (1, 2, 8):
        torch.set_num_threads(threads)
        assert torch.get_num_threads() == threads
        results.append(bits())
    assert results[0] == results[1] == results[2]


def test_bits_do_not_depend_on_compile():
    eager, compiled = mlp(), mlp()
    x, y = data()
    losses = train(eager, 20, x, y)
    assert train(compiled, 20, x, y, compiled=True) == losses
    assert values(compiled) == values(eager)


def test_compiled_function_sees_control_flow():
    @torch.compile
    def f(x):
        y = x * 2 + 1
        if y.sum() > 0:
            y = y.exp()
        return y - 1

    for sign in (1.0, -1.0):
        x = torch.full((5,), sign)
        want = x * 2 + 1
        want = want.exp() if want.sum() > 0 else want
        assert torch.equal(f(x), want - 1)


def test_seed_repeats():
    torch.manual_seed(3)
    first = torch.randn(100).tolist()
    torch.manual_seed(3)
    assert torch.randn(100).tolist() == first
    assert abs(sum(first) / 100) < 1 and math.isfinite(sum(first))


# ---- import ------------------------------------------------------------------------------------------


def in_new_process(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_loads_no_numpy():
    assert in_new_process("import sys, flambeau; flambeau.ones(2) + 1; print('numpy' in sys.modules)") == "False"


def test_import_is_quick():
    code = "import time; t = time.perf_counter(); import flambeau; print(time.perf_counter() - t)"
    best = min(float(in_new_process(code)) for _ in range(3))
    assert best < 0.5, f"import took {best:.3f} s"


def test_numpy_exchange():
    np = pytest.importorskip("numpy")
    a = np.arange(6, dtype="f4").reshape(2, 3)
    t = torch.from_numpy(a)
    t[0, 0] = 9
    assert a[0, 0] == 9
    assert np.shares_memory(t.numpy(), a)


def test_a_single_value_beside_a_few_elements_is_broadcast_as_ever():
    x = torch.arange(6.0).reshape(2, 3) - 2
    for one in (
        torch.tensor(0.3),
        torch.tensor([0.3]),
        torch.tensor([[0.3]]),
        torch.tensor(0.3).expand(2, 3),
        torch.full((1, 3), 0.3),
    ):
        for f in (torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.pow):
            for a, b in ((x, one), (one, x)):
                want = f(*(t.expand(2, 3).contiguous() for t in (a, b)))
                got = f(a, b)
                assert got.stride() == want.stride() and torch.equal(got.nan_to_num(7), want.nan_to_num(7))
    assert (torch.tensor([[1.0]]) + torch.tensor([2.0])).shape == (1, 1)
    assert (torch.ones(1) * torch.tensor(3, dtype=torch.int64)).dtype == torch.float32


def test_methods_of_a_tensor_alone_keep_their_rules():
    x = torch.tensor([-1.5])
    assert x.item() == -1.5 and torch.tensor(2**64 - 1, dtype=torch.uint64).item() == 2**64 - 1
    with pytest.raises(TypeError, match="takes 0 positional arguments but 1 were given"):
        x.item(1)
    with pytest.raises(RuntimeError, match="a Tensor with 2 elements cannot be converted to Scalar"):
        torch.ones(2).item()
    assert x.relu_() is x and x.item() == 0

    class Sub(torch.Tensor):
        pass

    assert type(torch.ones(2).as_subclass(Sub).relu()) is Sub
    assert torch.vmap(lambda t: t.abs())(torch.tensor([-1.0, 2.0])).tolist() == [1.0, 2.0]
    with pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(lambda t: t.item())(torch.ones(2))


def test_gradients_of_saved_results_of_any_order():
    x = torch.tensor([0.5, 2.0], requires_grad=True)
    (g,) = torch.autograd.grad(x.exp().sum(), x, create_graph=True)
    g.sum().backward()
    assert torch.allclose(x.grad, x.detach().exp())
    y = x.exp()
    y.sum().backward(retain_graph=True)
    assert y.grad_fn._saved_result.requires_grad
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
