"""Pictures of ten kinds, made here instead of downloaded: noisy copies of ten smooth patterns, one channel, `size` squared."""

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset


class Pictures(Dataset):
    """`count` pairs of picture and label; the patterns are the same for every seed."""

    def __init__(self, count, size=28, seed=0, transform=None):
        coarse = torch.rand(10, 1, 5, 5, generator=torch.Generator().manual_seed(1234))
        patterns = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
        g = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(0, 10, (count,), generator=g)
        noise = 0.15 * torch.randn(count, 1, size, size, generator=g)
        self.data = (patterns[self.targets] + noise).clamp(0, 1)
        self.transform = transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        picture = self.data[index]
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, int(self.targets[index])
