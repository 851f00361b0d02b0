"""`distributed` under PyTorch's names, for scripts that ask whether they run in a process group: they do not.

Invariant: one process is the whole program; its workers are the session's, and collectives are distgrad's own doing.
"""

from __future__ import annotations

from typing import Any

__all__ = ["barrier", "destroy_process_group", "get_rank", "get_world_size", "init_process_group", "is_available",
           "is_initialized"]


def is_available() -> bool:
    """Says that there are no process groups: False. PyTorch: torch.distributed.is_available."""
    return False


def is_initialized() -> bool:
    """Says that there is no process group: False. PyTorch: torch.distributed.is_initialized."""
    return False


def _none(name: str) -> RuntimeError:
    return RuntimeError(
        f"distributed.{name}: there are no process groups: write the script for one process, and `distgrad run "
        "--workers N`, or init(), spreads its data over workers"
    )


def init_process_group(*args: Any, **kwargs: Any) -> None:
    """Raises RuntimeError: data is spread without one."""
    raise _none("init_process_group")


def get_rank(group: Any = None) -> int:
    """Raises RuntimeError: there is no process group."""
    raise _none("get_rank")


def get_world_size(group: Any = None) -> int:
    """Raises RuntimeError: there is no process group."""
    raise _none("get_world_size")


def barrier(*args: Any, **kwargs: Any) -> None:
    """Raises RuntimeError: there is no process group."""
    raise _none("barrier")


def destroy_process_group(group: Any = None) -> None:
    """Raises RuntimeError: there is no process group."""
    raise _none("destroy_process_group")
