"""The state of random draws: a `Generator` is a seed and a position in its stream, as in PyTorch.

Invariant: every draw takes its words of the stream on the driver, by their number alone, which follows from shape and
dtype; what they stand for is computed wherever the elements live (see `distgrad.draws`). So the numbers do not depend
on the number of workers, and a state is three integers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.device import CPU
from distgrad.device import device as Device
from distgrad.dtypes import uint8
from distgrad.graph import Node
from distgrad.meta import TensorMeta
from distgrad.placement import Spec

__all__ = ["Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed",
           "set_rng_state"]

_DEFAULT_SEED = 67280421310721  # what a new torch.Generator starts from
_STATE_BYTES = 24


class Generator:
    """A source of random numbers: the seed of a stream and a position in it. Source: torch.Generator.

    From the same seed it gives the numbers of PyTorch's CPU generator.

    >>> import distgrad as dg
    >>> g = dg.Generator().manual_seed(5)
    >>> bool((dg.rand(3, generator=g) == dg.rand(3, generator=dg.Generator().manual_seed(5))).all())
    True
    """

    def __init__(self, device: Any = "cpu") -> None:
        Device(device)  # raises for anything but the CPU
        self._seed = _DEFAULT_SEED
        self._position = 0  # in words of 32 bits
        self._cached = -1  # where the pair of normal numbers starts whose second one comes next; -1: none

    @property
    def device(self) -> Device:
        """The generator's device; there is only the CPU."""
        return CPU

    def manual_seed(self, seed: int) -> Generator:
        """Sets the seed, starts the draws anew and returns the generator.

        Seeds from -2**63 to 2**64 - 1 are allowed, a negative one stands for 2**64 + seed; RuntimeError for others.
        """
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise RuntimeError(f"manual_seed: Overflow when unpacking seed {seed}; allowed: -2**63 to 2**64 - 1")
        self._seed, self._position, self._cached = seed % 2**64, 0, -1
        return self

    def seed(self) -> int:
        """Sets a seed taken from the system's randomness, and returns it."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """Returns the seed the draws started from."""
        return self._seed

    def get_state(self) -> Any:
        """Returns seed and place in the stream as a uint8 tensor of shape (24,)."""
        from distgrad.tensor import Tensor  # a layer above this one

        data = b"".join(n.to_bytes(8, "little") for n in (self._seed, self._position, self._cached + 1))
        spec = Spec.of(TensorMeta.of((_STATE_BYTES,), uint8))
        return Tensor._from_node(Node(spec, np.frombuffer(data, np.uint8).copy()))

    def set_state(self, new_state: Any) -> None:
        """Takes up the draws where `new_state` (of `get_state`) was taken; TypeError or RuntimeError for others."""
        if str(getattr(new_state, "dtype", None)).rpartition(".")[2] != "uint8":
            raise TypeError(f"set_state: RNG state must be a uint8 tensor (torch.ByteTensor), got {new_state!r:.80}")
        data = bytes(new_state.tolist())
        if len(data) != _STATE_BYTES:
            raise RuntimeError(f"set_state: RNG state is wrong size, {len(data)} bytes; allowed: {_STATE_BYTES}")
        seed, position, cached = (int.from_bytes(data[start : start + 8], "little") for start in (0, 8, 16))
        self.place = seed, position, cached - 1

    def clone_state(self) -> Generator:
        """Returns a new generator with this one's state."""
        result = Generator()
        result.place = self.place
        return result

    @property
    def place(self) -> tuple[int, int, int]:
        """The state as three integers: seed, position, and where the cached normal number comes from."""
        return self._seed, self._position, self._cached

    @place.setter
    def place(self, place: tuple[int, int, int]) -> None:
        self._seed, self._position, self._cached = place

    def take(self, words: int) -> tuple[int, int]:
        """Takes words of the stream: gives (seed, position) of the first. Both are in the range of int64."""
        position = self._position
        self._position = position + words
        seed = self._seed
        return (seed - 2**64 if seed >= 2**63 else seed), position

    def take_pairs(self, count: int) -> tuple[int, int, int]:
        """Takes the words of `count` normal numbers made in pairs: gives (seed, position, cached).

        `cached` is where the pair starts whose second number is the first here, or -1. The second number of the last
        pair is kept for the next call when `count` leaves it over.
        """
        cached = self._cached
        if count == 0:
            return *self.take(0), cached
        left = count - (cached >= 0)
        pairs = (left + 1) // 2
        seed, position = self.take(4 * pairs)
        self._cached = position + 4 * (pairs - 1) if left % 2 else -1
        return seed, position, cached

    def random_integer(self) -> int:
        """Draws a whole number from 0 to 2**63 - 1 at once, as `empty((), dtype=int64).random_().item()` does."""
        from distgrad.mersenne import words64

        return int(words64(*self.take(2), 1)[0]) & (2**63 - 1)

    def __repr__(self) -> str:
        return f"<distgrad.Generator seed={self._seed} position={self._position}>"


default_generator = Generator()
default_generator.seed()


def manual_seed(seed: int) -> Generator:
    """Sets the seed of the default generator and returns it. Source: torch.manual_seed."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from the system's randomness and returns the seed. Source: torch.seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """Returns the seed of the default generator. Source: torch.initial_seed."""
    return default_generator.initial_seed()


def get_rng_state() -> Any:
    """Returns the state of the default generator as a uint8 tensor. Source: torch.get_rng_state."""
    return default_generator.get_state()


def set_rng_state(new_state: Any) -> None:
    """Sets the state of the default generator. Source: torch.set_rng_state."""
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Restores the default generator's state at the end of the block. Source: torch.random.fork_rng."""
    if not enabled:
        yield
        return
    before = default_generator.place
    try:
        yield
    finally:
        default_generator.place = before
