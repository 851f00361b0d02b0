"""Stores nested state in one open file: a safetensors container whose metadata holds the tree as JSON.

Invariant: `read(write(tree)) == tree`, types included, or `write` raises before anything is written; no code is ever
stored or run. The arrays are ordinary safetensors entries, so other programs read them; a flat dict keeps its keys.

The metadata entry 'distgrad.tree' is a JSON node. Booleans, null, strings, finite floats, integers of 64 bits and
lists stand for themselves; everything else is an object whose member "is" names its kind:

    {"is": "dict", "items": [[key, node], ...]}     also "ordered_dict"; keys are nodes of scalars
    {"is": "tuple", "items": [node, ...]}
    {"is": "array", "name": entry}                  with "dtype": "complex128" if stored as float64 pairs (..., 2)
    {"is": "leaf", "name": entry, "tags": {...}}    an array with tags; "dtype" as above
    {"is": "int", "hex": "0x..."}   {"is": "float", "text": "nan"}   {"is": "complex", "parts": [node, node]}
    {"is": "numpy", "dtype": "float32", "value": node}      a numpy scalar
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import secrets
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

__all__ = ["Leaf", "read", "write"]

_TREE_ENTRY = "distgrad.tree"
_VERSION_ENTRY = "distgrad.format"
_VERSION = "1"

_KEY_TYPES = (str, int, float, bool, type(None))
_SCALAR_TYPES = (*_KEY_TYPES, complex)
_ARRAY_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)
_ALLOWED = (
    "dict, OrderedDict (keys: str, int, float, bool, None), list, tuple, str, int, float, bool, None, complex, "
    f"arrays and numpy scalars of {', '.join(_ARRAY_DTYPES)}"
)
_DTYPE_OF_CODE = {
    "BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """An array together with tags, e.g. {'requires_grad': True, 'kind': 'parameter'}."""

    array: np.ndarray
    tags: Mapping[str, str | bool] = dataclasses.field(default_factory=dict)


class CannotStore(TypeError):
    """Something in a tree is no array, scalar or container that the format holds."""


def write(tree: Any, file: str | os.PathLike[str] | BinaryIO) -> None:
    """Writes a tree of containers, scalars, arrays and `Leaf`s to a path or an open binary file.

    Arrays may have any shape, also () and with empty dims. Arrays that are the same memory are stored once, under the
    first of their names. A path is replaced only once the new file is complete; an error leaves it as it was.
    Raises TypeError naming the place in the tree for anything that cannot be stored, and ValueError for a tree that
    contains itself, both before anything is written; OSError when the file cannot be written.
    """
    encoder = _Encoder()
    try:
        root = encoder.node(tree, [])
        tree_text = json.dumps(root, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("save: the tree is nested too deeply; allowed: some hundred levels") from None
    metadata = {
        # Tells other programs that the arrays follow PyTorch's conventions, e.g. (out, in) for the weight of Linear.
        "format": "pt",
        _VERSION_ENTRY: _VERSION,
        _TREE_ENTRY: tree_text,
    }
    if not isinstance(file, (str, os.PathLike)):
        _require_method("save", file, "write").write(_serialize(encoder.arrays, metadata))
        return
    path = _checked_path(file)
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        write_bytes(_serialize(encoder.arrays, metadata), path)
        return
    with _replacing(path) as temporary:
        _serialize_to(temporary, encoder.arrays, metadata)


def write_bytes(content: bytes, file: str | os.PathLike[str] | BinaryIO) -> None:
    """Writes bytes to a path, which is replaced once the new file is complete, or to an open binary file."""
    if not isinstance(file, (str, os.PathLike)):
        _require_method("save", file, "write").write(content)
        return
    path = _checked_path(file)
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as device:  # a pipe or device is written to, never replaced by a file
            device.write(content)
        return
    with _replacing(path) as temporary, open(temporary, "wb") as complete:
        complete.write(content)


def read_bytes(file: str | os.PathLike[str] | BinaryIO, beginning: bytes) -> bytes | None:
    """Gives what follows a beginning in a file that has it, otherwise None and leaves an open file where it was."""
    if isinstance(file, (str, os.PathLike)):
        path = os.fsdecode(file)
        if not os.path.exists(path) or not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as opened:
            return opened.read() if opened.read(len(beginning)) == beginning else None
    if not (hasattr(file, "seek") and hasattr(file, "tell") and hasattr(file, "read")):
        return None
    place = file.tell()
    if file.read(len(beginning)) == beginning:
        return file.read()
    file.seek(place)
    return None


def _checked_path(file: str | os.PathLike[str]) -> str:
    path = os.path.realpath(os.fsdecode(file))
    if os.path.isdir(path):
        raise IsADirectoryError(f"save: {path!r} is a directory; give the name of a file")
    if not os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(f"save: the directory of {path!r} does not exist; create it first")
    return path


def read(file: str | os.PathLike[str] | BinaryIO) -> Any:
    """Reads what `write` wrote, from a path or an open binary file; arrays are fresh and writable.

    An ordinary safetensors file of another program gives a flat dict of arrays. Arrays stored once and used several
    times come back as one object.
    Raises FileNotFoundError, and ValueError naming the file when it is truncated, corrupt or of a newer format.
    """
    if isinstance(file, (str, os.PathLike)):
        label = repr(os.fsdecode(file))
        arrays, metadata = _load_path(os.fsdecode(file), label)
    else:
        label = repr(getattr(file, "name", None) or file)
        arrays, metadata = _load_bytes(_require_method("load", file, "read").read(), label)
    if _TREE_ENTRY not in metadata:
        return arrays
    version = metadata.get(_VERSION_ENTRY)
    if version != _VERSION:
        raise ValueError(f"load: {label} has format version {version}; this release reads {_VERSION}: upgrade distgrad")
    try:
        return _Decoder(arrays).value(json.loads(metadata[_TREE_ENTRY]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"load: the tree stored in {label} is damaged: {type(error).__name__}: {error}") from error


def _require_method(op: str, file: Any, method: str) -> Any:
    if not hasattr(file, method):
        raise TypeError(f"{op}: {type(file)} is neither a path nor a binary file with {method}(); give one of these")
    return file


class _Encoder:
    """Turns a tree into a JSON node and collects its arrays under unique names."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._name_of_memory: dict[tuple, str] = {}
        self._open_containers: set[int] = set()
        # Keeps every array that stands for a name alive: ids and addresses must not be given to another meanwhile.
        self._kept: list[np.ndarray] = []

    def node(self, value: Any, path: list[Any]) -> Any:
        kind = type(value)
        if kind in _SCALAR_TYPES:
            return _scalar_node(value)
        if kind in (dict, OrderedDict):
            return {"is": "dict" if kind is dict else "ordered_dict", "items": self._dict_items(value, path)}
        if kind is tuple:
            return {"is": "tuple", "items": self._sequence_items(value, path)}
        if kind is list:
            return self._sequence_items(value, path)
        if kind is Leaf:
            if not isinstance(value.array, np.ndarray):
                raise _refusal(value.array, path)
            for tag, content in value.tags.items():
                if type(tag) is not str or type(content) not in (str, bool):
                    raise TypeError(f"save: tag {tag!r}: {content!r} at {_place(path)}; allowed: str to str or bool")
            return {**self._array_node(value.array, path), "is": "leaf", "tags": dict(value.tags)}
        if isinstance(value, np.ndarray):
            return self._array_node(value, path)
        if isinstance(value, np.generic):
            if value.dtype.name not in _ARRAY_DTYPES:
                raise _refusal(value, path)
            plain = float(value) if value.dtype.name == "bfloat16" else value.item()
            return {"is": "numpy", "dtype": value.dtype.name, "value": _scalar_node(plain)}
        raise _refusal(value, path)

    def _dict_items(self, value: dict, path: list[Any]) -> list:
        items = []
        with self._inside(value, path):
            for key, child in value.items():
                if type(key) not in _KEY_TYPES:
                    raise CannotStore(
                        f"save: cannot store a key of {type(key)} ({key!r}) at {_place(path)}; "
                        "allowed keys: str, int, float, bool, None"
                    )
                items.append([_scalar_node(key), self.node(child, [*path, key])])
        return items

    def _sequence_items(self, value: list | tuple, path: list[Any]) -> list:
        with self._inside(value, path):
            return [self.node(child, [*path, index]) for index, child in enumerate(value)]

    @contextlib.contextmanager
    def _inside(self, container: Any, path: list[Any]) -> Iterator[None]:
        if id(container) in self._open_containers:
            raise ValueError(f"save: the {type(container).__name__} at {_place(path)} contains itself")
        self._open_containers.add(id(container))
        yield
        self._open_containers.remove(id(container))

    def _array_node(self, array: np.ndarray, path: list[Any]) -> dict[str, Any]:
        # Other subclasses (masked arrays, matrices) mean more than their elements.
        if array.dtype.name not in _ARRAY_DTYPES or type(array) not in (np.ndarray, np.memmap):
            raise _refusal(array, path)
        # Two views of the same elements are one array, as tied weights are, even when they are different objects.
        memory = (array.ctypes.data, array.shape, array.strides, array.dtype.str, id(array) if not array.size else 0)
        name = self._name_of_memory.get(memory)
        if name is None:
            name = self._unused_name(path)
            self._name_of_memory[memory] = name
            self._kept.append(array)
            self.arrays[name] = array
        node = {"is": "array", "name": name}
        return {**node, "dtype": "complex128"} if array.dtype.name == "complex128" else node

    def _unused_name(self, path: list[Any]) -> str:
        # Lone surrogates are no UTF-8, which the container's names are; the true key stands in the tree.
        wanted = ".".join(map(str, path)).encode("utf-8", "backslashreplace").decode() or "array"
        name, copies = wanted, 1
        while name in self.arrays or name == "__metadata__":  # the container uses that name itself
            copies += 1
            name = f"{wanted}~{copies}"
        return name


