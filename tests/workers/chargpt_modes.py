"""Trains the GPT of `examples/chargpt.py` a while in one mode; prints what the modes are compared by.

    python chargpt_modes.py eager|model|step STEPS

`model` compiles the module alone (backward and optimizer outside), `step` a function of forward, backward and optimizer.
"""

import hashlib
import importlib.util
import json
import resource
import sys
import time
from pathlib import Path

import flambeau as torch
from flambeau.nn import functional as F

spec = importlib.util.spec_from_file_location("chargpt", Path(__file__).parents[2] / "examples/chargpt.py")
chargpt = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chargpt)


def main():
    mode, steps = sys.argv[1], int(sys.argv[2])
    torch.manual_seed(0)
    model = chargpt.GPT(64)
    data = torch.randint(0, 64, (10_000,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    forward = torch.compile(model) if mode == "model" else model

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(x).reshape(-1, 64), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    run = torch.compile(step) if mode == "step" else step
    losses, times = [], []
    for _ in range(steps):
        starts = torch.randint(0, len(data) - chargpt.CONTEXT - 1, (12, 1))
        rows = data[starts + torch.arange(chargpt.CONTEXT + 1)]
        begin = time.perf_counter()
        losses.append(run(rows[:, :-1], rows[:, 1:]).item())
        times.append(time.perf_counter() - begin)
        schedule.step()
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters()))
    print(json.dumps({
        "parameters": digest.hexdigest(), "last_loss": losses[-1], "plans": torch.compiler.plan_stats(),
        "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "median_step_ms": sorted(times)[len(times) // 2] * 1e3,
        "first_step_ms": times[0] * 1e3,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
