"""The exceptions distgrad raises beyond Python's own; every one pickles.

    Exception
    └── RuntimeError
        └── DistgradError
            ├── SessionError            no session, a second one, or a tensor of a session that ended
            ├── PlacementError          a placement that cannot be had
            ├── RemoteOpError           an op failed on a worker; names the driver's line that recorded it
            ├── GroupAborted            a collective was given up on request
            ├── WireError               a frame of another session or epoch, or of the wrong size
            └── InfrastructureError     the cluster failed, not the program
                ├── WorkerLostError     a worker died
                ├── CollectiveTimeout   (also TimeoutError) ranks did not arrive in time
                └── ClusterError        the cluster could not be reached or started

Wrong shapes, dtypes and arguments raise what PyTorch raises: RuntimeError, IndexError, TypeError, ValueError.
"""

from __future__ import annotations

from typing import Any


class DistgradError(RuntimeError):
    """Base of the errors that are distgrad's own. Keyword details become attributes and survive pickling."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details
        for name, value in details.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args[0], self.details))


def _rebuild(cls: type, message: str, details: dict[str, Any]) -> DistgradError:
    return cls(message, **details)


class SessionError(DistgradError):
    """There is no session, there is one already, or a tensor belongs to one that has ended."""


class PlacementError(DistgradError):
    """A placement that this tensor or op cannot have."""


class RemoteOpError(DistgradError):
    """An op failed on a worker.

    Attributes: `op`, `worker` (rank), `where` ("file:line" on the driver), `cause` (type name of the worker's
    exception), `worker_traceback`.
    """


class GroupAborted(DistgradError):
    """A collective was given up because the session aborted it."""


class WireError(DistgradError):
    """A frame was refused: other session, other epoch, out of sequence or not of the expected size."""


class InfrastructureError(DistgradError):
    """The cluster failed, not the user's program."""


class WorkerLostError(InfrastructureError):
    """A worker died. Attributes: `missing` (ranks)."""


class CollectiveTimeout(InfrastructureError, TimeoutError):
    """Workers did not arrive in time. Attributes: `missing` (ranks), `seconds`."""


class ClusterError(InfrastructureError):
    """The cluster could not be reached or did not give the workers asked for."""


FATAL = (InfrastructureError, WireError, GroupAborted)
"""After these, workers may disagree about where they are: the session is over. Other errors are an operation's own."""
