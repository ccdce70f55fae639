"""One operator of each kind, driven through everything that must know it: the table of operator by master.

The masters: eager execution (every dtype, contiguous and strided, against NumPy in double precision), first and second
gradients (finite differences), `vmap`, `jvp`, the emulated CUDA device, `compile` (same bits), the forms Python has for
it, its errors, its stub and help. `pytest -s tests/test_mechanism.py` shows the table; a hole fails.
"""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import flambeau as torch
import numpy as np
import pytest
from flambeau import func
from flambeau.nn import functional as F

FLOATS = ("float64", "float32", "float16", "bfloat16")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
ALL = FLOATS + COMPLEX + INTEGERS + ("bool",)
TOLERANCE = {"float64": 1e-12, "complex128": 1e-12, "float32": 2e-6, "complex64": 2e-6, "float16": 3e-3, "bfloat16": 2e-2}
MASTERS = ("eager", "strided", "grad", "grad2", "vmap", "jvp", "cuda", "compile", "forms", "errors", "help")
# Why a place of the table is empty, by what it says there.
REASONS = {
    "n/a": "the operator has no gradient, or no such form, in PyTorch either",
    "dyn": "the size depends on the data: PyTorch refuses it under vmap",
    "rnd": "a random draw: compared by seed in the other columns",
}


class Operator:
    """An operator as the table drives it.

    `call(*inputs)` applies it to floating inputs; `truth(*arrays)` is the same in NumPy. `forms` are further ways to write
    the same call, `errors` pairs of a wrong call and the exception it must raise, `names` where its stub and help are.
    """

    def __init__(self, call, truth, shapes, *, dtypes=FLOATS, forms=(), errors=(), names=(), skip=None, spread=1.0, distinct=False):
        self.call, self.truth, self.shapes, self.dtypes = call, truth, shapes, dtypes
        self.forms, self.errors, self.names = forms, errors, names
        self.skip = skip or {}
        self.spread, self.distinct = spread, distinct

    def arrays(self, seed=0):
        """Inputs away from kinks and ties."""
        generator = np.random.default_rng(seed)
        out = []
        for shape in self.shapes:
            n = int(np.prod(shape))
            if self.distinct:
                values = (generator.permutation(n) + 0.5) / n * 4 - 2
            else:
                values = generator.uniform(0.2, 1.0, n) * generator.choice([-1.0, 1.0], n)
            out.append((values * self.spread).reshape(shape))
        return out


def leaves(result):
    return [t for t in (result if isinstance(result, (tuple, list)) else (result,)) if isinstance(t, torch.Tensor)]


def numpy_of(t):
    t = t.detach()
    if t.dtype in (torch.bfloat16, torch.float16):
        t = t.to(torch.float32)
    return t.cpu().numpy()


def close(a, b, tolerance):
    a, b = (x.astype(np.int8) if x.dtype == bool else x for x in (np.asarray(a), np.asarray(b)))
    assert a.shape == b.shape, f"shape {a.shape}, expected {b.shape}"
    scale = 1 + np.abs(np.where(np.isfinite(b), b, 0)).max(initial=0)
    with np.errstate(invalid="ignore"):
        same = (a == b) | (np.abs(a - b) <= tolerance * scale) | (np.isnan(a) & np.isnan(b))
    assert same.all(), f"differs by up to {np.abs(a - b).max()}"


def same_bits(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert numpy_of(x).tobytes() == numpy_of(y).tobytes(), "not the same bits"


def strided(t):
    """The same values, two elements apart and transposed."""
    if t.dim() == 0:
        return t
    wide = torch.zeros(*t.shape[:-1], t.shape[-1] * 2, dtype=t.dtype)
    wide[..., ::2] = t
    view = wide[..., ::2]
    return view.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else view


INDEX = torch.tensor([[0, 2, 1], [1, 0, 0]])
TARGET = torch.tensor([2, 0, 1])
ROWS = torch.tensor([0, 2, 0])
MASK = torch.tensor([[True, False, True], [False, True, True]])


def np_softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def np_conv2d(x, w, b):
    n, c, h, wd = x.shape
    o, _, kh, kw = w.shape
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((n, o, h + 3 - kh, wd + 3 - kw), dtype=x.dtype)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = np.einsum("ncij,ocij->no", x[:, :, i : i + kh, j : j + kw], w) + b
    return out


def np_max_pool(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


def np_layer_norm(x, w, b):
    m, v = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - m) / np.sqrt(v + 1e-5) * w + b


def np_cross_entropy(x):
    return -np.log(np_softmax(x))[np.arange(3), TARGET.numpy()].mean()


def np_sdpa(q, k, v):
    return np_softmax(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])) @ v


