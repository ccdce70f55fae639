"""A short run of the fuzzer of calls; `python tests/fuzz_calls.py` is the long one."""

from __future__ import annotations

import fuzz_calls
import fuzz_numpy


def test_no_argument_crashes_or_hangs() -> None:
    calls, findings = fuzz_calls.run(60, seed=0, stop=1500)
    assert not findings, "\n".join(findings)
    assert calls > 0


def test_what_a_call_should_not_raise_is_read_from_the_log() -> None:
    log = (
        b"\n7\ttorch.abs(1)"
        + fuzz_calls.noted(RuntimeError("internal error,\nplease report it"))
        + b"\n8\ttorch.abs(2)"
    )
    last, calls, findings = fuzz_calls.read(log.decode().split("\n"), 0)
    assert (last, calls) == (8, 2)
    assert findings == ["7\ttorch.abs(1)\n    RuntimeError: internal error, please report it"]


def test_numpys_functions_agree() -> None:
    counts, findings = fuzz_numpy.run(20, seed=0, stop=4000)
    assert not findings, "\n".join(findings)
    assert counts.total() > 0
