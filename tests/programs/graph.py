"""A graph of four communities, made here instead of downloaded."""

import torch


def community_graph(nodes=240, kinds=4, seed=0):
    """Features (nodes × 12), labels and edges (2 × m): edges mostly within a community, features weakly tied to it."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, kinds, (nodes,), generator=g)
    same = labels[:, None] == labels[None, :]
    chance = torch.where(same, 0.08, 0.008)
    upper = torch.triu(torch.rand(nodes, nodes, generator=g) < chance, diagonal=1)
    edges = upper.nonzero().t().contiguous()
    centers = torch.randn(kinds, 12, generator=g)
    features = 0.6 * centers[labels] + torch.randn(nodes, 12, generator=g)
    return features, labels, edges
