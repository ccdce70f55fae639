"""A graph convolutional network labels the nodes of a generated graph; messages go along a list of edges."""

import argparse

import torch
import torch.nn.functional as F
from graph import community_graph
from torch import nn
from torch.optim import Adam


class GraphConv(nn.Module):
    def __init__(self, input_dim, output_dim, use_bias=False):
        super().__init__()
        self.kernel = nn.Parameter(torch.Tensor(input_dim, output_dim))
        nn.init.xavier_normal_(self.kernel)
        self.bias = None
        if use_bias:
            self.bias = nn.Parameter(torch.Tensor(output_dim))
            nn.init.zeros_(self.bias)

    def forward(self, x, edges, weights):
        x = torch.mm(x, self.kernel)
        output = torch.zeros_like(x).index_add(0, edges[1], weights.unsqueeze(1) * x[edges[0]])
        return output if self.bias is None else output + self.bias


class GCN(nn.Module):
    def __init__(self, input_dim, hidden_dim, output_dim, use_bias=True, dropout_p=0.1):
        super().__init__()
        self.gc1 = GraphConv(input_dim, hidden_dim, use_bias=use_bias)
        self.gc2 = GraphConv(hidden_dim, output_dim, use_bias=use_bias)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, x, edges, weights):
        x = self.dropout(F.relu(self.gc1(x, edges, weights)))
        return F.log_softmax(self.gc2(x, edges, weights), dim=1)


def normalized(edges, nodes):
    """D^-1/2 (A + I) D^-1/2 as edges and their weights."""
    loops = torch.arange(nodes).repeat(2, 1)
    indices = torch.cat([edges, edges.flip(0), loops], dim=1)
    degree = torch.bincount(indices[0], minlength=nodes).float()
    values = degree.pow(-0.5)[indices[0]] * degree.pow(-0.5)[indices[1]]
    return indices, values


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    torch.manual_seed(13)
    features, labels, edges = community_graph()
    indices, weights = normalized(edges, len(labels))
    order = torch.randperm(len(labels))
    train, test = order[:60], order[60:]
    model = GCN(features.shape[1], 16, int(labels.max()) + 1)
    optimizer = Adam(model.parameters(), lr=0.02, weight_decay=5e-4)
    criterion = nn.NLLLoss()
    for epoch in range(args.epochs):
        model.train()
        optimizer.zero_grad()
        output = model(features, indices, weights)
        loss = criterion(output[train], labels[train])
        loss.backward()
        optimizer.step()
        if (epoch + 1) % 20 == 0:
            model.eval()
            with torch.no_grad():
                accuracy = (model(features, indices, weights).argmax(1)[test] == labels[test]).float().mean().item()
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
