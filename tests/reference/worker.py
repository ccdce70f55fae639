"""Runs cases of one file and prints a line for each as it ends: `run INDEX`, then `pass INDEX` or `fail INDEX REASON`.

    python worker.py FILE [--module flambeau] [--device cuda] [--compile] [--start N] [--indices FILE_OF_NUMBERS]

A process of its own per file, so that a case that crashes is one failure and not the end: see `runner.py`.
"""

import argparse
import importlib
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import cases  # noqa: E402

SECONDS_A_CASE = 20


def kind_of(file):
    """The kind of a file's cases."""
    return "checkpoints" if file.startswith("checkpoints") else next(k for k in cases.CHECKS if file.startswith(k))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--module", default="flambeau")
    parser.add_argument("--device")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--indices")
    options = parser.parse_args()

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a case prints is no answer
    torch = importlib.import_module(options.module)
    if options.device:
        torch.set_default_device(options.device)
        cases.Decoder.device = options.device
    wanted = None
    if options.indices:
        with open(options.indices) as f:
            wanted = {int(line) for line in f}

    def late(*_):
        raise cases.TimedOut(f"over {SECONDS_A_CASE} s")

    signal.signal(signal.SIGALRM, late)
    kind = kind_of(options.file)
    same_file = (x for x in cases.iterate(torch, HERE, [kind]) if x[1] == options.file)
    for index, (_, _, _, case, decoder) in enumerate(same_file):
        if index < options.start or (wanted is not None and index not in wanted):
            continue
        print("run", index, file=out)
        signal.alarm(SECONDS_A_CASE)
        try:
            if kind == "programs":
                cases.check_program(torch, decoder, case, options.compile)
            else:
                cases.CHECKS[kind](torch, decoder, case)
        except Exception as e:
            reason = f"{type(e).__name__}: {str(e)[:240]}".replace("\n", " ")
            print("fail", index, reason, file=out)
        else:
            print("pass", index, file=out)
        finally:
            signal.alarm(0)
    print("end", file=out)


if __name__ == "__main__":
    main()
