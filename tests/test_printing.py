"""The printed text of arrays against torch's own repr, for many dtypes, shapes, magnitudes and print options."""

import contextlib

import ml_dtypes
import numpy as np
import pytest

from distgrad import printing

torch = pytest.importorskip("torch")

FLOATS = ["float32", "float64", "float16", "bfloat16"]
INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "bool"]
COMPLEX = ["complex64", "complex128"]
SHAPES = [(), (1,), (2,), (7,), (40,), (2, 3), (4, 1), (3, 11), (2, 3, 4), (1, 1, 1), (2, 1, 3, 2), (30, 4)]
LONG_SHAPES = [(1001,), (40, 40), (2, 700), (700, 2), (7, 6, 30), (6, 7, 5, 8), (1, 5000), (1001, 1), (10, 3, 1, 50)]


def numpy_dtype(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def to_torch(array):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def torch_text(tensor):
    return repr(tensor).replace("dtype=torch.", "dtype=distgrad.")


def our_text(array, **options):
    shown = printing.dtype_is_shown(array.dtype, array.size, np.dtype(np.float32))
    return printing.format_tensor(array, dtype_name=f"distgrad.{array.dtype.name}", show_dtype=shown, **options)


def real_values(rng, shape, kind):
    values = rng.standard_normal(shape)
    if kind == "whole":
        return np.round(values * 20)
    if kind == "large":
        return np.round(values * 1e6)
    if kind == "huge":
        return values * 3e9
    if kind == "tiny":
        return values * 1e-6
    if kind == "wide":
        return values * 10.0 ** rng.integers(-6, 6, shape)
    if kind == "positive":
        return np.abs(values) + 1
    if kind == "zeros":
        return np.zeros(shape) * np.sign(values)
    if kind in ("special", "special whole"):
        values = np.round(values * 5) if kind == "special whole" else values
        chosen = rng.integers(0, 8, shape)
        for code, special in enumerate([np.nan, np.inf, -np.inf, 0.0, -0.0]):
            values = np.where(chosen == code, special, values)
        return values
    if kind == "no finite":
        return np.where(values > 0, np.inf, np.nan)
    return values * 3


KINDS = ["plain", "whole", "large", "huge", "tiny", "wide", "positive"]
KINDS += ["zeros", "special", "special whole", "no finite"]


def random_array(rng, dtype, shape, kind):
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype in COMPLEX:
            array = real_values(rng, shape, kind) + 1j * real_values(rng, shape, rng.choice(KINDS))
            return np.asarray(array).astype(dtype)
        return np.asarray(real_values(rng, shape, kind)).astype(numpy_dtype(dtype))


@contextlib.contextmanager
def both_options(**options):
    torch.set_printoptions(**options)
    try:
        with printing.printoptions(**options):
            yield
    finally:
        torch.set_printoptions(profile="default")


@pytest.mark.parametrize("dtype", FLOATS + COMPLEX)
@pytest.mark.parametrize("kind", KINDS)
def test_floats_print_as_in_torch(dtype, kind):
    rng = np.random.default_rng([len(kind), FLOATS.index(dtype) if dtype in FLOATS else 9, ord(kind[0])])
    for shape in SHAPES:
        array = random_array(rng, dtype, shape, kind)
        assert our_text(array) == torch_text(to_torch(array))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_print_as_in_torch(dtype):
    rng = np.random.default_rng(7)
    low, high = (0, 2) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for shape in SHAPES:
        for bound in (10, high):
            array = np.asarray(rng.integers(max(low, -bound), bound, shape, endpoint=dtype != "bool")).astype(dtype)
            assert our_text(array) == torch_text(to_torch(array))


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, *COMPLEX])
def test_empty_tensors_show_size_and_dtype_as_in_torch(dtype):
    for shape in [(0,), (0, 3), (3, 0), (2, 0, 4), (0, 0)]:
        array = np.zeros(shape, numpy_dtype(dtype))
        assert our_text(array) == torch_text(to_torch(array))


@pytest.mark.parametrize("shape", LONG_SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "int64", "complex64", "bool"])
def test_long_tensors_are_summarised_as_in_torch_also_from_their_corner(shape, dtype):
    rng = np.random.default_rng(3)
    array = random_array(rng, dtype, shape, "wide" if dtype == "complex64" else "plain")
    expected = torch_text(to_torch(array))
    assert our_text(array) == expected

    indices = printing.needed_corner(shape)
    if indices is None:  # more than 1000 elements, but no dim is long enough to be cut
        assert all(extent <= 6 for extent in shape)
        return
    corner = array[np.ix_(*indices)]
    assert corner.size < array.size
    shown = printing.dtype_is_shown(array.dtype, array.size, np.float32)
    text = printing.format_tensor(corner, dtype_name=f"distgrad.{array.dtype.name}", show_dtype=shown, full_shape=shape)
    assert text == expected


