"""Trains a network to write down the letters of made-up speech, without being told when each is spoken.

Every letter has a sound of its own: three tones of the spectrum, which glide. Speakers have pitches and tempos, say
letters as long as they like, pause or do not, and there is noise. Convolutions and a GRU in both directions give the
chances of letters or silence in every frame, and the CTC loss (Graves et al., 2006) sums over all alignments. Shows
ctc_loss with lengths, packed sequences and greedy decoding.

Hears at most 2 letters in a hundred wrong of unseen speakers, after half a minute on two cores.

    python examples/ctc.py [--steps 500] [--device cpu] [--seed 0] [--short]
"""

import argparse
import time

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F
from flambeau.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

LETTERS = "abcdefghijkl"
BANDS = 24


def voices():
    """Where in the spectrum each letter's tones begin and end, and how loud they are."""
    return torch.rand(len(LETTERS), 3, 2), 0.5 + 0.5 * torch.rand(len(LETTERS), 3)


def speak(voices, letters):
    """Frames (time, BANDS) of a new speaker who says letters."""
    tones, loudness = voices
    pitch, tempo = 0.06 * (torch.rand(()) - 0.5), 0.8 + 0.5 * torch.rand(())
    lengths = (tempo * torch.randint(5, 10, (len(letters),))).long()
    pauses = torch.randint(0, 4, (len(letters),))
    sounds = []
    for letter, length, pause in zip(letters.tolist(), lengths.tolist(), pauses.tolist(), strict=True):
        way = torch.linspace(0, 1, length).view(-1, 1, 1)
        place = tones[letter, :, :1] + (tones[letter, :, 1:] - tones[letter, :, :1]) * way + pitch
        bands = torch.linspace(0, 1, BANDS)
        sound = (loudness[letter].unsqueeze(1) * torch.exp(-(((bands - place) / 0.05) ** 2))).sum(1)
        sounds += [sound, torch.zeros(pause, BANDS)]
    frames = torch.cat(sounds)
    return frames + 0.2 * torch.randn(frames.shape)


def sentences(voices, count):
    """`count` pairs of frames and letters; a letter may follow itself."""
    pairs = []
    for length in torch.randint(3, 9, (count,)).tolist():
        letters = torch.randint(0, len(LETTERS), (length,))
        pairs.append((speak(voices, letters), letters))
    return pairs


def collate(pairs, device):
    """Padded frames, their lengths, all letters in one row, their lengths."""
    frames, letters = zip(*pairs, strict=True)
    lengths, spoken = torch.tensor([len(f) for f in frames]), torch.tensor([len(s) for s in letters])
    return pad_sequence(frames, batch_first=True).to(device), lengths, torch.cat(letters).to(device) + 1, spoken


class Listener(nn.Module):
    """Two convolutions over time, of which one halves it, a GRU in both directions, and letters' logits (0: none)."""

    def __init__(self, width=64):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(BANDS, width, 5, padding=2), nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 1 + len(LETTERS))

    def forward(self, frames, lengths):
        """Log-chances (time, batch, letters) and their lengths."""
        x = F.relu(self.conv2(F.relu(self.conv1(frames.mT)))).mT
        packed = pack_padded_sequence(x, (lengths + 1) // 2, batch_first=True, enforce_sorted=False)
        x, lengths = pad_packed_sequence(self.gru(packed)[0])
        return self.head(x).log_softmax(-1), lengths


def decode(log_chances, lengths):
    """The likeliest letter of every frame, repetitions and silence left out."""
    said = []
    for row, length in zip(log_chances.argmax(-1).t(), lengths.tolist(), strict=True):
        row = torch.unique_consecutive(row[:length])
        said.append((row[row > 0] - 1).tolist())
    return said


def distance(a, b):
    """How many letters must be put in, left out or changed to make `b` of `a`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=500)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--lr", type=float, default=3e-3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cpu")
    options.add_argument("--short", action="store_true", help="a few seconds' worth, as the tests run it")
    o = options.parse_args()
    if o.short:
        o.steps, o.batch_size = 60, 16
    torch.manual_seed(o.seed)
    sounds = voices()
    speech, unseen = sentences(sounds, 300 if o.short else 2000), sentences(sounds, 100 if o.short else 300)
    model = Listener().to(o.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=o.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, o.lr, total_steps=o.steps)
    start = time.perf_counter()
    for step in range(o.steps):
        chosen = torch.randint(0, len(speech), (o.batch_size,)).tolist()
        frames, lengths, letters, spoken = collate([speech[i] for i in chosen], o.device)
        log_chances, times = model(frames, lengths)
        loss = F.ctc_loss(log_chances, letters, times, spoken, zero_infinity=True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 9 or step == 0:
            print(
                f"\rstep {step + 1}/{o.steps}  loss {loss.item():.4f}  {time.perf_counter() - start:5.1f} s",
                end="",
                flush=True,
            )
    print()
    wrong = total = 0
    model.eval()
    with torch.no_grad():
        for i in range(0, len(unseen), 50):
            frames, lengths, _, _ = collate(unseen[i : i + 50], o.device)
            for heard, (_, letters) in zip(decode(*model(frames, lengths)), unseen[i : i + 50], strict=True):
                wrong, total = wrong + distance(heard, letters.tolist()), total + len(letters)
    print(f"said  {''.join(LETTERS[i] for i in letters)}\nheard {''.join(LETTERS[i] for i in heard)}")
    print(f"wrong letters: {100 * wrong / total:.1f} %")


if __name__ == "__main__":
    main()
