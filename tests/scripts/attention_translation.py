"""Reverses sequences with a GRU encoder and an attending GRU decoder, teacher forced half of the time."""

import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

random.seed(3)
torch.manual_seed(3)
PAD, START = 0, 1


def make_batch(size):
    sequences = [torch.randint(2, 12, (random.randint(3, 7),)) for _ in range(size)]
    lengths = torch.tensor([len(s) for s in sequences])
    return pad_sequence(sequences), pad_sequence([s.flip(0) for s in sequences]), lengths


class Encoder(nn.Module):
    def __init__(self, words, size):
        super().__init__()
        self.embed = nn.Embedding(words, size, padding_idx=PAD)
        self.rnn = nn.GRU(size, size, bidirectional=True)

    def forward(self, source, lengths):
        packed = pack_padded_sequence(self.embed(source), lengths, enforce_sorted=False)
        output, hidden = self.rnn(packed)
        output, _ = pad_packed_sequence(output)
        half = output.size(2) // 2
        return output[..., :half] + output[..., half:], hidden.sum(0, keepdim=True)


class Decoder(nn.Module):
    def __init__(self, words, size):
        super().__init__()
        self.embed = nn.Embedding(words, size)
        self.score = nn.Linear(2 * size, size)
        self.v = nn.Parameter(torch.rand(size))
        self.rnn = nn.GRU(2 * size, size)
        self.out = nn.Linear(2 * size, words)

    def forward(self, token, hidden, memory, mask):
        query = hidden[-1].unsqueeze(0).expand_as(memory)
        energy = torch.tanh(self.score(torch.cat((query, memory), dim=2))) @ self.v
        weights = F.softmax(energy.masked_fill(mask, -1e9).t(), dim=1).unsqueeze(1)
        context = weights.bmm(memory.transpose(0, 1)).transpose(0, 1)
        output, hidden = self.rnn(torch.cat((self.embed(token).unsqueeze(0), context), dim=2), hidden)
        return self.out(torch.cat((output, context), dim=2)).squeeze(0), hidden, weights.squeeze(1)


encoder, decoder = Encoder(12, 16), Decoder(12, 16)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=5e-3)
for step in range(8):
    source, target, lengths = make_batch(10)
    memory, hidden = encoder(source, lengths)
    mask = (source == PAD)[: memory.size(0)].unsqueeze(-1).squeeze(-1)
    token = torch.full((10,), START, dtype=torch.long)
    forced = random.random() < 0.5
    logits = []
    for t in range(target.size(0)):
        output, hidden, weights = decoder(token, hidden, memory, mask)
        logits.append(output)
        token = target[t] if forced else output.topk(1)[1].squeeze(-1).detach()
    loss = F.cross_entropy(torch.stack(logits).flatten(0, 1), target.flatten(), ignore_index=PAD)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_([*encoder.parameters(), *decoder.parameters()], 0.1)
    optimizer.step()
    print(step, f"{loss.item():.4f}", tuple(weights.shape), forced)
