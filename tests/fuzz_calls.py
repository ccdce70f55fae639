"""Calls every operator with random arguments, sensible and absurd, and looks for what no argument may cause: a crash, a panic,
an uncaught abort, a hang, an exception that says nothing of the caller's mistake.

    python tests/fuzz_calls.py --seconds 600 --seed 7
    python tests/fuzz_calls.py --only conv --seconds 60

Calls are made in a child process, which writes each one down before it makes it; when the child dies or hangs, the last line is
the finding, and a new child goes on behind it. `test_fuzz.py` runs the short form.
"""

from __future__ import annotations

import argparse
import math
import operator
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: What bad arguments may raise.
EXPECTED = (
    TypeError,
    ValueError,
    RuntimeError,
    IndexError,
    NotImplementedError,
    OverflowError,
    AttributeError,
    ZeroDivisionError,
    MemoryError,
)
#: A call that takes the processors longer than this hangs, and one that waits ten times as long.
CALL_SECONDS = 20


def child(seed: int, start: int, stop: int, only: str, log: str) -> None:
    """Makes the calls from `start` to `stop`."""
    import resource

    # Allocations beyond this fail as they would on a full machine, instead of filling this one.
    limit = 8 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import flambeau as torch
    from flambeau import _flambeau

    torch.set_num_threads(2)
    # A polynomial takes as long as its degree says, in PyTorch too.
    rows = [r for r in _flambeau._signature_rows() if only in signature(r) and "polynomial" not in signature(r)]
    where = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for index in range(start, stop):
        # Every call has a stream of its own, so that one can be made again without those before it.
        r = random.Random(f"{seed}:{index}")
        call, text = make_call(torch, r, r.choice(rows))
        os.write(where, f"\n{index}\t{text}"[:4000].encode())
        if call is None:
            continue
        try:
            touch(torch, call())
        except BaseException as e:
            if not isinstance(e, EXPECTED) or "panic" in str(e).lower() or "internal error" in str(e):
                os.write(where, noted(e))


def noted(e: BaseException) -> bytes:
    """The line of a log that says what a call raised and should not have."""
    return b"\n!" + f"{type(e).__name__}: {str(e)[:500]}".replace("\n", " ").encode()


def read(lines: list[str], start: int) -> tuple[int, int, list[str]]:
    """The last call of a log, how many there are, and the findings among them."""
    last, calls, findings = start, 0, []
    for before, line in zip([""] + lines, lines, strict=False):
        if line.startswith("!"):
            findings.append(f"{before}\n    {line[1:]}")
        elif line[:1].isdigit():
            last, calls = int(line.split("\t")[0]), calls + 1
    return last, calls, findings


def signature(row: Any) -> str:
    """The row's signature as text."""
    return str(row[1])


def touch(torch: Any, result: Any) -> None:
    """Reads what a call gave, and runs its gradient."""
    for t in result if isinstance(result, (tuple, list)) else (result,):
        if isinstance(t, torch.Tensor) and t.numel() < 100_000:
            if t.requires_grad and t.dtype.is_floating_point:
                t.sum().backward()
            str(t)


def tensor(torch: Any, r: random.Random) -> tuple[Any, str]:
    """A tensor of any kind, and how it was made."""
    dtypes = "float32 float64 float16 bfloat16 int64 int32 int8 uint8 bool complex64 complex128 int16".split()
    dtype = r.choice(dtypes + ["float32"] * 8)
    shape = tuple(r.choice((0, 1, 2, 3, 3, 4, 5)) for _ in range(r.choice((0, 1, 2, 2, 3, 4, 5))))
    text = f"torch.randint(-3, 4, {shape}).to(torch.{dtype})"
    if r.random() < 0.3:
        text = f"torch.randn({shape}).to(torch.{dtype})"
    if r.random() < 0.05:
        text = f"torch.full({shape}, {r.choice(('math.nan', 'math.inf', '-math.inf', '1e30'))}).to(torch.{dtype})"
    for _ in range(r.choice((0, 0, 0, 1, 2))):
        text += r.choice(
            (
                ".mT",
                ".T",
                ".flip(0)",
                "[..., ::2]",
                "[None]",
                f".expand(3, *([-1] * {len(shape)}))",
                "[1:]",
                ".conj()",
                ".real",
            )
            + (
                ".unfold(0, 2, 1)",
                ".as_strided((3, 3), (1, 0))",
                ".to('meta')",
                ".requires_grad_()",
                ".diagonal()",
                ".detach()",
            )
        )
    if dtype.startswith(("float", "bfloat")) and r.random() < 0.2:
        text += ".requires_grad_()"
    try:
        return eval(text, {"torch": torch, "math": math}), text
    except EXPECTED:
        return torch.ones(2, 3), "torch.ones(2, 3)"


