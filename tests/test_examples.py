"""The examples run as a reader runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_mnist():
    script = EXAMPLES / "mnist.py"
    if not script.exists():
        pytest.skip("examples/mnist.py is missing")
    done = subprocess.run(
        [sys.executable, str(script), "--epochs", "1", "--mlp"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.search(r"accuracy", done.stdout, re.I), done.stdout
