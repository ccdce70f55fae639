"""Every public name that programs use is there: names, members of tensors and keyword arguments, counted from the lists beside the
reference cases. Out of the count are the parts that have lists of their own (networks, optimizers, data, distributed, CUDA, the
compiler) and companion libraries."""

from __future__ import annotations

import csv
import importlib
import inspect
import itertools
import re
from pathlib import Path

import flambeau as torch
import pytest

LISTS = Path(__file__).parent / "reference"
ELSEWHERE = {"nn", "optim", "utils", "distributed", "cuda", "compiler", "compile", "jit", "hub"}
# There are no such dtypes; asking for one says what to use.
NO_DTYPES = {"float4_e2m1fn_x2", "float8_e4m3fnuz", "float8_e8m0fnu", "qint32", "qint8", "quint4x2", "quint8"}
# Programs call these with keywords that PyTorch refuses too.
WRONG_KEYWORDS = {
    ("torch.poisson", "size"),
    ("torch.tensor", "copy"),
    ("torch.zeros", "memory_format"),
    ("torch.einsum", "backend"),
}


def rows(name):
    with open(LISTS / name, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def public(row):
    parts = row["name"].split(".")
    return parts[0] == "torch" and not any(p.startswith("_") for p in parts) and (len(parts) == 1 or parts[1] not in ELSEWHERE)


def find(name):
    found = torch
    for part in name.split(".")[1:]:
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(f"{found.__name__}.{part}")
    return found


def test_names():
    wanted = [r["name"] for r in rows("names.tsv") if r["private"] == "no" and int(r["programs"]) >= 2 and public(r)]
    missing = []
    for name in wanted:
        try:
            find(name)
        except (AttributeError, ImportError):
            missing.append(name.removeprefix("torch."))
    assert len(wanted) > 300 and set(missing) <= NO_DTYPES, missing


@pytest.mark.parametrize("name", sorted(NO_DTYPES))
def test_absent_dtypes_say_what_to_use(name):
    assert not hasattr(torch, name)
    with pytest.raises(AttributeError, match="use|keep|pack"):
        getattr(torch, name)


def test_members():
    wanted = [r["member"] for r in rows("tensor_members.tsv")]
    x = torch.ones(2, 2)
    missing = []
    for name in wanted:
        try:
            if not hasattr(torch.Tensor, name) and not hasattr(x, name):
                missing.append(name)
        except RuntimeError:  # a property that says why there is none
            pass
    assert len(wanted) > 450 and not [m for m in missing if m != "__setstate__"], missing


def accepts(function, keyword):
    """Whether a function takes an argument by this name."""
    if inspect.isbuiltin(function) or inspect.ismethoddescriptor(function):
        # Help lists the overloads, one a line; what it does not name may be another spelling (`axis`), which a call tells.
        if re.search(rf"[ *]{keyword}\b", function.__doc__ or ""):
            return True
        out = torch.empty(0)
        leading = ((), (torch.ones(2, 2),), (torch.ones(2, 2),) * 2, (torch.ones(2, 2),) * 3, (torch.ones(2, 2), 0), ([torch.ones(2, 2)],), (2,))
        for given, value in itertools.product(leading, (0, False, None)):
            try:
                function(*given, **{keyword: out if keyword == "out" else value})
            except TypeError as failure:
                if f"unexpected keyword argument '{keyword}'" in str(failure) or "invalid combination" in str(failure):
                    continue
            except Exception:
                pass
            return True
        return False
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == keyword or p.kind == p.VAR_KEYWORD for p in parameters)


def test_keywords():
    refused = []
    wanted = [r for r in rows("keywords.tsv") if public(r) and r["name"].rpartition(".")[2] not in NO_DTYPES]
    for row in wanted:
        if (row["name"], row["keyword"]) not in WRONG_KEYWORDS and not accepts(find(row["name"]), row["keyword"]):
            refused.append((row["name"], row["keyword"]))
    torch.set_printoptions(profile="default")  # which was called too
    assert len(wanted) > 300 and not refused, refused


