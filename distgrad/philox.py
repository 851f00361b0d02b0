"""Counter-based random numbers: every element of a global tensor has its own address in a Philox stream.

Invariant: the element with row-major index i of a tensor of global shape `shape` uses the 64-bit words [k*i, k*i + k)
of the Philox-4x64 stream keyed by (seed, counter), with k fixed by the kind of number alone. There is no rejection, so
any block of any tensor, sharded in any way, is generated alone and equals the same block of the whole, bit for bit.

The words, and so `uniform`, `randint`, `bernoulli` and `permutation`, are the same on every machine. `normal` and
`exponential` go through ndtri and log, whose last bit may differ between processors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["bernoulli", "exponential", "normal", "permutation", "randint", "uniform", "words"]

Block: TypeAlias = tuple[int, int, int]
"""(dim, start, stop): the part [start, stop) of a tensor along `dim`."""

_CHUNK_WORDS = 1 << 16
"""Words made and converted at a time: 512 KiB, which stays in the cache between the steps of a conversion."""

_SHORT_GAP_WORDS = 4096
"""Making and dropping this many words costs as much as seeking over them (about 15 microseconds)."""

_WORDS_PER_STEP = 4
"""Philox-4x64 makes four words per step of its counter."""

_LOW_32_BITS = np.uint64(0xFFFF_FFFF)
_32 = np.uint64(32)


def uniform(
    seed: int,
    counter: int,
    shape: Sequence[int],
    dtype: DTypeLike = np.float32,
    low: float = 0.0,
    high: float = 1.0,
    block: Block | None = None,
) -> np.ndarray:
    """Returns numbers uniform on [low, high), never `high` itself, in any float dtype; one word per element.

    The value low + u * (high - low), u a multiple of 2**-53, is computed in double and rounded to `dtype`; what rounds
    up to `high` becomes the largest number below it. In a complex dtype both parts are such numbers (two words).
    Raises ValueError when low > high, when a bound is not finite in `dtype`, or for a wrong `block`.
    Definition: torch.Tensor.uniform_.
    """
    part = _real_dtype("uniform", dtype)
    if not low <= high:
        raise ValueError(f"uniform: low={low} is above high={high}; allowed: low <= high")
    _check_finite_in("uniform", part, low=low, high=high)
    if not math.isfinite(high - low):
        raise ValueError(f"uniform: high - low = {high} - {low} is not finite; choose a smaller range")
    smallest, largest = _numbers_within(low, high, part)

    def convert(bits: np.ndarray) -> np.ndarray:
        values = (bits >> np.uint64(11)).astype(np.float64)
        values *= 2.0**-53 * (high - low)
        values += low
        values = values.astype(part, copy=False)
        return np.clip(values, smallest, largest, out=values)

    return _real_or_complex(seed, counter, shape, dtype, block, convert)


def normal(
    seed: int,
    counter: int,
    shape: Sequence[int],
    dtype: DTypeLike = np.float32,
    mean: float = 0.0,
    std: float = 1.0,
    block: Block | None = None,
) -> np.ndarray:
    """Returns normally distributed numbers; one word per element, no pairs (as Box-Muller would need).

    The value is mean + std * ndtri(u), the inverse of the normal distribution at u = (2m + 1) / 2**53, so it is finite
    (|z| <= 8.21) and symmetric. In a complex dtype each part has variance std**2 / 2 (two words), as torch.randn.
    Raises ValueError for a negative or NaN `std` and for a wrong `block`. Definition: torch.normal.
    """
    if not std >= 0:
        raise ValueError(f"normal: std must be 0 or more, got {std}")
    from scipy.special import ndtri  # only here: importing scipy takes longer than importing this package

    part = _real_dtype("normal", dtype)
    is_complex = np.dtype(dtype).kind == "c"
    scale = std * math.sqrt(0.5) if is_complex else std

    def convert(bits: np.ndarray) -> np.ndarray:
        values = _open_unit_interval(bits)
        ndtri(values, out=values)
        values *= scale
        real_parts = values[::2] if is_complex else values
        real_parts += mean
        with np.errstate(over="ignore"):  # a std beyond the range of float16 gives infinities, as in torch
            return values.astype(part, copy=False)

    return _real_or_complex(seed, counter, shape, dtype, block, convert)


def randint(
    seed: int,
    counter: int,
    shape: Sequence[int],
    low: int,
    high: int,
    dtype: DTypeLike = np.int64,
    block: Block | None = None,
) -> np.ndarray:
    """Returns whole numbers uniform on {low, ..., high - 1}.

    The random word w becomes floor(w * n / 2**b) with n = high - low. Up to n = 2**32, w has b = 64 bits, above that
    b = 128 (two words per element), so no value is more likely than another by more than one part in 2**32.
    Raises ValueError when low >= high, when a bound does not fit `dtype`, or for a wrong `block`.
    Definition: torch.randint.
    """
    dtype = np.dtype(dtype)
    if low >= high:
        raise ValueError(f"randint: low={low}, high={high}; allowed: low < high")
    least, most = _integer_range(dtype)
    if low < least or high - 1 > most:
        raise ValueError(f"randint: [{low}, {high}) does not fit {dtype.name}; allowed: within [{least}, {most}]")
    count = high - low
    offset = np.uint64(low % 2**64)
    signed = low < 0
    words_per_element = 1 if count <= 2**32 else 2

    def convert(bits: np.ndarray) -> np.ndarray:
        values = _scale_to_range(bits.reshape(-1, words_per_element), count)
        values += offset  # modulo 2**64: for a negative `low` this is two's complement
        return (values.view(np.int64) if signed else values).astype(dtype)

    return _generate(seed, counter, shape, block, dtype, convert, words_per_element)


def bernoulli(
    seed: int,
    counter: int,
    shape: Sequence[int],
    p: float,
    dtype: DTypeLike = np.bool_,
    block: Block | None = None,
) -> np.ndarray:
    """Returns True (or 1 in another dtype) with probability `p`, exact to 2**-53; one word per element.

    For one probability per element compare `uniform(..., float64) < p`: it uses the same bits.
    Raises ValueError when `p` lies outside [0, 1] and for a wrong `block`. Definition: torch.bernoulli.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"bernoulli: p must lie in [0, 1], got {p}")
    limit = np.uint64(math.ceil(p * 2**53))
    return _generate(seed, counter, shape, block, np.dtype(dtype), lambda bits: (bits >> np.uint64(11)) < limit)


