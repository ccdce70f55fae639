"""A short run of the fuzzer of calls; `python tests/fuzz_calls.py` is the long one."""

from __future__ import annotations

import fuzz_calls


def test_no_argument_crashes_or_hangs() -> None:
    calls, findings = fuzz_calls.run(60, seed=0, stop=1500)
    assert not findings, "\n".join(findings)
    assert calls > 0
