"""How the cost of a step grows with batch, width and length: a chart in the documentation.

    python -m pip install . && python benches/growth.py [--threads N] [--out docs/growth.svg]

Each line doubles one size and keeps the others. A point is the time of a training step divided by its multiply-adds, relative
to the line's best: a flat line costs what the arithmetic costs, a step upward would be a cliff of the implementation.
"""

import argparse
import time

import flambeau

WIDTH, HEIGHT, LEFT, TOP = 640, 320, 56, 24
COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#7d3c98")


def mlp(batch, width):
    """A training step of two linear layers, and its multiply-adds."""
    nn = flambeau.nn
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    x = flambeau.randn(batch, width)

    def step():
        model.zero_grad()
        model(x).square().mean().backward()

    return step, 5 * batch * width * width


def convolution(batch, width):
    """Forward and backward of a 3 x 3 convolution over 28 x 28 pictures."""
    layer = flambeau.nn.Conv2d(width, width, 3, padding=1)
    x = flambeau.randn(batch, width, 28, 28)

    def step():
        layer.zero_grad()
        layer(x).square().mean().backward()

    return step, 2 * 9 * batch * width * width * 28 * 28


def attention(length):
    """Forward and backward of causal attention, 8 heads of 64."""
    q, k, v = (flambeau.randn(1, 8, length, 64).requires_grad_() for _ in range(3))

    def step():
        flambeau.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()

    return step, 7 * 8 * length * length * 64 // 2


LINES = (
    ("batch: linear layers of 256", [16 << i for i in range(9)], lambda n: mlp(n, 256)),
    ("width: linear layers, batch 64", [32 << i for i in range(7)], lambda n: mlp(64, n)),
    ("width: 3 x 3 convolution, batch 8", [16 << i for i in range(5)], lambda n: convolution(8, n)),
    ("length: causal attention", [64 << i for i in range(6)], attention),
)


def least(step, seconds=0.4):
    """The least time of a call."""
    step()
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return best


def chart(lines):
    """An SVG of lines (name, sizes, nanoseconds per thousand multiply-adds)."""
    points = max(len(sizes) for _, sizes, _ in lines)
    top = max(max(cost) / min(cost) for _, _, cost in lines)

    def at(i, value):
        x = LEFT + i * (WIDTH - LEFT - 16) / (points - 1)
        return f"{x:.1f},{TOP + (HEIGHT - TOP - 40) * (1 - (value - 1) / max(top - 1, 1)):.1f}"

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT + 20 * len(lines)}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT + 20 * len(lines)}" fill="white"/>',
        f'<text x="{LEFT}" y="16">time per multiply-add, relative to the line\'s least; each point doubles one size</text>',
    ]
    for value in range(1, int(top) + 2):
        if value <= top + 0.5:
            left, y = at(0, value).split(",")
            out.append(f'<line x1="{left}" y1="{y}" x2="{WIDTH - 16}" y2="{y}" stroke="#ddd"/>')
            out.append(f'<text x="{LEFT - 28}" y="{float(y) + 4}">{value}x</text>')
    for row, ((name, sizes, cost), colour) in enumerate(zip(lines, COLOURS, strict=True)):
        path = " ".join(at(i, c / min(cost)) for i, c in enumerate(cost))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = HEIGHT + 20 * row
        out.append(f'<rect x="{LEFT}" y="{y - 9}" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{LEFT + 20}" y="{y + 2}">{name}, {sizes[0]} to {sizes[-1]}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", help="write the chart here")
    options = parser.parse_args()
    if options.threads:
        flambeau.set_num_threads(options.threads)
    lines = []
    for name, sizes, make in LINES:
        cost = []
        for size in sizes:
            step, work = make(size)
            cost.append(least(step) / work * 1e12)
        print(f"{name}: ns per thousand multiply-adds")
        print("  " + "  ".join(f"{s}: {c:.1f}" for s, c in zip(sizes, cost, strict=True)))
        lines.append((name, sizes, cost))
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            file.write(chart(lines))


if __name__ == "__main__":
    main()
