"""Trains a recommender of DLRM's shape on clicks that this program makes up.

Every visitor has a few numbers, a handful of tags (a bag of any length) and is shown an item of a category; hidden tastes
decide about clicks. The network embeds tags, items and categories, multiplies every pair of embeddings, and reads the
products (Naumov et al., 2019). Shows EmbeddingBag with offsets and sparse gradients, Adagrad on them, and pairs by
triu_indices.

Reaches an area under the ROC curve of 0.86 on unseen visits (hidden tastes themselves: 0.92), in seconds on two cores.

    python examples/dlrm.py [--epochs 2] [--device cpu] [--seed 0] [--short]
"""

import argparse
import time

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F

NUMBERS, TAGS, ITEMS, CATEGORIES = 6, 500, 1000, 30


class Visits:
    """`count` visits: numbers, tags as one list with the start of every bag, items, categories, clicks, and their chances."""

    def __init__(self, count, tastes, device):
        numbers = torch.randn(count, NUMBERS)
        lengths = torch.randint(1, 9, (count,))
        offsets = lengths.cumsum(0) - lengths
        # Few are common and most are rare.
        tags = (TAGS * torch.rand(int(lengths.sum())) ** 2).long()
        items = (ITEMS * torch.rand(count) ** 2).long()
        categories = tastes["category of item"][items]
        likes = F.embedding_bag(tags, tastes["tags"], offsets, mode="mean") * lengths.unsqueeze(1).sqrt()
        offer = tastes["items"][items] + tastes["categories"][categories]
        logits = 1.2 * (likes * offer).sum(1) + numbers @ tastes["numbers"] - 1.0
        self.chances = logits.sigmoid().to(device)
        self.clicks = torch.bernoulli(logits.sigmoid()).to(device)
        self.numbers, self.tags, self.offsets, self.lengths = (t.to(device) for t in (numbers, tags, offsets, lengths))
        self.items, self.categories = items.to(device), categories.to(device)

    def batch(self, rows):
        """Inputs of the network and clicks, of a tensor of rows."""
        lengths = self.lengths[rows]
        offsets = lengths.cumsum(0) - lengths
        # Positions of the rows' tags: each bag's start, and a count within the bag.
        within = torch.arange(int(lengths.sum()), device=rows.device) - offsets.repeat_interleave(lengths)
        tags = self.tags[self.offsets[rows].repeat_interleave(lengths) + within]
        return (self.numbers[rows], tags, offsets, self.items[rows], self.categories[rows]), self.clicks[rows]


def tastes(width=8):
    """What clicks are decided by."""
    return {
        "numbers": 0.4 * torch.randn(NUMBERS),
        "tags": torch.randn(TAGS, width),
        "items": 0.6 * torch.randn(ITEMS, width),
        "categories": 0.6 * torch.randn(CATEGORIES, width),
        "category of item": torch.randint(0, CATEGORIES, (ITEMS,)),
    }


class DLRM(nn.Module):
    """Embeddings, the products of all their pairs, and two perceptrons."""

    def __init__(self, width=16):
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(NUMBERS, 32), nn.ReLU(), nn.Linear(32, width), nn.ReLU())
        self.tags = nn.EmbeddingBag(TAGS, width, mode="sum", sparse=True)
        self.items = nn.EmbeddingBag(ITEMS, width, mode="sum", sparse=True)
        self.categories = nn.EmbeddingBag(CATEGORIES, width, mode="sum", sparse=True)
        for table in self.tables():
            nn.init.uniform_(table.weight, -0.3, 0.3)
        self.register_buffer("pairs", torch.triu_indices(4, 4, offset=1))
        self.top = nn.Sequential(nn.Linear(width + self.pairs.shape[1], 64), nn.ReLU(), nn.Linear(64, 1))

    def tables(self):
        return [self.tags, self.items, self.categories]

    def forward(self, numbers, tags, offsets, items, categories):
        dense = self.bottom(numbers)
        embedded = [self.tags(tags, offsets), self.items(items.unsqueeze(1)), self.categories(categories.unsqueeze(1))]
        every = torch.stack([dense, *embedded], 1)
        products = (every @ every.mT)[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([dense, products], 1)).squeeze(1)


def area(scores, clicks):
    """The chance that a click has a higher score than no click: the area under the ROC curve, from ranks."""
    rank = torch.empty_like(scores, dtype=torch.float64)
    rank[scores.argsort()] = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=scores.device)
    hits = clicks.sum().double()
    return ((rank[clicks.bool()].sum() - hits * (hits + 1) / 2) / (hits * (len(clicks) - hits))).item()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--visits", type=int, default=200_000)
    options.add_argument("--batch-size", type=int, default=200)
    options.add_argument("--lr", type=float, default=0.05)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cpu")
    options.add_argument("--short", action="store_true", help="a few seconds' worth, as the tests run it")
    o = options.parse_args()
    if o.short:
        o.epochs, o.visits = 1, 40_000
    torch.manual_seed(o.seed)
    hidden = tastes()
    visits, unseen = Visits(o.visits, hidden, o.device), Visits(20_000, hidden, o.device)
    model = DLRM().to(o.device)
    tables = [table.weight for table in model.tables()]
    optimizers = [
        torch.optim.Adagrad(tables, lr=o.lr),
        torch.optim.Adam([*model.bottom.parameters(), *model.top.parameters()], lr=2e-3),
    ]

    @torch.no_grad()
    def unseen_area():
        inputs, clicks = unseen.batch(torch.arange(len(unseen.clicks), device=o.device))
        return area(model(*inputs), clicks)

    print(
        f"{int(100 * visits.clicks.mean())} % of visits click; area by the hidden tastes {area(unseen.chances, unseen.clicks):.3f}"
    )
    start = time.perf_counter()
    for epoch in range(o.epochs):
        total = 0.0
        for i, rows in enumerate(torch.randperm(o.visits).to(o.device).split(o.batch_size)):
            inputs, clicks = visits.batch(rows)
            loss = F.binary_cross_entropy_with_logits(model(*inputs), clicks)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            total += loss.item()
            if i % 20 == 19:
                print(f"\repoch {epoch + 1}/{o.epochs}  loss {total / (i + 1):.4f}", end="", flush=True)
        print(f"  area {unseen_area():.3f}  {time.perf_counter() - start:5.1f} s")
    print(f"area under the curve: {unseen_area():.3f}")


if __name__ == "__main__":
    main()
