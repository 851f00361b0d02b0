"""Trains a small network on handwritten digits over Ray workers: `python -m distgrad.demo --workers 2`.

The script is ordinary PyTorch code on global tensors. Leave out `init()` (`--local`) and it gives the same numbers.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import distgrad as torch
from distgrad import nn
from distgrad.data import read_parquet
from distgrad.datasets import digits_path
from distgrad.nn import functional as F

HELD_OUT = 360  # of 1,797 images


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Train an MLP on the UCI handwritten digits.")
    parser.add_argument("--workers", type=int, default=None, help="Ray workers (default: one per CPU)")
    parser.add_argument("--local", action="store_true", help="no cluster: everything in this process")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--address", default=None, help="a Ray cluster: auto, local, host:port or ray://host:port")
    parser.add_argument("--plot", default="digits.png", help="where the learning curve goes when matplotlib is there")
    given = parser.parse_args(argv)
    if given.epochs < 1 or given.batch_size < 1 or (given.workers is not None and given.workers < 1):
        parser.error("--epochs, --batch-size and --workers must be 1 or more")
    return given


def load() -> tuple[Any, Any, Any, Any]:
    """Gives training and held-out images `(N, 64)` in [0, 1] and labels `(N,)`, shuffled, read by the workers."""
    data = read_parquet(digits_path(), ["pixels", "label"])
    order = torch.randperm(len(data["label"]))
    images = (data["pixels"].to(torch.get_default_dtype()) / 16)[order]
    labels = data["label"].long()[order]
    return images[HELD_OUT:], labels[HELD_OUT:], images[:HELD_OUT], labels[:HELD_OUT]


def train(epochs: int, batch_size: int) -> list[tuple[float, float]]:
    """Trains and gives (mean training loss, held-out accuracy) per epoch."""
    from tqdm import tqdm

    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)  # so that any number of workers gives the same loss
    images, labels, test_images, test_labels = load()
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    rows = len(labels)
    history = []
    with tqdm(total=epochs * rows, unit="samples", unit_scale=True, disable=None) as bar:
        for epoch in range(1, epochs + 1):
            started = time.perf_counter()
            order = torch.randperm(rows)
            total = torch.zeros(())
            model.train()
            for start in range(0, rows, batch_size):
                batch = order[start : start + batch_size]
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(batch)
                bar.update(len(batch))
            schedule.step()
            model.eval()
            with torch.no_grad():
                correct = (model(test_images).argmax(dim=1) == test_labels).sum()
            loss_value, accuracy = total.item() / rows, correct.item() / HELD_OUT
            speed = rows / (time.perf_counter() - started)
            history.append((loss_value, accuracy))
            bar.write(
                f"epoch {epoch:3d}  loss {loss_value:.6f}  held-out accuracy {accuracy:6.2%}  {speed:8,.0f} samples/s"
            )
    return history


def plot(history: list[tuple[float, float]], path: str) -> bool:
    """Draws the learning curve; says whether matplotlib was there to do it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 4), layout="constrained")
    left = figure.subplots()
    epochs = range(1, len(history) + 1)
    left.plot(epochs, [h[0] for h in history], color="tab:blue", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss (cross-entropy)", yscale="log")
    right = left.twinx()
    right.plot(epochs, [100 * h[1] for h in history], color="tab:orange", label="held-out accuracy")
    right.set_ylabel("held-out accuracy (%)")
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)
    return True


def main(argv: list[str] | None = None) -> float:
    """Runs the job and gives the final training loss."""
    given = arguments(argv)
    started = time.perf_counter()
    if not given.local:
        print(torch.init(given.address, num_workers=given.workers))
    try:
        history = train(given.epochs, given.batch_size)
    finally:
        torch.shutdown()
        torch.set_default_dtype(torch.float32)
    loss, accuracy = history[-1]
    print(f"final loss {loss:.12g}, held-out accuracy {accuracy:.2%}, {time.perf_counter() - started:.1f} s")
    if plot(history, given.plot):
        print(f"learning curve: {given.plot}")
    return loss


if __name__ == "__main__":
    main()
