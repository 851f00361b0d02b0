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


def _array_of(data: Any, kind: dtype_type | None) -> np.ndarray:
    """Gives a new array with PyTorch's dtype inference; TypeError or ValueError for what is no rectangular data."""
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
    if found.dtype.kind in "OUSmM":
        raise TypeError(f"tensor: cannot make a tensor from {_odd(data)}; numbers, bools and sequences of them are allowed")
    if kind is None:
        if isinstance(data, list | tuple) and found.size == 0 and found.dtype.kind == "f":
            kind = dtypes.default()
        elif _holds_numpy(data):
            kind = dtypes.from_numpy(found.dtype)
        else:
            kind = {"b": dtypes.bool_, "f": dtypes.default(), "c": dtypes.default().to_complex()}.get(
                found.dtype.kind, dtypes.int64
            )
    if kind.category == 1 and found.dtype.kind == "f":
        found = np.trunc(found)
    return found.astype(kind.numpy)


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


def node_of(array: np.ndarray, *, data: bool = True) -> Node:
    """Gives the node of an array; large data goes to the workers when a session runs."""
    spec = Spec.of(TensorMeta.of(array.shape, dtypes.from_numpy(array.dtype)))
    session = graph.session()
    if session is not None and data:
        node = session.place_data(array, spec)  # type: ignore[attr-defined]  # on the coordinator
        if node is not None:
            return node
    return Node(spec, array)


def _wrap(node: Node) -> Any:
    from distgrad.tensor import Tensor

    return Tensor._from_node(node)


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Any:
    """Makes a tensor by copying numbers, nested sequences or an array (PyTorch: torch.tensor).

    TypeError for data that is not numeric, ValueError for ragged rows. With a session, large data that needs no
    gradient is sharded along dim 0.
    """
    if device is not None:
        make_device(device)
    array = _array_of(data, None if dtype is None else dtypes.as_dtype(dtype))
    out = _wrap(node_of(array, data=not requires_grad))
    return out.requires_grad_() if requires_grad else out


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """Makes a tensor, sharing the data's memory where it can (PyTorch: torch.as_tensor)."""
    if is_tensor(data):
        return data if dtype is None or data.dtype is dtypes.as_dtype(dtype) else data.to(dtypes.as_dtype(dtype))
    if isinstance(data, np.ndarray) and (dtype is None or dtypes.as_dtype(dtype).numpy == data.dtype):
        return from_numpy(data)
    return tensor(data, dtype=dtype, device=device)


def from_numpy(array: np.ndarray) -> Any:
    """Makes a tensor on a numpy array's memory (PyTorch: torch.from_numpy); TypeError for anything else.

    With a session, large arrays are copied to the workers, sharded along dim 0.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(array).__name__})")
    dtypes.from_numpy(array.dtype)
    out = _wrap(node_of(array))
    out._shares_numpy = out._node.data is array and array.flags.writeable
    return out


def legacy_node(data: Any, sizes: tuple[Any, ...]) -> Node:
    """Gives the node `Tensor(...)` makes: zeros for sizes, otherwise the data in the default dtype."""
    if isinstance(data, int) and not isinstance(data, bool):
        return node_of(np.zeros((data, *sizes), dtypes.default().numpy))
    return node_of(_array_of(data, dtypes.default()))