def np_index_put(x, v):
    out = x.copy()
    out[[0, 2]] = v
    return out


def np_scatter(x, i):
    return np.take_along_axis(x, i, 1)


def index_put(x, v):
    out = x.clone()
    out.index_put_((torch.tensor([0, 2], device=x.device),), v)
    return out


def setitem(x, v):
    out = x.clone()
    out[torch.tensor([0, 2])] = v
    return out


def into(f, *args, **kw):
    """The `out=` form, into an empty tensor that must be resized."""
    like = f(*args, **kw)
    if isinstance(like, tuple):
        outs = tuple(torch.empty(0, dtype=t.dtype) for t in like)
        f(*args, **kw, out=outs)
        return outs
    out = torch.empty(0, dtype=like.dtype)
    assert f(*args, **kw, out=out) is out
    return out


def inplace(t, f):
    t = t.clone()
    assert f(t) is t
    return t


def operator_iadd(a, b):
    a = a.clone()
    a += b
    return a


def matmul_truth(a, b):
    return (a.astype(np.int64) @ b.astype(np.int64)).astype(a.dtype) if a.dtype.kind in "iu" else a @ b


OPERATORS = {
    "add": Operator(
        lambda a, b: torch.add(a, b, alpha=2), lambda a, b: a + 2 * b, [(2, 3), (3,)], dtypes=FLOATS + COMPLEX + INTEGERS,
        forms=[lambda a, b: a.add(b, alpha=2), lambda a, b: inplace(a, lambda t: t.add_(b, alpha=2)), lambda a, b: a + 2 * b,
               lambda a, b: operator_iadd(a, 2 * b), lambda a, b: into(torch.add, a, b, alpha=2)],
        errors=[(lambda: torch.add(torch.ones(2), torch.ones(3)), RuntimeError), (lambda: torch.add(torch.ones(2)), TypeError),
                (lambda: torch.ones(2).int().add_(0.5), RuntimeError)],
        names=["add"]),
    "exp": Operator(
        torch.exp, np.exp, [(2, 3)], dtypes=FLOATS + COMPLEX,
        forms=[lambda a: a.exp(), lambda a: inplace(a, lambda t: t.exp_()), lambda a: into(torch.exp, a)],
        errors=[(lambda: torch.exp(3), TypeError), (lambda: torch.ones(2).int().exp_(), RuntimeError)], names=["exp"]),
    "where": Operator(
        lambda a, b: torch.where(MASK.to(a.device), a, b), lambda a, b: np.where(MASK.numpy(), a, b), [(2, 3), (3,)], dtypes=ALL,
        forms=[lambda a, b: a.where(MASK, b), lambda a, b: into(torch.where, MASK, a, b)],
        errors=[(lambda: torch.where(torch.ones(2) > 0, torch.ones(3), torch.ones(2)), RuntimeError)], names=["where"]),
    "sum": Operator(
        lambda a: torch.sum(a, 1), lambda a: a.sum(1), [(3, 4)], dtypes=FLOATS + COMPLEX + INTEGERS,
        forms=[lambda a: a.sum(1), lambda a: a.sum(dim=-1), lambda a: into(torch.sum, a, 1)],
        errors=[(lambda: torch.ones(2).sum(3), IndexError), (lambda: torch.ones(2, 2).sum((0, 0)), RuntimeError)], names=["sum"]),
    "mean": Operator(
        lambda a: torch.mean(a, 0, keepdim=True), lambda a: a.mean(0, keepdims=True), [(3, 4)], dtypes=FLOATS + COMPLEX,
        forms=[lambda a: a.mean(0, True), lambda a: into(torch.mean, a, 0, keepdim=True)],
        errors=[(lambda: torch.ones(2).int().mean(), RuntimeError), (lambda: torch.ones(2).mean(2), IndexError)], names=["mean"]),
    "max": Operator(
        lambda a: torch.max(a, 1), lambda a: (a.max(1), a.argmax(1)), [(3, 4)], dtypes=FLOATS + INTEGERS, distinct=True,
        forms=[lambda a: a.max(1), lambda a: a.max(dim=-1), lambda a: into(torch.max, a, 1)],
        errors=[(lambda: torch.zeros(2, 0).max(1), IndexError), (lambda: torch.ones(2, dtype=torch.complex64).max(0), NotImplementedError)],
        names=["max"]),
    "cumsum": Operator(
        lambda a: torch.cumsum(a, 1), lambda a: a.cumsum(1), [(3, 4)], dtypes=FLOATS + COMPLEX + INTEGERS,
        forms=[lambda a: a.cumsum(1), lambda a: inplace(a, lambda t: t.cumsum_(1)) if a.is_floating_point() else a.cumsum(1), lambda a: into(torch.cumsum, a, 1)],
        errors=[(lambda: torch.ones(2).cumsum(1), IndexError), (lambda: torch.ones(2).cumsum(), TypeError)], names=["cumsum"]),
    "slice and view": Operator(
        lambda a: a[1:, ::2].reshape(-1, 2).transpose(0, 1), lambda a: a[1:, ::2].reshape(-1, 2).T, [(3, 4)], dtypes=ALL,
        forms=[lambda a: a.narrow(0, 1, 2)[:, 0:4:2].contiguous().view(-1, 2).t(), lambda a: torch.transpose(torch.reshape(a[1:][..., ::2], (-1, 2)), 1, 0)],
        errors=[(lambda: torch.ones(4).view(3), RuntimeError), (lambda: torch.ones(4)[5], IndexError), (lambda: torch.ones(4, 4).t().view(-1), RuntimeError)],
        names=["narrow", "reshape"]),
    "cat": Operator(
        lambda a, b: torch.cat([a, b], 1), lambda a, b: np.concatenate([a, b], 1), [(2, 3), (2, 2)], dtypes=ALL,
        forms=[lambda a, b: torch.concat((a, b), dim=-1), lambda a, b: into(torch.cat, [a, b], 1)],
        errors=[(lambda: torch.cat([torch.ones(2, 2), torch.ones(3, 3)]), RuntimeError), (lambda: torch.cat([]), ValueError)], names=["cat"]),
    "matmul": Operator(
        torch.matmul, matmul_truth, [(2, 3, 4), (4, 2)], dtypes=FLOATS + COMPLEX + INTEGERS,
        forms=[lambda a, b: a.matmul(b), lambda a, b: a @ b, lambda a, b: into(torch.matmul, a, b)],
        errors=[(lambda: torch.ones(2, 3) @ torch.ones(2, 3), RuntimeError), (lambda: torch.ones(2, 2) @ torch.ones(2, 2).double(), RuntimeError)],
        names=["matmul"]),
    "conv2d": Operator(
        lambda x, w, b: F.conv2d(x, w, b, padding=1), np_conv2d, [(2, 2, 4, 4), (3, 2, 3, 3), (3,)],
        forms=[lambda x, w, b: torch.conv2d(x, w, b, 1, 1), lambda x, w, b: F.conv2d(x, w, b, padding="same")],
        errors=[(lambda: F.conv2d(torch.ones(1, 2, 4, 4), torch.ones(3, 3, 3, 3)), RuntimeError), (lambda: F.conv2d(torch.ones(4), torch.ones(1, 1, 3, 3)), RuntimeError)],
        names=["nn.functional.conv2d"]),
    "max_pool2d": Operator(
        lambda x: F.max_pool2d(x, 2), np_max_pool, [(2, 2, 4, 4)], distinct=True,
        forms=[lambda x: torch.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2, return_indices=True)[0], lambda x: F.max_pool2d(x, (2, 2), stride=2)],
        errors=[(lambda: F.max_pool2d(torch.ones(1, 1, 1, 1), 2), RuntimeError), (lambda: F.max_pool2d(torch.ones(4, 4), 2), RuntimeError)],
        names=["nn.functional.max_pool2d"]),
    "gather": Operator(
        lambda a: torch.gather(a, 1, INDEX.to(a.device)), lambda a: np_scatter(a, INDEX.numpy()), [(2, 3)], dtypes=ALL,
        forms=[lambda a: a.gather(1, INDEX), lambda a: into(torch.gather, a, 1, INDEX)],
        errors=[(lambda: torch.ones(2, 3).gather(1, torch.tensor([[5]])), RuntimeError), (lambda: torch.ones(2, 3).gather(1, torch.ones(2, 3)), RuntimeError)],
        names=["gather"]),
    "index_put_": Operator(
        index_put, np_index_put, [(3, 2), (2, 2)], dtypes=ALL,
        forms=[setitem, lambda x, v: x.index_put((torch.tensor([0, 2]),), v), lambda x, v: torch.index_put(x, (torch.tensor([0, 2]),), v)],
        errors=[(lambda: torch.ones(2).index_put_((torch.tensor([3]),), torch.ones(1)), IndexError),
                (lambda: torch.ones(2).index_put_((torch.tensor([0]),), torch.ones(1).int()), RuntimeError)],
        names=["index_put_"]),
    "nonzero": Operator(
        lambda a: torch.nonzero(a > 0), lambda a: np.stack(np.nonzero(a > 0), 1), [(3, 4)], dtypes=FLOATS + INTEGERS,
        skip={"grad": "n/a", "grad2": "n/a", "jvp": "n/a", "vmap": "dyn"},
        forms=[lambda a: (a > 0).nonzero(), lambda a: torch.stack(torch.nonzero(a > 0, as_tuple=True), 1), lambda a: into(torch.nonzero, a > 0)],
        errors=[(lambda: torch.nonzero([1, 2]), TypeError)], names=["nonzero"]),
    "sort": Operator(
        lambda a: torch.sort(a, 1), lambda a: (np.sort(a, 1, kind="stable"), np.argsort(a, 1, kind="stable")), [(3, 4)], dtypes=FLOATS + INTEGERS + ("bool",), distinct=True,
        forms=[lambda a: a.sort(), lambda a: torch.sort(a, stable=True, dim=1)],
        errors=[(lambda: torch.ones(2).sort(2), IndexError), (lambda: torch.ones(2, dtype=torch.complex64).sort(), RuntimeError)], names=["sort"]),
    "softmax": Operator(
        lambda a: torch.softmax(a, 1), lambda a: np_softmax(a, 1), [(3, 4)],
        forms=[lambda a: a.softmax(1), lambda a: F.softmax(a, dim=-1)],
        errors=[(lambda: torch.softmax(torch.ones(2), 3), IndexError)], names=["softmax"]),
    "layer_norm": Operator(
        lambda x, w, b: F.layer_norm(x, (4,), w, b), np_layer_norm, [(3, 4), (4,), (4,)],
        forms=[lambda x, w, b: torch.layer_norm(x, (4,), w, b)],
        errors=[(lambda: F.layer_norm(torch.ones(3, 4), (3,)), RuntimeError)], names=["nn.functional.layer_norm"]),
    "cross_entropy": Operator(
        lambda x: F.cross_entropy(x, TARGET.to(x.device)), np_cross_entropy, [(3, 4)],
        forms=[lambda x: F.nll_loss(F.log_softmax(x, 1), TARGET), lambda x: torch.nn.CrossEntropyLoss()(x, TARGET)],
        errors=[(lambda: F.cross_entropy(torch.ones(3, 4), torch.tensor([0, 1, 4])), IndexError), (lambda: F.cross_entropy(torch.ones(3, 4), TARGET[:2]), ValueError)],
        names=["nn.functional.cross_entropy"]),
    "embedding": Operator(
        lambda w: F.embedding(ROWS.to(w.device), w), lambda w: w[ROWS.numpy()], [(3, 2)],
        forms=[lambda w: w[ROWS], lambda w: torch.nn.Embedding.from_pretrained(w, freeze=False)(ROWS)],
        errors=[(lambda: F.embedding(torch.tensor([3]), torch.ones(3, 2)), IndexError), (lambda: F.embedding(torch.ones(1), torch.ones(3, 2)), RuntimeError)],
        names=["nn.functional.embedding"]),
    "dropout": Operator(
        lambda a: (torch.manual_seed(3), F.dropout(a, 0.5))[1], None, [(4, 5)], skip={"vmap": "rnd"},
        forms=[lambda a: (torch.manual_seed(3), torch.dropout(a, 0.5, True))[1], lambda a: (torch.manual_seed(3), inplace(a, lambda t: torch.dropout_(t, 0.5, True)))[1]],
        errors=[(lambda: F.dropout(torch.ones(2), 1.5), ValueError), (lambda: torch.dropout(torch.ones(2), -0.5, True), RuntimeError)],
        names=["nn.functional.dropout"]),
    "scaled_dot_product_attention": Operator(
        F.scaled_dot_product_attention, np_sdpa, [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)],
        forms=[lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.5)],
        errors=[(lambda: F.scaled_dot_product_attention(torch.ones(1, 2, 3), torch.ones(1, 2, 4), torch.ones(1, 2, 3)), RuntimeError)],
        names=["nn.functional.scaled_dot_product_attention"]),
}


