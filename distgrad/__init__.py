"""PyTorch's API on a numpy autograd engine, spread over a Ray cluster.

    import distgrad as torch          # one process, numpy, everything at once
    torch.init(num_workers=4)         # from here on large data and its operations live on Ray workers

The public names stand in distgrad/namespace.py, which is loaded when the first of them is used, so that importing
distgrad takes about as long as importing numpy. Modules import only downwards:

    changes, temporaries < errors, dtypes, device, grad_mode, grad_names, handles, printing, serialization_format, datasets,
    size < mersenne < meta, settings, draws < placement < op < families, graph < ops
    < autodiff, leaves, propagate, program, views < lower, engine, tapes < reverse, dispatch < tensor, random
    < distgrad (this module) < functions < operators, inplace, methods < runtime < serialization < namespace
    < autograd, testing, data, fft, linalg, masked, signal, special < utils, distributions, func < nn < optim
    < demo, serving < script_names < cli < __main__

What must look upwards (a view's parent class, the text of a tensor) does so inside a function. tests/test_layers.py
checks all this. `ray` and `pyarrow` are imported below `runtime` and by readers of files only, and when used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Two submodules have the name of something public. They are imported first, so that no later import can put the
# module in the name's place.
import distgrad.device
import distgrad.tensor  # noqa: F401

if TYPE_CHECKING:
    from distgrad.namespace import *  # noqa: F403  # editors and type checkers see every name

__version__ = "0.1.0"
del device, tensor  # noqa: F821  # bound by the imports above


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module 'distgrad' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("distgrad.namespace"), name)  # found at once from now on
    return value


def __dir__() -> list[str]:
    return dir(sys.modules.get("distgrad.namespace") or import_module("distgrad.namespace"))
