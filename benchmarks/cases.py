"""The models of the speed benchmarks, written once for PyTorch and for distgrad: `T` is either module.

Each case gives a model, its batch as numpy arrays and a loss function; everything is float32 and drawn from fixed seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """`model(T)` builds a module, `batch(rng, scale)` its data, `loss(T, model, *batch)` what is minimised."""

    model: Callable[[Any], Any]
    batch: Callable[[np.random.Generator, int], tuple[np.ndarray, ...]]
    loss: Callable[..., Any]
    lr: float = 1e-3


def mlp(*sizes: int) -> Callable[[Any], Any]:
    """Gives linear layers of these sizes with relu between them."""
    def build(T: Any) -> Any:
        layers: list[Any] = []
        for before, after in zip(sizes, sizes[1:]):
            layers += [T.nn.Linear(before, after), T.nn.ReLU()]
        return T.nn.Sequential(*layers[:-1])
    return build


def classes_of(rows: int, features: int, classes: int) -> Callable[[np.random.Generator, int], tuple[np.ndarray, ...]]:
    """Gives rows of normal numbers and a class for each."""
    def draw(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
        return (rng.standard_normal((rows * scale, features), dtype=np.float32), rng.integers(0, classes, rows * scale))
    return draw


def classification_loss(T: Any, model: Any, x: Any, y: Any) -> Any:
    """Gives the mean cross entropy of what the model makes of x."""
    return T.nn.functional.cross_entropy(model(x), y)


def _logistic_batch(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
    x = rng.standard_normal((1_000_000 * scale, 64), dtype=np.float32)
    y = (x @ rng.standard_normal((64, 1), dtype=np.float32) > 0).astype(np.float32)
    return x, y


def _logistic_loss(T: Any, model: Any, x: Any, y: Any) -> Any:
    return T.nn.functional.binary_cross_entropy_with_logits(model(x), y)


def _gpt(T: Any) -> Any:
    """A decoder of 4 layers, width 128, 4 heads, context 64, 65 characters; norms first, as GPT-2."""
    layers, width, heads, context, letters = 4, 128, 4, 64, 65
    nn, F = T.nn, T.nn.functional

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Gpt(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.letters, self.places = nn.Embedding(letters, width), nn.Embedding(context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)

        def forward(self, x: Any) -> Any:
            x = self.letters(x) + self.places(T.arange(x.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Gpt()


def _gpt_batch(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
    text = rng.integers(0, 65, (32 * scale, 65))
    return np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])


def _gpt_loss(T: Any, model: Any, x: Any, y: Any) -> Any:
    return T.nn.functional.cross_entropy(model(x).reshape(-1, 65), y.reshape(-1))


def _cnn(T: Any) -> Any:
    """The network of PyTorch's MNIST example, without its dropout: both sides must compute the same losses."""
    nn = T.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(1),
        nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
    )


def _cnn_batch(rng: np.random.Generator, scale: int) -> tuple[np.ndarray, ...]:
    return rng.standard_normal((64 * scale, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 64 * scale)


CASES = {
    "mlp": Case(mlp(784, 1024, 1024, 10), classes_of(512, 784, 10), classification_loss),
    "logistic": Case(mlp(64, 1), _logistic_batch, _logistic_loss, lr=0.1),
    "gpt": Case(_gpt, _gpt_batch, _gpt_loss),
    "cnn": Case(_cnn, _cnn_batch, classification_loss),
    "small": Case(mlp(64, 128, 10), classes_of(256, 64, 10), classification_loss),
}


def start_values(model: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Gives initial parameters by name: uniform, as wide as the last dim asks for; norms begin at one and zero."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, parameter in model.state_dict().items():
        shape = tuple(parameter.shape)
        bound = 1 / math.sqrt(math.prod(shape[1:]) or 1) if len(shape) > 1 else 0.05
        value = rng.uniform(-bound, bound, shape).astype(np.float32)
        values[name] = value + 1 if "norm" in name and name.endswith("weight") else value
    return values
