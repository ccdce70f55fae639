"""`python -m flambeau`: programs that import torch, as they are."""

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import importlib.metadata, importlib.util, sys
import torch, flambeau
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torch import Tensor, optim

class Numbers(Dataset):
    def __len__(self): return 8
    def __getitem__(self, i): return torch.tensor([i]).float()

if __name__ == "__main__":
    assert torch is flambeau and torch.nn is flambeau.nn and nn is torch.nn and F is flambeau.nn.functional
    assert optim is flambeau.optim and Tensor is flambeau.Tensor
    assert torch.__version__ == "2.13.0" and torch.__version__ >= "2.6" and torch.__version__ < (3, 0)
    assert importlib.metadata.version("torch") == "2.13.0"
    assert importlib.util.find_spec("torch") and importlib.util.find_spec("torch.nothing") is None
    total = 0
    for method in ("fork", "spawn", "forkserver"):
        loader = DataLoader(Numbers(), 2, num_workers=1, multiprocessing_context=method)
        total += sum(batch.sum().item() for batch in loader)
    print(sys.argv[1:], __file__, total)
    if "fail" in sys.argv:
        raise ValueError("as asked")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__main__.py").write_text(
        "import sys, torch\nfrom . import part\nprint(part.x.tolist(), sys.argv[1:])\n"
    )
    (tmp_path / "package/part.py").write_text("import torch\nx = torch.ones(2)\n")
    return tmp_path


def run(folder, *args):
    done = subprocess.run(
        [sys.executable, "-m", "flambeau", *args], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def test_script(folder):
    assert run(folder, "program.py", "a", "-b") == (0, "['a', '-b'] program.py 84.0\n", "")


def test_module(folder):
    assert run(folder, "-m", "package", "-x") == (0, "[1.0, 1.0] ['-x']\n", "")


def test_code(folder):
    assert run(folder, "-c", "import torch, sys; print(torch.ones(1).item(), sys.argv)", "y") == (
        0,
        "1.0 ['-c', 'y']\n",
        "",
    )


def test_failures(folder):
    status, _, errors = run(folder, "program.py", "fail")
    assert status == 1
    assert errors.splitlines()[:2] == [
        "Traceback (most recent call last):",
        '  File "program.py", line 25, in <module>',
    ]
    assert errors.splitlines()[-1] == "ValueError: as asked"
    assert run(folder, "-c", "raise SystemExit(7)")[0] == 7
    for args in (["nowhere.py"], ["--what"], ["-m"], []):
        status, _, errors = run(folder, *args)
        assert status == 2 and "flambeau" in errors


def test_nothing_is_named_torch_otherwise():
    code = """
        import flambeau, importlib.metadata, importlib.util, sys
        from flambeau import nn, optim, utils
        assert importlib.util.find_spec("torch") is None and not any(m.split(".")[0] == "torch" for m in sys.modules)
        try:
            importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            print("fine")
    """
    # Site packages aside: a PyTorch that somebody installed there is not ours to find.
    code = "import sys\nsys.path[:] = [p for p in sys.path if 'torch' not in p]\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "AssertionError" in done.stderr and subprocess.run([sys.executable, "-c", "import torch"]).returncode == 0:
        pytest.skip("PyTorch is installed here")
    assert done.stdout == "fine\n", done.stderr
