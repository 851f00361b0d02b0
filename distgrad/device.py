"""Devices: there is one, the CPU. `device("cpu")` exists so that PyTorch scripts run as they are."""

from __future__ import annotations

from typing import Any


class device:
    """A device by name; RuntimeError for anything but the CPU. PyTorch: torch.device."""

    __slots__ = ("index", "type")

    def __init__(self, kind: Any = "cpu", index: int | None = None) -> None:
        name, _, number = str(getattr(kind, "type", kind)).partition(":")
        if name != "cpu":
            raise RuntimeError(f"device {kind!r} is not available: distgrad computes on CPUs; use device('cpu')")
        self.type = "cpu"
        self.index = int(number) if number else index

    def __repr__(self) -> str:
        return "device(type='cpu')" if self.index is None else f"device(type='cpu', index={self.index})"

    def __str__(self) -> str:
        return "cpu" if self.index is None else f"cpu:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and other.type == self.type

    def __hash__(self) -> int:
        return hash(self.type)

    def __reduce__(self) -> tuple[Any, ...]:
        return (device, (str(self),))


CPU = device("cpu")
