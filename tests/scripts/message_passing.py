"""Graph networks without a library: gathered neighbours, scattered sums, attention over edges, a dense GCN."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(8)
rng = np.random.RandomState(8)
nodes, edges = 30, 110
source, target = torch.from_numpy(rng.randint(0, nodes, (2, edges)))
features = torch.FloatTensor(rng.randn(nodes, 6))
labels = torch.from_numpy(rng.randint(0, 3, nodes))
train_mask = torch.zeros(nodes, dtype=torch.bool)
train_mask[torch.randperm(nodes)[:20]] = True


class EdgeAttention(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.a = nn.Parameter(torch.empty(2 * outputs))
        nn.init.xavier_uniform_(self.weight, gain=1.414)
        nn.init.normal_(self.a, std=0.1)

    def forward(self, h):
        z = h @ self.weight
        score = F.leaky_relu(torch.cat([z[source], z[target]], dim=-1) @ self.a, 0.2)
        score = (score - score.max()).exp()
        total = torch.zeros(nodes).scatter_add_(0, target, score)
        share = score / total[target].clamp(min=1e-12)
        return torch.zeros(nodes, z.size(1)).index_add_(0, target, share.unsqueeze(1) * z[source])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = EdgeAttention(6, 12)
        self.message = nn.Sequential(nn.Linear(24, 12), nn.ReLU())
        self.update = nn.GRUCell(12, 12)
        self.out = nn.Linear(12, 3)

    def forward(self, x, adjacency):
        h = F.elu(self.attend(x))
        m = self.message(torch.cat([h[source], h[target]], dim=1))
        degree = torch.bincount(target, minlength=nodes).clamp(min=1).unsqueeze(1)
        h = self.update(torch.zeros_like(h).index_add(0, target, m) / degree, h)
        return F.log_softmax(adjacency @ self.out(F.dropout(h, 0.2, self.training)), dim=1)


adjacency = torch.zeros(nodes, nodes)
adjacency[source, target] = 1
adjacency = ((adjacency + adjacency.t()) > 0).float() + torch.eye(nodes)
scale = torch.diag(adjacency.sum(1).pow(-0.5))
adjacency = scale @ adjacency @ scale
model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=5e-4)
for epoch in range(8):
    model.train()
    optimizer.zero_grad()
    loss = F.nll_loss(model(features, adjacency)[train_mask], labels[train_mask])
    loss.backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        predicted = model(features, adjacency).max(1)[1].type_as(labels)
    correct = predicted[~train_mask].eq(labels[~train_mask]).double().mean()
    print(f"{epoch:04d} {loss.item():.4f} {correct.item():.3f}")
