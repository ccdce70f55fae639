"""A variational autoencoder of small pictures."""

import argparse

import torch
from pictures import Pictures
from torch import nn, optim
from torch.nn import functional as F


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 128)
        self.fc21 = nn.Linear(128, 10)
        self.fc22 = nn.Linear(128, 10)
        self.fc3 = nn.Linear(10, 128)
        self.fc4 = nn.Linear(128, 784)

    def encode(self, x):
        h = F.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 784))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def loss_function(reconstruction, x, mu, logvar):
    bce = F.binary_cross_entropy(reconstruction, x.view(-1, 784), reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--count", type=int, default=1280)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    loader = torch.utils.data.DataLoader(Pictures(args.count), batch_size=64, shuffle=True)
    test_loader = torch.utils.data.DataLoader(Pictures(256, seed=1), batch_size=64, shuffle=False)
    model = VAE()
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0
        for data, _ in loader:
            optimizer.zero_grad()
            loss = loss_function(*[(r := model(data))[0], data, r[1], r[2]])
            loss.backward()
            total += loss.item()
            optimizer.step()
        model.eval()
        test = 0
        with torch.no_grad():
            for data, _ in test_loader:
                reconstruction, mu, logvar = model(data)
                test += loss_function(reconstruction, data, mu, logvar).item()
            sample = model.decode(torch.randn(16, 10)).cpu().view(16, 1, 28, 28)
        print(f"epoch {epoch}: loss {total / len(loader.dataset):.3f}, test {test / len(test_loader.dataset):.3f}")
    print("sample", tuple(sample.shape), bool(((sample >= 0) & (sample <= 1)).all()))


if __name__ == "__main__":
    main()