def _scalar_node(value: Any) -> Any:
    if type(value) is float and not math.isfinite(value):
        return {"is": "float", "text": repr(value)}
    if type(value) is int and not -(2**63) <= value < 2**63:
        return {"is": "int", "hex": hex(value)}
    if type(value) is complex:
        return {"is": "complex", "parts": [_scalar_node(value.real), _scalar_node(value.imag)]}
    return value


def _place(path: list[Any]) -> str:
    return "".join(f"[{key!r}]" for key in path) or "the top"


def _refusal(value: Any, path: list[Any]) -> CannotStore:
    what = f"{type(value)}"
    if isinstance(value, (np.ndarray, np.generic)):
        what += f" of dtype {value.dtype}"
    return CannotStore(f"save: cannot store {what} at {_place(path)}; allowed: {_ALLOWED}")


class _Decoder:
    """Turns a JSON node back into the tree; anything that no encoder makes raises."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._pairs_joined: dict[str, np.ndarray] = {}
        self._leaves: dict[tuple, Leaf] = {}
        self._kinds: dict[str, Callable[[dict[str, Any]], Any]] = {
            "dict": lambda node: dict(self._pairs(node)),
            "ordered_dict": lambda node: OrderedDict(self._pairs(node)),
            "tuple": lambda node: tuple(self.value(child) for child in node["items"]),
            "array": self._array,
            "leaf": self._leaf,
            "int": lambda node: int(node["hex"], 16),
            "float": lambda node: float(node["text"]),
            "complex": lambda node: complex(*(self.value(part) for part in node["parts"])),
            "numpy": lambda node: _known_dtype(node["dtype"]).type(self.value(node["value"])),
        }

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.value(child) for child in node]
        if isinstance(node, dict):
            return self._kinds[node["is"]](node)
        return node

    def _pairs(self, node: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        for key, child in node["items"]:
            yield self.value(key), self.value(child)

    def _array(self, node: dict[str, Any]) -> np.ndarray:
        name = node["name"]
        if "dtype" not in node:
            return self._arrays[name]
        if name not in self._pairs_joined:
            pairs = self._arrays[name]
            self._pairs_joined[name] = pairs.view(_known_dtype(node["dtype"])).reshape(pairs.shape[:-1])
        return self._pairs_joined[name]

    def _leaf(self, node: dict[str, Any]) -> Leaf:
        tags = node["tags"]
        return self._leaves.setdefault((node["name"], *sorted(tags.items())), Leaf(self._array(node), tags))


def _known_dtype(name: str) -> np.dtype:
    """The dtype of that name if it is one that `write` stores: a file must not ask for Python objects."""
    if name not in _ARRAY_DTYPES:
        raise ValueError(f"dtype {name!r} is not one of {', '.join(_ARRAY_DTYPES)}")
    return _dtype(name)


def _dtype(name: str) -> np.dtype:
    if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        import ml_dtypes  # only here: most files hold no such arrays

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


def _serialize(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    import safetensors

    stored = {name: _storable(array) for name, array in arrays.items()}
    return safetensors.serialize(_specifications(stored), metadata)


def _serialize_to(path: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes the container straight to a file, without a copy of all arrays in memory."""
    import safetensors

    stored = {name: _storable(array) for name, array in arrays.items()}
    try:
        safetensors.serialize_file(_specifications(stored), path, metadata)
    except safetensors.SafetensorError as error:
        raise OSError(f"save: writing {path!r} failed: {error}") from error


