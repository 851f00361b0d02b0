"""Versions under PyTorch's names: of no GPU library is there one.

Invariant: `cuda`, `hip` and the like are None, as in PyTorch built for CPUs.
"""

from __future__ import annotations

__all__ = ["cuda", "debug", "git_version", "hip", "xpu"]

cuda: str | None = None
hip: str | None = None
xpu: str | None = None
debug: bool = False
git_version: str = "unknown"
