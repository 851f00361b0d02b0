"""Tensors from data: `tensor`, `as_tensor`, `from_numpy`, the legacy constructors. Large data is sharded by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad import dtypes, graph
from distgrad.device import device as make_device
from distgrad.dtypes import dtype as dtype_type
from distgrad.graph import Node
from distgrad.meta import TensorMeta
from distgrad.op import is_tensor
from distgrad.placement import Spec

__all__ = ["BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
           "IntTensor", "LongTensor", "ShortTensor", "as_tensor", "asarray", "from_dlpack", "from_numpy", "new", "new_tensor",
           "set_default_tensor_type", "tensor"]


def _array_of(data: Any, kind: dtype_type | None) -> np.ndarray:
    """Gives a new array with PyTorch's dtype inference; TypeError, ValueError or RuntimeError for what is no
    rectangular data."""
    if isinstance(data, np.ndarray | np.generic):
        wanted = kind or dtypes.from_numpy(data.dtype)
        return np.array(data, dtype=wanted.numpy)
    if is_tensor(data):
        return np.array(data.detach().numpy(), dtype=(kind or data.dtype).numpy)
    if isinstance(data, list | tuple) and _holds_tensors(data):
        data = _plain(data)
    try:
        found = np.array(data)
    except ValueError:
        raise ValueError("tensor: expected a rectangular sequence; rows have different lengths") from None
    if found.dtype.kind == "O" and _odd(data) == "a value of type NoneType":
        raise RuntimeError("tensor: Could not infer dtype of NoneType; numbers, bools and sequences of them are allowed")
    if found.dtype.kind in "OUSmM":
        raise TypeError(
            f"tensor: cannot make a tensor from {_odd(data)}; numbers, bools and sequences of them are allowed"
        )
    if kind is None:
        if isinstance(data, list | tuple) and found.size == 0 and found.dtype.kind == "f":
            kind = dtypes.default()
        elif _holds_numpy(data):
            kind = dtypes.from_numpy(found.dtype)
        else:
            kind = {"b": dtypes.bool_, "f": dtypes.default(), "c": dtypes.default().to_complex()}.get(
                found.dtype.kind, dtypes.int64
            )
    if kind.category == 1:
        found = _whole(found, kind)
    return found.astype(kind.numpy)


def _whole(found: np.ndarray, kind: dtype_type) -> np.ndarray:
    """Cuts fractions off; raises for numbers that the integer dtype does not hold (unsigned ones wrap negatives)."""
    if found.dtype.kind == "f":
        found = np.trunc(found)
    if found.size and found.dtype.kind in "iuf":
        limits = np.iinfo(kind.numpy)
        lowest = limits.min or -int(limits.max)
        if not (found.min() >= lowest and found.max() <= limits.max):
            if kind is dtypes.int64:
                raise ValueError(
                    "tensor: Overflow when unpacking long: int64 holds -2**63 to 2**63 - 1; give dtype=float64"
                )
            raise RuntimeError(
                f"tensor: value cannot be converted to type {kind.name} without overflow; allowed: {limits.min} to "
                f"{limits.max}"
            )
    return found


def _holds_tensors(data: Any) -> bool:
    while isinstance(data, list | tuple) and data:
        if any(is_tensor(d) for d in data):
            return True
        data = data[0]
    return False


def _holds_numpy(data: Any) -> bool:
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return isinstance(data, np.ndarray | np.generic)


def _plain(data: Any) -> Any:
    if is_tensor(data):
        return data.tolist()
    return [_plain(d) for d in data] if isinstance(data, list | tuple) else data


def _odd(data: Any) -> str:
    while isinstance(data, list | tuple) and data:
        data = next((d for d in data if not isinstance(d, int | float | bool | complex | list | tuple)), data[0])
    return f"a value of type {type(data).__name__}"


def node_of(array: np.ndarray, *, data: bool = True, whole: bool = False) -> Node:
    """Gives the node of an array nobody else writes to; `data` is the workers' when a session runs.

    There it is sharded when it is large, unless it must be `whole`, and replicated otherwise.
    """
    spec = Spec.of(TensorMeta.of(array.shape, dtypes.from_numpy(array.dtype)))
    session = graph.session()
    if session is not None and data:
        return session.place_data(array, spec, whole=whole)  # type: ignore[attr-defined]  # on the coordinator
    return Node(spec, array)


def _wrap(node: Node) -> Any:
    from distgrad.tensor import Tensor

    return Tensor._from_node(node)


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False) -> Any:
    """Makes a tensor by copying numbers, nested sequences or an array (PyTorch: torch.tensor).

    TypeError for data that is not numeric, ValueError for ragged rows. With a session, large data that needs no
    gradient is sharded along dim 0.
    """
    if device is not None:
        make_device(device)
    array = _array_of(data, None if dtype is None else dtypes.as_dtype(dtype))
    out = _wrap(node_of(array, whole=requires_grad))
    return out.requires_grad_() if requires_grad else out


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """Makes a tensor, sharing the data's memory where it can (PyTorch: torch.as_tensor)."""
    if device is not None:
        make_device(device)
    if is_tensor(data):
        return data if dtype is None or data.dtype is dtypes.as_dtype(dtype) else data.to(dtypes.as_dtype(dtype))
    if isinstance(data, np.ndarray) and (dtype is None or dtypes.as_dtype(dtype).numpy == data.dtype):
        return from_numpy(data)
    return tensor(data, dtype=dtype)


