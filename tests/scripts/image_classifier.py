"""A small convolutional network on synthetic images: Dataset, DataLoader, schedule, evaluation, checkpoint."""

import argparse
import os
import tempfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset


class Blobs(Dataset):
    def __init__(self, count, seed, transform=None):
        rng = np.random.RandomState(seed)
        self.targets = torch.from_numpy(rng.randint(0, 4, count))
        self.images = torch.from_numpy(rng.rand(count, 1, 12, 12).astype(np.float32))
        for i, t in enumerate(self.targets.tolist()):
            self.images[i, 0, 3 * t : 3 * t + 3, 3:9] += 1.0
        self.transform = transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        image = self.images[index]
        if self.transform is not None:
            image = self.transform(image)
        return image, int(self.targets[index])


class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2),
        )
        self.dropout = nn.Dropout(0.25)
        self.head = nn.Linear(64, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, nn.BatchNorm2d):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)

    def forward(self, x):
        x = torch.flatten(self.features(x), 1)
        return F.log_softmax(self.head(self.dropout(x)), dim=1)


def train(model, device, loader, optimizer, epoch):
    model.train()
    for batch, (data, target) in enumerate(loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        print(f"epoch {epoch} [{batch * len(data)}/{len(loader.dataset)}] loss {loss.item():.6f}")


@torch.no_grad()
def test(model, device, loader):
    model.eval()
    total, correct = 0.0, 0
    for data, target in loader:
        output = model(data.to(device))
        total += F.nll_loss(output, target.to(device), reduction="sum").item()
        correct += output.argmax(dim=1, keepdim=True).eq(target.view(-1, 1)).sum().item()
    print(f"test loss {total / len(loader.dataset):.4f}, accuracy {correct}/{len(loader.dataset)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.5)
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_loader = DataLoader(Blobs(192, 0, lambda x: (x - 0.5) / 0.3), batch_size=32, shuffle=True)
    test_loader = DataLoader(Blobs(64, 1, lambda x: (x - 0.5) / 0.3), batch_size=64)
    model = Net().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=args.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(1, args.epochs + 1):
        train(model, device, train_loader, optimizer, epoch)
        test(model, device, test_loader)
        scheduler.step()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.pt")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, path)
        restored = Net().to(device)
        restored.load_state_dict(torch.load(path, map_location=device)["model"])
        test(restored, device, test_loader)


if __name__ == "__main__":
    main()
