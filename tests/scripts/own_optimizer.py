"""An optimizer of one's own, sharpness-aware steps, averaged weights, distillation with smoothed labels, a schedule."""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.optimizer import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset, random_split


class SignMomentum(Optimizer):
    def __init__(self, params, lr=1e-3, beta=0.9, weight_decay=0.0):
        if lr < 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["average"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                state["step"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["average"].mul_(group["beta"]).add_(p.grad, alpha=1 - group["beta"])
                p.add_(state["average"].sign(), alpha=-group["lr"])
        return loss


torch.manual_seed(10)
data = TensorDataset(torch.randn(96, 10), torch.randint(0, 4, (96,)))
train_set, test_set = random_split(data, [64, 32], generator=torch.Generator().manual_seed(0))
loader = DataLoader(train_set, batch_size=16, shuffle=True, drop_last=True)


def make(width):
    return nn.Sequential(nn.Linear(10, width), nn.BatchNorm1d(width), nn.SiLU(), nn.Linear(width, 4))


teacher, student = make(32), make(8)
first = SignMomentum(teacher.parameters(), lr=3e-3, weight_decay=0.01)
scheduler = torch.optim.lr_scheduler.OneCycleLR(first, max_lr=1e-2, total_steps=8, cycle_momentum=False)
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
for epoch in range(2):
    for x, y in loader:
        loss = criterion(teacher(x), y)
        first.zero_grad()
        loss.backward()
        with torch.no_grad():  # climb, look again, come back
            norm = torch.norm(torch.stack([p.grad.norm(p=2) for p in teacher.parameters()]), p=2)
            climbs = [p.grad * (0.05 / (norm + 1e-12)) for p in teacher.parameters()]
            for p, climb in zip(teacher.parameters(), climbs):
                p.add_(climb)
        criterion(teacher(x), y).backward()
        with torch.no_grad():
            for p, climb in zip(teacher.parameters(), climbs):
                p.sub_(climb)
        first.step()
        scheduler.step()
    print(epoch, f"{loss.item():.4f}", scheduler.get_last_lr()[0])
average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.9))
frozen = copy.deepcopy(teacher).eval().requires_grad_(False)
second = torch.optim.RAdam(student.parameters(), lr=1e-2)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(second, patience=0)
for x, y in loader:
    soft = F.log_softmax(student(x) / 2, dim=1)
    loss = nn.KLDivLoss(reduction="batchmean")(soft, F.softmax(frozen(x) / 2, dim=1)) * 4 + F.cross_entropy(student(x), y)
    second.zero_grad()
    loss.backward()
    second.step()
    average.update_parameters(student)
    plateau.step(loss.item())
    print(f"{loss.item():.4f} {second.param_groups[0]['lr']:.4f}")
average.eval()
inputs, answers = zip(*test_set)
print((average(torch.stack(inputs)).argmax(1) == torch.stack(answers)).float().mean().item())