def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> Any:
    """Makes a tensor of anything array-like; `copy` True copies always, False raises ValueError where it must be
    copied.

    PyTorch: torch.asarray.
    """
    if copy:
        return tensor(obj, dtype=dtype, device=device, requires_grad=requires_grad)
    out = as_tensor(obj, dtype=dtype, device=device)
    if copy is False and not (out is obj or (isinstance(obj, np.ndarray) and out._node.data is obj)):
        raise ValueError("asarray: can't alias this data, but copy=False was given; leave copy out")
    return out.requires_grad_() if requires_grad else out


def new_tensor(input: Any, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Any:
    """Makes a tensor by copying data, in the input's dtype unless one is given (PyTorch: torch.Tensor.new_tensor)."""
    return tensor(data, dtype=input.dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)


def new(input: Any, *data: Any) -> Any:
    """Makes a tensor of the input's dtype from sizes or data; prefer `new_tensor` and `new_empty`."""
    return _wrap(legacy_node(data[0] if data else None, data[1:], input.dtype))


def from_dlpack(ext_tensor: Any) -> Any:
    """Makes a tensor on the memory of another library's CPU array (PyTorch: torch.from_dlpack); copied when
    read-only.
    """
    array = np.from_dlpack(ext_tensor)
    return from_numpy(array if array.flags.writeable else array.copy())


def from_numpy(array: np.ndarray) -> Any:
    """Makes a tensor on a numpy array's memory (PyTorch: torch.from_numpy); TypeError for anything else.

    With a session the array is copied: large ones go to the workers, sharded along dim 0.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(array).__name__})")
    dtypes.from_numpy(array.dtype)
    node = node_of(array)
    if node.data is array and node.spec.placement is not None:
        node.data = array.copy()  # what its owner writes later must not part it from what the workers get
    out = _wrap(node)
    out._shares_numpy = node.data is array and array.flags.writeable
    return out


def legacy_node(data: Any, sizes: tuple[Any, ...], kind: dtype_type | None = None) -> Node:
    """Gives the node `Tensor(...)` makes: zeros for sizes, otherwise the data; in the default dtype unless one is
    given.
    """
    kind = kind or dtypes.default()
    if data is None:
        return node_of(np.zeros((0,), kind.numpy))
    index = None if isinstance(data, bool | float) or is_tensor(data) else getattr(data, "__index__", None)
    if index is not None and not isinstance(data, np.ndarray):
        return node_of(np.zeros((index(), *sizes), kind.numpy))
    from distgrad.tensor import Size  # a layer above this one

    if isinstance(data, Size):
        return node_of(np.zeros(data, kind.numpy))
    return node_of(_array_of(data, kind))


class _TypedTensor(type):
    """A legacy class such as `LongTensor`: called with sizes or data it makes a tensor of its dtype, and tensors of
    that dtype are its instances.
    """

    dtype: dtype_type

    def __new__(cls, kind: dtype_type, name: str) -> _TypedTensor:
        return super().__new__(cls, name, (), {"dtype": kind, "__module__": "distgrad"})

    def __init__(cls, kind: dtype_type, name: str) -> None:
        super().__init__(name, (), {})

    def __call__(cls, data: Any = None, *sizes: Any, device: Any = None) -> Any:
        if device is not None:
            make_device(device)
        return _wrap(legacy_node(data, sizes, cls.dtype))

    def __instancecheck__(cls, instance: object) -> bool:
        return is_tensor(instance) and instance.dtype is cls.dtype  # type: ignore[attr-defined]  # a tensor


BFloat16Tensor = _TypedTensor(dtypes.bfloat16, "BFloat16Tensor")
BoolTensor = _TypedTensor(dtypes.bool_, "BoolTensor")
ByteTensor = _TypedTensor(dtypes.uint8, "ByteTensor")
CharTensor = _TypedTensor(dtypes.int8, "CharTensor")
DoubleTensor = _TypedTensor(dtypes.float64, "DoubleTensor")
FloatTensor = _TypedTensor(dtypes.float32, "FloatTensor")
HalfTensor = _TypedTensor(dtypes.float16, "HalfTensor")
IntTensor = _TypedTensor(dtypes.int32, "IntTensor")
LongTensor = _TypedTensor(dtypes.int64, "LongTensor")
ShortTensor = _TypedTensor(dtypes.int16, "ShortTensor")


def set_default_tensor_type(t: Any) -> None:
    """Sets the dtype of new floating-point tensors by a class or its name, such as `DoubleTensor`.

    TypeError for anything but the floating-point classes of the CPU (PyTorch: torch.set_default_tensor_type).
    """
    name = t if isinstance(t, str) else getattr(t, "__name__", "")
    root, _, short = name.rpartition(".")
    found = {"FloatTensor": dtypes.float32, "DoubleTensor": dtypes.float64, "HalfTensor": dtypes.float16,
             "BFloat16Tensor": dtypes.bfloat16}.get(short)  # fmt: skip
    if found is None or "cuda" in root:
        raise TypeError(
            f"set_default_tensor_type: got {t!r}; allowed: FloatTensor, DoubleTensor, HalfTensor, BFloat16Tensor"
        )
    dtypes.set_default(found)
