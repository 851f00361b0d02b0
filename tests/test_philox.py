"""Philox numbers: any block equals the same block of the whole, and the distributions are what they claim to be."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from distgrad import philox

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

KERNELS = {
    "uniform float32": lambda shape, block=None: philox.uniform(1, 5, shape, np.float32, -2, 3, block=block),
    "uniform float64": lambda shape, block=None: philox.uniform(1, 5, shape, np.float64, block=block),
    "uniform bfloat16": lambda shape, block=None: philox.uniform(1, 5, shape, BFLOAT16, block=block),
    "uniform complex64": lambda shape, block=None: philox.uniform(1, 5, shape, np.complex64, block=block),
    "normal float64": lambda shape, block=None: philox.normal(1, 5, shape, np.float64, 1.5, 0.1, block=block),
    "normal float16": lambda shape, block=None: philox.normal(1, 5, shape, np.float16, block=block),
    "normal complex128": lambda shape, block=None: philox.normal(1, 5, shape, np.complex128, block=block),
    "randint": lambda shape, block=None: philox.randint(1, 5, shape, -7, 1000, block=block),
    "randint wide": lambda shape, block=None: philox.randint(1, 5, shape, -(2**50), 2**62, block=block),
    "bernoulli": lambda shape, block=None: philox.bernoulli(1, 5, shape, 0.3, block=block),
    "exponential": lambda shape, block=None: philox.exponential(1, 5, shape, np.float64, 0.5, block=block),
    "words": lambda shape, block=None: philox.words(1, 5, shape, block=block),
}
SHAPES = [(1,), (17,), (5, 7), (7, 1), (3, 4, 5), (2, 3, 1, 4), (0,), (0, 3), (4, 0), (3, 0, 2)]
LARGE_SHAPES = [(70_001,), (300, 311), (3, 50_000), (2, 3, 9_000), (2, 100_000, 2)]


def splits(extent):
    """Blocks of one dim: uneven, empty, whole."""
    points = sorted({0, extent // 3, extent // 2, extent - extent // 5, extent})
    return [*itertools.pairwise(points), (extent, extent), (0, 0), (0, extent)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_block_equals_the_slice_of_the_whole(kernel, shape):
    whole = KERNELS[kernel](shape)
    assert whole.shape == shape
    for dim in range(-1, len(shape)):
        for start, stop in splits(shape[dim]):
            index = (slice(None),) * (dim % len(shape)) + (slice(start, stop),)
            block = KERNELS[kernel](shape, (dim, start, stop))
            assert block.dtype == whole.dtype and block.flags.c_contiguous and block.flags.writeable
            np.testing.assert_array_equal(block, whole[index])


@pytest.mark.parametrize(
    "kernel", ["uniform float32", "normal float64", "exponential", "randint wide", "normal complex128"]
)
@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_blocks_of_large_tensors_equal_slices_across_chunk_borders(kernel, shape):
    whole = KERNELS[kernel](shape)
    for dim, extent in enumerate(shape):
        for start, stop in [(0, extent // 3), (extent // 3, extent), (extent - 1, extent)]:
            index = (slice(None),) * dim + (slice(start, stop),)
            np.testing.assert_array_equal(KERNELS[kernel](shape, (dim, start, stop)), whole[index])


def test_a_tensor_and_its_reshaped_self_hold_the_same_numbers():
    flat = philox.normal(3, 0, (60,))
    np.testing.assert_array_equal(philox.normal(3, 0, (3, 4, 5)), flat.reshape(3, 4, 5))
    np.testing.assert_array_equal(philox.normal(3, 0, ()), flat[0])
    assert philox.normal(3, 0, ()).shape == ()


def philox_4x64(position, key):
    """Philox-4x64-10 as defined by Salmon et al. (2011), in Python integers."""
    mask = 2**64 - 1
    state, key = [position & mask, position >> 64, 0, 0], list(key)
    for _ in range(10):
        first, second = state[0] * 0xD2E7470EE14C6C93, state[2] * 0xCA5A826395121157
        state = [second >> 64 ^ state[1] ^ key[0], second & mask, first >> 64 ^ state[3] ^ key[1], first & mask]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return state


def test_words_are_philox_keyed_by_seed_and_counter():
    got = philox.words(42, 7, (10**6,), block=(0, 4001, 4011))
    expected = [philox_4x64(index // 4 + 1, (42, 7))[index % 4] for index in range(4001, 4011)]
    assert got.tolist() == expected
    negative = philox.words(-1, 2**64 - 1, (4,)).tolist()
    assert negative == philox_4x64(1, (2**64 - 1, 2**64 - 1))


def test_a_block_far_out_needs_no_work_for_what_lies_before_it():
    far = 2**50
    got = philox.words(1, 1, (2**60,), block=(0, far, far + 2))
    assert got.tolist() == [philox_4x64(far // 4 + 1, (1, 1))[index] for index in range(2)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_distributions_pass_kolmogorov_smirnov(dtype):
    stats = pytest.importorskip("scipy.stats")
    shape = (50_000,)
    for sample, distribution in [
        (philox.uniform(0, 1, shape, dtype, -2, 3), stats.uniform(-2, 5)),
        (philox.normal(0, 2, shape, dtype, 1, 0.5), stats.norm(1, 0.5)),
        (philox.exponential(0, 3, shape, dtype, 2.0), stats.expon(scale=0.5)),
        (philox.normal(0, 4, shape, np.complex128).imag, stats.norm(0, math.sqrt(0.5))),
    ]:
        assert stats.kstest(sample.astype(np.float64), distribution.cdf).pvalue > 0.001


def test_moments():
    count = 200_000
    deviation = 5 / math.sqrt(count)
    for dtype in (np.float32, np.float16, BFLOAT16):
        sample = philox.uniform(9, 0, (count,), dtype).astype(np.float64)
        assert abs(sample.mean() - 0.5) < deviation * math.sqrt(1 / 12)
        assert abs(sample.var() - 1 / 12) < deviation / 12
    normal = philox.normal(9, 1, (count,), np.float64)
    assert abs(normal.mean()) < deviation
    assert abs(normal.var() - 1) < deviation * math.sqrt(2)
    assert abs((normal**3).mean()) < deviation * math.sqrt(15)
    assert abs((normal**4).mean() - 3) < deviation * math.sqrt(96)
    for p in (0.0, 0.1, 0.5, 1.0):
        assert abs(philox.bernoulli(9, 2, (count,), p).mean() - p) <= deviation * math.sqrt(p * (1 - p))
    complex_normal = philox.normal(9, 3, (count,), np.complex64, 2.0, 3.0)
    assert abs(complex_normal.mean() - 2) < 3 * deviation * 1.5
    assert abs(np.abs(complex_normal - 2).var() + np.abs(np.abs(complex_normal - 2).mean()) ** 2 - 9) < 9 * deviation


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, BFLOAT16], ids=str)
def test_uniform_never_reaches_high_and_never_falls_below_low(dtype):
    for low, high in [(0, 1), (0.1, 0.3), (-1.3, -1.2), (1, 1.01), (1000, 1001), (-1e4, 1e4)]:
        sample = philox.uniform(2, 0, (300_000,), dtype, low, high).astype(np.float64)
        assert sample.min() >= low
        assert sample.max() < high
    equal = philox.uniform(2, 0, (5,), dtype, 0.5, 0.5)
    assert (equal == 0.5).all()


def test_uniform_half_precision_uses_its_whole_range():
    sample = philox.uniform(2, 1, (300_000,), np.float16).astype(np.float64)
    assert sample.max() == 1 - 2.0**-11 and sample.min() < 1e-4


def test_normal_and_exponential_are_finite_and_exponential_is_positive():
    extremes = np.array([0, 2**64 - 1, 1, 2**63], np.uint64)
    unit = philox._open_unit_interval(extremes)
    assert unit.min() > 0 and unit.max() < 1
    assert unit[0] == 1 - unit[1]
    assert (philox.exponential(0, 0, (500_000,), np.float16) > 0).all()


@pytest.mark.parametrize(
    "low, high", [(0, 1), (0, 2), (-5, 6), (0, 1000), (7, 2**32 + 7), (3, 2**33), (-9, 2**63), (-(2**63), 2**63)]
)
def test_randint_equals_the_exact_multiply_high(low, high):
    got = philox.randint(4, 4, (500,), low, high).tolist()
    count = high - low
    if count <= 2**32:
        expected = [low + (word * count >> 64) for word in philox.words(4, 4, (500,)).tolist()]
    else:
        pairs = philox.words(4, 4, (500, 2)).tolist()
        expected = [low + ((upper << 64 | lower) * count >> 128) for upper, lower in pairs]
    assert got == expected
    assert min(got) >= low and max(got) < high


def test_randint_is_uniform_for_many_ranges():
    stats = pytest.importorskip("scipy.stats")
    for counter, (low, high) in enumerate([(0, 2), (0, 10), (-3, 4), (5, 105)]):
        sample = philox.randint(8, counter, (40_000,), low, high)
        counts = np.bincount(sample - low, minlength=high - low)
        assert counts.size == high - low
        assert stats.chisquare(counts).pvalue > 0.001
    assert set(philox.randint(8, 0, (100,), 0, 2, np.bool_).tolist()) == {False, True}
    whole_range = philox.randint(8, 9, (2000,), 0, 2**64, np.uint64)
    assert whole_range.max() > 2**63 and whole_range.dtype == np.uint64


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, BFLOAT16], ids=str)
def test_randint_in_other_dtypes_holds_the_same_values(dtype):
    expected = philox.randint(8, 3, (100,), 0, 200)
    got = philox.randint(8, 3, (100,), 0, 200, dtype)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(np.int64), expected)


def test_bernoulli_agrees_with_comparing_the_uniforms():
    shape = (1000,)
    expected = philox.uniform(5, 6, shape, np.float64) < 0.37
    np.testing.assert_array_equal(philox.bernoulli(5, 6, shape, 0.37), expected)
    np.testing.assert_array_equal(philox.bernoulli(5, 6, shape, 0.37, np.float32), expected.astype(np.float32))


def test_distinct_seeds_and_counters_are_uncorrelated():
    count = 20_000
    streams = [philox.normal(seed, counter, (count,), np.float64) for seed in (0, 1, 2) for counter in (0, 1, 2)]
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / math.sqrt(count)
    lagged = [np.corrcoef(streams[0][:-lag], streams[0][lag:])[0, 1] for lag in range(1, 9)]
    assert np.abs(lagged).max() < 5 / math.sqrt(count)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation_holds_every_index_once(n):
    order = philox.permutation(6, 1, n)
    assert order.dtype == np.int64 and order.shape == (n,)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(order, philox.permutation(6, 1, n))


def test_all_orders_of_a_permutation_are_equally_likely():
    stats = pytest.importorskip("scipy.stats")
    orders = [tuple(philox.permutation(6, counter, 3).tolist()) for counter in range(3000)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: philox.uniform(0, 0, (2,), low=2, high=1), ValueError, "low=2 is above high=1"),
        (lambda: philox.uniform(0, 0, (2,), low=math.nan), ValueError, "allowed: low <= high"),
        (lambda: philox.uniform(0, 0, (2,), np.float16, high=1e5), ValueError, "not finite in float16"),
        (lambda: philox.uniform(0, 0, (2,), np.float64, -1.7e308, 1.7e308), ValueError, "smaller range"),
        (lambda: philox.uniform(0, 0, (2,), np.int64), TypeError, "uniform: dtype int64 is not supported"),
        (lambda: philox.normal(0, 0, (2,), std=-1), ValueError, "std must be 0 or more, got -1"),
        (lambda: philox.randint(0, 0, (2,), 3, 3), ValueError, "low=3, high=3; allowed: low < high"),
        (lambda: philox.randint(0, 0, (2,), 0, 300, np.uint8), ValueError, "does not fit uint8"),
        (lambda: philox.randint(0, 0, (2,), 0, 2**25, np.float32), ValueError, "does not fit float32"),
        (lambda: philox.randint(0, 0, (2,), 0, 3, np.complex64), TypeError, "randint: dtype complex64"),
        (lambda: philox.bernoulli(0, 0, (2,), 1.5), ValueError, r"p must lie in \[0, 1\], got 1.5"),
        (lambda: philox.exponential(0, 0, (2,), rate=0), ValueError, "rate must be above 0"),
        (lambda: philox.exponential(0, 0, (2,), np.complex64), TypeError, "exponential: dtype complex64"),
        (lambda: philox.permutation(0, 0, -1), ValueError, "n must be 0 or more, got -1"),
        (lambda: philox.words(2**64, 0, (2,)), ValueError, "does not fit 64 bits"),
        (lambda: philox.words(0, -1, (2,)), ValueError, "stream counter -1"),
        (lambda: philox.words(0, 0, (2, -1)), ValueError, "negative extent"),
        (lambda: philox.words(0, 0, (2,), (1, 0, 1)), ValueError, "names dim 1"),
        (lambda: philox.words(0, 0, (2,), (0, 1, 3)), ValueError, "allowed: 0 <= start <= stop <= 2"),
        (lambda: philox.words(0, 0, (), (0, 0, 1)), ValueError, "has 0 dims"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_importing_needs_numpy_only():
    folder = Path(philox.__file__).parent
    for name in ("philox", "printing", "serialization_format"):
        code = (
            f"import sys, importlib.util as u; s = u.spec_from_file_location('{name}', r'{folder / name}.py');"
            f"m = u.module_from_spec(s); sys.modules['{name}'] = m; s.loader.exec_module(m);"
            "print([x for x in ('scipy', 'ml_dtypes', 'safetensors', 'distgrad') if x in sys.modules])"
        )
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.strip() == "[]"