def exponential(
    seed: int,
    counter: int,
    shape: Sequence[int],
    dtype: DTypeLike = np.float32,
    rate: float = 1.0,
    block: Block | None = None,
) -> np.ndarray:
    """Returns exponentially distributed numbers above 0, -log(u) / rate with u in (0, 1); one word per element.

    Raises ValueError when `rate` is not above 0 and for a wrong `block`. Definition: torch.Tensor.exponential_.
    """
    if not rate > 0:
        raise ValueError(f"exponential: rate must be above 0, got {rate}")
    dtype = np.dtype(dtype)
    if _real_dtype("exponential", dtype) != dtype:
        raise TypeError(f"exponential: dtype {dtype.name} is not supported; allowed: float dtypes")
    smallest = np.nextafter(np.zeros((), dtype), np.ones((), dtype))

    def convert(bits: np.ndarray) -> np.ndarray:
        values = _open_unit_interval(bits)
        np.log(values, out=values)
        values /= -rate
        with np.errstate(over="ignore", under="ignore"):
            values = values.astype(dtype, copy=False)
        return np.maximum(values, smallest, out=values)  # float16 would round the smallest ones to 0

    return _generate(seed, counter, shape, block, dtype, convert)


def permutation(seed: int, counter: int, n: int) -> np.ndarray:
    """Returns a random order of 0..n-1 as int64 (n,): the stable argsort of n words, so the same for everyone.

    Raises ValueError for a negative `n`. Definition: torch.randperm.
    """
    if n < 0:
        raise ValueError(f"permutation: n must be 0 or more, got {n}")
    return np.argsort(words(seed, counter, (n,)), kind="stable").astype(np.int64, copy=False)


def words(seed: int, counter: int, shape: Sequence[int], block: Block | None = None) -> np.ndarray:
    """Returns the raw 64-bit words of a block, one per element, as uint64."""
    return _generate(seed, counter, shape, block, np.dtype(np.uint64), lambda bits: bits)


