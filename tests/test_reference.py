"""The reference cases that PyTorch computed: every case on the checked-in lists passes."""

import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference"))
import runner  # noqa: E402


def parameters():
    for name, (files, _, _) in runner.LISTS.items():
        for file in files:
            yield pytest.param(name, file, id=f"{name}-{file}")


@pytest.mark.parametrize(("name", "file"), list(parameters()))
def test_listed_cases_pass(name, file):
    listed = runner.read(name)
    if listed is None:
        pytest.skip(f"there is no {runner.path_of(name).name} yet; tests/reference/update_passing.py writes it")
    if not listed.get(file):
        pytest.skip("no case of this file is listed")
    if name == "cuda" and shutil.which("g++") is None:
        pytest.skip("the emulated device needs g++")
    passed, failed = runner.run(name, file, listed[file])
    missing = sorted(listed[file] - passed)
    assert not missing, "\n".join(f"{file}#{i}: {failed.get(i, 'there is no such case')}" for i in missing[:40])


@pytest.mark.parametrize("name", sorted(runner.LISTS))
def test_lists_are_sorted_and_unique(name):
    listed = runner.read(name)
    if listed is None:
        pytest.skip(f"there is no {runner.path_of(name).name} yet")
    lines = runner.path_of(name).read_text().splitlines()
    assert lines == [f"{file}#{index}" for file in sorted(listed) for index in sorted(listed[file])]
