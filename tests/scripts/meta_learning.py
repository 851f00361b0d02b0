"""Learns to learn sine waves: inner steps through functional weights, the outer gradient through all of them; a mixture
density head, a coupling flow and a Gaussian process on the same waves."""

import math

import torch
import torch.nn.functional as F
from torch import distributions, nn

torch.manual_seed(9)


def net(x, p):
    return F.linear(F.relu(F.linear(x, p[0], p[1])), p[2], p[3])


weights = [torch.Tensor(16, 1).uniform_(-1, 1), torch.zeros(16), torch.randn(1, 16) / 4, torch.Tensor(1).zero_()]
weights = [w.requires_grad_() for w in weights]
outer = torch.optim.SGD(weights, lr=1e-2)
for step in range(4):
    phase = math.pi * (step % 2)
    x, query = (torch.rand(2, 8, 1) * 4 - 2).unbind(0)
    fast = weights
    for _ in range(3):
        grads = torch.autograd.grad(F.mse_loss(net(x, fast), torch.sin(x + phase)), fast, create_graph=True)
        fast = [w - 0.05 * g for w, g in zip(fast, grads)]
    outer.zero_grad()
    loss = F.l1_loss(net(query, fast), torch.sin(query + phase))
    loss.backward()
    outer.step()
    print(f"meta {step} {loss:.4f}")


class Mixture(nn.Module):
    def __init__(self, components=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 16), nn.Tanh())
        self.logits, self.mu, self.sigma = (nn.Linear(16, components) for _ in range(3))

    def forward(self, x):
        h = self.body(x)
        parts = distributions.Normal(self.mu(h), F.softplus(self.sigma(h)) + 1e-3)
        return distributions.MixtureSameFamily(distributions.Categorical(logits=self.logits(h)), parts)


class Coupling(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.mask = nn.Parameter(mask, requires_grad=False)
        self.s, self.t = (nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(), nn.Linear(8, 2)) for _ in range(2))

    def forward(self, x):
        kept = x * self.mask
        s, t = torch.tanh(self.s(kept)) * (1 - self.mask), self.t(kept) * (1 - self.mask)
        return kept + (1 - self.mask) * (x - t) * torch.exp(-s), -s.sum(1)


x = torch.rand(40, 1) * 4 - 2
y = torch.sin(2 * x) + 0.1 * torch.randn_like(x)
mixture = Mixture()
flow = nn.ModuleList([Coupling(m) for m in torch.tensor([[0.0, 1.0], [1.0, 0.0]])])
prior = distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
logs = nn.ParameterDict({"length": nn.Parameter(torch.zeros(())), "noise": nn.Parameter(torch.tensor(-1.0))})
optimizer = torch.optim.NAdam([p for m in (mixture, flow, logs) for p in m.parameters() if p.requires_grad], lr=1e-2)
for step in range(5):
    z, log_det = torch.cat([x, y], dim=1), 0
    for layer in flow:
        z, change = layer(z)
        log_det = log_det + change
    gap = torch.cdist(x, x).pow(2) / logs["length"].exp() ** 2
    L = torch.linalg.cholesky(torch.exp(-0.5 * gap) + logs["noise"].exp() * torch.eye(40))
    evidence = 0.5 * (y.t() @ torch.cholesky_solve(y, L)).squeeze() + L.diagonal().log().sum()
    loss = -mixture(x).log_prob(y.squeeze(1)).mean() - (prior.log_prob(z) + log_det).mean() + evidence / 40
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"density {step} {loss.item():.5f}")