def _open_unit_interval(bits: np.ndarray) -> np.ndarray:
    """Maps words to (2m + 1) / 2**53, m the top 52 bits: exact in double, never 0 and never 1."""
    values = (bits >> np.uint64(12)).astype(np.float64)
    values += 0.5
    values *= 2.0**-52
    return values


def _scale_to_range(bits: np.ndarray, count: int) -> np.ndarray:
    """Returns floor(w * count / 2**64) for words (n, 1), or over 2**128 for pairs (n, 2) of upper and lower word."""
    upper, lower = bits[:, 0], bits[:, -1]
    if bits.shape[1] == 1:
        factor = np.uint64(count)  # at most 2**32: no product below exceeds 64 bits
        return ((upper >> _32) * factor + ((upper & _LOW_32_BITS) * factor >> _32)) >> _32
    if count == 2**64:
        return upper.copy()
    factor = np.uint64(count)
    carried = _multiply_high(lower, factor)
    total = upper * factor + carried
    return _multiply_high(upper, factor) + (total < carried).astype(np.uint64)


def _multiply_high(a: np.ndarray, b: np.uint64) -> np.ndarray:
    """Upper half of the 128-bit product of 64-bit numbers, from 32-bit halves (no step exceeds 64 bits)."""
    a_low, a_high = a & _LOW_32_BITS, a >> _32
    b_low, b_high = b & _LOW_32_BITS, b >> _32
    middle = a_high * b_low + (a_low * b_low >> _32)
    return a_high * b_high + (middle >> _32) + ((middle & _LOW_32_BITS) + a_low * b_high >> _32)


def _numbers_within(low: float, high: float, dtype: np.dtype) -> tuple[Any, Any]:
    """Smallest and largest number of `dtype` in [low, high); `low` rounded, twice, when the dtype has none there."""
    infinity = np.array(np.inf, dtype)
    first, last = np.array(low, dtype), np.array(high, dtype)
    if float(first) < low:
        first = np.nextafter(first, infinity)
    if float(last) >= high:
        last = np.nextafter(last, -infinity)
    if float(first) > float(last):
        first = last = np.array(low, dtype)
    return first, last


_MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}


def _real_dtype(op: str, dtype: DTypeLike) -> np.dtype:
    """The float dtype itself, or that of the parts of a complex one."""
    dtype = np.dtype(dtype)
    part = np.empty(0, dtype).real.dtype if dtype.kind == "c" else dtype
    if part.name not in _MANTISSA_BITS:
        raise TypeError(f"{op}: dtype {dtype.name} is not supported; allowed: {', '.join(_MANTISSA_BITS)}, complex")
    return part


def _check_finite_in(op: str, dtype: np.dtype, **bounds: float) -> None:
    for name, value in bounds.items():
        with np.errstate(over="ignore"):
            representable = math.isfinite(float(np.array(value, dtype)))
        if not representable:
            raise ValueError(f"{op}: {name}={value} is not finite in {dtype.name}; choose a bound within its range")


def _integer_range(dtype: np.dtype) -> tuple[int, int]:
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return int(limits.min), int(limits.max)
    if dtype.name in _MANTISSA_BITS:
        # Beyond this, floats do not hold every whole number: rounding would make some values likelier than others.
        limit = 2 ** (_MANTISSA_BITS[dtype.name] + 1)
        return -limit, limit
    raise TypeError(f"randint: dtype {dtype.name} is not supported; allowed: bool, integer and float dtypes")


