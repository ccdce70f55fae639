"""The parts of autograd that programs use beside `backward`: checks, forward mode, graph, anomaly mode, checkpoints."""

from __future__ import annotations

import warnings

import flambeau as torch
import pytest
from flambeau.autograd import forward_ad, graph
from flambeau.autograd.gradcheck import GradcheckError
from flambeau.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential


def _products(a, b):
    return (a * b.sin()).sum(0)


@pytest.mark.parametrize("fast_mode", [False, True])
def test_gradcheck_of_real_functions(fast_mode):
    x = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    y = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_products, (x, y), fast_mode=fast_mode, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(_products, (x, y), fast_mode=fast_mode)


@pytest.mark.parametrize("fast_mode", [False, True])
@pytest.mark.parametrize("function", [lambda z: z * z, lambda z: z.abs(), lambda z: z.exp() * 2j, torch.view_as_real])
def test_gradcheck_of_complex_functions(function, fast_mode):
    z = torch.randn(3, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(function, (z,), check_forward_ad=True, fast_mode=fast_mode)
    assert torch.autograd.gradgradcheck(function, (z,), fast_mode=fast_mode)


class _Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


@pytest.mark.parametrize("fast_mode", [False, True])
def test_gradcheck_finds_a_wrong_gradient(fast_mode):
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"):
        torch.autograd.gradcheck(_Wrong.apply, (x,), fast_mode=fast_mode)
    assert not torch.autograd.gradcheck(_Wrong.apply, (x,), raise_exception=False, fast_mode=fast_mode)
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        torch.autograd.gradcheck(_Wrong.apply, (x.detach(),))


def test_forward_mode():
    x, t = torch.rand(4), torch.rand(4)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, t)
        out = dual.sin() * 2
        _, tangent = forward_ad.unpack_dual(out)
        assert torch.allclose(tangent, 2 * x.cos() * t)
        assert forward_ad.unpack_dual(x).tangent is None
        assert (forward_ad.unpack_dual(dual).tangent == t).all()
    assert forward_ad.unpack_dual(out).tangent is None
    with pytest.raises(RuntimeError, match="no level exists"):
        forward_ad.make_dual(x, t)


def test_hooks_on_saved_tensors():
    x = torch.rand(4, requires_grad=True)
    packed = []

    def pack(t):
        packed.append(t)
        return len(packed) - 1

    with graph.saved_tensors_hooks(pack, lambda i: packed[i] * 2):
        y = x * x
    y.sum().backward()
    assert torch.allclose(x.grad, 4 * x)
    assert len(packed) == 2 and not packed[0].requires_grad
    x.grad = None
    with graph.save_on_cpu():
        y = x.exp()
    y.sum().backward()
    assert torch.allclose(x.grad, x.exp())
    with pytest.raises(RuntimeError, match="none here"), graph.disable_saved_tensors_hooks("none here"):
        graph.saved_tensors_hooks(pack, pack).__enter__()


def test_hooks_on_what_a_custom_function_saves():
    x = torch.rand(3, requires_grad=True)
    with graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t + 1):
        y = _Wrong.apply(x)
    y.sum().backward()
    assert torch.allclose(x.grad, x + 1)


def test_second_gradients_through_packed_tensors():
    x = torch.rand(3, requires_grad=True)
    with graph.saved_tensors_hooks(lambda t: (t,), lambda t: t[0]):
        (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        (h,) = torch.autograd.grad(g.sum(), x)
    assert torch.allclose(h, 6 * x)


def test_nodes():
    x = torch.rand(4, requires_grad=True)
    y = (x * 2).exp()
    node = y.grad_fn
    assert node is y.grad_fn and isinstance(node, graph.Node)
    node.metadata["a"] = 1
    del node
    assert y.grad_fn.metadata == {"a": 1}
    seen = []
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append((len(inputs), len(outputs))))
    y.grad_fn.register_prehook(lambda outputs: (outputs[0] * 3,))
    handle = y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] * 0,))
    handle.remove()
    assert torch.equal(y.grad_fn._saved_result, y)
    y.sum().backward()
    assert seen == [(1, 1)]
    assert torch.allclose(x.grad, 6 * y.detach())
    assert y.grad_fn.next_functions[0][0].name() == "MulBackward0"


