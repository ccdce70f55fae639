"""The examples run as a reader runs them; what takes them minutes is cut short here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name, *args):
    """What an example prints."""
    script = EXAMPLES / name
    if not script.exists():
        pytest.skip(f"examples/{name} is missing")
    done = subprocess.run([sys.executable, str(script), *args], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def numbers(output, name):
    """The numbers that are printed after a name."""
    return [float(number) for number in re.findall(rf"{name}:? +([-\d.]+)", output)]


def test_mnist():
    assert numbers(run("mnist.py", "--epochs", "1", "--mlp"), "accuracy")[-1] > 80


def test_residual_network():
    output = run("resnet.py", "--short")
    assert numbers(output, "rightly")[-1] > 70, output


def test_variational_autoencoder():
    output = run("vae.py", "--short")
    assert numbers(output, "untrained")[0] > 500 and numbers(output, "digits")[-1] < 150, output


def test_adversarial_networks():
    output = run("dcgan.py", "--short")
    distances = numbers(output, "distance")
    assert distances[-1] < 0.9 * distances[0], output


def test_q_learning():
    # Pushed at random the pole falls after some 22 steps.
    output = run("dqn.py", "--short")
    assert numbers(output, "reward")[-1] > 80, output


def test_recommender():
    output = run("dlrm.py", "--short")
    assert numbers(output, "curve")[-1] > 0.68, output


def test_speech():
    output = run("ctc.py", "--short")
    losses = numbers(output, "loss")
    assert losses[-1] < 0.5 * losses[0] and numbers(output, "letters")[-1] <= 100, output


def test_text_classifier():
    output = run("text_lstm.py", "--short")
    assert numbers(output, "rightly")[-1] > 60, output


def test_masked_words_and_fine_tuning():
    output = run("bert.py", "--short")
    losses = numbers(output.split("from nothing")[0], "loss")
    assert losses[-1] < losses[0] - 0.8, output
    assert min(numbers(output, "rightly")) > 30, output
