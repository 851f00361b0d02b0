"""Random numbers as PyTorch's CPU generator gives them: which words of the stream an element takes and what it makes
of them.

Invariant: an element is a function of the stream (seed), of the position where its tensor's words start and of its own
row-major index in the tensor, so any block of a tensor is made alone and equals the same block of the whole. How many
words a tensor takes follows from its shape and dtype.

Uniform and whole numbers, permutations and coins equal PyTorch's bit for bit. What goes through log, cos or exp may
differ in the last bits, as it does between PyTorch's own builds. The algorithms are those of PyTorch 2.13, found by
comparing numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from distgrad.kernels import compiled
from distgrad.mersenne import words32, words64

__all__ = ["bernoulli", "bernoulli_each", "cauchy", "exponential", "geometric", "integers", "log_normal", "normal",
           "normal_pairs", "normal_words", "permutation", "permutation_words", "standard_uniform", "uniform"]

Block: TypeAlias = tuple[int, int, int]
"""(dim, start, stop): the part [start, stop) of a tensor along `dim`."""

Maker: TypeAlias = Callable[[int, int, np.ndarray], None]
"""Writes the elements [start, stop) of a flat tensor into an array."""

WIDE_RANGE = 1 << 28
"""From this many different whole numbers on, PyTorch takes 64 bits for each."""

_CHUNK = 1 << 15
"""Elements made at a time, so that the steps of a conversion find them in the cache."""

_PARTS: dict[np.dtype, np.dtype] = {np.dtype(np.complex64): np.dtype(np.float32), np.dtype(np.complex128): np.dtype(np.float64)}
_LOW_24 = np.uint32((1 << 24) - 1)
_LOW_53 = np.uint64((1 << 53) - 1)


def _blockwise(shape: Sequence[int], block: Block | None, dtype: np.dtype, make: Maker) -> np.ndarray:
    """Makes a block of a tensor from a maker of runs of elements."""
    shape = tuple(shape)
    if block is None:
        out = np.empty(shape, dtype)
        _in_chunks(0, out.size, out.reshape(-1), make)
        return out
    dim, start, stop = block
    out = np.empty((*shape[:dim], stop - start, *shape[dim + 1 :]), dtype)
    if not out.size:
        return out
    inner = math.prod(shape[dim + 1 :])
    period, first, last = shape[dim] * inner, start * inner, stop * inner
    runs = out.reshape(-1, last - first)
    at_once = _CHUNK // period
    if len(runs) == 1 or at_once < 2:
        for index, run in enumerate(runs):
            _in_chunks(index * period + first, index * period + last, run, make)
        return out
    whole = np.empty(at_once * period, dtype)
    for index in range(0, len(runs), at_once):
        count = min(at_once, len(runs) - index)
        part = whole[: count * period]
        make(index * period, (index + count) * period, part)
        runs[index : index + count] = part.reshape(count, period)[:, first:last]
    return out


def _in_chunks(start: int, stop: int, out: np.ndarray, make: Maker) -> None:
    for place in range(start, stop, _CHUNK):
        end = min(place + _CHUNK, stop)
        make(place, end, out[place - start : end - start])


def _units32(seed: int, position: int, count: int) -> np.ndarray:
    """Gives multiples of 2**-24 in [0, 1) as float32, one word each."""
    words = words32(seed, position, count)
    words &= _LOW_24
    units = words.view(np.int32).astype(np.float32)
    units *= np.float32(2.0**-24)
    return units


def _units64(seed: int, position: int, count: int) -> np.ndarray:
    """Gives multiples of 2**-53 in [0, 1) as float64, two words each."""
    words = words64(seed, position, count)
    words &= _LOW_53
    units = words.view(np.int64).astype(np.float64)
    units *= 2.0**-53
    return units


def _part(dtype: np.dtype) -> np.dtype:
    """Gives the dtype of the real numbers that a dtype's elements consist of."""
    return _PARTS.get(dtype, dtype)


# Uniform numbers --------------------------------------------------------------------------------------------


def uniform(seed: int, position: int, shape: Sequence[int], dtype: Any = np.float32, low: float = 0.0,
            high: float = 1.0, block: Block | None = None) -> np.ndarray:
    """Returns low + u * (high - low), u uniform on [0, 1) with 53 bits in double precision and 24 in others."""
    dtype = np.dtype(dtype)
    part = _part(dtype)
    per_element = dtype.itemsize // part.itemsize

    def make(start: int, stop: int, out: np.ndarray) -> None:
        flat = out.view(part)
        first, count = start * per_element, len(flat)
        if part == np.float64:
            flat[...] = _scaled64(_units64(seed, position + 2 * first, count), low, high)
        else:
            flat[...] = _scaled32(_units32(seed, position + first, count), low, high, part)

    return _blockwise(shape, block, dtype, make)