def test_accumulation_nodes_call_their_hooks():
    x = torch.rand(2, requires_grad=True)
    node = x.expand_as(x).grad_fn.next_functions[0][0]
    seen = []
    node.register_hook(lambda inputs, outputs: seen.append((inputs, x.grad is not None)))
    (x * 2).sum().backward()
    assert seen == [((), True)]


def test_edges():
    x = torch.rand(4, requires_grad=True)
    (g,) = torch.autograd.grad((x * x).sum(), graph.get_gradient_edge(x))
    assert torch.allclose(g, 2 * x)
    y = x.sin()
    edge = graph.get_gradient_edge(y)
    (g,) = torch.autograd.grad((y * 3).sum(), edge)
    assert (g == 3).all()
    torch.autograd.backward(graph.get_gradient_edge((x * 2).sum()))
    assert (x.grad == 2).all()
    with pytest.raises(RuntimeError, match="does not require gradients"):
        graph.get_gradient_edge(x.detach())


def test_hooks_on_several_gradients():
    a, b = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    seen = []
    handle = graph.register_multi_grad_hook([a, b], lambda gs: seen.append([g is not None for g in gs]))
    (a * b).sum().backward()
    a.sum().backward()
    handle.remove()
    (a * b).sum().backward()
    assert seen == [[True, True], [True, False]]
    seen = []
    graph.register_multi_grad_hook([a, b], lambda g: seen.append(g.shape), mode="any")
    (a * b).sum().backward()
    assert len(seen) == 1


