"""Trains a word language model, keeps the best one in a file, tests it and writes a few words with it."""

import argparse
import math
import time

import data
import model
import torch
import torch.nn as nn
from torch.nn import GRU, LSTM, RNN, Dropout, Embedding, Linear

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="LSTM", help="RNN_TANH, RNN_RELU, LSTM, GRU or Transformer")
parser.add_argument("--emsize", type=int, default=32)
parser.add_argument("--nhid", type=int, default=32)
parser.add_argument("--nlayers", type=int, default=2)
parser.add_argument("--lr", type=float, default=5)
parser.add_argument("--clip", type=float, default=0.25)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--batch_size", type=int, default=8)
parser.add_argument("--bptt", type=int, default=18)
parser.add_argument("--dropout", type=float, default=0.1)
parser.add_argument("--tied", action="store_true")
parser.add_argument("--seed", type=int, default=1111)
parser.add_argument("--save", default="model.pt")
parser.add_argument("--nhead", type=int, default=2)
args = parser.parse_args()

torch.manual_seed(args.seed)
device = torch.device("cpu")
corpus = data.Corpus()


def batchify(ids, bsz):
    nbatch = ids.size(0) // bsz
    return ids.narrow(0, 0, nbatch * bsz).view(bsz, -1).t().contiguous().to(device)


train_data = batchify(corpus.train, args.batch_size)
val_data, test_data = batchify(corpus.valid, 4), batchify(corpus.test, 4)
ntokens = len(corpus.dictionary)
if args.model == "Transformer":
    net = model.TransformerModel(ntokens, args.emsize, args.nhead, args.nhid, args.nlayers, args.dropout).to(device)
else:
    net = model.RNNModel(args.model, ntokens, args.emsize, args.nhid, args.nlayers, args.dropout, args.tied).to(device)
criterion = nn.NLLLoss()


def repackage_hidden(h):
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


def get_batch(source, i):
    seq_len = min(args.bptt, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].view(-1)


def evaluate(source):
    net.eval()
    total = 0.0
    hidden = None if args.model == "Transformer" else net.init_hidden(4)
    with torch.no_grad():
        for i in range(0, source.size(0) - 1, args.bptt):
            inputs, targets = get_batch(source, i)
            if args.model == "Transformer":
                output = net(inputs).view(-1, ntokens)
            else:
                output, hidden = net(inputs, hidden)
                hidden = repackage_hidden(hidden)
            total += len(inputs) * criterion(output, targets).item()
    return total / (len(source) - 1)


def train(lr):
    net.train()
    hidden = None if args.model == "Transformer" else net.init_hidden(args.batch_size)
    for i in range(0, train_data.size(0) - 1, args.bptt):
        inputs, targets = get_batch(train_data, i)
        net.zero_grad()
        if args.model == "Transformer":
            output = net(inputs).view(-1, ntokens)
        else:
            hidden = repackage_hidden(hidden)
            output, hidden = net(inputs, hidden)
        loss = criterion(output, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), args.clip)
        for p in net.parameters():
            if p.grad is not None:
                p.data.add_(p.grad, alpha=-lr)


lr, best = args.lr, None
for epoch in range(1, args.epochs + 1):
    start = time.time()
    train(lr)
    val_loss = evaluate(val_data)
    print(f"| epoch {epoch} | time {time.time() - start:.1f}s | valid loss {val_loss:.3f} | valid ppl {math.exp(val_loss):.2f}")
    if best is None or val_loss < best:
        with open(args.save, "wb") as f:
            torch.save(net, f)
        best = val_loss
    else:
        lr /= 4.0

known = [model.RNNModel, model.TransformerModel, model.PositionalEncoding, LSTM, GRU, RNN, Dropout, Embedding, Linear]
with open(args.save, "rb") as f:
    if args.model == "Transformer":
        net = torch.load(f, weights_only=False)
    else:
        with torch.serialization.safe_globals(known):
            net = torch.load(f)
if args.model != "Transformer":
    net.rnn.flatten_parameters()
test_loss = evaluate(test_data)
print(f"| end | test loss {test_loss:.3f} | test ppl {math.exp(test_loss):.2f}")

word = torch.randint(ntokens, (1, 1), dtype=torch.long)
words, hidden = [], None if args.model == "Transformer" else net.init_hidden(1)
net.eval()
with torch.no_grad():
    for _ in range(9):
        if args.model == "Transformer":
            weights = net(word, False)[-1].squeeze().cpu().exp()
            chosen = torch.multinomial(weights, 1)[0]
            word = torch.cat([word, chosen.view(1, 1)], 0)
        else:
            output, hidden = net(word, hidden)
            chosen = torch.multinomial(output.squeeze().exp().cpu(), 1)[0]
            word.fill_(chosen)
        words.append(corpus.dictionary.idx2word[chosen])
print("words:", " ".join(words))
