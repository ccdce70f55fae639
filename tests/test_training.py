"""Whole training runs, compared between ways of executing them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKERS = Path(__file__).parent / "workers"


def run(worker, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, WORKERS / worker, *arguments], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_compiled_gpt_is_the_eager_one():
    """100 steps under a cosine schedule, with backward and optimizer outside the region and inside it."""
    eager = run("chargpt_modes.py", "eager", "100")
    for mode in ("model", "step"):
        compiled = run("chargpt_modes.py", mode, "100")
        assert compiled["parameters"] == eager["parameters"], f"{mode}: not the same bits"
        assert compiled["last_loss"] == eager["last_loss"]
        assert 1 <= compiled["plans"]["plans"] <= 4, compiled["plans"]
        # The plans themselves are about a megabyte.
        assert compiled["peak_kib"] <= eager["peak_kib"] + 2048


def test_a_small_cnn_trains_on_the_emulated_device():
    cpu = run("small_cnn.py", "cpu")
    cuda = run("small_cnn.py", "cuda", FLAMBEAU_CUDA="emulated")
    assert cuda["device"].startswith("cuda")
    assert cuda["losses"] == pytest.approx(cpu["losses"], rel=1e-4)
    assert len(set(cpu["losses"])) == 20
