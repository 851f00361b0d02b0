"""Reading a Parquet column: a creation op whose rows each worker reads for itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row


def _meta(*, path: str, column: str, shape: tuple[int, ...], dtype: str, rows: tuple[int, int] | None) -> MetaResult:
    return (TensorMeta.of(shape, dtypes.named(dtype)),), None


def _rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    yield Row((), (0,))


def _localize(attrs: dict[str, Any], ins: Sequence[Any], outs: Sequence[Any], rank: int) -> dict[str, Any]:
    placement = outs[0].placement
    return {**attrs, "rows": placement.block(rank)} if hasattr(placement, "block") else attrs


def _kernel(*, path: str, column: str, shape: tuple[int, ...], dtype: str, rows: tuple[int, int] | None) -> np.ndarray:
    from distgrad.datasets import read_rows

    start, stop = (0, shape[0]) if rows is None else rows
    return read_rows(path, [column], start, stop)[column]


parquet_column = Op("parquet_column", _kernel, meta=_meta, inputs="", rows=_rows, localize=_localize)
