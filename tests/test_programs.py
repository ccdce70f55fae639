"""PyTorch programs, as a person writes them, run as they are under `python -m flambeau`, and train."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "programs"


def run(cwd, program, *args):
    """The output of a program, started in another folder than its own."""
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-m", "flambeau", FOLDER / program, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stderr == ""
    return done.stdout


def last(output, name):
    """The last number that is printed after a name."""
    return float(re.findall(rf"{name}:? ([-+.\w]+)", output)[-1])


@pytest.mark.parametrize(
    ("program", "least"),
    [("mnist_cnn.py", 0.9), ("mnist_rnn.py", 0.9), ("siamese.py", 0.75), ("gcn.py", 0.85), ("gat.py", 0.85)],
)
def test_classifiers(program, least, tmp_path):
    args = ["--save-model", "model.pt"] if program == "mnist_cnn.py" else []
    output = run(tmp_path, program, *args)
    assert last(output, "accuracy") >= least, output
    if args:
        results = [line for line in output.splitlines() if line.startswith("test:")]
        assert results[-1] == results[-2] and "<All keys matched successfully>" in output


def test_variational_autoencoder(tmp_path):
    output = run(tmp_path, "vae.py")
    assert last(output, "test") < 510 and output.endswith("sample (16, 1, 28, 28) True\n"), output


def test_adversarial_networks(tmp_path):
    output = run(tmp_path, "dcgan.py")
    # Untrained, the distance is above 0.4.
    assert last(output, "distance of means") < 0.25 and "(0): ConvTranspose2d(16, 32, kernel_size=(4, 4)" in output


def test_actor_and_critic(tmp_path):
    output = run(tmp_path, "actor_critic.py", "--episodes", "40")
    assert last(output, "Average reward") > 40, output


def test_super_resolution(tmp_path):
    output = run(tmp_path, "super_resolution.py")
    assert last(output, "PSNR") > 22 and output.endswith("same True True\n"), output


def test_time_sequence(tmp_path):
    output = run(tmp_path, "time_sequence.py")
    assert last(output, "test loss") < 0.003 and "(3, 79)" in output, output


@pytest.mark.parametrize("model", ["RNN_TANH", "RNN_RELU", "LSTM", "GRU", "Transformer"])
def test_word_language_model(model, tmp_path):
    output = run(tmp_path, "word_language_model/main.py", "--model", model)
    # There are 15 words; who knows the grammar is at 1.4.
    assert 1.3 < last(output, "test ppl") < 2.6, output
    assert (tmp_path / "model.pt").exists() and len(output.splitlines()[-1].split()) == 10


def test_gpt(tmp_path):
    def train(*args):
        return run(tmp_path, "gpt/train.py", FOLDER / "gpt/tiny.py", *args)

    first = train()
    assert first.startswith("config from ") and last(first, "val loss") < 1.6, first
    resumed = train("--init_from=resume", "--max_iters=80")
    steps = re.findall(r"step (\d+)", resumed)
    assert steps == ["60", "80"] and last(resumed, "val loss") < last(first, "val loss") + 0.1, resumed
    other = train("--flash=False", "--bias=True", "--dtype=bfloat16", "--compile=True", "--dropout=0.1", "--max_iters=20")
    assert math.isfinite(last(other, "val loss")) and last(other, "val loss") < 2.5, other