def _scaled32(units: np.ndarray, low: float, high: float, part: np.dtype) -> np.ndarray:
    """Gives low + units * (high - low), rounded once, as a machine with fused multiply-add does it."""
    if low == 0.0 and high == 1.0 and part == np.float32:
        return units
    first, last = np.float64(np.float32(low)), np.float64(np.float32(high))
    wide = units.astype(np.float64)  # holds the product of two numbers of 24 bits exactly
    wide *= np.float64(np.float32(last - first))
    wide += first
    values = wide.astype(np.float32)
    if part == np.float32:
        return values
    found = values.astype(part)
    # In half precision, what rounds up to the end of the range becomes its beginning.
    return np.where(found >= part.type(high), part.type(low), found)


def _scaled64(units: np.ndarray, low: float, high: float) -> np.ndarray:
    """Gives low + units * (high - low), rounded once: what the product's rounding loses is added at the end."""
    width = high - low
    if low == 0.0 and width == 1.0:
        return units
    product = units * width
    if low == 0.0:
        return product
    unit_head, width_head = _head(units), _head(width)
    unit_tail, width_tail = units - unit_head, width - width_head
    lost = ((unit_head * width_head - product) + unit_head * width_tail + unit_tail * width_head
            + unit_tail * width_tail)
    total = product + low
    back = total - product
    lost += (product - (total - back)) + (low - back)
    return total + lost


def _head(number: Any) -> Any:
    """Gives the upper 26 bits of double precision numbers."""
    wide = number * 134217729.0  # 2**27 + 1
    return wide - (wide - number)


def standard_uniform(seed: int, position: int, shape: Sequence[int], block: Block | None = None) -> np.ndarray:
    """Returns float64 multiples of 2**-53 uniform on [0, 1), two words each."""

    def make(start: int, stop: int, out: np.ndarray) -> None:
        out[...] = _units64(seed, position + 2 * start, stop - start)

    return _blockwise(shape, block, np.dtype(np.float64), make)


# Normal numbers ---------------------------------------------------------------------------------------------


def _box_muller(units: np.ndarray) -> np.ndarray:
    """Turns runs of 16 uniform numbers into normal ones, in place: the first 8 give radii and the others angles."""
    kind = units.dtype.type
    runs = units.reshape(-1, 2, 8)
    radius = np.subtract(kind(1), runs[:, 0])
    np.log(radius, out=radius)
    radius *= kind(-2)
    np.sqrt(radius, out=radius)
    angle = np.multiply(runs[:, 1], kind(2 * math.pi))
    side = np.cos(angle)
    np.multiply(side, radius, out=runs[:, 0])
    np.sin(angle, out=side)
    np.multiply(side, radius, out=runs[:, 1])
    return units


