"""Rebuild distgrad/datasets/digits.parquet from the original text file of the UCI archive.

Invariant: row i of the Parquet file is line i of the text file, so the order (and with it every split by row number) is
the one the data was published in.

    python examples/data/make_digits.py optdigits.tes distgrad/datasets/digits.parquet

The input is comma-separated: 64 pixel values from 0 to 16, then the digit. A file ending in `.gz` is decompressed.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Small row groups let several workers each read their own rows without decoding anybody else's.
ROWS_PER_GROUP = 128
PIXELS = 64

METADATA = {
    "title": "Optical Recognition of Handwritten Digits, test split (optdigits.tes), 1,797 images of 8x8 pixels",
    "source": "UCI Machine Learning Repository, data set 80, file optdigits.tes",
    "doi": "10.24432/C50P49",
    "citation": "E. Alpaydin and C. Kaynak (1998). Optical Recognition of Handwritten Digits [Dataset]. "
    "UCI Machine Learning Repository. https://doi.org/10.24432/C50P49",
    "license": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "changes": "The text file was converted to Parquet; values and row order are unchanged.",
    "pixels": "uint8[64], the 8x8 image in row-major order; each value counts the set pixels, 0 to 16, of a 4x4 block",
    "label": "uint8, the digit 0 to 9",
}


def read_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads the UCI text file; returns pixels `(N, 64)` and labels `(N,)`, both uint8.

    Raises ValueError when a line has other than 65 numbers or a value is out of range.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", ndmin=2)
    if table.shape[1] != PIXELS + 1:
        raise ValueError(
            f"make_digits: {table.shape[1]} numbers a line given, {PIXELS + 1} expected (64 pixels, 1 label)"
        )
    pixels, labels = table[:, :PIXELS], table[:, PIXELS]
    if (
        not np.array_equal(table, table.round())
        or pixels.min() < 0
        or pixels.max() > 16
        or not set(labels) <= set(range(10))
    ):
        raise ValueError(
            "make_digits: pixels must be whole numbers from 0 to 16 and labels from 0 to 9; is this optdigits.tes?"
        )
    return np.ascontiguousarray(pixels, dtype=np.uint8), labels.astype(np.uint8)


def write_parquet(pixels: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Writes pixels `(N, 64)` and labels `(N,)` to a Parquet file in row groups of 128 rows, with the source named."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), PIXELS),
        "label": pa.array(labels),
    }
    schema = pa.schema(
        [
            pa.field("pixels", pa.list_(pa.field("item", pa.uint8(), nullable=False), PIXELS), nullable=False),
            pa.field("label", pa.uint8(), nullable=False),
        ],
        metadata=METADATA,
    )
    table = pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, compression="zstd", use_dictionary=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Converts the text file named first into the Parquet file named second."""
    parser = argparse.ArgumentParser(description="convert optdigits.tes of the UCI archive to Parquet")
    parser.add_argument("text", type=Path, help="optdigits.tes, may be gzipped")
    parser.add_argument("parquet", type=Path, help="file to write")
    options = parser.parse_args(arguments)
    pixels, labels = read_text(options.text)
    write_parquet(pixels, labels, options.parquet)
    print(f"{options.parquet}: {len(labels)} rows, {options.parquet.stat().st_size} bytes")


if __name__ == "__main__":
    main()
