"""Trains a digit classifier on the 10,000 MNIST digits beside this file and prints its accuracy on 2,000 unseen ones.

    python examples/mnist.py [--epochs 6] [--mlp] [--compile] [--device cpu] [--seed 0]
"""

import argparse
import gzip
import struct
import sys
import time
from pathlib import Path

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F

DATA = Path(__file__).parent / "data" / "mnist"


def read_idx(path):
    """An IDX file (MNIST's own format) as a uint8 tensor."""
    with gzip.open(path, "rb") as f:
        blob = f.read()
    rank = blob[3]
    sizes = struct.unpack(f">{rank}I", blob[4 : 4 + 4 * rank])
    return torch.frombuffer(bytearray(blob[4 + 4 * rank :]), dtype=torch.uint8).reshape(sizes)


def load(part):
    images = read_idx(DATA / f"{part}-images-idx3-ubyte.gz").to(torch.float32).unsqueeze(1)
    labels = read_idx(DATA / f"{part}-labels-idx1-ubyte.gz").to(torch.int64)
    return (images / 255 - 0.1307) / 0.3081, labels


class Net(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout1(x), 1)
        return self.fc2(self.dropout2(F.relu(self.fc1(x))))


def accuracy(model, images, labels):
    model.eval()
    right = 0
    with torch.no_grad():
        for i in range(0, len(labels), 500):
            right += int((model(images[i : i + 500]).argmax(1) == labels[i : i + 500]).sum())
    return right / len(labels)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cpu")
    options.add_argument("--mlp", action="store_true", help="three linear layers instead of convolutions")
    options.add_argument("--compile", action="store_true", help="run the model deferred and fused")
    o = options.parse_args()
    torch.manual_seed(o.seed)
    device = torch.device(o.device)
    train_images, train_labels = (t.to(device) for t in load("train"))
    test_images, test_labels = (t.to(device) for t in load("t10k"))
    if o.mlp:
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    else:
        model = Net()
    model.to(device)
    run = torch.compile(model) if o.compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=o.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, o.epochs)
    start = time.perf_counter()
    n = len(train_labels)
    for epoch in range(o.epochs):
        model.train()
        order = torch.randperm(n).to(device)
        for i in range(0, n, o.batch_size):
            batch = order[i : i + o.batch_size]
            optimizer.zero_grad()
            # Digits moved by a pixel are digits still: more of them than the 8,000 at hand.
            shift = torch.randint(-1, 2, (2,)).tolist()
            loss = F.cross_entropy(run(train_images[batch].roll(shift, (2, 3))), train_labels[batch])
            loss.backward()
            optimizer.step()
            if i // o.batch_size % 10 == 0:
                done = min(i + o.batch_size, n)
                print(f"\repoch {epoch + 1}/{o.epochs}  {done:5d}/{n}  loss {loss.item():.4f}", end="", flush=True)
        scheduler.step()
        print(f"\repoch {epoch + 1}/{o.epochs}  {n}/{n}  loss {loss.item():.4f}  {time.perf_counter() - start:5.1f} s", flush=True)
    print(f"test accuracy: {100 * accuracy(model, test_images, test_labels):.2f} %")


if __name__ == "__main__":
    sys.exit(main())
