"""More models for `bench_versus_ddp.py`: what people train besides those five, in the same form.

Invariant: no case has batch statistics or random numbers in its step, which DDP would compute on other rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import Case, classes_of, classification_loss, mlp


def _images(count: int, channels: int, side: int, classes: int = 10) -> Any:
    def draw(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
        x = rng.standard_normal((count * scale, channels, side, side), dtype=np.float32)
        return x, rng.integers(0, classes, count * scale)
    return draw


def _vgg(T: Any) -> Any:
    """Five 3x3 convolutions at 32x32, 16x16 and 8x8, of 32, 64 and 128 channels."""
    nn = T.nn
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2048, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )


def _strided(T: Any) -> Any:
    """3x3 convolutions, two of them with a stride of 2, and group normalization."""
    nn = T.nn
    layers: list[Any] = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU()]
    for before, after in ((16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.ReLU(), nn.Conv2d(after, after, 3, 1, 1),
                   nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _lenet(T: Any) -> Any:
    nn = T.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )


def _recurrent(kind: str) -> Any:
    """Rows of 28 numbers, one after the other, into a layer of 128; its last state is classified."""
    def build(T: Any) -> Any:
        nn = T.nn

        class Net(nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.layer, self.head = getattr(nn, kind)(28, 128, batch_first=True), nn.Linear(128, 10)

            def forward(self, x: Any) -> Any:
                return self.head(self.layer(x)[0][:, -1])

        return Net()
    return build


def _rows(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
    return rng.standard_normal((64 * scale, 28, 28), dtype=np.float32), rng.integers(0, 10, 64 * scale)


def _encoder(T: Any) -> Any:
    """PyTorch's TransformerEncoder: 2 layers, width 128, 4 heads, 32 words of 1,000, classified by their mean."""
    nn = T.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
            self.words, self.head = nn.Embedding(1000, 128), nn.Linear(128, 10)
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x: Any) -> Any:
            return self.head(self.layers(self.words(x)).mean(1))

    return Net()


def _words(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
    return rng.integers(0, 1000, (32 * scale, 32)), rng.integers(0, 10, 32 * scale)


def _factors(T: Any) -> Any:
    """Matrix factorization: 5,000 users and items in 32 dims, and a bias for each user."""
    nn = T.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items, self.bias = nn.Embedding(5000, 32), nn.Embedding(5000, 32), nn.Embedding(5000, 1)

        def forward(self, x: Any) -> Any:
            return (self.users(x[:, 0]) * self.items(x[:, 1])).sum(1) + self.bias(x[:, 0]).squeeze(1)

    return Net()


def _ratings(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
    return rng.integers(0, 5000, (8192 * scale, 2)), rng.standard_normal(8192 * scale).astype(np.float32)


def _pairs(rows: int, features: int, results: int) -> Any:
    def draw(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
        return tuple(rng.standard_normal((rows * scale, n), dtype=np.float32) for n in (features, results))
    return draw


def _squares(T: Any, model: Any, x: Any, y: Any) -> Any:
    return T.nn.functional.mse_loss(model(x), y)


def _tanh_net(T: Any) -> Any:
    nn = T.nn
    return nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))


MORE_CASES = {
    "vgg": Case(_vgg, _images(64, 3, 32), classification_loss),
    "strided": Case(_strided, _images(64, 3, 32), classification_loss),
    "lenet": Case(_lenet, _images(128, 1, 28), classification_loss),
    "lstm": Case(_recurrent("LSTM"), _rows, classification_loss),
    "gru": Case(_recurrent("GRU"), _rows, classification_loss),
    "encoder": Case(_encoder, _words, classification_loss),
    "factors": Case(_factors, _ratings, _squares),
    "autoencoder": Case(mlp(784, 256, 64, 256, 784), _pairs(256, 784, 784), _squares),
    "softmax": Case(mlp(784, 10), classes_of(60_000, 784, 10), classification_loss),
    "regression": Case(mlp(64, 1), _pairs(1_000_000, 64, 1), _squares),
    "tanh": Case(_tanh_net, _pairs(100_000, 16, 1), _squares),
}
