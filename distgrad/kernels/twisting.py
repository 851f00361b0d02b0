"""A compiled kernel of the Mersenne Twister, whose steps lie far enough apart to be taken many at a time.

Invariant: the words are those of numpy's generator, whose state in memory goes on as if numpy had made them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from distgrad.kernels.compiling import kernel

_WORDS, _APART = 624, 397
_HIGH, _LOW, _TWIST = np.uint32(0x8000_0000), np.uint32(0x7FFF_FFFF), np.uint32(0x9908_B0DF)
_NONE, _ONE = np.uint32(0), np.uint32(1)
_MASK_7, _MASK_15 = np.uint32(0x9D2C_5680), np.uint32(0xEFC6_0000)
_7, _11, _15, _18 = np.uint32(7), np.uint32(11), np.uint32(15), np.uint32(18)


@kernel("1 1", kinds=(types.uint32,))
def draw(state: Any, out: Any) -> None:
    """Fills `out` with the next words; `state` holds 624 words and how many of them were given out."""
    key = state[:_WORDS]
    given, done = int(state[_WORDS]), 0
    near = _WORDS - _APART
    while done < out.size:
        if given == _WORDS:
            for i in range(near):
                y = (key[i] & _HIGH) | (key[i + 1] & _LOW)
                key[i] = key[i + _APART] ^ (y >> _ONE) ^ (np.uint32(_NONE - (y & _ONE)) & _TWIST)
            for i in range(near, _WORDS - 1):
                y = (key[i] & _HIGH) | (key[i + 1] & _LOW)
                key[i] = key[i - near] ^ (y >> _ONE) ^ (np.uint32(_NONE - (y & _ONE)) & _TWIST)
            y = (key[_WORDS - 1] & _HIGH) | (key[0] & _LOW)
            key[_WORDS - 1] = key[_APART - 1] ^ (y >> _ONE) ^ (np.uint32(_NONE - (y & _ONE)) & _TWIST)
            given = 0
        count = min(_WORDS - given, out.size - done)
        source, target = key[given : given + count], out[done : done + count]
        for j in range(count):
            y = source[j]
            y ^= y >> _11
            y ^= (y << _7) & _MASK_7
            y ^= (y << _15) & _MASK_15
            target[j] = y ^ (y >> _18)
        given += count
        done += count
    state[_WORDS] = given