def normal_words(shape: Sequence[int], dtype: Any) -> int:
    """Gives how many words `normal` takes for at least 16 numbers."""
    part = _part(np.dtype(dtype))
    count = math.prod(shape) * (np.dtype(dtype).itemsize // part.itemsize)
    rest = count % 16
    if part == np.float64:
        return 2 * (count + (16 if rest else 0))
    return count + ((16 if part.itemsize == 4 else 16 - rest) if rest else 0)


def normal(seed: int, position: int, shape: Sequence[int], dtype: Any = np.float32, mean: float = 0.0,
           std: float = 1.0, block: Block | None = None) -> np.ndarray:
    """Returns normal numbers for at least 16 of them: runs of 16 by Box and Muller's method (1958).

    When 16 does not divide their number, the last 16 come anew from words after all others. A complex number's parts
    are two numbers, each of variance std**2 / 2.
    """
    dtype = np.dtype(dtype)
    part = _part(dtype)
    per_element = dtype.itemsize // part.itemsize
    total = math.prod(shape) * per_element
    whole = total // 16 * 16
    double, half = part == np.float64, part.itemsize < 4
    if per_element == 2:
        std = std / math.sqrt(2.0)
    kind = np.float64 if double else np.float32

    def run(word: int, count: int) -> np.ndarray:
        values = _box_muller(_units64(seed, position + 2 * word, count) if double
                             else _units32(seed, position + word, count))
        if std != 1.0:
            values *= kind(std)
        if mean != 0.0:
            values += kind(mean)
        return values

    def make(start: int, stop: int, out: np.ndarray) -> None:
        flat = out.view(part)
        start, stop = start * per_element, start * per_element + len(flat)
        end = min(stop, whole)
        if start < end:
            base = start // 16 * 16
            flat[: end - start] = run(base, -(-end // 16) * 16 - base)[start - base : end - base]
        if total > whole and stop > total - 16:
            last = run(whole if half else total, 16)
            begin = max(start, total - 16)
            flat[begin - start :] = last[begin - (total - 16) : stop - (total - 16)]

    return _blockwise(shape, block, dtype, make)


def _pairs(seed: int, position: int, cached: int, start: int, stop: int) -> np.ndarray:
    """Gives the normal numbers [start, stop) made one by one, as float64.

    Each two come from two uniform numbers of 53 bits. `cached` is the position of an earlier pair whose second number
    comes first here; -1 when there is none.
    """
    out = np.empty(stop - start)
    if cached >= 0:
        if start == 0 and stop > 0:
            out[0] = _pair_values(_units64(seed, cached, 2))[1]
        start, stop = start - 1, stop - 1
    begin = max(start, 0)
    if begin < stop:
        first = begin // 2
        values = _pair_values(_units64(seed, position + 4 * first, 2 * (-(-stop // 2) - first)))
        out[begin - start :] = values[begin - 2 * first : stop - 2 * first]
    return out


def _pair_values(units: np.ndarray) -> np.ndarray:
    angle = (2.0 * math.pi) * units[0::2]
    radius = np.sqrt(-2.0 * np.log1p(-units[1::2]))
    units[0::2] = radius * np.cos(angle)
    units[1::2] = radius * np.sin(angle)
    return units


def normal_pairs(seed: int, position: int, cached: int, shape: Sequence[int], dtype: Any = np.float32,
                 mean: float = 0.0, std: float = 1.0, block: Block | None = None) -> np.ndarray:
    """Returns normal numbers made one by one in double precision, as PyTorch does for less than 16 (see `_pairs`)."""
    dtype = np.dtype(dtype)
    part = _part(dtype)
    per_element = dtype.itemsize // part.itemsize
    if per_element == 2:
        std = std / math.sqrt(2.0)

    def make(start: int, stop: int, out: np.ndarray) -> None:
        values = _pairs(seed, position, cached, start * per_element, stop * per_element)
        values *= std
        values += mean
        with np.errstate(over="ignore"):
            out.view(part)[...] = values

    return _blockwise(shape, block, dtype, make)


def log_normal(seed: int, position: int, cached: int, shape: Sequence[int], dtype: Any, mean: float, std: float,
               block: Block | None = None) -> np.ndarray:
    """Returns numbers whose logarithm is normal; the words are those of `normal_pairs`."""

    def make(start: int, stop: int, out: np.ndarray) -> None:
        values = _pairs(seed, position, cached, start, stop)
        values *= std
        values += mean
        with np.errstate(over="ignore"):
            out[...] = np.exp(values, out=values)

    return _blockwise(shape, block, np.dtype(dtype), make)


# Numbers from one uniform number of 53 bits ------------------------------------------------------------------


def _from_units(seed: int, position: int, shape: Sequence[int], dtype: Any, block: Block | None,
                convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    def make(start: int, stop: int, out: np.ndarray) -> None:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            out[...] = convert(_units64(seed, position + 2 * start, stop - start))

    return _blockwise(shape, block, np.dtype(dtype), make)


def exponential(seed: int, position: int, shape: Sequence[int], dtype: Any, rate: float,
                block: Block | None = None) -> np.ndarray:
    """Returns exponentially distributed numbers -log(1 - u) / rate; two words each."""

    def convert(units: np.ndarray) -> np.ndarray:
        np.negative(units, out=units)
        np.log1p(units, out=units)
        units *= -1.0 / rate
        return units

    return _from_units(seed, position, shape, dtype, block, convert)


def cauchy(seed: int, position: int, shape: Sequence[int], dtype: Any, median: float, sigma: float,
           block: Block | None = None) -> np.ndarray:
    """Returns Cauchy distributed numbers median + sigma * tan(pi * (u - 1/2)); two words each."""
    return _from_units(seed, position, shape, dtype, block,
                       lambda units: median + sigma * np.tan(math.pi * (units - 0.5)))


def geometric(seed: int, position: int, shape: Sequence[int], dtype: Any, p: float,
              block: Block | None = None) -> np.ndarray:
    """Returns numbers of trials up to the first success, ceil(log(u) / log(1 - p)); two words each."""
    return _from_units(seed, position, shape, dtype, block, lambda units: np.ceil(np.log(units) / math.log1p(-p)))


def bernoulli(seed: int, position: int, shape: Sequence[int], p: float, dtype: Any = np.bool_,
              block: Block | None = None) -> np.ndarray:
    """Returns 1 where u < p, else 0; two words each."""
    limit = np.uint64(math.ceil(p * 2.0**53))

    def make(start: int, stop: int, out: np.ndarray) -> None:
        words = words64(seed, position + 2 * start, stop - start)
        words &= _LOW_53
        if out.dtype == np.bool_:
            np.less(words, limit, out=out)
        else:
            out[...] = words < limit

    return _blockwise(shape, block, np.dtype(dtype), make)


def bernoulli_each(seed: int, position: int, shape: Sequence[int], p: np.ndarray, dtype: Any,
                   block: Block | None = None) -> np.ndarray:
    """Returns 1 where u < p, else 0, for probabilities `p` of the block: two words each in double precision, else one.
    """
    if p.dtype == np.float64:
        return (standard_uniform(seed, position, shape, block) < p).astype(dtype)
    return (uniform(seed, position, shape, block=block) < p.astype(np.float32)).astype(dtype)


# Whole numbers ----------------------------------------------------------------------------------------------


def integers(seed: int, position: int, shape: Sequence[int], low: int, count: int, wide: bool, dtype: Any,
             block: Block | None = None) -> np.ndarray:
    """Returns low + word % count; words of 64 bits when `wide`, else of 32."""
    dtype = np.dtype(dtype)
    kind = np.dtype(np.uint64 if wide else np.uint32)
    words, step = (words64, 2) if wide else (words32, 1)
    divisor, first = kind.type(count % 2**64), np.uint64(low % 2**64)

    def make(start: int, stop: int, out: np.ndarray) -> None:
        values = words(seed, position + step * start, stop - start)
        if count & (count - 1) == 0:
            values &= kind.type(count - 1)
        else:
            # The quotient by one divisor is much quicker than the remainder.
            whole = values // divisor
            whole *= divisor
            values -= whole
        if low:
            values = values.astype(np.uint64)
            values += first  # modulo 2**64: two's complement
        out[...] = values if dtype.kind == "u" or not low else values.view(np.int64)

    return _blockwise(shape, block, dtype, make)


def permutation_words(n: int) -> int:
    """Gives how many words a permutation of n takes."""
    return max(n - 1, 0) * (1 if n < (2**32 - 1) // 20 else 2)


def permutation(seed: int, position: int, n: int) -> np.ndarray:
    """Returns a random order of 0, ..., n - 1 as int64: Fisher and Yates's exchanges from the front on."""
    if n < 2:
        return np.arange(n)
    narrow = permutation_words(n) == n - 1
    words = words32(seed, position, n - 1) if narrow else words64(seed, position, n - 1)
    if narrow and n >= compiled.LEAST and compiled.enabled():
        from distgrad.kernels.shuffling import exchanged

        return exchanged(words)
    words %= np.arange(n, 1, -1, dtype=words.dtype)
    partners = words.astype(np.int64)
    partners += np.arange(n - 1)
    if n <= 512:
        order = list(range(n))
        for index, partner in enumerate(partners.tolist()):
            order[index], order[partner] = order[partner], order[index]
        return np.array(order)
    return _exchanged(n, partners)


def _exchanged(n: int, partners: np.ndarray) -> np.ndarray:
    """Gives the order after exchanging places i and partners[i] >= i for i = 0, 1, ...

    Step i leaves at place i, for good, what stood at partners[i]: what the step before it with the same partner put
    there, else what was there from the start. A step puts there what stood at its own place, which in turn came from
    the last step that had this place as partner, or from the start.
    """
    steps = np.arange(n - 1)
    moving = np.flatnonzero(partners != steps)
    origin = np.arange(n)
    origin[partners.take(moving)] = moving  # of equal indices the last assignment counts: the last step
    while True:  # follow the chains of all places at once, twice as far each time
        further = origin.take(origin)
        if np.array_equal(further, origin):
            break
        origin = further  # in the end: what stands at place i before step i
    order = np.append(partners, origin[-1])
    # The last step of each partner, then the last but one, and so on: half as many each time.
    last = np.zeros(n, np.int64)
    last[partners] = steps
    places, followers = partners, steps[:0]
    while True:
        here = last.take(places) == steps
        if len(followers):
            order[followers.compress(here)] = origin.take(steps.compress(here))
        earlier = ~here
        steps, places = steps.compress(earlier), places.compress(earlier)
        if not len(steps):
            return order
        followers = last.take(places)
        last[places] = steps