# ---- the columns -------------------------------------------------------------------------------------


def check_eager(op, change=lambda t: t):
    for name in op.dtypes:
        dtype = getattr(torch, name)
        arrays = op.arrays()
        if name in INTEGERS or name == "bool":
            arrays = [np.abs(np.round(a * 10)) for a in arrays]
        inputs = [torch.tensor(a).to(dtype) for a in arrays]
        arrays = [numpy_of(t) for t in inputs]
        if name in ("float16", "bfloat16", "float32"):
            arrays = [a.astype(np.float64) for a in arrays]
        if name == "complex64":
            arrays = [a.astype(np.complex128) for a in arrays]
        got = op.call(*map(change, inputs))
        if op.truth is None:
            # Which elements are kept follows the order of memory; those that are are doubled.
            kept = numpy_of(got) != 0
            assert 0 < kept.sum() < kept.size
            close(numpy_of(got), np.where(kept, 2 * numpy_of(inputs[0]), 0), TOLERANCE[name])
            continue
        want = op.truth(*arrays)
        for g, w in zip(leaves(got), want if isinstance(want, tuple) else (want,), strict=True):
            try:
                close(numpy_of(g), w, TOLERANCE.get(name, 0))
            except AssertionError as e:
                raise AssertionError(f"{name}: {e}") from None


