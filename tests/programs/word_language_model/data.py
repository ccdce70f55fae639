"""A corpus of made-up sentences with a grammar that a model can learn."""

import random

import torch


class Dictionary:
    def __init__(self):
        self.word2idx = {}
        self.idx2word = []

    def add_word(self, word):
        if word not in self.word2idx:
            self.idx2word.append(word)
            self.word2idx[word] = len(self.idx2word) - 1
        return self.word2idx[word]

    def __len__(self):
        return len(self.idx2word)


def sentences(count, seed):
    rng = random.Random(seed)
    animals, verbs, places = ["cat", "dog", "owl", "fox"], ["sees", "likes", "fears", "hears"], ["barn", "hill", "lake", "wood"]
    for _ in range(count):
        animal = rng.randrange(4)
        # What an animal does follows from which one it is.
        yield ["the", animals[animal], verbs[animal], "the", rng.choice(animals), "by", "the", places[(animal + 1) % 4], "<eos>"]


class Corpus:
    def __init__(self):
        self.dictionary = Dictionary()
        self.train = self.tokenize(800, 0)
        self.valid = self.tokenize(100, 1)
        self.test = self.tokenize(100, 2)

    def tokenize(self, count, seed):
        idss = []
        for words in sentences(count, seed):
            idss.append(torch.tensor([self.dictionary.add_word(word) for word in words]).type(torch.int64))
        return torch.cat(idss)
