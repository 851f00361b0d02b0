"""Mixed precision under PyTorch's names: `autocast` and `GradScaler`.

Invariant: everything is computed in the precision of its operands. Asked for half precision, autocast gives full
precision, which is what it approximates; a scaler scales nothing, as in PyTorch where there is no GPU.
"""

from __future__ import annotations

from distgrad.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from distgrad.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
