"""Fits a cubic polynomial with hand-written gradient steps."""

import argparse
from itertools import count

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser(description="Polynomial regression")
parser.add_argument("--degree", type=int, default=3)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--lr", type=float, default=0.05)
parser.add_argument("--seed", type=int, default=7)
args = parser.parse_args()

torch.manual_seed(args.seed)
true_weight = torch.randn(args.degree, 1) * 2
true_bias = torch.randn(1)


def batch():
    x = torch.randn(args.batch_size)
    features = torch.stack([x**k for k in range(1, args.degree + 1)], dim=1)
    return features, features.mm(true_weight) + true_bias.item()


model = torch.nn.Linear(args.degree, 1)
for step in count(1):
    x, y = batch()
    model.zero_grad()
    loss = F.smooth_l1_loss(model(x), y)
    loss.backward()
    for p in model.parameters():
        p.data.add_(p.grad.data, alpha=-args.lr)
    if loss.item() < 1e-3 or step == 40:
        break

terms = " ".join(f"{w:+.2f} x^{i}" for i, w in enumerate(model.weight.view(-1), start=1))
print(f"loss {loss.item():.6f} after {step} batches: y = {terms} {model.bias[0]:+.2f}")
