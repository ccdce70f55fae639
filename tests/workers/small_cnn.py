"""Trains a small convolutional network for 20 steps of batch 8 on one device; prints the losses.

python small_cnn.py cpu|cuda
"""

import json
import sys

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F


def main():
    device = sys.argv[1]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    )  # fmt: skip
    images, labels = torch.randn(20, 8, 1, 12, 12), torch.randint(0, 4, (20, 8))
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for x, y in zip(images.to(device), labels.to(device), strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(json.dumps({"losses": losses, "device": str(next(model.parameters()).device)}))


if __name__ == "__main__":
    main()
