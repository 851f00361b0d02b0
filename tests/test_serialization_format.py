"""The open file format: trees come back with their types, other programs read it, and damage is named."""

import io
import json
import math
import os
import stat
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from distgrad import serialization_format
from distgrad.serialization_format import Leaf, read, write

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", BFLOAT16),
]


def same(a, b):
    """Equality that looks at types, bits of floats, key types and order, dtypes and shapes."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(*keys) and same(a[keys[0]], b[keys[1]]) for keys in zip(a, b, strict=True))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Leaf):
        return same(a.array, b.array) and a.tags == b.tags
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    return a == b


def through_bytes(tree):
    file = io.BytesIO()
    write(tree, file)
    file.seek(0)
    return read(file)


def through_path(tree, tmp_path):
    path = tmp_path / "state.safetensors"
    write(tree, path)
    return read(path)


TREES = {
    "scalars": [0, -1, 2**63, -(2**200), 10**5000, 1.0, -0.0, 0.1, 5e-324, math.nan, math.inf, -math.inf, True, None],
    "complex": [1j, complex(math.nan, -0.0), complex(-math.inf, 1e300)],
    "strings": ["", "é", "\x00\n\"'\\", "\ud800 lone", "{'is': 'dict'}", "名"],
    "key types": {1: "int", "1": "str", 2.5: "float", None: "none", True and "true": "x", (-(2**70)): 0, math.inf: 1},
    "bool keys": {True: 1, False: {False: 0}},
    "ordered": OrderedDict([("b", 1), ("a", OrderedDict()), (3, [])]),
    "nesting": {"a": [(), (1,), [[]], ({"x": (None,)}, [OrderedDict(z=1)])], "is": "dict", "items": {}},
    "numpy scalars": [np.float32(0.1), np.float64("nan"), np.int8(-3), np.bool_(True), np.complex64(1 - 2j),
                      np.uint64(2**64 - 1), BFLOAT16.type(1.5), np.float16("inf")],
    "bare scalar": 3,
    "bare none": None,
    "bare array": np.arange(3),
    "names that collide": {"a": {"b": np.zeros(1)}, "a.b": np.ones(1), "a.b~2": np.ones(2), "": np.ones(3),
                           "__metadata__": np.ones(4), "\ud800": np.ones(5), 1: np.ones(6), "1": np.ones(7)},
    "optimizer": {"state": {0: {"step": 3, "exp_avg": np.ones((2, 2), np.float32)}, 1: {"step": np.array(4.0)}},
                  "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "nesterov": False}]},
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_trees_come_back_with_their_types_and_order(name, tmp_path):
    assert same(through_bytes(TREES[name]), TREES[name])
    assert same(through_path(TREES[name], tmp_path), TREES[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_of_every_dtype_and_shape_come_back_bit_for_bit(dtype, tmp_path):
    rng = np.random.default_rng(0)
    tree = {}
    for shape in [(), (1,), (3, 4), (0,), (0, 3), (2, 0, 2), (2, 1, 3)]:
        count = math.prod(shape)
        if dtype == "bool":
            tree[str(shape)] = np.asarray(rng.random(shape) < 0.5)
        else:
            raw = rng.integers(0, 256, count * np.dtype(dtype).itemsize, np.uint8)  # all bit patterns, NaN payloads too
            tree[str(shape)] = raw.view(dtype).reshape(shape)
    for back in (through_bytes(tree), through_path(tree, tmp_path)):
        assert same(back, tree)
        assert all(array.flags.writeable for array in back.values())


def test_arrays_in_any_memory_order_are_stored_by_value(tmp_path):
    base = np.arange(24.0).reshape(4, 6)
    tree = {
        "transposed": base.T,
        "strided": base[::2, ::-1],
        "broadcast": np.broadcast_to(np.float32(3), (2, 3)),
        "complex": (base + 1j).T,
        "big endian": base.astype(">f8"),
        "big endian int": np.arange(3, dtype=">i4"),
    }
    back = through_path(tree, tmp_path)
    for name, array in tree.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype.newbyteorder("=")
    mapped = np.memmap(tmp_path / "raw", np.int16, "w+", shape=(3,))
    mapped[:] = [1, 2, 3]
    assert same(through_bytes(mapped), np.array([1, 2, 3], np.int16))


def test_a_leaf_keeps_its_tags_and_identity():
    weight = Leaf(np.ones((2, 2)), {"requires_grad": True, "kind": "parameter"})
    spectrum = Leaf(np.ones(3) * 1j, {"requires_grad": False})
    back = through_bytes({"w": weight, "again": [weight], "s": spectrum, "plain": weight.array})
    assert same(back["w"], weight) and same(back["s"], spectrum)
    assert back["again"][0] is back["w"]
    assert back["plain"] is back["w"].array


def test_shared_arrays_are_stored_once_and_come_back_as_one_object(tmp_path):
    big = np.arange(10_000.0)
    waves = np.exp(1j * big)
    tree = {"a": big, "b": [big, big[:]], "part": big[:10], "c": waves, "d": waves, "e": np.zeros(0), "f": np.zeros(0)}
    path = tmp_path / "shared"
    write(tree, path)
    assert path.stat().st_size < big.nbytes + waves.nbytes + 4000
    back = read(path)
    assert back["a"] is back["b"][0] is back["b"][1]
    assert back["c"] is back["d"] and back["e"] is not back["f"]
    assert same(back, tree)
    assert through_bytes([big, big.reshape(100, 100)])[0].shape == (10_000,)


def test_a_flat_dict_is_an_ordinary_safetensors_file(tmp_path):
    tree = {
        "layer.weight": np.ones((2, 3), np.float32),
        "layer.bias": Leaf(np.zeros(2, np.float16), {"requires_grad": True}),
        "a.step": np.array(7),
        "spectrum": np.array([1 + 2j]),
    }
    path = tmp_path / "model.safetensors"
    write(tree, path)
    other = safetensors.numpy.load_file(path)
    assert sorted(other) == sorted(tree)
    np.testing.assert_array_equal(other["layer.weight"], tree["layer.weight"])
    np.testing.assert_array_equal(other["spectrum"], [[1, 2]])
    assert other["a.step"].shape == () and other["layer.bias"].dtype == np.float16
    assert list(read(path)) == list(tree)


def test_torch_reads_our_files_and_we_read_torch_files(tmp_path):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    ours = {"w": np.array([[1.5, -2]], np.float32), "h": np.array([3.0], BFLOAT16), "c": np.array([1j], np.complex64)}
    path = tmp_path / "file"
    write(ours, path)
    theirs = safetensors_torch.load_file(path)
    assert theirs["w"].tolist() == [[1.5, -2]] and theirs["h"].dtype == torch.bfloat16 and theirs["c"][0] == 1j

    tensors = {"x": torch.arange(4).reshape(2, 2), "h": torch.ones(2, dtype=torch.bfloat16), "z": torch.zeros(0, 2)}
    safetensors_torch.save_file(tensors, path, metadata={"format": "pt", "note": "no tree in here"})
    for back in (read(path), read(io.BytesIO(path.read_bytes()))):
        assert set(back) == set(tensors)
        assert same(back["x"], np.arange(4).reshape(2, 2)) and same(back["h"], np.ones(2, BFLOAT16))
        assert back["z"].shape == (0, 2) and back["x"].flags.writeable


class Foo:
    pass


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "tree, text",
    [
        ({"model": {"x": Foo()}}, r"cannot store <class '.*Foo'> at \['model'\]\['x'\]; allowed: dict"),
        ([1, (2, {3: {1, 2}})], r"<class 'set'> at \[1\]\[1\]\[3\]"),
        (Foo(), "Foo'> at the top"),
        ({"f": len}, "builtin_function"),
        ({"b": b"x"}, "<class 'bytes'>"),
        ({"p": Point(1, 2)}, "Point"),
        ({"d": defaultdict(int)}, "defaultdict"),
        ({"c": Counter()}, "Counter"),
        ({"o": np.array([None])}, r"<class 'numpy.ndarray'> of dtype object at \['o'\]"),
        ({"o": np.array(["a"])}, "of dtype <U1"),
        ({"o": np.zeros(2, "f4,i4")}, "of dtype"),
        ({"o": np.ma.zeros(2)}, "MaskedArray"),
        ({"o": np.datetime64("2020-01-01")}, "datetime64"),
        ({"l": Leaf([1, 2])}, r"<class 'list'> at \['l'\]"),
        ({"l": Leaf(np.ones(1), {"a": 1})}, r"tag 'a': 1 at \['l'\]; allowed: str to str or bool"),
        ({"k": {(1, 2): 3}}, r"key of <class 'tuple'> \(\(1, 2\)\) at \['k'\]"),
        ({np.int64(3): 3}, "allowed keys: str, int, float, bool, None"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_refused_by_place_before_anything_is_written(tree, text, tmp_path):
    with pytest.raises(TypeError, match=text):
        write(tree, tmp_path / "file")
    assert os.listdir(tmp_path) == []
    file = io.BytesIO()
    with pytest.raises(TypeError, match=text):
        write(tree, file)
    assert file.getvalue() == b""


def test_a_tree_that_contains_itself_or_is_too_deep_is_refused():
    loop = {"a": [1]}
    loop["a"].append(loop)
    with pytest.raises(ValueError, match=r"the dict at \['a'\]\[1\] contains itself"):
        write(loop, io.BytesIO())
    shared = [1]
    assert through_bytes([shared, shared]) == [[1], [1]]
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        write(deep, io.BytesIO())


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "state"
    write({"old": 1}, path)

    def fail(specs, name, metadata):
        Path(name).write_bytes(b"half")
        raise safetensors.SafetensorError("no space left")

    monkeypatch.setattr(safetensors, "serialize_file", fail)
    with pytest.raises(OSError, match=r"save: writing .* failed: no space left"):
        write({"new": 2}, path)
    assert os.listdir(tmp_path) == ["state"]
    assert read(path) == {"old": 1}


def test_a_disk_that_refuses_the_data_gives_an_os_error(tmp_path):
    resource = pytest.importorskip("resource")
    code = (
        "import resource, sys, numpy as np; from distgrad.serialization_format import write\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({1 << 16}, {resource.RLIM_INFINITY}))\n"
        "try: write({'x': np.ones(1 << 20)}, sys.argv[1])\n"
        "except OSError as error: print('refused', error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(serialization_format.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, env=environment
    )
    assert done.stdout.startswith("refused save: writing"), done.stderr
    assert os.listdir(tmp_path) == []


def test_files_get_usual_permissions_and_links_and_modes_survive(tmp_path):
    plain, path, link = tmp_path / "plain", tmp_path / "state", tmp_path / "link"
    plain.write_bytes(b"")
    write([1], path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    link.symlink_to(path)
    write([2], str(link))
    assert link.is_symlink() and read(path) == [2] and stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
    with subprocess.Popen([sys.executable, "-c", code, str(pipe)], stdout=subprocess.PIPE) as reader:
        write({"x": np.arange(3)}, pipe)
        content = reader.communicate(timeout=30)[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert same(read(io.BytesIO(content)), {"x": np.arange(3)})


def test_missing_places_and_wrong_file_arguments_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"directory of .*nowhere/x.* does not exist"):
        write(1, tmp_path / "nowhere" / "x")
    with pytest.raises(IsADirectoryError, match="is a directory"):
        write(1, tmp_path)
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(TypeError, match="save: <class 'int'> is neither a path nor a binary file"):
        write(1, 3)
    with pytest.raises(TypeError, match="load: <class 'list'> is neither a path nor a binary file"):
        read([])


def test_truncated_and_corrupt_files_are_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    write({"x": np.arange(100.0), "n": [1, 2]}, path)
    content = path.read_bytes()
    for damaged in (b"", content[:5], content[:50], content[:-1], content + b"x", b"PK\x03\x04" * 50, b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"load: .*broken\.safetensors.* truncated or corrupt"):
            read(path)
        with path.open("rb") as file, pytest.raises(ValueError, match=r"broken\.safetensors"):
            read(file)


@pytest.mark.parametrize(
    "tree",
    ['{"is": "array", "name": "y"}', '{"is": "code"}', '{"is": "dict"}', '{"is": "dict", "items": [[[], 1]]}', "{",
     '{"is": "numpy", "dtype": "object", "value": 1}', '{"is": "array", "name": "x", "dtype": "object"}',
     '{"is": "array", "name": "x", "dtype": "complex128"}', "[" * 100_000, "{}", '{"is": "leaf", "name": "x"}'],
)  # fmt: skip
def test_a_damaged_tree_is_named(tree, tmp_path):
    metadata = {"distgrad.tree": tree, "distgrad.format": "1"}
    safetensors.numpy.save_file({"x": np.array(1.0)}, tmp_path / "file", metadata)
    with pytest.raises(ValueError, match=r"the tree stored in .*file' is damaged"):
        read(tmp_path / "file")


def test_a_file_of_a_newer_format_says_so(tmp_path):
    safetensors.numpy.save_file({}, tmp_path / "file", {"distgrad.tree": "1", "distgrad.format": "2"})
    with pytest.raises(ValueError, match="has format version 2; this release reads 1: upgrade distgrad"):
        read(tmp_path / "file")


def test_the_tree_is_standard_json_that_any_program_can_read():
    file = io.BytesIO()
    write({"a": math.nan, "b": [2**80, np.ones(2)]}, file)
    content = file.getvalue()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    tree = json.loads(header["__metadata__"]["distgrad.tree"], parse_constant=refuse)
    assert tree == {
        "is": "dict",
        "items": [
            ["a", {"is": "float", "text": "nan"}],
            ["b", [{"is": "int", "hex": hex(2**80)}, {"is": "array", "name": "b.1"}]],
        ],
    }
    assert header["__metadata__"]["format"] == "pt"


def test_random_trees_come_back(tmp_path):
    rng = np.random.default_rng(5)

    def build(depth):
        kind = rng.integers(0, 4 if depth else 1)
        if kind == 0:
            leaves = [1, 2.5, "s", None, True, rng.standard_normal((2, 2)), Leaf(rng.integers(0, 9, 3), {"t": "x"})]
            return leaves[rng.integers(0, len(leaves))]
        children = [build(depth - 1) for _ in range(rng.integers(0, 4))]
        if kind == 1:
            return children
        if kind == 2:
            return tuple(children)
        return {[str(index), index][int(rng.integers(0, 2))]: child for index, child in enumerate(children)}

    for _ in range(60):
        tree = [build(4), build(4)]
        assert same(through_bytes(tree), tree)
    assert same(through_path(tree, tmp_path), tree)