def weighted(op, inputs):
    """A real number that depends on every floating output."""
    total = 0
    for t in leaves(op.call(*inputs)):
        if t.is_floating_point():
            w = (torch.arange(t.numel(), dtype=torch.float64) * 7 % 5 - 1.7).reshape(t.shape)
            total = total + (t * w).sum()
    return total


def differences(f, inputs, step):
    out = []
    for i, x in enumerate(inputs):
        g = np.zeros(x.shape)
        flat = g.reshape(-1)
        for k in range(x.numel()):
            shifted = []
            for sign in (1, -1):
                moved = x.detach().clone()
                moved.view(-1)[k] += sign * step
                shifted.append(float(f(*inputs[:i], moved, *inputs[i + 1 :]).detach()))
            flat[k] = (shifted[0] - shifted[1]) / (2 * step)
        out.append(g)
    return out


def double_inputs(op, requires_grad=True):
    return [torch.tensor(a).requires_grad_(requires_grad) for a in op.arrays()]


def check_grad(op):
    inputs = double_inputs(op)
    got = torch.autograd.grad(weighted(op, inputs), inputs)
    want = differences(lambda *x: weighted(op, x), [t.detach() for t in inputs], 1e-6)
    for g, w in zip(got, want, strict=True):
        close(numpy_of(g), w, 1e-7)


