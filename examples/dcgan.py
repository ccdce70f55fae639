"""Two convolutional networks play against each other until one of them draws digits.

The generator makes pictures from noise, the discriminator tells them from the digits beside this file. How well it draws
is said by a third network, which learned to read digits: the score is exp(mean KL(p(digit | picture) || p(digit))), 1
where pictures say nothing, 10 where every picture is surely some digit and all ten are drawn. Shows transposed
convolutions, two optimizers, detached halves of a graph and spectral normalisation.

Reaches a score of 4 in eight epochs (real digits 7.7, untrained 1.1), in less than a minute on two cores.

    python examples/dcgan.py [--epochs 8] [--device cpu] [--seed 0] [--short]
"""

import argparse
import time

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F
from flambeau.nn.utils.parametrizations import spectral_norm
from mnist import DATA, read_idx

NOISE = 32


def generator():
    return nn.Sequential(
        nn.Linear(NOISE, 64 * 7 * 7, bias=False),
        nn.Unflatten(1, (64, 7, 7)),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def discriminator():
    return nn.Sequential(
        spectral_norm(nn.Conv2d(1, 32, 4, stride=2, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(32, 64, 4, stride=2, padding=1)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        spectral_norm(nn.Linear(64 * 7 * 7, 1)),
    )


def reader(pictures, labels, epochs):
    """A network that has learned to read digits."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 10),
    ).to(pictures.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(pictures)).to(pictures.device).split(100):
            optimizer.zero_grad()
            F.cross_entropy(model(pictures[batch]), labels[batch]).backward()
            optimizer.step()
    return model


@torch.no_grad()
def score(reader, pictures):
    """The Inception score of Salimans et al. (2016), with a reader of digits in Inception's place."""
    log_p = reader(pictures).log_softmax(1)
    log_mean = log_p.logsumexp(0) - torch.log(torch.tensor(float(len(pictures))))
    return (log_p.exp() * (log_p - log_mean)).sum(1).mean().exp().item()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--batch-size", type=int, default=50)
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cpu")
    options.add_argument("--short", action="store_true", help="a few seconds' worth, as the tests run it")
    o = options.parse_args()
    torch.manual_seed(o.seed)
    pictures = read_idx(DATA / "train-images-idx3-ubyte.gz").unsqueeze(1).float().div(127.5).sub(1).to(o.device)
    labels = read_idx(DATA / "train-labels-idx1-ubyte.gz").long().to(o.device)
    if o.short:
        o.epochs, pictures, labels = 1, pictures[:1000], labels[:1000]
    judge = reader(pictures, labels, 2)
    net_g, net_d = generator().to(o.device), discriminator().to(o.device)
    optimizer_g = torch.optim.Adam(net_g.parameters(), lr=o.lr, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(net_d.parameters(), lr=o.lr, betas=(0.5, 0.999))
    fixed = torch.randn(1000, NOISE, device=o.device)

    def distance(drawn):
        """How far the mean drawn picture is from the mean real one."""
        return (drawn.mean(0) - pictures.mean(0)).abs().mean().item()

    with torch.no_grad():
        drawn = net_g(fixed)
    print(
        f"score of real digits {score(judge, pictures[:1000]):.2f}, untrained {score(judge, drawn):.2f}, distance {distance(drawn):.3f}"
    )
    one, zero = torch.ones(o.batch_size, 1, device=o.device), torch.zeros(o.batch_size, 1, device=o.device)
    start = time.perf_counter()
    for epoch in range(o.epochs):
        for i, batch in enumerate(torch.randperm(len(pictures)).to(o.device).split(o.batch_size)):
            real, fake = pictures[batch], net_g(torch.randn(o.batch_size, NOISE, device=o.device))
            optimizer_d.zero_grad()
            loss_d = F.binary_cross_entropy_with_logits(net_d(real), one)
            loss_d = loss_d + F.binary_cross_entropy_with_logits(net_d(fake.detach()), zero)
            loss_d.backward()
            optimizer_d.step()

            optimizer_g.zero_grad()
            loss_g = F.binary_cross_entropy_with_logits(net_d(fake), one)
            loss_g.backward()
            optimizer_g.step()
            if i % 10 == 9:
                print(
                    f"\repoch {epoch + 1}/{o.epochs}  loss_d {loss_d.item():.3f}  loss_g {loss_g.item():.3f}",
                    end="",
                    flush=True,
                )
        net_g.eval()
        with torch.no_grad():
            drawn = net_g(fixed)
        net_g.train()
        print(
            f"  score {score(judge, drawn):.2f}  distance {distance(drawn):.3f}  {time.perf_counter() - start:5.1f} s"
        )
    for rows in (
        drawn[:6]
        .reshape(6, 14, 2, 28)
        .mean(2)
        .add(1)
        .mul(5)
        .clamp(0, 9)
        .int()
        .permute(1, 0, 2)
        .reshape(14, -1)
        .tolist()
    ):
        print("".join(" .:-=+*#%@"[value] for value in rows))
    print(f"score: {score(judge, drawn):.2f}")


if __name__ == "__main__":
    main()
