"""Signal processing, under torch.signal's names: `windows`."""

from __future__ import annotations

from distgrad.signal import windows

__all__ = ["windows"]
