"""Whether results depend on the number of threads: every workload of a bench at 1, 2 and 8 threads, bit by bit.

    python benches/threads.py WORKLOADS.py

The file has a dict `WORKLOADS` of name → function of a module that gives a function to call (the bench that compares with PyTorch is
one). What is compared: what three calls return, and the values and gradients of all tensors, modules and parameters that the
function holds. Exits with 1 when any differ.
"""

import argparse
import hashlib
import importlib.util
import sys

import flambeau


def collect(held, out, seen):
    """The bytes of everything in `held`."""
    if any(held is other for other in seen):
        return
    seen.append(held)
    if isinstance(held, flambeau.Tensor):
        dense = held.detach().to_dense() if held.is_sparse else held.detach()
        flat = dense.contiguous().reshape(-1)
        out.append(flat.view(flambeau.uint8).numpy().tobytes() if flat.numel() else b"")
        if held.grad is not None:
            collect(held.grad, out, seen)
    elif isinstance(held, flambeau.nn.Module):
        for tensor in (*held.parameters(), *held.buffers()):
            collect(tensor, out, seen)
    elif isinstance(held, flambeau.optim.Optimizer):
        for group in held.param_groups:
            collect(list(group["params"]), out, seen)
    elif isinstance(held, (list, tuple)):
        for item in held:
            collect(item, out, seen)
    elif callable(held):
        for cell in getattr(held, "__closure__", None) or ():
            collect(cell.cell_contents, out, seen)


def digest(make, threads):
    """A hash of all that a workload computes at so many threads."""
    flambeau.set_num_threads(threads)
    flambeau.manual_seed(0)
    call = make(flambeau)
    out, seen = [], []
    collect([call() for _ in range(3)], out, seen)
    collect(call, out, seen)
    return hashlib.sha1(b"|".join(out)).hexdigest(), sum(map(len, out))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads")
    spec = importlib.util.spec_from_file_location("workloads", parser.parse_args().workloads)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    differ = []
    for name, make in module.WORKLOADS.items():
        first, *others = [digest(make, threads) for threads in (1, 2, 8)]
        same = all(other == first for other in others)
        differ += [] if same else [name]
        print(f"{name:28} {'equal' if same else 'DIFFERENT'}  {first[1]} bytes", flush=True)
    print(f"{len(module.WORKLOADS) - len(differ)} of {len(module.WORKLOADS)} workloads equal at 1, 2 and 8 threads")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
