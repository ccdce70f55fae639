"""The repository itself: its commands, formatters, linters, the crates' own tests."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def check(*command, **variables):
    """Runs a command in the repository's root; its output is the message when it fails."""
    if "/" not in command[0] and shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    # Cargo and pip's build share `target/`.
    environment = {k: v for k, v in os.environ.items() if k != "CARGO_TARGET_DIR"} | variables
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}"
    return done.stdout


def check_module(module, *arguments):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    check(sys.executable, "-m", module, *arguments)


def test_ci_runs_the_readme_command():
    readme = (ROOT / "README.md").read_text()
    (command,) = set(re.findall(r"^ {4}(python -m pip install .*pytest)$", readme, re.M))
    assert command == 'python -m pip install ".[test]" && python -m pytest'
    lines = [line.strip() for line in (ROOT / ".ci/run").read_text().splitlines()]
    assert [line for line in lines if "pip install" in line] == [command]
    assert lines[-1] == command
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_readme_trains_in_one_command():
    readme = (ROOT / "README.md").read_text()
    assert "    python -m pip install . && python examples/mnist.py\n" in readme
    assert (ROOT / "examples/mnist.py").exists()


def test_version_is_the_workspace_version():
    import flambeau

    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)
    assert flambeau.__version__ == version


# Always the same crates: cargo gives a dependency the features that those asked for need, and builds all that stands on it
# anew for other ones.
CRATES = ("--release", "--workspace", "--exclude", "flambeau-python")


@pytest.mark.slow
def test_cargo_fmt():
    check("cargo", "fmt", "--all", "--check")


@pytest.mark.slow
def test_cargo_clippy():
    check("cargo", "clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings")


@pytest.mark.slow
def test_cargo_test():
    check("cargo", "test", *CRATES)


@pytest.mark.slow
def test_the_rust_example_learns():
    check("cargo", "build", *CRATES, "--examples")
    text = check("target/release/examples/mnist", "1")
    (accuracy,) = re.findall(r"test accuracy: ([\d.]+) %", text)
    assert float(accuracy) > 90, text


@pytest.mark.slow
def test_every_kernel_compiles_for_every_architecture():
    """NVRTC needs no GPU; the `[test]` extra brings it where there is a wheel of it."""
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the NVRTC wheel is not installed")
    directory = str(Path(list(spec.submodule_search_locations)[0]) / "lib")
    text = check("cargo", "test", *CRATES, "--test", "nvrtc", "--", "--nocapture", FLAMBEAU_NVRTC_DIR=directory)
    for architecture in ("sm_75", "sm_80", "sm_90"):
        assert f"{architecture}: " in text, text[-2000:]


@pytest.mark.slow
def test_cargo_doc():
    check("cargo", "doc", *CRATES, "--no-deps", RUSTDOCFLAGS="-D warnings")


@pytest.mark.slow
def test_ruff():
    check_module("ruff", "check", "python", "examples", "tests", "benches")


@pytest.mark.slow
def test_mypy():
    check_module(
        "mypy", "--strict", "--follow-imports=silent", "--disable-error-code=overload-cannot-match", "python/flambeau/_flambeau.pyi"
    )
