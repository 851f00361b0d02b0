"""Making one batch out of samples.

Invariant: the structure of a sample (mapping, named tuple, sequence) is kept; what numbers it holds becomes tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import distgrad as dg


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _is_text(array: np.ndarray | np.generic) -> bool:
    return array.dtype.kind in "SUO"


def default_convert(data: Any) -> Any:
    """Turns numpy arrays inside ``data`` into tensors and keeps everything else. Source: torch.utils.data."""
    if isinstance(data, (np.ndarray, np.generic)):
        return data if _is_text(data) else dg.as_tensor(np.asarray(data))
    if isinstance(data, Mapping):
        return type(data)({key: default_convert(value) for key, value in data.items()})  # type: ignore[call-arg]
    if _is_named_tuple(data):
        return type(data)(*(default_convert(value) for value in data))
    if isinstance(data, tuple):
        return [default_convert(value) for value in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return type(data)([default_convert(value) for value in data])  # type: ignore[call-arg]
    return data


def default_collate(batch: Any) -> Any:
    """Stacks samples: tensors, arrays and numbers become tensors with a new first dimension, structures are kept.

    Raises TypeError for samples of another type, RuntimeError for sequences of different lengths.
    Source: torch.utils.data.default_collate.
    """
    first = batch[0]
    if isinstance(first, dg.Tensor):
        return dg.stack(list(batch), 0)
    if isinstance(first, (np.ndarray, np.generic)) and not isinstance(first, (str, bytes)):
        if _is_text(first):
            raise TypeError(
                "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
                f"{first.dtype}"
            )
        return dg.as_tensor(np.stack([np.asarray(sample) for sample in batch]))
    if isinstance(first, float):
        return dg.tensor(batch, dtype=dg.float64)
    if isinstance(first, int):
        return dg.tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return type(first)({key: default_collate([sample[key] for sample in batch]) for key in first})  # type: ignore
    if _is_named_tuple(first):
        return type(first)(*(default_collate(column) for column in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return columns if isinstance(first, (tuple, list)) else type(first)(columns)  # type: ignore[call-arg]
    raise TypeError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first)}"
    )
