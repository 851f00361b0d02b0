"""`GradScaler` as it is where there is no GPU: disabled.

Invariant: losses and gradients pass through unchanged, and `step` is the optimizer's.
"""

from __future__ import annotations

from typing import Any

__all__ = ["GradScaler"]


class GradScaler:
    """Scales nothing: float32 gradients do not underflow as half precision's do. PyTorch: torch.amp.GradScaler."""

    def __init__(
        self, device: str = "cuda", init_scale: float = 65536.0, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ) -> None:
        self._device = device

    def scale(self, outputs: Any) -> Any:
        """Gives the outputs as they are."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Leaves the gradients as they are."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the optimizer's step."""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        """Does nothing: there is no scale."""

    def get_scale(self) -> float:
        """Gives the scale: 1."""
        return 1.0

    def is_enabled(self) -> bool:
        """Says that nothing is scaled: False."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Gives the state of a disabled scaler: none."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing over: a disabled scaler has no state."""
