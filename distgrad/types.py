"""Names for annotations, as PyTorch has them.

Invariant: they are for type checkers; nothing is computed with them.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Union

from distgrad.device import device
from distgrad.dtypes import dtype
from distgrad.size import Size
from distgrad.tensor import Tensor

__all__ = ["Device", "Number", "Size", "Tensor"]

Number = Union[int, float, bool]  # noqa: UP007  # scripts ask for its __args__
Device = Union[device, str, int, None]  # noqa: UP007
_dtype, _device, _size = dtype, device, Sequence[builtins.int]
_int, _float, _bool = builtins.int, builtins.float, builtins.bool
_TensorOrTensors = Union[Tensor, Sequence[Tensor]]  # noqa: UP007
Storage = Any