def test_members_of_old_programs():
    x = torch.arange(6.0).view(2, 3)
    assert x.resize(3, 2).shape == (3, 2) and x.resize_as(torch.ones(6)).shape == (6,)
    with pytest.raises(RuntimeError, match="requested resize to 7"):
        x.resize(7)
    assert x.long().dequantize().dtype == torch.float32 and not x.is_distributed() and x.storage_type() is type(x.storage())
    y = torch.zeros(2, 3)
    assert y.map_(x, lambda a, b: a + 2 * b) is y and torch.equal(y, 2 * x)
    for call in (lambda: x.solve(x), lambda: x.q_scale(), lambda: x.to_padded_tensor(0.0), lambda: x.xpu()):
        with pytest.raises((NotImplementedError, RuntimeError, AssertionError), match="linalg.solve|quantized|nested|XPU"):
            call()


def test_dispatcher_names():
    aten = torch.ops.aten
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(aten.add.Tensor(x, x), 2 * x) and torch.equal(aten.slice.Tensor(x, 1, 0, 2), x[:, :2])
    assert torch.equal(aten.constant_pad_nd.default(x, [1, 0], 9.0)[:, 0], torch.full((2,), 9.0))
    assert aten.sym_size.int(x, 1) == 3 and aten.view.default(x, [3, 2]).shape == (3, 2)
    assert aten.alias.default(x).data_ptr() == x.data_ptr() and aten._to_copy.default(x, dtype=torch.int64).dtype == torch.int64
    assert aten.add.Tensor.name() == "aten::add.Tensor" and aten.mul.default.namespace == "aten"
    assert aten.sort.stable(x, stable=True, dim=1, descending=True)[0][0, 0] == 2
    with pytest.raises(AttributeError, match="no operator"):
        aten.no_such_operator  # noqa: B018


def test_custom_operators():
    @torch.library.custom_op("tests::scaled_sine", mutates_args=())
    def scaled_sine(x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        return torch.sin(x) * scale

    def keep(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.scale = inputs[1]

    def gradient(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.cos() * ctx.scale, None

    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no gradient is registered"):
        scaled_sine(x).sum().backward()
    torch.library.register_autograd("tests::scaled_sine", gradient, setup_context=keep)
    scaled_sine.register_fake(lambda x, scale=2.0: torch.empty_like(x))
    torch.ops.tests.scaled_sine(x, 3.0).sum().backward()
    assert torch.allclose(x.grad, 3 * x.detach().cos())
    with pytest.raises(ValueError, match="NAMESPACE::NAME"):
        torch.library.custom_op("nameless", lambda x: x, mutates_args=())
    library = torch.library.Library("tests", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: 2 * x)
    assert torch.equal(torch.ops.tests.twice(x.detach()), 2 * x.detach())


def test_modules_of_switches_are_imported():
    cudnn = importlib.import_module("flambeau.backends.cudnn")
    before = cudnn.benchmark
    with cudnn.flags(enabled=True, benchmark=not before):
        assert torch.backends.cudnn.benchmark is not before
    assert cudnn.benchmark is before and importlib.import_module("flambeau.backends.cuda").matmul is torch.backends.cuda.matmul
    assert torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2", "AVX512")


def test_streams_and_events():
    start, end = torch.Event("cpu", enable_timing=True), torch.Event("cpu", enable_timing=True)
    start.record()
    torch.Stream("cpu").record_event(end)
    assert start.elapsed_time(end) >= 0 and torch.Stream("cpu").query()
    with pytest.raises(ValueError, match="enable_timing"):
        torch.Event("cpu").elapsed_time(end)


def test_what_there_is_none_of_says_so():
    for call, words in [
        (lambda: torch.nested.nested_tensor([torch.ones(2)]), "pad_sequence"),
        (lambda: torch.fx.symbolic_trace(torch.nn.Linear(1, 1)), "compile"),
        (lambda: torch.onnx.export(None), "state_dict"),
        (lambda: torch.export.export(None, ()), "state_dict"),
        (lambda: torch.overrides.TorchFunctionMode().__enter__(), "subclass"),
    ]:
        with pytest.raises(NotImplementedError, match=words):
            call()
    assert not torch.onnx.is_in_onnx_export() and torch.fx.node.map_aggregate((1, [2]), lambda v: v + 1) == (2, [3])
