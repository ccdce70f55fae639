"""Trains a small character-level GPT on a text file, by default the project's own documents, and writes a sample.

    python examples/chargpt.py [FILE] [--steps 500] [--compile] [--device cpu] [--seed 0]
"""

import argparse
import math
import time
from pathlib import Path

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F

ROOT = Path(__file__).parent.parent
LAYERS, WIDTH, HEADS, CONTEXT = 4, 128, 4, 64


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm and added to its input."""

    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (z.view(b, t, HEADS, WIDTH // HEADS).transpose(1, 2) for z in self.qkv(self.ln1(x)).split(WIDTH, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, WIDTH)
        x = x + self.proj(y)
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class GPT(nn.Module):
    """Token and position embeddings, blocks, and a linear layer to the next character's logits."""

    def __init__(self, vocabulary):
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.ln, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary, bias=False)

    def forward(self, i):
        x = self.tok(i) + self.pos(torch.arange(i.shape[1], device=i.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


def documents():
    paths = sorted(p for pattern in ("*.md", "crates/*/src/*.rs", "python/flambeau/*.py") for p in ROOT.glob(pattern))
    return "\n".join(p.read_text() for p in paths)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", nargs="?")
    options.add_argument("--steps", type=int, default=500)
    options.add_argument("--batch-size", type=int, default=12)
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cpu")
    options.add_argument("--sample", type=int, default=300, help="characters to write at the end")
    options.add_argument("--compile", action="store_true")
    o = options.parse_args()
    torch.manual_seed(o.seed)
    text = Path(o.file).read_text() if o.file else documents()
    letters = sorted(set(text))
    number = {c: i for i, c in enumerate(letters)}
    data = torch.tensor([number[c] for c in text], dtype=torch.int64)
    split = int(0.9 * len(data))
    train, held = data[:split], data[split:]
    model = GPT(len(letters)).to(o.device)
    run = torch.compile(model) if o.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=o.lr)
    warmup = max(1, o.steps // 20)

    def rate(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, o.steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    def batch(source):
        starts = torch.randint(0, len(source) - CONTEXT - 1, (o.batch_size, 1))
        rows = source[starts + torch.arange(CONTEXT + 1)].to(o.device)
        return rows[:, :-1], rows[:, 1:]

    def loss_of(f, x, y):
        return F.cross_entropy(f(x).reshape(-1, len(letters)), y.reshape(-1))

    def validation():
        with torch.no_grad():
            return sum(loss_of(model, *batch(held)).item() for _ in range(10)) / 10

    start = time.perf_counter()
    for step in range(o.steps):
        optimizer.zero_grad()
        loss = loss_of(run, *batch(train))
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == o.steps - 1:
            print(f"\rstep {step + 1}/{o.steps}  loss {loss.item():.4f}  {time.perf_counter() - start:5.1f} s", end="", flush=True)
    print(f"\nvalidation loss: {validation():.4f}")
    out = torch.tensor([[number["\n"] if "\n" in number else 0]])
    with torch.no_grad():
        for _ in range(o.sample):
            logits = model(out[:, -CONTEXT:].to(o.device))[:, -1].cpu()
            out = torch.cat([out, torch.multinomial(torch.softmax(logits, -1), 1)], 1)
    print("".join(letters[i] for i in out[0].tolist()))


if __name__ == "__main__":
    main()
