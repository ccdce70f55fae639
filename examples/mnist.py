"""Trains a small network to read handwritten digits: the program of many a first tutorial.

    python examples/mnist.py [--epochs 3] [--mlp] [--compile] [--device cpu]

The digits stand beside this file: 8,000 to learn from and 2,000 to be tested on.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import time
from pathlib import Path

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F
from flambeau.utils.data import DataLoader, TensorDataset

DATA = Path(__file__).parent / "data" / "mnist"


def read_idx(path: Path) -> torch.Tensor:
    """Reads a file of the IDX format: two zero bytes, type, number of dimensions, the sizes, then the bytes."""
    content = bytearray(gzip.open(path).read())
    dimensions = content[3]
    sizes = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def load(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 1, 28, 28] with mean 0 and variance 1, and labels [N]."""
    images = read_idx(DATA / f"{kind}-images-idx3-ubyte.gz").float().div(255).sub(0.1307).div(0.3081)
    labels = read_idx(DATA / f"{kind}-labels-idx1-ubyte.gz").long()
    return images.unsqueeze(1), labels


class ConvNet(nn.Module):
    """Two convolutions, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(32 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.dropout(torch.flatten(x, 1))
        return self.fc2(F.relu(self.fc1(x)))


def mlp() -> nn.Module:
    """Two hidden layers, for comparison."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mlp", action="store_true", help="linear layers only")
    parser.add_argument("--compile", action="store_true", help="record and fuse the operators of the forward")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    train_images, train_labels = (t.to(device) for t in load("train"))
    test_images, test_labels = (t.to(device) for t in load("t10k"))
    batches = DataLoader(TensorDataset(train_images, train_labels), batch_size=options.batch_size, shuffle=True)

    model = (mlp() if options.mlp else ConvNet()).to(device)
    forward = torch.compile(model) if options.compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=options.lr, total_steps=options.epochs * len(batches)
    )

    start = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        model.train()
        total = torch.zeros((), device=device)
        for images, labels in batches:
            loss = F.cross_entropy(forward(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        print(f"epoch {epoch}: loss {total.item() / len(batches):.4f}, {time.perf_counter() - start:.1f} s", flush=True)

    model.eval()
    with torch.no_grad():
        correct = sum(
            int((forward(images).argmax(1) == labels).sum())
            for images, labels in zip(test_images.split(500), test_labels.split(500), strict=True)
        )
    print(f"test accuracy: {100 * correct / len(test_labels):.2f} %")


if __name__ == "__main__":
    main()
