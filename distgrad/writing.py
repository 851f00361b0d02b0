"""Writing to a local tensor's own memory: what in-place methods do where nobody could tell the difference.

Nodes never change; an in-place method makes a new value and gives it to the tensor. Invariant: memory is written to only
when the tensor's array is known to its node alone and the node to the tensor alone, or when it is a numpy array of the
user's, who is to see the change; and never while a gradient or a program is recorded.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from distgrad import temporaries
from distgrad.grad_mode import mode
from distgrad.graph import Node, recorder
from distgrad.op import is_tensor
from distgrad.quiet import by_rows, enter, enter_by_rows, leave

LEAST = 4096  # elements: below, a new array costs no more than looking

_NUMBERS = (float, int)


def _memory(tensor: Any) -> np.ndarray | None:
    """Gives the array of a tensor that may be written to, or None."""
    node = tensor._node
    data = node.data
    if data is None or data.size < LEAST or data.dtype.char not in "fd" or tensor._view is not None:
        return None
    if recorder[0] is not None or node.spec.placement is not None or not data.flags.writeable:
        return None
    if node.saved or (tensor._needs_grad and mode.enabled):
        return None
    if tensor._shares_numpy:
        return data
    # An array is known to its node, to `data` and to getrefcount; a node to its tensor, to `node` and to getrefcount.
    return data if data.base is None and sys.getrefcount(data) == 3 and sys.getrefcount(node) == 3 else None


def _operand(data: np.ndarray, value: Any) -> Any:
    """Gives what numpy reads for a number, or for a local tensor of the same dtype and no larger; None for others."""
    if type(value) in _NUMBERS:
        return value
    if not is_tensor(value) or (value._needs_grad and mode.enabled):
        return None
    node = value._now()
    array = node.data
    if array is None or node.spec.placement is not None or array.dtype != data.dtype:
        return None
    if array.shape != data.shape:
        wanted = data.shape[data.ndim - array.ndim :]
        if array.ndim > data.ndim or any(n not in (1, m) for n, m in zip(array.shape, wanted)):
            return None
    return array


def _written(tensor: Any, data: np.ndarray) -> bool:
    tensor._node = Node(tensor._node.spec, data)
    tensor._version += 1
    if tensor._clock is not None:
        tensor._clock[0] += 1
    return True


def _ran(function: Any, data: np.ndarray, operands: list[Any]) -> bool:
    """Writes a function of operands over `data`; False, and nothing is written, where one of them may not be read."""
    if any(operand is None for operand in operands):
        return False
    before = enter_by_rows() if by_rows(function, data.shape, data.dtype) else enter()
    try:
        function(*operands, out=data)
    finally:
        leave(before)
    return True


def compute(tensor: Any, function: Any, *others: Any) -> bool:
    """Writes the results of a ufunc (or clip) of the tensor and others over the tensor; False where that may not be done."""
    if function is not np.clip and (type(function) is not np.ufunc or function.nin != 1 + len(others)):
        return False
    data = _memory(tensor)
    if data is None:
        return False
    return _ran(function, data, [data, *(_operand(data, other) for other in others)]) and _written(tensor, data)


def compute_over(tensor: Any, function: np.ufunc, *values: Any) -> bool:
    """Computes a ufunc of a temporary and others as they stand and makes the temporary its result; False where it may not."""
    data = _memory(tensor)
    if data is None:
        return False
    if not _ran(function, data, [data if value is tensor else _operand(data, value) for value in values]):
        return False
    tensor._node = Node(tensor._node.spec, data)
    temporaries.note(tensor)
    return True


def _put_rows(tensor: Any, data: np.ndarray, index: np.ndarray, value: Any) -> bool:
    """Writes a number to the rows of an index; False, and nothing written, for one that is outside."""
    if type(value) not in _NUMBERS:
        return False
    try:
        data[index] = value
    except IndexError:  # numpy looks at the whole index first; the caller's other way has the message
        return False
    return _written(tensor, data)


def put(tensor: Any, key: Any, value: Any) -> bool:
    """Writes a value to `tensor[key]`, a key of slices, a mask or an index; False where that may not be done."""
    data = _memory(tensor)
    if data is None:
        return False
    if key is not Ellipsis:
        if is_tensor(key):
            node = key._now()
            key = node.data
            if key is None or node.spec.placement is not None:
                return False
            if key.dtype == np.int64 and key.ndim:
                return _put_rows(tensor, data, key, value)
            if key.dtype.char != "?" or key.shape != data.shape:
                return False
            if type(value) not in _NUMBERS:
                return False
            np.putmask(data, key, value)
            return _written(tensor, data)
        parts = key if type(key) is tuple else (key,)
        if len(parts) > data.ndim or not all(type(p) is slice and (p.step is None or p.step == 1) for p in parts):
            return False
        if not all(n is None or type(n) is int for p in parts for n in (p.start, p.stop)):
            return False
    target = data[key]
    operand = _operand(target, value)
    if operand is None:
        return False
    if type(operand) is not np.ndarray:
        target.fill(operand)
    else:
        np.copyto(target, operand)
    return _written(tensor, data)
