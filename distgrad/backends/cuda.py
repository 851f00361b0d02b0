"""`backends.cuda`: settings that scripts write; there is no CUDA here and they change nothing."""

from __future__ import annotations

from types import SimpleNamespace

__all__ = ["enable_flash_sdp", "enable_math_sdp", "enable_mem_efficient_sdp", "is_built", "matmul"]

matmul = SimpleNamespace(
    allow_tf32=False, allow_fp16_reduced_precision_reduction=False, allow_bf16_reduced_precision_reduction=False,
    fp32_precision="none",
)  # fmt: skip


def is_built() -> bool:
    """Says that distgrad is built without it: False."""
    return False


def enable_flash_sdp(enabled: bool) -> None:
    """Accepts either: attention has one implementation here."""


enable_math_sdp = enable_mem_efficient_sdp = enable_flash_sdp
