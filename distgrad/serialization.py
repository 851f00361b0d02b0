"""`save` and `load`: tensors, state dicts and what optimizers keep in one open file; whole objects as pickles.

Invariant: a pickle is loaded only when asked for by weights_only=False. Loading gives equal values of the same types, as
local tensors, whatever the placement was when saving; tensors that were one object (tied weights) are one object again.
A flat dict of tensors is a safetensors file with its own keys.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

from distgrad import dtypes
from distgrad.device import device
from distgrad.dtypes import dtype
from distgrad.graph import Node
from distgrad.meta import TensorMeta
from distgrad.placement import Spec
from distgrad.tensor import Size, Tensor

__all__ = ["load", "save"]

File = str | os.PathLike[str] | BinaryIO
_KINDS = ("tensor", "parameter", "buffer")


_PICKLE = b"distgrad pickle 1\n"  # how a file begins whose objects are pickled


def save(obj: Any, f: File, pickle_module: Any = None, pickle_protocol: int | None = None) -> None:
    """Writes an object to a path or an open binary file.

    Tensors, and dicts, lists and tuples of tensors and plain values, make a safetensors file without code. Anything
    else (a module, an object of a class of yours) is pickled, as PyTorch does with all; `load` takes that only with
    weights_only=False. Sharded tensors are fetched first; a path is replaced only when the new file is complete.
    What cannot be pickled raises as `pickle` does. PyTorch: torch.save.
    """
    from distgrad.serialization_format import CannotStore, write, write_bytes

    try:
        write(_encoded(obj, {}), f)
    except CannotStore:
        import io
        import pickle

        whole = io.BytesIO(_PICKLE)
        whole.seek(len(_PICKLE))
        pickle.Pickler(whole, pickle_protocol or pickle.DEFAULT_PROTOCOL).dump(obj)
        write_bytes(whole.getvalue(), f)


def load(f: File, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool = True,
         mmap: bool | None = None, **pickle_load_args: Any) -> Any:
    """Reads what `save` wrote, or any safetensors file (a dict of tensors then), from a path or an open binary file.

    Tensors come back local to this process; put them on workers with `shard`, or by loading a state dict.
    `map_location` may name the CPU only (RuntimeError otherwise). Of a safetensors file no code is ever run. A pickled
    object is loaded only with `weights_only` False, for that can run any code (pickle.UnpicklingError otherwise).
    ValueError for a file that is damaged or none of these. PyTorch: torch.load.
    """
    from distgrad.serialization_format import read, read_bytes

    if isinstance(map_location, str | device):
        device(map_location)
    pickled = read_bytes(f, _PICKLE)
    if pickled is None:
        return _decoded(read(f), {})
    import pickle

    if weights_only:
        raise pickle.UnpicklingError(
            f"load: {getattr(f, 'name', f)!r} holds a pickled object, and loading one can run any code: give "
            "weights_only=False if you trust the file, or save a state_dict()"
        )
    return pickle.loads(pickled)


# Writing ----------------------------------------------------------------------------------------------------


def _encoded(value: Any, done: dict[int, Any]) -> Any:
    """Gives the tree the format stores; each tensor, and each container, is one object however often it is met."""
    from distgrad.serialization_format import Leaf

    found = done.get(id(value))
    if found is not None:
        return found[1]
    encoded: Any = value
    if isinstance(value, Tensor):
        encoded = _tensor_leaf(value)
    elif isinstance(value, dtype):
        encoded = Leaf(_marker(), {"kind": "dtype", "name": value.name})
    elif isinstance(value, device):
        encoded = Leaf(_marker(), {"kind": "device", "name": str(value)})
    elif type(value) is Size:
        encoded = Leaf(_marker(), {"kind": "size", "name": ",".join(map(str, value))})
    elif type(value) in (dict, OrderedDict):
        encoded = done.setdefault(id(value), (value, type(value)()))[1]  # known before its items: it may hold itself
        encoded.update((key, _encoded(item, done)) for key, item in value.items())
    elif type(value) is list:
        encoded = done.setdefault(id(value), (value, []))[1]
        encoded.extend(_encoded(item, done) for item in value)
    elif type(value) is tuple:
        encoded = tuple(_encoded(item, done) for item in value)
    done[id(value)] = (value, encoded)  # the value too: its id must not be given to another meanwhile
    return encoded


def _tensor_leaf(tensor: Tensor) -> Any:
    from distgrad.serialization_format import Leaf

    kind = type(tensor).__name__.lower()
    tags: dict[str, str | bool] = {"kind": kind if kind in _KINDS else "tensor"}
    if tensor.requires_grad:
        tags["requires_grad"] = True
    if kind == "buffer" and not getattr(tensor, "persistent", True):
        tags["persistent"] = False
    return Leaf(tensor.detach().numpy(), tags)


def _marker() -> Any:
    """Gives the empty array that a leaf without values has; each a different one, so that none are taken for equal."""
    import numpy as np

    return np.zeros(0, np.uint8)


# Reading ----------------------------------------------------------------------------------------------------


def _decoded(value: Any, done: dict[int, Any]) -> Any:
    import numpy as np

    from distgrad.serialization_format import Leaf

    if isinstance(value, Leaf | np.ndarray):
        found = done.get(id(value))
        if found is None:
            found = done[id(value)] = _leaf(value.array, value.tags) if isinstance(value, Leaf) else _local(value)
        return found
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _decoded(item, done)
        return value
    if isinstance(value, list):
        return [_decoded(item, done) for item in value]
    if isinstance(value, tuple):
        return tuple(_decoded(item, done) for item in value)
    return value


def _local(array: Any) -> Tensor:
    return Tensor._from_node(Node(Spec.of(TensorMeta.of(array.shape, dtypes.from_numpy(array.dtype))), array))


def _leaf(array: Any, tags: Any) -> Any:
    kind = tags.get("kind", "tensor")
    named: dict[str, Callable[[str], Any]] = {
        "dtype": dtypes.named, "device": device, "size": lambda text: Size(int(n) for n in text.split(",") if n)
    }  # fmt: skip
    if kind in named:
        return named[kind](tags["name"])
    tensor = _local(array)
    if kind == "parameter":
        from distgrad.nn import Parameter  # a layer above this one: the class of what was saved

        return Parameter(tensor, bool(tags.get("requires_grad", False)))
    if kind == "buffer":
        from distgrad.nn import Buffer

        return Buffer(tensor, persistent=bool(tags.get("persistent", True)))
    return tensor.requires_grad_() if tags.get("requires_grad") else tensor
