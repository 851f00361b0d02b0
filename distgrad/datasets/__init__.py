"""Small data sets that ship with distgrad, and the Parquet reader that gives each worker its own rows.

Invariant: `read_rows` decodes no row group that lies outside the rows asked for, and what it returns does not depend on
how the file is cut into row groups.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["digits_path", "read_rows", "row_count"]


def digits_path() -> str:
    """Returns the path of the UCI handwritten digits: 1,797 rows of `pixels` uint8 `(64,)`, 0 to 16, and `label` uint8.

    Source: E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49,
    CC BY 4.0.

    >>> row_count(digits_path())
    1797
    """
    return str(Path(__file__).with_name("digits.parquet"))


def row_count(path: str | os.PathLike[str]) -> int:
    """Returns the number of rows of a Parquet file; reads its footer only."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def read_rows(path: str | os.PathLike[str], columns: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
    """Reads rows `[start, stop)` of some columns of a Parquet file into contiguous, writable numpy arrays.

    A column of numbers or booleans becomes an array `(stop - start,)` of the same dtype; a column of fixed-size lists
    (nested ones too) becomes `(stop - start, size, ...)`. An empty range gives arrays with zero rows. Row groups are
    decoded one after another, so that memory stays at the result plus one row group.

    Raises KeyError for a column the file does not have, IndexError for rows outside the file, TypeError for a column
    type that has no fixed shape, and ValueError for a column with nulls.

    >>> read_rows(digits_path(), ["label"], 0, 5)["label"]
    array([0, 1, 2, 3, 4], dtype=uint8)
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise KeyError(f"read_rows: no column {missing} in {os.fspath(path)}; it has {schema.names}")
        if not 0 <= start <= stop <= metadata.num_rows:
            raise IndexError(
                f"read_rows: rows [{start}, {stop}) given, {os.fspath(path)} has rows [0, {metadata.num_rows}); "
                "give 0 <= start <= stop <= row_count(path)"
            )
        arrays: dict[str, np.ndarray] = {}
        for name in columns:
            shape, dtype = _row_layout(name, schema.field(name).type)
            arrays[name] = np.empty((stop - start, *shape), dtype)
        first = 0
        for group in range(metadata.num_row_groups):
            last = first + metadata.row_group(group).num_rows
            low, high = max(start, first), min(stop, last)
            if low < high:
                table = file.read_row_group(group, columns=list(arrays)).slice(low - first, high - low)
                for name, array in arrays.items():
                    _copy_column(name, table.column(name), array[low - start : high - start])
            first = last
    return arrays


def _row_layout(name: str, kind: pa.DataType) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Returns the shape and the numpy dtype of one row of a column of this Arrow type."""
    import pyarrow as pa

    shape: list[int] = []
    leaf = kind
    while pa.types.is_fixed_size_list(leaf):
        shape.append(leaf.list_size)
        leaf = leaf.value_type
    if not (pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf)):
        raise TypeError(
            f"read_rows: column {name!r} has type {kind}; allowed are integers, floats, booleans and fixed-size lists "
            "of them; leave the column out or convert it first"
        )
    return tuple(shape), np.dtype(leaf.to_pandas_dtype())


def _copy_column(name: str, column: pa.ChunkedArray, rows: np.ndarray) -> None:
    """Copies a column into `rows` `(N, ...)`, chunk by chunk, without an intermediate copy for plain numbers."""
    import pyarrow as pa

    first = 0
    for chunk in column.chunks:
        last = first + len(chunk)
        values = chunk
        _refuse_nulls(name, values)
        while pa.types.is_fixed_size_list(values.type):
            values = values.flatten()
            _refuse_nulls(name, values)
        # Booleans are bit-packed in Arrow: they alone need a converted copy.
        flat = values.to_numpy(zero_copy_only=not pa.types.is_boolean(values.type))
        rows[first:last] = flat.reshape(rows[first:last].shape)
        first = last


def _refuse_nulls(name: str, values: pa.Array) -> None:
    if values.null_count:
        raise ValueError(
            f"read_rows: column {name!r} has {values.null_count} nulls in the rows read; numpy has no null; "
            "fill them in before writing the file"
        )
