"""Complex tensors with PyTorch's signatures: making them, seeing them as pairs of reals, angles.

Invariant: there is no lazy conjugation or negation, so `resolve_conj` and `resolve_neg` give the tensor itself.
"""

from __future__ import annotations

from typing import Any

from distgrad.op import is_tensor
from distgrad.ops import complexes as ops
from distgrad.ops import elementwise
from distgrad.ops.complexes import angle, view_as_complex, view_as_real
from distgrad.ops.elementwise import cast

__all__ = [
    "angle", "cdouble", "cfloat", "complex", "conj_physical", "is_conj", "is_neg", "polar", "resolve_conj",
    "resolve_neg", "view_as_complex", "view_as_real",
]  # fmt: skip


def complex(real: Any, imag: Any) -> Any:
    """Gives the complex tensor with these real and imaginary parts, broadcasting.

    RuntimeError unless both are float32 or both float64. PyTorch: torch.complex.
    """
    return ops.make_complex(real, imag)


def polar(abs: Any, angle: Any) -> Any:
    """Gives abs * exp(1j * angle), broadcasting.

    TypeError unless both are tensors, RuntimeError unless both are float32 or both float64. PyTorch: torch.polar.
    """
    for name, value in (("abs", abs), ("angle", angle)):
        if not is_tensor(value):
            raise TypeError(f"polar(): argument '{name}' must be Tensor, not {type(value).__name__}")
    return ops.make_complex(abs * elementwise.cos(angle), abs * elementwise.sin(angle))


def conj_physical(input: Any) -> Any:
    """Gives the complex conjugate; a real tensor itself."""
    return elementwise.conj(input) if input.dtype.is_complex else input


def resolve_conj(input: Any) -> Any:
    """Gives the tensor itself: conjugates are always computed."""
    return input


def resolve_neg(input: Any) -> Any:
    """Gives the tensor itself: negatives are always computed."""
    return input


def is_conj(input: Any) -> bool:
    """Says that the tensor is no lazy conjugate."""
    return False


def is_neg(input: Any) -> bool:
    """Says that the tensor is no lazy negative."""
    return False


def cfloat(input: Any, memory_format: Any = None) -> Any:
    """Converts to complex64."""
    return _to(input, "complex64")


def cdouble(input: Any, memory_format: Any = None) -> Any:
    """Converts to complex128."""
    return _to(input, "complex128")


def _to(input: Any, kind: str) -> Any:
    return input if input.dtype.name == kind else cast(input, dtype=kind)
