"""A variational autoencoder and a vector-quantized one, side by side on random images."""

import torch
import torch.utils.data
from torch import nn, optim
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

torch.manual_seed(5)
images = torch.rand(96, 1, 8, 8)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.zeros(96)), batch_size=24, shuffle=True)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh())
        self.mu, self.logvar = nn.Linear(32, 4), nn.Linear(32, 4)
        self.decode = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std if self.training else mu

    def forward(self, x):
        h = self.encode(x)
        mu, logvar = self.mu(h), self.logvar(h)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


class Quantizer(nn.Module):
    def __init__(self, codes, size):
        super().__init__()
        self.codes = nn.Embedding(codes, size)
        self.codes.weight.data.uniform_(-1 / codes, 1 / codes)

    def forward(self, z):
        distance = (z**2).sum(1, keepdim=True) + (self.codes.weight**2).sum(1) - 2 * z @ self.codes.weight.t()
        index = torch.argmin(distance, dim=1).unsqueeze(1)
        chosen = torch.zeros(z.size(0), self.codes.num_embeddings).scatter_(1, index, 1) @ self.codes.weight
        loss = F.mse_loss(chosen, z.detach()) + 0.25 * F.mse_loss(chosen.detach(), z)
        return z + (chosen - z).detach(), loss


vae = VAE()
quantizer, outer = Quantizer(8, 4), nn.ModuleList([nn.Linear(64, 4), nn.Linear(4, 64)])
optimizer = optim.Adam([{"params": vae.parameters()}, {"params": [*quantizer.parameters(), *outer.parameters()], "lr": 1e-2}],
                       lr=1e-3)
for epoch in range(1, 3):
    vae.train()
    total = 0
    for batch, (data, _) in enumerate(loader):
        optimizer.zero_grad()
        output, mu, logvar = vae(data)
        reconstruction = F.binary_cross_entropy(output, data.view(-1, 64), reduction="sum")
        divergence = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)).sum()
        code, code_loss = quantizer(outer[0](data.flatten(1)))
        loss = reconstruction + divergence + 10 * (F.mse_loss(outer[1](code), data.flatten(1)) + code_loss)
        loss.backward()
        optimizer.step()
        total += loss.item()
        print(f"epoch {epoch} batch {batch} {loss.item() / len(data):.5f}")
    vae.eval()
    with torch.no_grad():
        sample = vae.decode(torch.randn(5, 4)).view(5, 1, 8, 8)
    print(f"====> epoch {epoch} average {total / len(loader.dataset):.4f}, sample mean {sample.mean():.3f}")
