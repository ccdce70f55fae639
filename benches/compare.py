"""Times pairs of the same expression in Flambeau and in an installed PyTorch.

    python -m pip install . torch && python benches/compare.py [--threads N] [--only SUBSTRING] [--seconds S] [--cases FILE]

The two take turns, round by round, so that a machine that changes speed changes it for both; a row gives each one's
median and the median of the rounds' ratios (above 1: Flambeau is faster). `--cases benches/breadth.py` times a few hundred
single operators instead.
"""

import argparse
import importlib
import runpy
import statistics
import time

CASES = {
    "add, 8 x 64": ("a, b = t.ones(8, 64), t.ones(8, 64)", "a + b"),
    "add, 1M": ("a, b = t.ones(1 << 20), t.ones(1 << 20)", "a + b"),
    "exp, 1M": ("a = t.linspace(-3, 3, 1 << 20)", "t.exp(a)"),
    "sum, 1M": ("a = t.ones(1 << 20)", "a.sum()"),
    "sum over dim 0, 1024 x 1024": ("a = t.ones(1024, 1024)", "a.sum(0)"),
    "softmax, 1024 x 1024": ("a = t.linspace(0, 1, 1 << 20).reshape(1024, 1024)", "t.softmax(a, -1)"),
    "a + b.T, 1024 x 1024": ("a, b = t.ones(1024, 1024), t.ones(1024, 1024)", "a + b.t()"),
    "matmul, 32": ("a, b = t.ones(32, 32), t.ones(32, 32)", "a @ b"),
    "matmul, 512": ("a, b = t.ones(512, 512), t.ones(512, 512)", "a @ b"),
    "linear 64 x 784 to 256": ("m, x = t.nn.Linear(784, 256), t.ones(64, 784)", "m(x)"),
    "conv2d 8 x 16 x 32 x 32, 3 x 3": ("m, x = t.nn.Conv2d(16, 32, 3, padding=1), t.ones(8, 16, 32, 32)", "m(x)"),
    "layer_norm, 256 x 768": ("m, x = t.nn.LayerNorm(768), t.ones(256, 768)", "m(x)"),
    "index, t[0]": ("a = t.ones(8, 8)", "a[0]"),
    "view": ("a = t.ones(8, 8)", "a.view(-1)"),
    "training step, small MLP": (
        "m = t.nn.Sequential(t.nn.Linear(16, 64), t.nn.ReLU(), t.nn.Linear(64, 1)); x = t.ones(32, 16)\n"
        "o = t.optim.Adam(m.parameters())",
        "o.zero_grad(); m(x).square().mean().backward(); o.step()",
    ),
}


def prepare(module, setup, statement):
    """A function that runs the statement a number of times and gives the seconds a run took."""
    body = "\n".join(f"    {line}" for line in setup.split("\n"))
    source = (
        f"def make(t, clock):\n{body}\n    def run(n):\n        start = clock()\n"
        f"        for _ in range(n):\n            {statement}\n        return (clock() - start) / n\n    return run\n"
    )
    names = {}
    exec(source, names)
    return names["make"](module, time.perf_counter)


def measure(ours, theirs, seconds):
    """Medians of both and of their ratio, over rounds in turns of about 10 ms each."""
    counts = []
    for run in (ours, theirs):
        run(1)
        counts.append(max(1, int(0.01 / max(run(3), 1e-8))))
    rounds = []
    end = time.perf_counter() + seconds
    while len(rounds) < 5 or time.perf_counter() < end:
        rounds.append((ours(counts[0]), theirs(counts[1])))
    a, b = zip(*rounds, strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(y / x for x, y in rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each row")
    parser.add_argument("--cases", help="a Python file whose CASES to time")
    options = parser.parse_args()
    cases = runpy.run_path(options.cases)["CASES"] if options.cases else CASES
    import flambeau

    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError:
        raise SystemExit("benches/compare.py compares with PyTorch: install torch first") from None
    if options.threads:
        flambeau.set_num_threads(options.threads)
        torch.set_num_threads(options.threads)
    print(f"threads: {flambeau.get_num_threads()} and {torch.get_num_threads()}; torch {torch.__version__}")
    print(f"{'':34s} {'flambeau µs':>12s} {'torch µs':>12s} {'ratio':>7s}")
    ratios = []
    for name, (setup, statement) in cases.items():
        if options.only not in name:
            continue
        runs = [prepare(module, setup, statement) for module in (flambeau, torch)]
        ours, theirs, ratio = measure(*runs, options.seconds)
        print(f"{name:34s} {ours * 1e6:12.2f} {theirs * 1e6:12.2f} {ratio:7.2f}", flush=True)
        ratios.append(ratio)
    slower = sum(ratio < 0.95 for ratio in ratios)
    print(f"geometric mean {statistics.geometric_mean(ratios):.2f} over {len(ratios)}; below 0.95: {slower}")


if __name__ == "__main__":
    main()
