"""Runs reference cases in processes of their own and keeps the lists of those that pass.

A case is named `FILE#INDEX`: the stem of its file in this folder and its place in it.
"""

import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A case that neither ends nor can be interrupted is stuck in native code; compiling kernels for it counts too.
STUCK_AFTER = 90

ALL_FILES = sorted(p.stem for p in HERE.glob("*.json")) + ["checkpoints/index"]

# What each list covers: files, flags of the worker, variables of its environment.
LISTS = {
    "passing": (ALL_FILES, [], {}),
    "compiled": (["programs"], ["--compile"], {}),
    "cuda": (["ops_float32", "ops_int64"], ["--device", "cuda"], {"FLAMBEAU_CUDA": "emulated"}),
}


def path_of(name):
    """The file that holds a list."""
    return HERE / ("passing.txt" if name == "passing" else f"passing_{name}.txt")


def read(name):
    """A list's cases by file; None where there is no list."""
    path = path_of(name)
    if not path.exists():
        return None
    listed = {}
    for line in path.read_text().split():
        file, index = line.rsplit("#", 1)
        listed.setdefault(file, set()).add(int(index))
    return listed


def write(name, listed):
    """Writes a list, sorted by file and place."""
    lines = [f"{file}#{index}\n" for file in sorted(listed) for index in sorted(listed[file])]
    path_of(name).write_text("".join(lines))


def run(name, file, indices=None, module="flambeau"):
    """Runs a file's cases as a list's flags say: those of `indices`, or all. Returns (passed, {index: reason})."""
    _, flags, environment = LISTS[name]
    passed, failed = set(), {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / "worker.py"), file, "--module", module, *flags]
        if indices is not None:
            wanted = Path(folder) / "indices"
            wanted.write_text("".join(f"{i}\n" for i in sorted(indices)))
            command += ["--indices", str(wanted)]
        start = 0
        while start is not None:
            start = _pass_over(command + ["--start", str(start)], environment, passed, failed)
    return passed, failed


def _pass_over(command, environment, passed, failed):
    """One process. Returns the case to go on from after a crash, or None at the end."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )
        lines = queue.Queue()

        def read_lines():
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read_lines, daemon=True).start()
        running, ended, stuck = None, False, False
        while True:
            try:
                line = lines.get(timeout=STUCK_AFTER)
            except queue.Empty:
                stuck = True
                process.kill()
                break
            if line is None:
                break
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "run":
                running = int(rest)
            elif word == "pass":
                passed.add(int(rest))
                running = None
            elif word == "fail":
                index, _, reason = rest.partition(" ")
                failed[int(index)] = reason
                running = None
            elif word == "end":
                ended = True
        code = process.wait()
        if ended:
            return None
        errors.seek(0)
        tail = errors.read()[-600:].strip()
        if running is None:
            raise RuntimeError(f"{' '.join(command)} ended with {code} outside any case:\n{tail}")
        failed[running] = "stuck in native code" if stuck else f"the process ended with {code}: {tail[-200:]}"
        return running + 1
