"""Saves a checkpoint again and again to the path it is given, until it is killed: `python save_forever.py PATH`."""

import itertools
import sys

import flambeau as torch

print("ready", flush=True)
for i in itertools.count(1):
    torch.save({"step": i, "values": torch.full((20_000,), float(i))}, sys.argv[1])