def squared_gradient(op, inputs):
    """The squared length of the gradient: its gradient is a product with the second derivative."""
    inputs = [x if x.requires_grad else x.requires_grad_() for x in inputs]
    value = weighted(op, inputs)
    grads = torch.autograd.grad(value * value, inputs, create_graph=True)
    return sum((g * g).sum() for g in grads)


def check_grad2(op):
    inputs = double_inputs(op)
    got = torch.autograd.grad(squared_gradient(op, inputs), inputs)
    want = differences(lambda *x: squared_gradient(op, [t.detach().clone() for t in x]), [t.detach() for t in inputs], 1e-5)
    for g, w in zip(got, want, strict=True):
        close(numpy_of(g), w, 1e-6)


def check_vmap(op):
    batches = [torch.stack([torch.tensor(a) for a in parts]) for parts in zip(*[op.arrays(seed) for seed in range(3)], strict=True)]
    got = func.vmap(op.call)(*batches)
    singles = [leaves(op.call(*[b[i] for b in batches])) for i in range(3)]
    for i, g in enumerate(leaves(got)):
        close(numpy_of(g), np.stack([numpy_of(s[i]) for s in singles]), 1e-12)
    if len(batches) > 1:
        mixed = func.vmap(op.call, in_dims=(0,) + (None,) * (len(batches) - 1))(batches[0], *[b[0] for b in batches[1:]])
        close(numpy_of(leaves(mixed)[0]), np.stack([numpy_of(leaves(op.call(batches[0][i], *[b[0] for b in batches[1:]]))[0]) for i in range(3)]), 1e-12)


