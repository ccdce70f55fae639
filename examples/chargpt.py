"""Trains a small character-level transformer on a text and lets it write.

    python examples/chargpt.py [--text FILE] [--steps 1000] [--compile] [--device cpu]

Without a text it reads this project's own documents and source.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F

CONTEXT, WIDTH, HEADS, LAYERS = 64, 128, 4, 4


class Block(nn.Module):
    """Causal attention and a two-layer network, each after a norm and with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        heads = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CharGPT(nn.Module):
    """Characters in, scores of the next character out."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.token = nn.Embedding(characters, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, characters, bias=False)
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.position(positions)
        return self.head(self.norm(self.blocks(x)))


def default_text() -> str:
    """The project's own documents and source, in the order of their paths."""
    root = Path(__file__).resolve().parent.parent
    skip = {".git", ".venv", "target", "node_modules", "build"}
    paths = sorted(
        p
        for suffix in ("md", "rs", "py")
        for p in root.rglob(f"*.{suffix}")
        if not skip & set(p.relative_to(root).parts)
    )
    return "\n".join(p.read_text(encoding="utf-8", errors="ignore") for p in paths)


def batch_of(data: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random stretches of a text and, for each, the one that begins a character later."""
    starts = torch.randint(len(data) - CONTEXT - 1, (size, 1))
    window = data[(starts + torch.arange(CONTEXT + 1)).to(data.device)]
    return window[:, :-1], window[:, 1:]


def loss_of(model: nn.Module, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def sample(model: nn.Module, tokens: torch.Tensor, length: int) -> torch.Tensor:
    """Writes on, a character at a time, each drawn by its probability."""
    for _ in range(length):
        scores = model(tokens[:, -CONTEXT:])[:, -1]
        tokens = torch.cat([tokens, torch.multinomial(torch.softmax(scores / 0.8, -1), 1)], 1)
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a text file to learn from")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=300, help="characters to write at the end")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="record and fuse the operators of the forward")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    text = options.text.read_text(encoding="utf-8") if options.text else default_text()
    characters = sorted(set(text))
    code = {c: i for i, c in enumerate(characters)}
    data = torch.tensor([code[c] for c in text], device=options.device)
    train, validation = data[: int(0.9 * len(data))], data[int(0.9 * len(data)) :]
    model = CharGPT(len(characters)).to(options.device)
    forward = torch.compile(model) if options.compile else model
    count = sum(p.numel() for p in model.parameters())
    print(f"{len(text)} characters, {len(characters)} different; {count} parameters")

    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps, eta_min=options.lr / 10)
    start = time.perf_counter()
    for step in range(1, options.steps + 1):
        loss = loss_of(forward, *batch_of(train, options.batch_size))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(options.steps // 10, 1) == 0 or step == options.steps:
            model.eval()
            with torch.no_grad():
                losses = [loss_of(forward, *batch_of(validation, options.batch_size)).item() for _ in range(8)]
            model.train()
            elapsed = time.perf_counter() - start
            print(
                f"step {step}: training loss {loss.item():.3f}, validation loss {sum(losses) / len(losses):.3f}, {elapsed:.1f} s",
                flush=True,
            )

    model.eval()
    with torch.no_grad():
        written = sample(model, torch.tensor([[code["\n"]]], device=options.device), options.sample)
    print("".join(characters[i] for i in written[0].tolist()))


if __name__ == "__main__":
    main()
