"""A network with sub-pixel convolution learns to enlarge pictures; whole models are saved and read again."""

import argparse
import os
import tempfile
from math import log10

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.nn.init as init
import torch.optim as optim
from pictures import Pictures
from torch.utils.data import DataLoader


class Net(nn.Module):
    def __init__(self, upscale_factor):
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(1, 32, (5, 5), (1, 1), (2, 2))
        self.conv2 = nn.Conv2d(32, 32, (3, 3), (1, 1), (1, 1))
        self.conv3 = nn.Conv2d(32, 16, (3, 3), (1, 1), (1, 1))
        self.conv4 = nn.Conv2d(16, upscale_factor**2, (3, 3), (1, 1), (1, 1))
        self.pixel_shuffle = nn.PixelShuffle(upscale_factor)
        self._initialize_weights()

    def forward(self, x):
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x))
        x = self.relu(self.conv3(x))
        return self.pixel_shuffle(self.conv4(x))

    def _initialize_weights(self):
        init.orthogonal_(self.conv1.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv2.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv3.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv4.weight)


def smooth(batch):
    return F.avg_pool2d(batch, 5, 1, 2, count_include_pad=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--upscale_factor", type=int, default=2)
    parser.add_argument("--nEpochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.003)
    opt = parser.parse_args()
    torch.manual_seed(123)
    loader = DataLoader(Pictures(256, size=32), batch_size=16, shuffle=True)
    test_loader = DataLoader(Pictures(64, size=32, seed=1), batch_size=16)
    model = Net(opt.upscale_factor)
    criterion = nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=opt.lr)
    for epoch in range(1, opt.nEpochs + 1):
        epoch_loss = 0
        for pictures, _ in loader:
            target = smooth(pictures)
            small = F.interpolate(target, scale_factor=1 / opt.upscale_factor, mode="bicubic", align_corners=False)
            optimizer.zero_grad()
            loss = criterion(model(small), target)
            epoch_loss += loss.item()
            loss.backward()
            optimizer.step()
        psnr = 0
        with torch.no_grad():
            for pictures, _ in test_loader:
                target = smooth(pictures)
                small = F.interpolate(target, scale_factor=1 / opt.upscale_factor, mode="bicubic", align_corners=False)
                psnr += 10 * log10(1 / criterion(model(small), target).item())
        print(f"epoch {epoch}: loss {epoch_loss / len(loader):.5f}, PSNR {psnr / len(test_loader):.2f} dB")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.pth")
        torch.save(model, path)
        again = torch.load(path, weights_only=False)
    print("same", torch.equal(again(small), model(small)), type(again) is Net)


if __name__ == "__main__":
    main()