def check_jvp(op):
    inputs = double_inputs(op, False)
    tangents = [torch.tensor(a) for a in op.arrays(5)]

    def outputs(*x):
        return tuple(t for t in leaves(op.call(*x)) if t.is_floating_point())

    _, got = func.jvp(outputs, tuple(inputs), tuple(tangents))
    step = 1e-6
    high = outputs(*[x + step * t for x, t in zip(inputs, tangents, strict=True)])
    low = outputs(*[x - step * t for x, t in zip(inputs, tangents, strict=True)])
    for g, a, b in zip(got, high, low, strict=True):
        close(numpy_of(g), (numpy_of(a) - numpy_of(b)) / (2 * step), 1e-7)


def check_compile(op):
    for name in ("float32", "float64"):
        inputs = [torch.tensor(a).to(getattr(torch, name)) for a in op.arrays()]
        compiled = torch.compile(op.call)
        same_bits(op.call(*inputs), compiled(*inputs))
        same_bits(op.call(*map(strided, inputs)), compiled(*map(strided, inputs)))
        if "grad" in op.skip:
            continue

        def gradients(*x):
            x = [t.clone().requires_grad_() for t in x]
            value = sum((t * t).sum() for t in leaves(op.call(*x)) if t.is_floating_point())
            return torch.autograd.grad(value, x)

        same_bits(gradients(*inputs), torch.compile(gradients)(*inputs))


def check_forms(op):
    for name in op.dtypes[:1] + op.dtypes[-1:]:
        inputs = [torch.tensor(np.abs(np.round(a * 10)) if name in INTEGERS or name == "bool" else a).to(getattr(torch, name)) for a in op.arrays()]
        want = leaves(op.call(*inputs))
        for i, form in enumerate(op.forms):
            got = leaves(form(*inputs))
            for g, w in zip(got, want, strict=True):
                try:
                    assert g.dtype == w.dtype
                    close(numpy_of(g), numpy_of(w), TOLERANCE.get(name, 0))
                except AssertionError as e:
                    raise AssertionError(f"form {i}, {name}: {e}") from None


def check_errors(op):
    for i, (call, expected) in enumerate(op.errors):
        try:
            call()
        except expected as e:
            assert len(str(e)) > 10, f"error {i} says only {e}"
        except Exception as e:
            raise AssertionError(f"error {i}: {type(e).__name__} ({e}), expected {expected.__name__}") from None
        else:
            raise AssertionError(f"error {i}: accepted, expected {expected.__name__}")


def check_help(op):
    stub = (Path(torch.__file__).parent / "_flambeau.pyi").read_text()
    for name in op.names:
        last = name.split(".")[-1]
        holder = torch
        for part in name.split(".")[:-1]:
            holder = getattr(holder, part)
        function = getattr(holder, last, None) or getattr(torch.Tensor, last)
        assert inspect.getdoc(function), f"{name} has no help"
        python = inspect.isfunction(function)
        assert python or f"def {last}(" in stub, f"{name} has no stub"


COLUMNS = {
    "eager": check_eager, "strided": lambda op: check_eager(op, strided), "grad": check_grad, "grad2": check_grad2, "vmap": check_vmap,
    "jvp": check_jvp, "compile": check_compile, "forms": check_forms, "errors": check_errors, "help": check_help,
}  # fmt: skip


