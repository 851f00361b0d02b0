"""The stream of a seed and what is made of it: any block equals the same block of the whole, and the distributions are
what they claim to be. That the numbers are PyTorch's is shown in test_torch_random."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

from distgrad import draws, mersenne
from distgrad.kernels import compiled

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

KERNELS = {
    "uniform float32": lambda shape, block=None: draws.uniform(1, 5, shape, np.float32, -2, 3, block=block),
    "uniform float64": lambda shape, block=None: draws.uniform(1, 5, shape, np.float64, -0.3, 0.7, block=block),
    "uniform bfloat16": lambda shape, block=None: draws.uniform(1, 5, shape, BFLOAT16, block=block),
    "uniform complex64": lambda shape, block=None: draws.uniform(1, 5, shape, np.complex64, block=block),
    "normal float32": lambda shape, block=None: draws.normal(1, 5, shape, np.float32, 1.5, 0.1, block=block),
    "normal float64": lambda shape, block=None: draws.normal(1, 5, shape, np.float64, 1.5, 0.1, block=block),
    "normal float16": lambda shape, block=None: draws.normal(1, 5, shape, np.float16, block=block),
    "normal complex128": lambda shape, block=None: draws.normal(1, 5, shape, np.complex128, block=block),
    "pairs": lambda shape, block=None: draws.normal_pairs(1, 5, -1, shape, np.float64, block=block),
    "pairs cached": lambda shape, block=None: draws.normal_pairs(1, 9, 5, shape, np.complex64, 1, 2, block=block),
    "log normal": lambda shape, block=None: draws.log_normal(1, 9, 5, shape, np.float64, 1, 2, block=block),
    "integers": lambda shape, block=None: draws.integers(1, 5, shape, -7, 1007, False, np.int64, block=block),
    "integers wide": lambda shape, block=None: draws.integers(1, 5, shape, -(2**50), 2**62, True, np.int64, block),
    "bernoulli": lambda shape, block=None: draws.bernoulli(1, 5, shape, 0.3, block=block),
    "exponential": lambda shape, block=None: draws.exponential(1, 5, shape, np.float64, 0.5, block=block),
}
SHAPES = [(1,), (17,), (5, 7), (7, 1), (3, 4, 5), (2, 3, 1, 4), (0,), (0, 3), (4, 0), (3, 0, 2)]
LARGE_SHAPES = [(70_001,), (300, 311), (3, 50_000), (2, 3, 9_000), (2, 100_000, 2)]
LARGE_KERNELS = ["uniform float32", "normal float32", "normal complex128", "pairs cached", "integers wide"]


def splits(extent):
    """Blocks of one dim: uneven, empty, whole."""
    points = sorted({0, extent // 3, extent // 2, extent - extent // 5, extent})
    return [*itertools.pairwise(points), (extent, extent), (0, 0), (0, extent)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_block_equals_the_slice_of_the_whole(kernel, shape):
    whole = KERNELS[kernel](shape)
    assert whole.shape == shape
    for dim in range(len(shape)):
        for start, stop in splits(shape[dim]):
            index = (slice(None),) * dim + (slice(start, stop),)
            block = KERNELS[kernel](shape, (dim, start, stop))
            assert block.dtype == whole.dtype and block.flags.c_contiguous and block.flags.writeable
            np.testing.assert_array_equal(block, whole[index])


@pytest.mark.parametrize("kernel", LARGE_KERNELS)
@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_blocks_of_large_tensors_equal_slices_across_chunk_borders(kernel, shape):
    whole = KERNELS[kernel](shape)
    for dim, extent in enumerate(shape):
        for start, stop in [(0, extent // 3), (extent // 3, extent), (extent - 1, extent)]:
            index = (slice(None),) * dim + (slice(start, stop),)
            np.testing.assert_array_equal(KERNELS[kernel](shape, (dim, start, stop)), whole[index])


def reference_words(seed, count):
    """MT19937 of Matsumoto and Nishimura with the initialization of 2002, in Python integers."""
    state = [seed]
    for index in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + index) & 0xFFFFFFFF)
    found = []
    while len(found) < count:
        for index in range(624):
            joined = (state[index] & 0x80000000) | (state[(index + 1) % 624] & 0x7FFFFFFF)
            state[index] = state[(index + 397) % 624] ^ joined >> 1 ^ (0x9908B0DF if joined & 1 else 0)
        for word in state:
            word ^= word >> 11
            word ^= word << 7 & 0x9D2C5680
            word ^= word << 15 & 0xEFC60000
            found.append(word ^ word >> 18)
    return found[:count]


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, 2**40 + 5, -1])
def test_words_are_those_of_the_mersenne_twister(seed):
    expected = reference_words(seed & 0xFFFFFFFF, 1500)
    assert mersenne.words32(seed, 0, 1500).tolist() == expected
    assert mersenne.words32(seed, 700, 10).tolist() == expected[700:710]
    assert mersenne.words64(seed, 3, 2).tolist() == [expected[3] << 32 | expected[4], expected[5] << 32 | expected[6]]


def test_any_place_of_any_stream_can_be_read_in_any_order(monkeypatch):
    monkeypatch.setattr(mersenne, "_FIRST_SPACING", 1000)  # so that states are saved, and thinned out
    monkeypatch.setattr(mersenne, "_MAX_ENGINES", 3)
    monkeypatch.setattr(mersenne, "_engines", [])
    monkeypatch.setattr(mersenne, "_saved", {})
    whole = {seed: mersenne.words32(seed, 0, 100_000) for seed in range(5)}
    generator = np.random.default_rng(0)
    for _ in range(300):
        seed, place, count = (int(generator.integers(n)) for n in (5, 90_000, 1500))
        np.testing.assert_array_equal(mersenne.words32(seed, place, count), whole[seed][place : place + count])
    assert len(mersenne._engines) == 3
    assert all(len(saved.states) <= mersenne._MAX_STATES for saved in mersenne._saved.values())


def test_many_words_are_the_same_from_the_compiled_loop(monkeypatch):
    before = compiled.enabled()
    counts = [mersenne._MANY, 3, 700, mersenne._MANY + 1, 100_000, 1, mersenne._MANY * 3]
    found = []
    try:
        for on in (True, False):
            compiled.enable(on)
            monkeypatch.setattr(mersenne, "_engines", [])
            monkeypatch.setattr(mersenne, "_saved", {})
            monkeypatch.setattr(mersenne, "_FIRST_SPACING", 1 << 15)
            words, position = [], 5
            for count in counts:
                words += [mersenne.words32(8, position, count), mersenne.words64(8, position + count, count)]
                position += 3 * count
            words.append(mersenne.words64(8, 40_001, 20_000))  # from a saved state
            found.append(np.concatenate(words))
            used = [engine.memory is not None for engine in mersenne._engines]
            assert any(used) == on
            states = [engine.bits.state["state"] for engine in mersenne._engines]
            found.append(np.concatenate([[*state["key"], state["pos"]] for state in states]))
    finally:
        compiled.enable(before)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])


def test_a_state_that_lies_elsewhere_is_not_touched(monkeypatch):
    monkeypatch.setattr(mersenne, "_engines", [])
    expected = mersenne.words64(8, 1, 40_000)
    monkeypatch.setattr(mersenne, "_engines", [])
    monkeypatch.setattr(mersenne.np, "array_equal", lambda a, b: False)
    found = mersenne.words64(8, 1, 40_000)
    assert mersenne._engines[0].memory is None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_distributions_pass_kolmogorov_smirnov(dtype):
    shape = (20_000,)
    samples = [
        (draws.uniform(0, 1, shape, dtype, -2, 3), stats.uniform(-2, 5)),
        (draws.normal(0, 2, shape, dtype, 1, 0.5), stats.norm(1, 0.5)),
        (draws.normal_pairs(0, 2, -1, shape, dtype, 1, 0.5), stats.norm(1, 0.5)),
        (draws.exponential(0, 3, shape, dtype, 2.0), stats.expon(scale=0.5)),
        (draws.cauchy(0, 3, shape, dtype, 2.0, 3.0), stats.cauchy(2, 3)),
        (draws.normal(0, 4, shape, np.complex128).imag, stats.norm(0, math.sqrt(0.5))),
    ]
    for sample, law in samples:
        assert stats.kstest(sample, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("n", [0, 1, 2, 512, 513, 20_000])
def test_permutation_exchanges_from_the_front_on(n):
    order = draws.permutation(6, 1, n)
    expected = list(range(n))
    for index, word in enumerate(mersenne.words32(6, 1, max(n - 1, 0)).tolist()):
        partner = index + word % (n - index)
        expected[index], expected[partner] = expected[partner], expected[index]
    assert order.dtype == np.int64
    assert order.tolist() == expected


def test_all_orders_of_a_permutation_are_equally_likely():
    orders = [tuple(draws.permutation(6, 2 * place, 3).tolist()) for place in range(3000)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.001
