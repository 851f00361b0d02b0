"""A neural ODE whose gradients come from the adjoint equation, as a custom autograd Function."""

import torch
import torch.nn as nn

torch.manual_seed(6)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 10), nn.Softplus(), nn.Linear(10, 2))

    def forward(self, z):
        return self.net(z)


class Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, field, steps, h, *parameters):
        with torch.no_grad():
            for _ in range(steps):
                z = z + h * field(z)
        ctx.field, ctx.steps, ctx.h = field, steps, h
        ctx.save_for_backward(z.clone(), *parameters)
        return z

    @staticmethod
    def backward(ctx, grad):
        z, *parameters = ctx.saved_tensors
        sums = [torch.zeros_like(p) for p in parameters]
        a = grad
        for _ in range(ctx.steps):
            with torch.enable_grad():
                z = z.detach().requires_grad_(True)
                f = ctx.field(z)
                pulled, *slopes = torch.autograd.grad(f, (z, *parameters), a)
            z = z.detach() - ctx.h * f.detach()
            a = a + ctx.h * pulled
            for total, slope in zip(sums, slopes):
                total += ctx.h * slope
        return (a, None, None, None, *sums)


class Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=-1, max=1)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        grad = grad.clone()
        grad[x.abs() > 1] *= 0.1
        return grad


field = Field()
handle = field.net[0].register_forward_hook(lambda module, inputs, output: seen.append(output.detach().norm().item()))
seen = []
optimizer = torch.optim.Adamax(field.parameters(), lr=0.05)
start = torch.randn(16, 2)
goal = start @ torch.tensor([[0.6, -0.5], [0.5, 0.6]])
for epoch in range(6):
    optimizer.zero_grad()
    end = Clamped.apply(Solve.apply(start, field, 8, 0.1, *field.parameters()))
    loss = nn.functional.huber_loss(end, goal)
    loss.backward()
    optimizer.step()
    print(f"{epoch} {loss.item():.6f} {len(seen)}")
handle.remove()
print(torch.autograd.gradcheck(lambda x: x.sin() * x, torch.randn(3, dtype=torch.double, requires_grad=True)))
