"""Solves the heat equation with a network: derivatives by autograd, first Adam, then LBFGS; and learns an energy."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

torch.manual_seed(4)
rng = np.random.RandomState(4)
torch.set_default_dtype(torch.float64)


def network(*sizes):
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        layers.append((f"linear{i}", nn.Linear(a, b)))
        if i < len(sizes) - 2:
            layers.append((f"tanh{i}", nn.Tanh()))
    return nn.Sequential(OrderedDict(layers))


u_net = network(2, 12, 12, 1)
for m in u_net.modules():
    if type(m) is nn.Linear:
        nn.init.xavier_normal_(m.weight, gain=nn.init.calculate_gain("tanh"))
x = torch.tensor(rng.rand(40, 1), requires_grad=True)
t = torch.tensor(rng.rand(40, 1), requires_grad=True)
start = torch.tensor(rng.rand(20, 1))


def residual():
    u = u_net(torch.cat([x, t], dim=1))
    u_t = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]
    u_x = torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]
    u_xx = torch.autograd.grad(u_x, x, torch.ones_like(u_x), create_graph=True)[0]
    return u_t - 0.1 * u_xx


def loss_of():
    initial = u_net(torch.cat([start, torch.zeros_like(start)], dim=1)) - torch.sin(np.pi * start)
    return (residual() ** 2).mean() + (initial**2).mean()


adam = torch.optim.Adam(u_net.parameters(), lr=1e-2)
for _ in range(5):
    adam.zero_grad()
    loss = loss_of()
    loss.backward()
    adam.step()
lbfgs = torch.optim.LBFGS(u_net.parameters(), max_iter=6, line_search_fn="strong_wolfe")


def closure():
    lbfgs.zero_grad()
    loss = loss_of()
    loss.backward()
    print(f"{loss.item():.6f}")
    return loss


lbfgs.step(closure)

energy = network(2, 16, 1)
optimizer = torch.optim.SGD(energy.parameters(), lr=0.05, momentum=0.9, nesterov=True)
state = torch.tensor(rng.uniform(-1, 1, (30, 2)), requires_grad=True)
field = torch.stack([state[:, 1], -torch.sin(state[:, 0])], dim=1).detach()
J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
for step in range(4):
    slope = torch.autograd.grad(energy(state).sum(), state, create_graph=True)[0]
    loss = (slope @ J - field).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
torch.set_default_dtype(torch.float32)
