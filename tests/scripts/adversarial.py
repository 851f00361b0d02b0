"""A convolutional GAN with its own initialization, spectral norm and a gradient penalty."""

import torch
import torch.autograd as autograd
import torch.nn as nn
import torch.nn.parallel
import torch.optim as optim
from torch.autograd import Variable

torch.manual_seed(2)
size, noise_size = 4, 6
Tensor = torch.cuda.FloatTensor if torch.cuda.is_available() else torch.FloatTensor


def weights_init(m):
    name = m.__class__.__name__
    if name.find("Conv") != -1 and hasattr(m, "weight_orig") is False:
        nn.init.normal_(m.weight.data, 0.0, 0.02)
    elif name.find("BatchNorm") != -1:
        nn.init.normal_(m.weight.data, 1.0, 0.02)
        nn.init.constant_(m.bias.data, 0)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(noise_size, 2 * size, 4, 1, 0, bias=False), nn.BatchNorm2d(2 * size), nn.ReLU(True),
            nn.ConvTranspose2d(2 * size, 1, 4, 2, 1, bias=False), nn.Tanh(),
        )

    def forward(self, z):
        return self.main(z)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.utils.spectral_norm(nn.Conv2d(1, size, 4, 2, 1)), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(size, 1, 4, 1, 0, bias=False), nn.Flatten(0),
        )

    def forward(self, x):
        return self.main(x)


def penalty(discriminator, real, fake):
    alpha = torch.rand(real.size(0), 1, 1, 1)
    mixed = Variable(alpha * real + (1 - alpha) * fake, requires_grad=True)
    score = discriminator(mixed)
    gradient = autograd.grad(score, mixed, torch.ones_like(score), create_graph=True, retain_graph=True)[0]
    return ((gradient.view(gradient.size(0), -1).norm(2, dim=1) - 1) ** 2).mean()


netG, netD = nn.DataParallel(Generator()), Discriminator()
netG.apply(weights_init)
netD.apply(weights_init)
criterion = nn.BCEWithLogitsLoss()
optG = optim.Adam(netG.parameters(), lr=2e-3, betas=(0.5, 0.999))
optD = optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
images = torch.rand(48, 1, 8, 8) * 2 - 1
for i, real in enumerate(images.split(12)):
    real = Variable(real.type(Tensor))
    netD.zero_grad()
    label = torch.full((real.size(0),), 1.0)
    loss_real = criterion(netD(real), label)
    loss_real.backward()
    fake = netG(torch.randn(real.size(0), noise_size, 1, 1))
    label.fill_(0)
    loss_fake = criterion(netD(fake.detach()), label) + 10 * penalty(netD, real.data, fake.data)
    loss_fake.backward()
    loss_d = loss_real + loss_fake
    optD.step()
    netG.zero_grad()
    label.fill_(1)
    loss_g = criterion(netD(fake), label)
    loss_g.backward()
    optG.step()
    print(f"[{i}/4] Loss_D: {loss_d.item():.4f} Loss_G: {loss_g.item():.4f}")
