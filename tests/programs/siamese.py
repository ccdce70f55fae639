"""A siamese network says whether two pictures are of the same kind."""

import argparse
import random

import torch
import torch.nn as nn
import torch.optim as optim
from pictures import Pictures
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset


class Pairs(Dataset):
    def __init__(self, count, seed):
        self.pictures = Pictures(count, seed=seed)
        self.groups = {i: torch.where(self.pictures.targets == i)[0] for i in range(10)}

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        kind = random.randint(0, 9)
        first = random.choice(self.groups[kind].tolist())
        same = index % 2 == 0
        other = kind if same else (kind + random.randint(1, 9)) % 10
        second = random.choice(self.groups[other].tolist())
        target = torch.tensor(1.0 if same else 0.0, dtype=torch.float)
        return self.pictures.data[first], self.pictures.data[second], target


class SiameseNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((4, 4)),
        )
        self.fc = nn.Sequential(nn.Linear(2 * 256, 64), nn.ReLU(inplace=True), nn.Linear(64, 1))
        self.sigmoid = nn.Sigmoid()
        self.body.apply(self.init_weights)
        self.fc.apply(self.init_weights)

    def init_weights(self, m):
        if isinstance(m, nn.Linear):
            torch.nn.init.xavier_uniform_(m.weight)
            m.bias.data.fill_(0.01)

    def forward_once(self, x):
        output = self.body(x)
        return output.view(output.size()[0], -1)

    def forward(self, a, b):
        return self.sigmoid(self.fc(torch.cat((self.forward_once(a), self.forward_once(b)), 1)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    loader = DataLoader(Pairs(1280, 0), batch_size=64, shuffle=True)
    test_loader = DataLoader(Pairs(400, 1), batch_size=200)
    model = SiameseNetwork()
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.9)
    criterion = nn.BCELoss()
    for epoch in range(1, args.epochs + 1):
        model.train()
        for a, b, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(a, b).squeeze(), targets)
            loss.backward()
            optimizer.step()
        model.eval()
        correct, total = 0, 0.0
        with torch.no_grad():
            for a, b, targets in test_loader:
                outputs = model(a, b).squeeze()
                total += criterion(outputs, targets).sum().item()
                pred = torch.where(outputs > 0.5, 1, 0)
                correct += pred.eq(targets.view_as(pred)).sum().item()
        print(f"epoch {epoch}: loss {total / len(test_loader):.4f}, accuracy {correct / len(test_loader.dataset):.3f}")
        scheduler.step()


if __name__ == "__main__":
    main()
