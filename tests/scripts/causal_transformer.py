"""A decoder-only transformer: causal attention, tied weights, parameter groups, warm-up, mixed precision, generation."""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F


@dataclass
class Config:
    context: int = 16
    words: int = 20
    layers: int = 2
    heads: int = 2
    width: int = 16
    dropout: float = 0.1


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.heads
        self.qkv = nn.Linear(c.width, 3 * c.width, bias=False)
        self.proj = nn.Linear(c.width, c.width)
        self.drop = nn.Dropout(c.dropout)
        self.register_buffer("mask", torch.tril(torch.ones(c.context, c.context)).view(1, 1, c.context, c.context))

    def forward(self, x):
        b, t, w = x.size()
        q, k, v = (z.view(b, t, self.heads, w // self.heads).transpose(1, 2) for z in self.qkv(x).split(w, dim=2))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        scores = scores.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        y = self.drop(F.softmax(scores, dim=-1)) @ v
        return self.proj(y.transpose(1, 2).contiguous().view(b, t, w))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.attention = Attention(c)
        self.mlp = nn.ModuleDict({"up": nn.Linear(c.width, 4 * c.width), "down": nn.Linear(4 * c.width, c.width)})

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.mlp["down"](F.gelu(self.mlp["up"](self.ln2(x))))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token, self.place = nn.Embedding(c.words, c.width), nn.Parameter(torch.zeros(1, c.context, c.width))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.words, bias=False)
        self.token.weight = self.head.weight
        self.apply(self._init)

    @staticmethod
    def _init(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.1)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, index, targets=None):
        x = self.token(index) + self.place[:, : index.size(1)]
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        loss = None if targets is None else F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))
        return logits, loss

    @torch.no_grad()
    def generate(self, index, count, top_k):
        for _ in range(count):
            logits = self(index[:, -self.c.context :])[0][:, -1]
            v, _ = torch.topk(logits, top_k)
            logits[logits < v[:, [-1]]] = -float("inf")
            index = torch.cat((index, torch.multinomial(F.softmax(logits, dim=-1), 1)), dim=1)
        return index


torch.manual_seed(11)
torch.set_float32_matmul_precision("high")
config = Config()
device = "cuda" if torch.cuda.is_available() else "cpu"
model = Model(config).to(device)
decay = [p for p in model.parameters() if p.dim() >= 2]
rest = [p for p in model.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW(
    [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=5e-3, betas=(0.9, 0.95)
)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 4) * 0.5 ** (s / 10))
scaler = torch.amp.GradScaler("cuda", enabled=device == "cuda")
context = nullcontext() if device == "cpu" else torch.autocast(device_type=device, dtype=torch.float16)
data = torch.randint(config.words, (400,))
for step in range(8):
    starts = torch.randint(len(data) - config.context, (6,))
    x = torch.stack([data[i : i + config.context] for i in starts])
    y = torch.stack([data[i + 1 : i + 1 + config.context] for i in starts])
    with context:
        _, loss = model(x.to(device), y.to(device))
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    schedule.step()
    print(f"{step} loss {loss.item():.4f} lr {schedule.get_last_lr()[0]:.5f}")
model.eval()
print(model.generate(torch.zeros((1, 1), dtype=torch.long, device=device), 10, top_k=5).tolist())
