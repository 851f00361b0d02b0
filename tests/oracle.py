"""Runs an op row on torch or distgrad and brings everything back to numpy for comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def flatten(result: Any, library: Any) -> list[Any]:
    """Gives the tensors (and plain values) of a result, in order."""
    if isinstance(result, library.Tensor):
        return [result]
    if isinstance(result, tuple | list):
        return [leaf for part in result for leaf in flatten(part, library)]
    return [result]


def to_numpy(value: Any) -> Any:
    """Gives a tensor's values as numpy, anything else as it is."""
    if hasattr(value, "detach"):
        value = value.detach()
        if str(value.dtype).endswith("bfloat16"):
            value = value.float()
        return np.asarray(value.numpy(force=True))
    return value


def evaluate(
    library: Any,
    call: Callable[..., Any],
    inputs: Sequence[Any],
    differentiable: Sequence[bool],
    *,
    place: Callable[[Any, int], Any] = lambda t, i: t,
    order: int = 2,
    seed: int = 5,
) -> dict[str, list[Any]]:
    """Gives values, dtypes and (up to `order`) gradients of a call, the latter for fixed random cotangents.

    `place(tensor, position)` may give a tensor another placement. Gradients come per differentiable input, None where
    the input does not matter.
    """
    tensors: list[Any] = []
    wanted: list[Any] = []
    for position, (value, marked) in enumerate(zip(inputs, differentiable)):
        if isinstance(value, np.ndarray):
            tensor = place(library.from_numpy(value.copy()), position)
            if marked and order:
                tensor = tensor.detach().requires_grad_()
                wanted.append(tensor)
            tensors.append(tensor)
        else:
            tensors.append(value)
    outs = flatten(call(library, *tensors), library)
    found: dict[str, list[Any]] = {
        "values": [to_numpy(o) for o in outs],
        "dtypes": [str(o.dtype).rpartition(".")[2] if hasattr(o, "dtype") else type(o).__name__ for o in outs],
        "shapes": [tuple(o.shape) if hasattr(o, "shape") else () for o in outs],
    }
    generator = np.random.default_rng(seed)

    def cotangent(tensor: Any) -> Any:
        return library.from_numpy(np.asarray(generator.standard_normal(tuple(tensor.shape)))).to(tensor.dtype)

    if order < 1 or not wanted:
        return found
    smooth = [o for o in outs if hasattr(o, "requires_grad") and o.requires_grad]
    found["differentiable"] = [hasattr(o, "requires_grad") and o.requires_grad for o in outs]
    if not smooth:
        return found
    first = library.autograd.grad(smooth, wanted, [cotangent(o) for o in smooth], create_graph=order > 1,
                                  allow_unused=True)
    found["grads"] = [None if g is None else to_numpy(g) for g in first]
    if order > 1:
        again = [g for g in first if g is not None and g.requires_grad]
        if again:
            second = library.autograd.grad(again, wanted, [cotangent(g) for g in again], allow_unused=True)
            found["second"] = [None if g is None else to_numpy(g) for g in second]
    return found


def assert_same(ours: dict[str, list[Any]], theirs: dict[str, list[Any]], *, rtol: float, atol: float,
                dtypes: bool = True) -> None:
    """Asserts that two evaluations agree; missing second gradients count as zero."""
    assert ours["shapes"] == theirs["shapes"]
    if dtypes:
        assert ours["dtypes"] == theirs["dtypes"]
    if {"float16", "bfloat16"} & set(ours["dtypes"]):  # parts of a sum round where the whole does not
        rtol, atol = max(rtol, 1e-2), max(atol, 1e-3)
    for key in ("values", "grads", "second"):
        a, b = ours.get(key), theirs.get(key)
        if a is None and b is None:
            continue
        length = len(a if a is not None else b or [])
        for mine, other in zip(a or [None] * length, b or [None] * length):
            if mine is None and other is None:
                continue
            mine = np.zeros_like(other) if mine is None else mine
            other = np.zeros_like(mine) if other is None else other
            np.testing.assert_allclose(mine, other, rtol=rtol, atol=atol, err_msg=key, equal_nan=True)