INTS = (
    0,
    1,
    1,
    2,
    2,
    3,
    4,
    -1,
    -2,
    -3,
    5,
    7,
    64,
    1000,
    -1000,
    2**31,
    -(2**31),
    2**62,
    2**63 - 1,
    -(2**63),
    2**63,
    2**64,
    10**30,
)


def integer(r: random.Random) -> int:
    """Mostly small."""
    return r.choice(INTS[:10]) if r.random() < 0.8 else r.choice(INTS)


def anything(torch: Any, r: random.Random) -> tuple[Any, str]:
    """What does not belong there."""
    value = r.choice(
        (None, "sum", "", "ij", b"x", 1.5, -math.inf, math.nan, 1j, True, [], [1, [2, 3]], (), {}, [None], integer(r))
    )
    return value, repr(value)


def argument(torch: Any, r: random.Random, kind: str, like: list[Any]) -> tuple[Any, str]:
    """A value for a parameter of a signature's type; sometimes of another."""
    if r.random() < 0.04:
        return anything(torch, r)
    kind = kind.split("|")[0] if r.random() < 0.7 else kind.split("|")[-1]
    if kind.endswith("?"):
        if r.random() < 0.4:
            return None, "None"
        kind = kind[:-1]
    if kind == "Tensor":
        if like and r.random() < 0.5:
            return r.choice(like)
        made = tensor(torch, r)
        like.append(made)
        return made
    if kind == "Tensor[]":
        parts = [argument(torch, r, "Tensor", like) for _ in range(r.choice((0, 1, 2, 3)))]
        return [p[0] for p in parts], "[" + ", ".join(p[1] for p in parts) + "]"
    value: Any
    if kind == "int":
        value = integer(r)
    elif kind.startswith("int["):
        value = tuple(integer(r) for _ in range(r.choice((0, 1, 2, 2, 3, 4))))
        value = value if r.random() < 0.8 else integer(r)
    elif kind in ("float", "Number"):
        value = r.choice((0.0, 0.5, 1.0, 2, -1.5, 1e-5, 1e30, -0.0, math.inf, math.nan, integer(r)))
    elif kind == "bool":
        value = r.random() < 0.5
    elif kind == "str":
        value = r.choice(
            ("mean", "sum", "none", "constant", "reflect", "nearest", "bilinear", "ij", "linear", "mode", "same", "x")
        )
    elif kind == "dtype":
        name = r.choice(("float32", "float64", "int64", "bool", "complex64", "float16", "uint8"))
        return getattr(torch, name), f"torch.{name}"
    elif kind == "device":
        value = r.choice(("cpu", "cpu", "meta", "cuda", "nonsense", "cpu:3"))
    elif kind == "memory_format":
        return torch.channels_last, "torch.channels_last"
    elif kind == "Generator":
        return torch.Generator(), "torch.Generator()"
    else:
        return anything(torch, r)
    return value, repr(value)


