"""The operators' pages: every operator has a line and an example, and the examples run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("flambeau_docs_build", ROOT / "docs" / "build.py")
build = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = build
_spec.loader.exec_module(build)
OPERATORS = build.operators()


def test_every_operator_has_a_line():
    names = {o.name for o in OPERATORS}
    assert len(names) > 600
    assert not set(build.table()) - names, "docs/operators.txt describes what there is not"
    assert all(o.text.endswith(".") and len(o.text) < 140 for o in OPERATORS)
    assert all(build.arguments(o) for o in OPERATORS if "property" not in o.forms and "Tensor" in o.signatures[0])


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.name)
def test_example(operator):
    assert operator.name.rpartition(".")[2] in operator.example, "an example shows its operator"
    build.run_example(operator)


def test_what_an_operator_refuses_is_found_by_trying():
    by_name = {o.name: o for o in OPERATORS}
    assert build.refused(by_name["abs"]) == []
    assert build.refused(by_name["mean"]) == ["`RuntimeError`: tensors of dtype bool or int64."]
    assert any("for sizes that do not fit, as `" in line for line in build.refused(by_name["matmul"]))
    assert not any("dtype" in line for line in build.refused(by_name["index_add"]))
    # What says nothing but that its arguments' types are checked is metadata, conversions and the like.
    silent = [o.name for o in OPERATORS if len(build.errors(o) + build.refused(o)) == 1]
    assert len(silent) < len(OPERATORS) / 4, silent
    rows = [(o.name, name, meaning) for o in OPERATORS for name, _, meaning in build.arguments(o)]
    unsaid = [(o, name) for o, name, meaning in rows if not meaning or meaning.startswith(" (default")]
    assert len(unsaid) < len(rows) / 20, unsaid


def test_pages():
    section = OPERATORS[0].section
    page = build.section_page(section, [o for o in OPERATORS if o.section == section][:5])
    assert "## abs" in page and "tensor([0.2500" in page and "absolute" in page and "| `input` | tensor |" in page
    families = build.host_families()
    assert families["map"] and families["matmul"] and not families["fft"] and "`fft` | through the host" in build.host_page()


def test_what_runs_through_the_host_says_so_once():
    program = (
        "import flambeau as torch\n"
        "if not torch.cuda.is_available(): raise SystemExit(77)\n"
        "x = torch.rand(8, device='cuda')\n"
        "for _ in range(3): y = torch.fft.fft(x)\n"
        "assert torch.allclose(y.cpu(), torch.fft.fft(x.cpu()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "FLAMBEAU_CUDA": "emulated"}, capture_output=True, text=True, timeout=300
    )
    if done.returncode == 77:
        pytest.skip("the emulated device needs a C++ compiler")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "it runs through the host" in line]
    assert len(said) == len(set(said)) and any("fft" in line for line in said)