def check_adamw(column):
    """The fused optimizer: no operator of Python's, so its columns are its own."""

    def run(device="cpu", fused=True, wrap=lambda f: f, dtype=torch.float32, view=lambda t: t):
        torch.manual_seed(0)
        p = view(torch.randn(6, 5).to(dtype)).to(device).requires_grad_()
        optimizer = torch.optim.AdamW([p], lr=0.05, weight_decay=0.1, fused=fused)

        def step():
            optimizer.zero_grad()
            ((p - 1) ** 2).sum().backward()
            optimizer.step()

        step = wrap(step)
        for _ in range(5):
            step()
        return p.detach()

    def by_hand(dtype):
        torch.manual_seed(0)
        p = torch.randn(6, 5).to(dtype).double().numpy()
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t in range(1, 6):
            g = 2 * (p - 1)
            p = p * (1 - 0.05 * 0.1)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            p = p - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return p

    if column == "eager":
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            close(numpy_of(run(dtype=dtype)), by_hand(dtype), tolerance)
    elif column == "strided":
        close(numpy_of(run(view=lambda t: t.t().contiguous().t())), by_hand(torch.float32), 1e-5)
    elif column == "cuda":
        close(numpy_of(run("cuda")), numpy_of(run()), 1e-6)
    elif column == "compile":
        same_bits(run(), run(wrap=torch.compile))
    elif column == "forms":
        close(numpy_of(run(fused=False)), numpy_of(run()), 1e-6)
        close(numpy_of(run(fused=None)), numpy_of(run()), 1e-6)
    elif column == "errors":
        for bad in ({"lr": -1.0}, {"eps": -1.0}, {"betas": (1.5, 0.9)}, {"weight_decay": -1.0}):
            with pytest.raises(ValueError):
                torch.optim.AdamW([torch.ones(1, requires_grad=True)], **bad)
    elif column == "help":
        assert inspect.getdoc(torch.optim.AdamW)
    else:
        return "n/a"
    return "ok"


def run_cuda():
    """The emulated device's column, printed a line each; runs in a process of its own."""
    for name, op in OPERATORS.items():
        try:
            for dtype in ("float32", "float64") if name != "nonzero" else ("float32",):
                inputs = [torch.tensor(a).to(getattr(torch, dtype)) for a in op.arrays()]
                device = [t.to("cuda") for t in inputs]
                got = leaves(op.call(*device))
                assert all(t.is_cuda for t in got), "the result is not on the device"
                if op.truth is None:
                    continue
                for g, w in zip(got, leaves(op.call(*inputs)), strict=True):
                    close(numpy_of(g), numpy_of(w), 1e-5)
                if "grad" in op.skip:
                    continue
                grads = []
                for x in (inputs, device):
                    x = [t.clone().requires_grad_() for t in x]
                    value = sum((t * t).sum() for t in leaves(op.call(*x)) if t.is_floating_point())
                    grads.append(torch.autograd.grad(value, x))
                for a, b in zip(*grads, strict=True):
                    close(numpy_of(b), numpy_of(a), 2e-5)
            print(f"{name}\tok", flush=True)
        except Exception as e:
            print(f"{name}\t{type(e).__name__}: {str(e).splitlines()[0]}", flush=True)
    try:
        print(f"fused AdamW\t{check_adamw('cuda')}", flush=True)
    except Exception as e:
        print(f"fused AdamW\t{type(e).__name__}: {e}", flush=True)


def cuda_column():
    environment = {**os.environ, "FLAMBEAU_CUDA": "emulated"}
    done = subprocess.run(
        [sys.executable, __file__, "cuda"], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    found = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    if done.returncode:
        found.setdefault("", done.stderr[-2000:])
    return found


def test_table(capsys):
    emulated = cuda_column()
    table, holes = {}, []
    for name in [*OPERATORS, "fused AdamW"]:
        op = OPERATORS.get(name)
        for column in MASTERS:
            if op is not None and column in op.skip:
                result = op.skip[column]
            elif column == "cuda":
                result = emulated.get(name, f"no answer: {emulated.get('', '')}")
            else:
                try:
                    result = "ok"
                    if op is None:
                        result = check_adamw(column)
                    else:
                        COLUMNS[column](op)
                except Exception as e:
                    result = f"{type(e).__name__}: {e}"
            if result != "ok" and result not in REASONS:
                holes.append(f"{name} / {column}: {result}")
            table[name, column] = result if result == "ok" or result in REASONS else "HOLE"
    lines = [f"{'':30s}" + "".join(f"{c:>9s}" for c in MASTERS)]
    for name in [*OPERATORS, "fused AdamW"]:
        lines.append(f"{name:30s}" + "".join(f"{table[name, c]:>9s}" for c in MASTERS))
    lines += [f"{short}: {why}" for short, why in REASONS.items()]
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert not holes, "\n".join(holes)


if __name__ == "__main__":
    run_cuda()
