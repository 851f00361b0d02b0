"""`detect_anomaly`: finds the operation whose gradient is the first NaN.

Invariant: while it is on every gradient is read as it is computed, which is slow; while it is off nothing is noted.
"""

from __future__ import annotations

from distgrad import autodiff
from distgrad.warn import warn_user

__all__ = ["detect_anomaly", "set_detect_anomaly"]


class set_detect_anomaly:
    """Switches the check on or off at once; as a context manager it restores what was before.

    With it a backward that gives NaN raises RuntimeError, naming the operation and the line of forward that recorded it
    (operations recorded while the check was on). PyTorch: torch.autograd.set_detect_anomaly.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = autodiff.anomaly.sites, autodiff.anomaly.check_nan
        autodiff.anomaly.switch(bool(mode), check_nan)

    def __enter__(self) -> None:
        """Keeps the check as it was set."""

    def __exit__(self, *exc: object) -> None:
        autodiff.anomaly.sites, autodiff.anomaly.check_nan = self._before


class detect_anomaly:
    """Checks gradients for NaN while entered. PyTorch: torch.autograd.detect_anomaly."""

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan
        warn_user(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should only be enabled for "
            "debugging.",
        )

    def __enter__(self) -> None:
        self._setting = set_detect_anomaly(True, self._check_nan)

    def __exit__(self, *exc: object) -> None:
        self._setting.__exit__()