def _specifications(stored: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the container needs to know of the arrays: raw addresses, so `stored` must outlive the writing."""
    from safetensors import TensorSpec

    return {
        name: TensorSpec(dtype=array.dtype.name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
        for name, array in stored.items()
    }


def _storable(array: np.ndarray) -> np.ndarray:
    """The array in row-major, little-endian order; complex128, which the container lacks, as pairs of float64."""
    if array.dtype.kind in "iufc" and array.dtype.byteorder not in "=|":
        array = array.astype(array.dtype.newbyteorder("="))
    array = np.require(array, requirements="C")
    if array.dtype != np.complex128:
        return array
    return array.reshape(*array.shape, 1).view(np.float64)


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[str]:
    """Gives a temporary name beside `path`; its file takes the place of `path` at the end, or goes after an error."""
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    # Made here and not by the container's writer, so that the file gets the permissions every new file here gets.
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        mode = os.stat(path).st_mode if os.path.exists(path) else os.fstat(descriptor).st_mode
        os.close(descriptor)
        yield temporary
        os.chmod(temporary, stat.S_IMODE(mode))
        with open(temporary, "rb+") as complete:
            os.fsync(complete.fileno())  # a crash after the renaming must not leave an empty file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def _load_path(path: str, label: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import safetensors

    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "rb") as device:  # a directory raises its own error here
            return _load_bytes(device.read(), label)
    try:
        with safetensors.safe_open(path, framework="np") as container:
            names = container.keys()
            return {name: container.get_tensor(name) for name in names}, container.metadata() or {}
    except safetensors.SafetensorError as error:
        raise _damaged(label, error) from error


def _load_bytes(content: bytes, label: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import safetensors

    try:
        entries = safetensors.deserialize(bytes(content))
    except safetensors.SafetensorError as error:
        raise _damaged(label, error) from error
    # The checks of the container have passed: the header is there and is JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays = {}
    for name, entry in sorted(entries):
        if entry["dtype"] not in _DTYPE_OF_CODE:
            raise ValueError(f"load: {label} holds {name!r} of dtype {entry['dtype']}; allowed: {[*_DTYPE_OF_CODE]}")
        flat = np.frombuffer(bytearray(entry["data"]), _dtype(_DTYPE_OF_CODE[entry["dtype"]]))
        arrays[name] = flat.reshape(entry["shape"])
    return arrays, header.get("__metadata__", {})


def _damaged(label: str, error: Exception) -> ValueError:
    return ValueError(f"load: {label} is no safetensors file, or is truncated or corrupt: {error}")
