"""Balances a pole: an actor-critic learns from whole episodes of a hand-written environment, a Q-network from a replay."""

import math
import random
from collections import deque, namedtuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Categorical

random.seed(0)
torch.manual_seed(0)
Saved = namedtuple("Saved", ["log_prob", "value"])
Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))


class Pole:
    def __init__(self, seed):
        self.rng = np.random.RandomState(seed)

    def reset(self):
        self.state = self.rng.uniform(-0.05, 0.05, 4)
        return self.state.astype(np.float32)

    def step(self, action):
        _, v, angle, spin = self.state
        push = (10.0 if action else -10.0) + 0.05 * spin**2 * math.sin(angle)
        turn = (9.8 * math.sin(angle) - math.cos(angle) * push / 1.1) / (0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / 1.1))
        move = push / 1.1 - 0.05 * turn * math.cos(angle) / 1.1
        self.state = self.state + 0.02 * np.array([v, move, spin, turn])
        return self.state.astype(np.float32), 1.0, bool(abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.action_head, self.value_head = nn.Linear(4, 32), nn.Linear(32, 2), nn.Linear(32, 1)
        self.saved, self.rewards = [], []

    def forward(self, x):
        x = F.relu(self.body(x))
        return F.softmax(self.action_head(x), dim=-1), self.value_head(x)


env, model, memory = Pole(0), Policy(), deque(maxlen=200)
q_net, target_net = (nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 2)) for _ in range(2))
target_net.load_state_dict(q_net.state_dict())
optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
q_optimizer = torch.optim.AdamW(q_net.parameters(), lr=1e-3, amsgrad=True)
eps = np.finfo(np.float32).eps.item()
for episode in range(4):
    state, done = env.reset(), False
    while not done:
        probabilities, value = model(torch.from_numpy(state))
        m = Categorical(probabilities)
        action = m.sample()
        model.saved.append(Saved(m.log_prob(action), value))
        following, reward, done = env.step(action.item())
        model.rewards.append(reward)
        memory.append(Transition(torch.tensor(state)[None], action.view(1, 1),
                                 None if done else torch.tensor(following)[None], torch.tensor([reward])))  # fmt: skip
        state = following
    returns, R = [], 0
    for r in model.rewards[::-1]:
        R = r + 0.99 * R
        returns.insert(0, R)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + eps)
    policy_losses, value_losses = [], []
    for (log_prob, value), R in zip(model.saved, returns):
        policy_losses.append(-log_prob * (R - value.item()))
        value_losses.append(F.smooth_l1_loss(value, R.view(1)))
    loss = torch.stack(policy_losses).sum() + torch.stack(value_losses).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    del model.rewards[:], model.saved[:]

    batch = Transition(*zip(*random.sample(memory, min(16, len(memory)))))
    running = torch.tensor([s is not None for s in batch.next_state], dtype=torch.bool)
    next_values = torch.zeros(len(batch.state))
    with torch.no_grad():
        next_values[running] = target_net(torch.cat([s for s in batch.next_state if s is not None])).max(1).values
    values = q_net(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
    q_loss = F.smooth_l1_loss(values, (torch.cat(batch.reward) + 0.99 * next_values).unsqueeze(1))
    q_optimizer.zero_grad()
    q_loss.backward()
    nn.utils.clip_grad_value_(q_net.parameters(), 100)
    q_optimizer.step()
    for target, own in zip(target_net.parameters(), q_net.parameters()):
        target.data.copy_(0.95 * target.data + 0.05 * own.data)
    print(f"episode {episode}: {len(returns)} steps, loss {loss.item():.4f}, Q loss {q_loss.item():.4f}")