def test_only_the_corner_of_a_large_array_decides_the_format():
    array = np.ones((100, 100), np.float32)
    array[50, 50] = 1e-9
    array[5, 50] = np.nan
    assert our_text(array) == torch_text(to_torch(array))
    assert "e-" not in our_text(array)


def test_a_huge_virtual_array_is_printed_from_its_corner_alone():
    array = np.broadcast_to(np.float32(2.5), (10**6, 10**6))
    tensor = torch.tensor(2.5).expand(10**6, 10**6)
    assert our_text(array) == torch_text(tensor)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2},
        {"precision": 0},
        {"precision": 8, "linewidth": 40},
        {"threshold": 5},
        {"threshold": 5, "edgeitems": 1},
        {"threshold": 0, "edgeitems": 2},
        {"edgeitems": 0},
        {"edgeitems": 0, "threshold": 3},
        {"linewidth": 10},
        {"linewidth": 200, "threshold": 10},
        {"sci_mode": True},
        {"sci_mode": False},
        {"profile": "short"},
        {"profile": "full"},
        {"profile": "short", "precision": 6, "sci_mode": True},
    ],
    ids=str,
)
def test_print_options_work_as_in_torch(options):
    rng = np.random.default_rng(11)
    with both_options(**options):
        for shape in [*SHAPES, (0, 2), (0,), (1200,), (12, 90)]:
            for dtype, kind in zip(["float32", "float64", "complex64", "int64"], KINDS, strict=False):
                array = random_array(rng, dtype, shape, kind)
                assert our_text(array) == torch_text(to_torch(array))


def test_options_that_are_not_given_keep_their_value_but_sci_mode_becomes_automatic():
    with printing.printoptions(precision=3, sci_mode=True):
        printing.set_printoptions(linewidth=50)
        assert printing.get_printoptions() == {
            "precision": 3, "threshold": 1000, "edgeitems": 3, "linewidth": 50, "sci_mode": None,
        }  # fmt: skip
    assert printing.get_printoptions()["linewidth"] == 80


def test_wrong_options_and_wrong_corners_are_refused():
    with pytest.raises(ValueError, match="unknown profile 'long'"):
        printing.set_printoptions(profile="long")
    with pytest.raises(ValueError, match="edgeitems must be 0 or more, got -1"):
        printing.set_printoptions(edgeitems=-1)
    with pytest.raises(ValueError, match=r"shape \(5,\) is no corner of shape \(2000,\)"):
        printing.format_tensor(np.zeros(5), dtype_name="distgrad.float64", show_dtype=True, full_shape=(2000,))
    with pytest.raises(TypeError, match="cannot print dtype"):
        printing.format_tensor(np.array(["a"]), dtype_name="str", show_dtype=True)


@pytest.mark.parametrize("size", list(range(1, 30)))
def test_suffixes_wrap_as_in_torch(size):
    leaf = torch.linspace(0, 1, size, dtype=torch.float64, requires_grad=True)
    result = leaf + 1
    array = leaf.detach().numpy()
    assert our_text(array, requires_grad=True) == torch_text(leaf)
    assert our_text(array + 1, requires_grad=True, grad_fn="<AddBackward0>") == torch_text(result)
    tall = leaf.detach().reshape(size, 1).clone().requires_grad_()
    assert our_text(array.reshape(size, 1), requires_grad=True) == torch_text(tall)


def test_another_prefix_moves_the_following_lines():
    class Weight(torch.Tensor):
        pass

    array = np.random.default_rng(0).standard_normal((3, 30)).astype(np.float32)
    tensor = to_torch(array).as_subclass(Weight)
    assert our_text(array, prefix="Weight(") == torch_text(tensor)


@pytest.mark.parametrize("default", ["float32", "float64"])
def test_which_dtypes_are_shown_follows_the_default_dtype(default):
    torch.set_default_dtype(getattr(torch, default))
    try:
        for dtype in [*FLOATS, *INTEGERS, *COMPLEX]:
            for shape in [(2,), (0,)]:
                array = np.zeros(shape, numpy_dtype(dtype))
                shown = printing.dtype_is_shown(array.dtype, array.size, np.dtype(default))
                assert shown == ("dtype=" in repr(to_torch(array)))
    finally:
        torch.set_default_dtype(torch.float32)


def test_random_arrays_print_as_in_torch():
    rng = np.random.default_rng(2024)
    dtypes = [*FLOATS, *COMPLEX, "int64", "int32"]
    for _ in range(300):
        shape = tuple(rng.integers(1, 9, rng.integers(0, 5)))
        array = random_array(rng, str(rng.choice(dtypes)), shape, str(rng.choice(KINDS)))
        assert our_text(array) == torch_text(to_torch(array))
