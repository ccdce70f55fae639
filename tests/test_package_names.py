"""The names that programs expect of the package, and what stands behind some of them."""

from __future__ import annotations

import importlib

import flambeau as torch
import pytest

# Names of PyTorch's package beside its operators that several programs use.
_NAMES = """
torch.LongTensor torch.FloatTensor torch.BoolTensor torch.jit.script torch.jit.is_scripting torch.jit.unused torch.jit.Final
torch.multiprocessing.spawn torch.multiprocessing.get_context torch.multiprocessing.Queue torch.xpu.is_available torch.mps.empty_cache
torch.version.cuda torch.accelerator.current_accelerator torch.accelerator.is_available torch._foreach_add_ torch._foreach_norm
torch._check torch._assert torch.SymInt torch.sym_int torch.cosine_similarity torch.from_dlpack torch.get_device_module
torch.futures.Future torch.types.Number torch.autograd.graph.saved_tensors_hooks torch.autograd.forward_ad.make_dual
torch.utils.checkpoint.checkpoint torch.utils.dlpack.to_dlpack torch.is_deterministic_algorithms_warn_only_enabled
torch.func.functionalize torch.func.replace_all_batch_norm_modules_ torch.func.linearize
""".split()


@pytest.mark.parametrize("name", _NAMES)
def test_a_name_is_there(name):
    found = torch
    for part in name.split(".")[1:]:
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(f"{found.__name__}.{part}")


def test_types_of_tensors():
    x = torch.LongTensor([1, 2])
    assert x.dtype == torch.int64 and isinstance(x, torch.LongTensor) and not isinstance(x, torch.FloatTensor)
    assert torch.FloatTensor(2, 3).shape == (2, 3) and torch.FloatTensor().shape == (0,)
    with pytest.raises(TypeError, match="expected FloatTensor"):
        torch.FloatTensor(x)


def test_foreach():
    xs = [torch.rand(3), torch.rand(2, 2)]
    ys = [torch.rand(3), torch.rand(2, 2)]
    for got, x, y in zip(torch._foreach_add(xs, ys, alpha=2), xs, ys, strict=True):
        assert torch.equal(got, x + 2 * y)
    want = [x + 0.5 * y * y for x, y in zip(xs, ys, strict=True)]
    torch._foreach_addcmul_(xs, ys, ys, 0.5)
    assert all(torch.allclose(x, w) for x, w in zip(xs, want, strict=True))
    torch._foreach_mul_(xs, 0)
    assert all((x == 0).all() for x in xs)
    assert [float(n) for n in torch._foreach_norm(xs)] == [0, 0]
    with pytest.raises(RuntimeError, match="same number of tensors"):
        torch._foreach_add(xs, ys[:1])


def test_checks_raise():
    torch._check(True)
    with pytest.raises(RuntimeError, match="too small"):
        torch._check(False, lambda: "too small")
    with pytest.raises(ValueError):
        torch._check_value(False)
    with pytest.raises(TypeError, match="cond must be a bool"):
        torch._check(1)


def test_scripted_functions_run_as_they_are():
    @torch.jit.script
    def double(x):
        return x if torch.jit.is_scripting() else 2 * x

    assert double(3) == 6
    assert torch.jit.isinstance([1, 2], list[int]) and not torch.jit.isinstance([1, "a"], list[int])
    with pytest.raises(RuntimeError, match="TorchScript archives"):
        torch.jit.load("model.pt")


def test_futures():
    a, b = torch.futures.Future(), torch.futures.Future()
    both = torch.futures.collect_all([a, b])
    later = a.then(lambda f: f.value() + 1)
    a.set_result(1)
    assert not both.done() and later.wait() == 2
    b.set_result(2)
    assert [f.value() for f in both.wait()] == [1, 2]
    with pytest.raises(RuntimeError, match="once"):
        a.set_result(1)


def test_absent_devices():
    assert not torch.xpu.is_available() and torch.mps.device_count() == 0
    torch.xpu.empty_cache()
    with pytest.raises(RuntimeError, match="no XPU device"):
        torch.xpu.current_device()


@pytest.mark.parametrize("name", ["acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "sin", "sinh", "sqrt", "tan", "tanh"])
def test_complex_functions_keep_to_one_side_of_their_cuts(name):
    """conj(f(z)) = f(conj(z)) also where only the sign of a zero tells the side, and at infinities."""
    values = [complex(a, b) for a in (0.0, -0.0, 1.5, -2.0, float("inf"), -float("inf")) for b in (0.0, 1.5, float("inf"))]
    z = torch.tensor(values, dtype=torch.complex128)
    function = getattr(torch, name)
    above, below = function(z), function(torch.complex(z.real, -z.imag))
    assert torch.equal(torch.nan_to_num(above.real), torch.nan_to_num(below.real))
    assert torch.equal(torch.nan_to_num(above.imag, nan=0.5).abs(), torch.nan_to_num(below.imag, nan=0.5).abs())