def test_increment_version():
    x = torch.rand(3, requires_grad=True)
    y = x.exp()
    graph.increment_version(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_anomaly_mode():
    x = torch.tensor([-1.0], requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="'SqrtBackward0' returned nan values in its 0th output"), torch.autograd.detect_anomaly():
            (x.sqrt() * 0).sum().backward()
    assert any("Traceback of forward call" in str(w.message) and "test_anomaly_mode" in str(w.message) for w in caught)
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        assert torch.is_anomaly_enabled() and not torch.is_anomaly_check_nan_enabled()
        (x.sqrt() * 0).sum().backward()
    assert not torch.is_anomaly_enabled()


def test_checkpoints_repeat_the_forward_exactly():
    layer = torch.nn.Linear(4, 4)
    data = torch.rand(3, 4)

    def forward(x):
        return torch.nn.functional.dropout(layer(x).tanh(), 0.5).sin()

    results = []
    for mode in (None, False, True):
        x = data.clone().requires_grad_()
        layer.zero_grad()
        torch.manual_seed(3)
        out = forward(x) if mode is None else checkpoint(forward, x, use_reentrant=mode)
        out.sum().backward()
        results.append((x.grad, layer.weight.grad.clone(), out.detach()))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nested_checkpoints_and_second_gradients():
    x = torch.rand(3, requires_grad=True)

    def inner(x):
        return x.sin().cos()

    def outer(x, step):
        return step(inner, x.exp()).tan() * 2

    def plain(f, *args):
        return f(*args)

    def saved_anew(f, *args):
        return checkpoint(f, *args, use_reentrant=False)

    results = []
    for step in (plain, saved_anew):
        out = step(outer, x, step)
        (g,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        results.append((g, *torch.autograd.grad(g.sum(), x)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_checkpoints_tell_when_the_forward_differs():
    calls = []

    def forward(y):
        calls.append(None)
        return (y.sin() if len(calls) == 1 else y[:2].sin()).sum()

    x = torch.rand(3, requires_grad=True)
    with pytest.raises(CheckpointError, match="different metadata"):
        checkpoint(forward, x, use_reentrant=False).backward()
    with pytest.raises(RuntimeError, match="incompatible with .grad"):
        torch.autograd.grad(checkpoint(torch.sin, x, use_reentrant=True).sum(), x)
    with pytest.raises(ValueError, match="Unexpected keyword arguments: foo"):
        checkpoint(torch.sin, x, use_reentrant=True, foo=1)


def test_checkpoint_sequential():
    x = torch.rand(3, requires_grad=True)
    checkpoint_sequential([torch.sin, torch.cos, torch.tan], 2, x, use_reentrant=False).sum().backward()
    (want,) = torch.autograd.grad(x.sin().cos().tan().sum(), x)
    assert torch.equal(x.grad, want)


def test_fast_mode_takes_two_calls_for_an_input():
    calls = 0

    def function(x):
        nonlocal calls
        calls += 1
        return x.sin()

    assert torch.autograd.gradcheck(function, torch.rand(20, dtype=torch.float64, requires_grad=True), fast_mode=True)
    assert calls < 12


def test_gradcheck_of_sparse_inputs():
    sparse = torch.eye(3, dtype=torch.float64).to_sparse().requires_grad_()
    dense = torch.rand(3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: torch.sparse.mm(a, dense), sparse, masked=True)


class _Tripled(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * 3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * ctx.saved_tensors[0] * 5


def test_tangents_of_functions_with_a_jvp_of_their_own():
    x, t = torch.rand(2, 3), torch.rand(2, 3)
    value, tangent = torch.func.jvp(_Tripled.apply, (x,), (t,))
    assert torch.allclose(value, x * 3) and torch.allclose(tangent, t * x * 5)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(_Tripled.apply(forward_ad.make_dual(x, t))).tangent
    assert torch.allclose(tangent, t * x * 5)
    _, tangent = torch.func.vmap(lambda a, b: torch.func.jvp(_Tripled.apply, (a,), (b,)))(x, t)
    assert torch.allclose(tangent, t * x * 5)


def test_custom_functions_inside_vmap():
    x, w = torch.rand(4, 3), torch.rand(3)
    assert torch.allclose(torch.func.vmap(torch.func.grad(lambda a: _Tripled.apply(a).sum()))(x), x)
    shared = torch.func.vmap(torch.func.grad(lambda a, b: (_Tripled.apply(b) * a).sum(), argnums=1), in_dims=(0, None))(x, w)
    assert torch.allclose(shared, x * w)
    leaf = x.clone().requires_grad_()
    torch.func.vmap(_Tripled.apply)(leaf).sum().backward()
    assert torch.allclose(leaf.grad, x)

    class Rule(_Tripled):
        @staticmethod
        def vmap(info, in_dims, a):
            return _Tripled.apply(a) + info.batch_size, in_dims[0]

    assert torch.allclose(torch.func.vmap(Rule.apply)(x), 3 * x + 4)


def test_no_grad_does_not_end_tangents():
    x = torch.rand(3)
    with forward_ad.dual_level(), torch.no_grad():
        assert torch.allclose(forward_ad.unpack_dual(forward_ad.make_dual(x, x).exp()).tangent, x * x.exp())
    assert torch.is_grad_enabled()


def test_duals_are_written_in_place():
    x = torch.rand(3)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.clone(), x)
        dual.mul_(2).add_(1)
        assert torch.allclose(forward_ad.unpack_dual(dual).tangent, 2 * x)


def test_saved_tensors_that_are_changed():
    x = torch.rand(3, requires_grad=True)
    with graph.allow_mutation_on_saved_tensors():
        y = x.clone()
        z = y * y
        y.zero_()
    z.sum().backward()
    assert torch.allclose(x.grad, 2 * x)


def test_variables():
    x = torch.rand(3)
    v = torch.autograd.Variable(x, requires_grad=True)
    assert v.requires_grad and v.data_ptr() == x.data_ptr() and isinstance(x, torch.autograd.Variable)
    assert not torch.is_inference_mode_enabled()


def test_strict_jvp_refuses_constants():
    x = torch.rand(3)
    for call in (
        lambda: torch.func.jvp(lambda a: torch.ones(3), (x,), (x,), strict=True),
        lambda: torch.autograd.functional.jvp(lambda a: torch.ones(3), x, x, strict=True),
    ):
        with pytest.raises(RuntimeError, match="independent|does not require"):
            call()