def make_call(torch: Any, r: random.Random, row: Any) -> tuple[Any, str]:
    """A call of one form of an operator, and its text; `None` where the form does not exist."""
    match = re.match(r"([\w.]+)\((.*)\)", signature(row))
    if match is None:
        return None, signature(row)
    path, like = match[1], []  # type: str, list[Any]
    args, texts, kwargs = [], [], {}  # type: list[Any], list[str], dict[str, Any]
    keyword = False
    for part in re.split(r",\s*(?![^\[(]*[\])])", match[2]):
        if part in ("*", "/", ""):
            keyword = keyword or part == "*"
            continue
        kind, _, rest = part.partition(" ")
        name, has_default, _ = rest.partition("=")
        if has_default and r.random() < 0.5:
            keyword = True
            continue
        value, text = argument(torch, r, kind, like)
        if keyword:
            kwargs[name] = value
            texts.append(f"{name}={text}")
        else:
            args.append(value)
            texts.append(text)
    form = r.choice(("function", "function", "method", "inplace", "out"))
    if form == "out":
        kwargs["out"], text = argument(torch, r, "Tensor", like)
        texts.append(f"out={text}")
    target: Any = torch
    if form in ("method", "inplace") and args and isinstance(args[0], torch.Tensor):
        target, args = args[0], args[1:]
        shown, texts = texts[0], texts[1:]
        path = path.rsplit(".", 1)[-1] + ("_" if form == "inplace" else "")
    else:
        shown = "torch"
    return (lambda: operator.attrgetter(path)(target)(*args, **kwargs)), f"{shown}.{path}({', '.join(texts)})"


def processor_seconds(pid: int) -> float:
    """What a process has spent of the processors' time."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(seconds: float, seed: int = 0, only: str = "", start: int = 0, stop: int = 1 << 60) -> tuple[int, list[str]]:
    """Makes the calls from `start` to `stop`, as far as the time goes. Returns how many were made and what was found."""
    findings: list[str] = []
    end, calls, died = time.monotonic() + seconds, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end and died < 200 and start < stop:
            log = Path(folder) / f"{start}.log"
            command = [sys.executable, __file__, "--child", str(start), "--stop", str(stop), "--log", str(log)]
            command += ["--seed", str(seed), "--only", only]
            with open(Path(folder) / "stderr", "w+b") as stderr:
                environment = {**os.environ, "RUST_BACKTRACE": "0"}
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment)
                size, moved, spent, hung = -1, time.monotonic(), 0.0, False
                while process.poll() is None and time.monotonic() < end:
                    time.sleep(0.1)
                    now = log.stat().st_size if log.exists() else 0
                    if now != size:
                        size, moved, spent = now, time.monotonic(), processor_seconds(process.pid)
                        continue
                    # On a busy machine a call may take long and do little; one that waits for nothing does nothing.
                    waited, worked = time.monotonic() - moved, processor_seconds(process.pid) - spent
                    if worked > CALL_SECONDS or waited > 10 * CALL_SECONDS:
                        hung = True
                        break
                ended = process.poll()
                process.kill()
                process.wait()
                stderr.seek(0)
                said = stderr.read().decode(errors="replace")
            lines = log.read_text(errors="replace").split("\n") if log.exists() else []
            last, made, found = read(lines, start)
            calls += made
            findings += found
            if ended == 0:
                if "panicked" in said and not findings:
                    findings.append(f"somewhere between {start} and {last}\n    {said[-600:].strip()}")
                break
            if ended is not None or hung:
                died += 1
                how = "hangs" if hung else f"ends the process ({ended})"
                findings.append(f"{lines[-1] if lines else 'start'}\n    {how}: {said[-600:].strip()}")
            elif "panicked" in said:
                findings.append(f"somewhere before {last}\n    {said[-600:].strip()}")
            start = last + 1
    return calls, findings


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the signatures to call")
    parser.add_argument("--start", type=int, default=0, help="the first call's number")
    parser.add_argument("--stop", type=int, default=1 << 60, help="the number of the call before which to end")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--log", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(options.seed, options.child, options.stop, options.only, options.log)
    else:
        count, found = run(options.seconds, options.seed, options.only, options.start, options.stop)
        print("\n".join(found))
        print(f"{count} calls, {len(found)} findings")
        sys.exit(bool(found))
