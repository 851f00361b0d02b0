"""Sharded tensors from Parquet files: every worker reads its own rows, nothing passes through the driver."""

from __future__ import annotations

import os
from typing import Any

from distgrad import dtypes, graph
from distgrad.datasets import read_rows, row_count
from distgrad.graph import Plan
from distgrad.meta import TensorMeta
from distgrad.ops.parquet import parquet_column
from distgrad.placement import Shard, Spec, balanced


def read_parquet(path: str | os.PathLike[str], columns: list[str]) -> dict[str, Any]:
    """Gives columns of a Parquet file as tensors sharded along dim 0.

    Number and bool columns become `(rows,)`, fixed-size lists `(rows, size)`, in the file's dtype. `path` must lead to the
    file on every worker's node. Without a session the tensors are local. FileNotFoundError, KeyError and TypeError name
    what does not fit.
    """
    import distgrad.namespace  # attaches the tensors' methods  # noqa: F401

    name = os.path.abspath(os.fspath(path))
    rows = row_count(name)
    head = read_rows(name, columns, 0, min(rows, 1))
    session: Any = graph.session()
    found = {}
    for column in columns:
        kind = dtypes.from_numpy(head[column].dtype)
        shape = (rows, *head[column].shape[1:])
        attrs = {"path": name, "column": column, "shape": shape, "dtype": kind.name, "rows": None}
        if session is not None:
            spec = Spec.of(TensorMeta.of(shape, kind), Shard(0, balanced(rows, session.world_size)))
            parquet_column.plans[tuple(attrs.items())] = Plan(parquet_column, (), (spec,), attrs, None, ())
        found[column] = parquet_column(**attrs)
    return found
