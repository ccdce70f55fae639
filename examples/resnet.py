"""Trains a small residual network to name eight shapes in pictures that this program draws.

A picture is 32 x 32 in colour: one shape of any place, size, angle and colour, over a background that shades from one
colour to another, with noise. Shows residual blocks, batch normalisation, SGD with momentum, a one-cycle schedule and
pictures made with tensor arithmetic alone.

Names 94 % of unseen pictures rightly, in less than a minute and a half on two cores.

    python examples/resnet.py [--epochs 10] [--device cpu] [--seed 0] [--short]
"""

import argparse
import math
import time

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F

KINDS = ("disc", "ring", "square", "frame", "triangle", "cross", "bar", "half disc")


def draw(count, kinds, size=32):
    """`count` pictures (count, 3, size, size) of the first `kinds` shapes, and the shapes' numbers."""
    labels = torch.randint(0, kinds, (count,))
    line = torch.linspace(-1, 1, size)
    radius = 0.35 + 0.3 * torch.rand(count, 1, 1)
    x = (line - 0.7 * (torch.rand(count, 1, 1) - 0.5)) / radius
    y = (line[:, None] - 0.7 * (torch.rand(count, 1, 1) - 0.5)) / radius
    angle = 2 * math.pi * torch.rand(count, 1, 1)
    # In the shape's own axes every shape is inside the circle of radius one.
    u, v = x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()
    far, chess = u.hypot(v), torch.maximum(u.abs(), v.abs())
    inside = torch.stack(
        [
            far < 0.9,
            (far < 0.95) & (far > 0.5),
            chess < 0.75,
            (chess < 0.8) & (chess > 0.45),
            (v > -0.5) & (v + math.sqrt(3) * u.abs() < 1),
            (chess < 0.95) & (torch.minimum(u.abs(), v.abs()) < 0.25),
            (u.abs() < 1) & (v.abs() < 0.28),
            (far < 1) & (v > 0),
        ]
    )[labels, torch.arange(count)].unsqueeze(1)
    color, from_, to = torch.rand(3, count, 3, 1, 1)
    shade = torch.linspace(0, 1, size).view(1, 1, -1, 1)
    ground = from_ + (to - from_) * shade
    # A shape in its ground's color would be hidden: push it away.
    color = torch.where((color - ground.mean(2, keepdim=True)).abs() < 0.25, (color + 0.5) % 1, color)
    return torch.where(inside, color, ground) + 0.08 * torch.randn(count, 3, size, size), labels


class Block(nn.Module):
    """Two 3 x 3 convolutions added to their input, which a 1 x 1 convolution fits where sizes change."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A convolution, stages of blocks of which each halves the picture, and a linear layer over the mean."""

    def __init__(self, kinds, widths=(16, 32, 64), blocks=1):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages, channels = [], widths[0]
        for width in widths:
            for i in range(blocks):
                stages.append(Block(channels, width, 2 if i == 0 else 1))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, kinds)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.stages(self.stem(x)), 1).flatten(1))


@torch.no_grad()
def accuracy(model, pictures, labels):
    model.eval()
    return torch.cat([model(part).argmax(1) for part in pictures.split(250)]).eq(labels).float().mean().item()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--pictures", type=int, default=4000)
    options.add_argument("--kinds", type=int, default=len(KINDS), help="how many of the shapes to tell apart")
    options.add_argument("--batch-size", type=int, default=50)
    options.add_argument("--lr", type=float, default=0.05)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cpu")
    options.add_argument("--short", action="store_true", help="a few seconds' worth, as the tests run it")
    o = options.parse_args()
    if o.short:
        o.epochs, o.pictures, o.kinds = 2, 1000, 2
    torch.manual_seed(o.seed)
    pictures, labels = (t.to(o.device) for t in draw(o.pictures, o.kinds))
    unseen, truth = (t.to(o.device) for t in draw(1000, o.kinds))
    model = ResNet(o.kinds).to(o.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=o.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = o.epochs * (o.pictures // o.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=o.lr, total_steps=steps)
    start = time.perf_counter()
    for epoch in range(o.epochs):
        model.train()
        total = 0.0
        order = torch.randperm(o.pictures).to(o.device)
        for i, batch in enumerate(order.split(o.batch_size)):
            x = pictures[batch]
            if i % 2:
                x = x.flip(3)
            loss = F.cross_entropy(model(x), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            print(f"\repoch {epoch + 1}/{o.epochs}  loss {total / (i + 1):.4f}", end="", flush=True)
        print(f"  {time.perf_counter() - start:5.1f} s")
    print(f"unseen pictures named rightly: {100 * accuracy(model, unseen, truth):.1f} %")


if __name__ == "__main__":
    main()
