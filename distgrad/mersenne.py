"""The stream of random words of a seed: MT19937 started by its 32-bit seeding, as PyTorch's CPU generator has it.

Invariant: a word is a function of (seed, position) alone. Positions count 32-bit words from the seeding on; two words
make one of 64 bits, the high half first. Whoever needs a part of the stream makes that part for itself.

The stream has no cheap jump, so a process keeps some engines where they last stood and draws forward from the nearest
one; going back starts from a saved state. Many words come from a compiled loop that works on numpy's own state in memory,
where that is as expected, and are the same. Definition: Matsumoto, Nishimura, "Mersenne Twister" (1998), with the
initialization of 2002.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Any

import numpy as np

from distgrad.kernels import compiled

__all__ = ["words32", "words64"]

_MAX_ENGINES = 24
"""Enough for some simulated workers and for as many segments that are computed again in backward."""

_MAX_STATES = 32
_FIRST_SPACING = 1 << 22
"""Skipping so many words costs about 10 ms; 2.5 kB are saved each time so many have been made."""

_FEW = 256
"""Fewer words than this are made by `random_raw`, which starts quicker and then takes twice the memory."""

_MANY = 1 << 14
"""From this many words on they are made by the compiled loop, whose compiler no small program has to load."""

_KEY = 624
"""Words of the state; after them stands how many of these were given out."""

_lock = threading.Lock()
_engines: list[_Engine] = []
_saved: dict[int, _SavedStates] = {}


class _SavedStates:
    """States along the stream of one seed, ever further apart so that their number stays bounded."""

    def __init__(self) -> None:
        self.spacing = _FIRST_SPACING
        self.states: dict[int, Any] = {}

    def add(self, position: int, state: Any) -> None:
        self.states[position] = state
        if len(self.states) > _MAX_STATES:
            self.spacing *= 2
            for place in sorted(self.states)[1::2]:
                del self.states[place]

    def before(self, position: int) -> int:
        """Gives the place of the last state at or before a position; 0 for the seeding itself."""
        return max((place for place in self.states if place <= position), default=0)


class _Engine:
    """An MT19937 generator somewhere in the stream of a seed."""

    def __init__(self) -> None:
        self.numbers = np.random.RandomState(np.random.MT19937(0))
        self.bits: Any = self.numbers._bit_generator
        self.seed = -1
        self.position = 0
        self.memory: np.ndarray | None = None
        self.looked = False

    def shared(self) -> np.ndarray | None:
        """Gives the generator's state in memory; None where it does not hold what numpy says it does."""
        if not self.looked:
            self.looked = True
            address = self.bits.ctypes.state_address
            memory = np.ctypeslib.as_array((ctypes.c_uint32 * (_KEY + 1)).from_address(address))
            said = self.bits.state["state"]
            if np.array_equal(memory[:_KEY], said["key"]) and memory[_KEY] == said["pos"]:
                self.memory = memory
        return self.memory

    def words(self, count: int) -> np.ndarray:
        """Gives the next words, of 32 bits each."""
        if count >= _MANY and compiled.enabled() and (state := self.shared()) is not None:
            from distgrad.kernels.twisting import draw

            words = np.empty(count, np.uint32)
            draw(state, words)
            return words
        if count < _FEW:
            return self.bits.random_raw(count).astype(np.uint32)
        return self.numbers.randint(0, 2**32, count, dtype=np.uint32)

    def pairs(self, count: int) -> np.ndarray:
        """Gives the next words of 64 bits, each made of two."""
        if count < _FEW:
            halves = self.bits.random_raw(2 * count)
            return (halves[0::2] << np.uint64(32)) | halves[1::2]
        if 2 * count < _MANY or sys.byteorder != "little" or not compiled.enabled() or self.shared() is None:
            return self.numbers.randint(0, 2**64, count, dtype=np.uint64)
        words = self.words(2 * count).view(np.uint64)
        low = words >> np.uint64(32)
        words <<= np.uint64(32)
        words |= low
        return words

    def move(self, seed: int, position: int) -> None:
        """Goes to a position of the stream of a seed."""
        saved = _saved.get(seed)
        nearest = saved.before(position) if saved else 0
        if seed != self.seed or position < self.position or nearest > self.position:
            if nearest and saved:
                self.bits.state = saved.states[nearest]
            else:
                self.numbers.seed(seed)
            self.seed, self.position = seed, nearest
        while self.position < position:
            count = min(position - self.position, _FIRST_SPACING)
            self.bits.random_raw(count, output=False)
            self.advance(count)

    def advance(self, count: int) -> None:
        """Counts words that were made, and saves the state every now and then."""
        before = self.position
        self.position = before + count
        if before // _FIRST_SPACING == self.position // _FIRST_SPACING:
            return
        saved = _saved.get(self.seed)
        if saved is None:
            while len(_saved) >= _MAX_ENGINES:
                del _saved[next(iter(_saved))]
            saved = _saved[self.seed] = _SavedStates()
        if before // saved.spacing != self.position // saved.spacing:
            saved.add(self.position, self.bits.state)


def _engine_at(seed: int, position: int) -> _Engine:
    """Gives an engine at that place: the one that has the shortest way, else the one that was idle for longest."""
    best, index = -1, 0
    for place, engine in enumerate(_engines):
        if engine.seed == seed and best < engine.position <= position:
            best, index = engine.position, place
    if best < 0 and len(_engines) < _MAX_ENGINES:
        engine = _Engine()
    else:
        engine = _engines.pop(index)
    _engines.append(engine)
    if best != position:
        engine.move(seed, position)
    return engine


def words32(seed: int, position: int, count: int) -> np.ndarray:
    """Returns `count` words of 32 bits from a position of the stream of `seed`, of which the low 32 bits count."""
    with _lock:
        engine = _engine_at(seed & 0xFFFF_FFFF, position)
        words = engine.words(count)
        engine.advance(count)
    return words


def words64(seed: int, position: int, count: int) -> np.ndarray:
    """Returns `count` words of 64 bits, which take two positions each, from a position of the stream of `seed`."""
    with _lock:
        engine = _engine_at(seed & 0xFFFF_FFFF, position)
        words = engine.pairs(count)
        engine.advance(2 * count)
    return words