def _real_or_complex(
    seed: int,
    counter: int,
    shape: Sequence[int],
    dtype: DTypeLike,
    block: Block | None,
    convert: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Generates numbers of `dtype` with a `convert` for real ones; real and imaginary part lie side by side."""
    dtype = np.dtype(dtype)
    if dtype.kind != "c":
        return _generate(seed, counter, shape, block, dtype, convert)
    part = np.empty(0, dtype).real.dtype
    return _generate(seed, counter, shape, block, part, convert, words_per_element=2, view_as=dtype)


def _check_block(shape: tuple[int, ...], block: Block | None) -> Block:
    if any(extent < 0 for extent in shape):
        raise ValueError(f"random numbers: shape {shape} has a negative extent; allowed: 0 or more")
    if block is None:
        return (0, 0, shape[0] if shape else 1)
    dim, start, stop = block
    ndim = len(shape)
    if not -ndim <= dim < ndim:
        raise ValueError(f"random numbers: block {block} names dim {dim} of shape {shape}, which has {ndim} dims")
    if not 0 <= start <= stop <= shape[dim]:
        raise ValueError(f"random numbers: block {block} of shape {shape}; allowed: 0 <= start <= stop <= {shape[dim]}")
    return dim % ndim, start, stop


def _generate(
    seed: int,
    counter: int,
    shape: Sequence[int],
    block: Block | None,
    dtype: np.dtype,
    convert: Callable[[np.ndarray], np.ndarray],
    words_per_element: int = 1,
    view_as: np.dtype | None = None,
) -> np.ndarray:
    """Fills the block with `convert(words)`; with `view_as` every word becomes a number and k of them one element.

    `convert` gets a contiguous (n * k,) array of words, always: its elementwise loops therefore take the same machine
    instructions for an element, whatever block it is made in.
    """
    shape = tuple(int(extent) for extent in shape)
    dim, start, stop = _check_block(shape, block)
    block_shape = (*shape[:dim], stop - start, *shape[dim + 1 :]) if shape else ()
    result = np.empty(block_shape, dtype if view_as is None else view_as)
    if not result.size:
        return result
    # As a matrix: one row per index of the leading dims; the block is a range of columns, all of them if dim is 0.
    num_rows = math.prod(shape[:dim])
    inner = math.prod(shape[dim + 1 :])
    row_length = (shape[dim] if shape else 1) * inner
    if stop - start == row_length // inner:
        num_rows, row_length, first, last = 1, num_rows * row_length, 0, num_rows * row_length
    else:
        first, last = start * inner, stop * inner
    numbers = result.reshape(num_rows, -1).view(dtype)
    k = words_per_element
    numbers_per_word = 1 if view_as is None else k
    stream = _WordStream(seed, counter)
    for rows, begin, end, bits in _pieces(stream, num_rows, row_length * k, first * k, last * k):
        columns = slice(begin // k * numbers_per_word, end // k * numbers_per_word)
        values = convert(bits)
        numbers[rows, columns] = values.reshape(-1, columns.stop - columns.start)
    return result


def _pieces(
    stream: _WordStream, num_rows: int, row_words: int, first: int, last: int
) -> Iterator[tuple[slice, int, int, np.ndarray]]:
    """Yields (rows, begin, end, words): the words of columns [first + begin, first + end) of some rows, flattened."""
    width = last - first
    if num_rows > 1 and row_words - width <= _SHORT_GAP_WORDS and row_words <= _CHUNK_WORDS:
        rows_at_once = _CHUNK_WORDS // row_words
        for row in range(0, num_rows, rows_at_once):
            count = min(rows_at_once, num_rows - row)
            whole_rows = stream.read(row * row_words, count * row_words).reshape(count, row_words)
            yield slice(row, row + count), 0, width, np.ascontiguousarray(whole_rows[:, first:last]).reshape(-1)
        return
    for row in range(num_rows):
        for begin in range(0, width, _CHUNK_WORDS):
            end = min(begin + _CHUNK_WORDS, width)
            yield slice(row, row + 1), begin, end, stream.read(row * row_words + first + begin, end - begin)


class _WordStream:
    """The words of one Philox stream, read at ascending positions."""

    def __init__(self, seed: int, counter: int) -> None:
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"random numbers: seed {seed} does not fit 64 bits; allowed: -2**63 <= seed < 2**64")
        if not 0 <= counter < 2**64:
            raise ValueError(f"random numbers: stream counter {counter}; allowed: 0 <= counter < 2**64")
        # Both are the key, not the counter: Philox's own counter is the position in the stream.
        self._generator = np.random.Philox(key=np.array([seed % 2**64, counter], np.uint64), counter=0)
        self._position = 0

    def read(self, start: int, count: int) -> np.ndarray:
        """Returns the words [start, start + count); `start` is not before the end of the last read."""
        gap = start - self._position
        if gap >= _WORDS_PER_STEP:
            # advance() counts steps of the cipher from the one last begun, and drops what is left of that.
            begun_steps = -(-self._position // _WORDS_PER_STEP)
            self._generator.advance(start // _WORDS_PER_STEP - begun_steps)
            gap = start % _WORDS_PER_STEP
        if gap:
            self._generator.random_raw(gap)
        self._position = start + count
        return self._generator.random_raw(count)
