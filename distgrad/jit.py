"""`jit` under PyTorch's names: programs are recorded and cached by themselves here, so functions stay as they are.

Invariant: what these give back is the very object they were given, so data-dependent Python keeps working.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "Final", "annotate", "export", "freeze", "ignore", "is_scripting", "is_tracing", "load", "optimize_for_inference",
    "save", "script", "script_method", "trace", "trace_module", "unused",
]  # fmt: skip

from typing import Final


def script(obj: Any, *args: Any, **options: Any) -> Any:
    """Gives the function or module as it is; a decorator too (PyTorch: torch.jit.script)."""
    return obj


def trace(func: Any, example_inputs: Any = None, **options: Any) -> Any:
    """Gives the function or module as it is: data-dependent Python keeps working (PyTorch: torch.jit.trace)."""
    return func


def trace_module(mod: Any, inputs: Any = None, **options: Any) -> Any:
    """Gives the module as it is (PyTorch: torch.jit.trace_module)."""
    return mod


def script_method(fn: Any) -> Any:
    """Gives the method as it is (PyTorch: torch.jit.script_method)."""
    return fn


def export(fn: Any) -> Any:
    """Gives the method as it is (PyTorch: torch.jit.export)."""
    return fn


def unused(fn: Any) -> Any:
    """Gives the method as it is (PyTorch: torch.jit.unused)."""
    return fn


def ignore(drop: Any = False, **options: Any) -> Any:
    """Gives the function as it is, as a decorator with or without arguments (PyTorch: torch.jit.ignore)."""
    return drop if callable(drop) else lambda function: function


def freeze(mod: Any, *args: Any, **options: Any) -> Any:
    """Gives the module as it is (PyTorch: torch.jit.freeze)."""
    return mod


def optimize_for_inference(mod: Any, *args: Any, **options: Any) -> Any:
    """Gives the module as it is (PyTorch: torch.jit.optimize_for_inference)."""
    return mod


def annotate(the_type: Any, the_value: Any) -> Any:
    """Gives the value as it is (PyTorch: torch.jit.annotate)."""
    return the_value


def is_scripting() -> bool:
    """Says that no script is being compiled: False."""
    return False


def is_tracing() -> bool:
    """Says that nothing is being traced: False."""
    return False


def save(m: Any, f: Any, _extra_files: Any = None) -> None:
    """Raises RuntimeError: TorchScript files hold compiled code, and there is none here."""
    raise RuntimeError("jit.save: distgrad compiles no TorchScript; save(model.state_dict(), file) instead")


def load(f: Any, map_location: Any = None, **options: Any) -> Any:
    """Raises RuntimeError: TorchScript files hold compiled code, which cannot be run here."""
    raise RuntimeError("jit.load: distgrad runs no TorchScript; load a state dict with load(file) instead")
