"""Data straight from files into the workers."""

from __future__ import annotations

from distgrad.data.parquet import read_parquet

__all__ = ["read_parquet"]
