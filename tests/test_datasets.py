"""The packaged digits and the Parquet reader, against recorded checksums and plain slices.

Invariant: `read_rows` gives the same bytes as slicing the whole column, wherever the row groups are cut.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distgrad import datasets

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

# SHA-256 of scikit-learn 1.x's load_digits() as uint8 bytes, which holds the same 1,797 rows in the same order.
PIXELS_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
LABELS_SHA256 = "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_the_published_ones() -> None:
    path = datasets.digits_path()
    assert datasets.row_count(path) == 1797
    rows = datasets.read_rows(path, ["pixels", "label"], 0, 1797)
    assert {name: (array.shape, array.dtype) for name, array in rows.items()} == {
        "pixels": ((1797, 64), np.dtype(np.uint8)),
        "label": ((1797,), np.dtype(np.uint8)),
    }
    assert np.bincount(rows["label"]).tolist() == CLASS_COUNTS
    assert (rows["pixels"].min(), rows["pixels"].max(), rows["pixels"].sum(dtype=np.int64)) == (0, 16, 561718)
    assert hashlib.sha256(rows["pixels"].tobytes()).hexdigest() == PIXELS_SHA256
    assert hashlib.sha256(rows["label"].tobytes()).hexdigest() == LABELS_SHA256


def test_digits_name_their_source_and_licence() -> None:
    metadata = pq.read_metadata(datasets.digits_path()).metadata
    assert b"CC BY 4.0" in metadata[b"license"] and metadata[b"doi"] == b"10.24432/C50P49"
    assert b"Alpaydin" in metadata[b"citation"] and b"UCI" in metadata[b"source"]
    readme = Path(datasets.digits_path()).with_name("README.md").read_text()
    assert "10.24432/C50P49" in readme and "CC BY 4.0" in readme


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_workers_together_read_every_row_once(workers: int) -> None:
    path = datasets.digits_path()
    cuts = [rank * 1797 // workers for rank in range(workers + 1)]
    parts = [datasets.read_rows(path, ["pixels"], *cut)["pixels"] for cut in zip(cuts, cuts[1:], strict=False)]
    assert all(part.flags.c_contiguous and part.flags.writeable for part in parts)
    assert hashlib.sha256(np.concatenate(parts).tobytes()).hexdigest() == PIXELS_SHA256


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A file of 23 rows in row groups of 5, with every kind of column."""
    generator = np.random.default_rng(0)
    columns = {
        "float": generator.standard_normal(23),
        "flag": generator.integers(0, 2, 23).astype(bool),
        "matrix": generator.standard_normal((23, 2, 3)).astype(np.float32),
        "flags": generator.integers(0, 2, (23, 4)).astype(bool),
    }
    inner = pa.FixedSizeListArray.from_arrays(pa.array(columns["matrix"].reshape(-1)), 3)
    table = pa.table(
        {
            "float": columns["float"],
            "flag": columns["flag"],
            "matrix": pa.FixedSizeListArray.from_arrays(inner, 2),
            "flags": pa.FixedSizeListArray.from_arrays(pa.array(columns["flags"].reshape(-1)), 4),
            "name": [f"row {i}" for i in range(23)],
            "gap": pa.array([None if i == 11 else i for i in range(23)], pa.int64()),
        }
    )
    path = tmp_path / "mixed.parquet"
    pq.write_table(table, path, row_group_size=5)
    return path, columns


@pytest.mark.parametrize(("start", "stop"), [(0, 23), (0, 5), (3, 4), (4, 11), (20, 23), (22, 23), (0, 0), (23, 23)])
def test_rows_equal_slices(mixed: tuple[Path, dict[str, np.ndarray]], start: int, stop: int) -> None:
    path, columns = mixed
    for name, array in datasets.read_rows(path, list(columns), start, stop).items():
        expected = columns[name][start:stop]
        assert array.dtype == expected.dtype and array.shape == expected.shape
        np.testing.assert_array_equal(array, expected)


def test_other_row_groups_are_not_decoded(mixed: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, columns = mixed
    group = pq.read_metadata(path).row_group(3)
    chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "float")
    offset = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(damaged)
    np.testing.assert_array_equal(datasets.read_rows(path, ["float"], 0, 15)["float"], columns["float"][:15])
    np.testing.assert_array_equal(datasets.read_rows(path, ["float"], 20, 23)["float"], columns["float"][20:])
    with pytest.raises(OSError):
        datasets.read_rows(path, ["float"], 0, 16)


def test_errors_say_what_is_allowed(mixed: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, _ = mixed
    with pytest.raises(KeyError, match=r"no column \['pixel'\] .* it has \['float', 'flag'"):
        datasets.read_rows(path, ["float", "pixel"], 0, 1)
    for start, stop in ((0, 24), (-1, 3), (5, 4)):
        with pytest.raises(IndexError, match=rf"rows \[{start}, {stop}\) given, .* has rows \[0, 23\)"):
            datasets.read_rows(path, ["float"], start, stop)
    with pytest.raises(TypeError, match="'name' has type string; allowed are"):
        datasets.read_rows(path, ["name"], 0, 1)
    assert datasets.read_rows(path, ["gap"], 0, 10)["gap"].tolist() == list(range(10))
    with pytest.raises(ValueError, match="'gap' has 1 nulls"):
        datasets.read_rows(path, ["gap"], 10, 15)


def test_pyarrow_is_imported_only_when_used() -> None:
    code = "import sys; from distgrad import datasets; datasets.digits_path(); sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_file_is_rebuilt_from_the_text_of_the_archive(tmp_path: Path) -> None:
    rows = datasets.read_rows(datasets.digits_path(), ["pixels", "label"], 0, 200)
    text, rebuilt = tmp_path / "optdigits.tes", tmp_path / "digits.parquet"
    np.savetxt(text, np.column_stack([rows["pixels"], rows["label"]]), fmt="%d", delimiter=",")
    script = Path(__file__).resolve().parent.parent / "examples" / "data" / "make_digits.py"
    subprocess.run([sys.executable, str(script), str(text), str(rebuilt)], check=True, timeout=60, capture_output=True)
    again = datasets.read_rows(rebuilt, ["pixels", "label"], 0, 200)
    assert all(np.array_equal(again[name], rows[name]) for name in rows)
    assert pq.read_metadata(rebuilt).num_row_groups == 2
    assert pq.read_schema(rebuilt).equals(pq.read_schema(datasets.digits_path()), check_metadata=True)
    text.write_text("1,2,3\n")
    refused = subprocess.run([sys.executable, str(script), str(text), str(rebuilt)], capture_output=True, text=True)
    assert refused.returncode != 0 and "3 numbers a line given, 65 expected" in refused.stderr
