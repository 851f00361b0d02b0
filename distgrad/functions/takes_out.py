"""The `out=` keyword: a function's result is written into a tensor the caller gives, as in PyTorch.

Invariant: one wrapper serves every function; the ops below never see `out`. The tensor keeps its dtype, takes the
result's shape, and gradients are never recorded through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from distgrad.grad_mode import mode
from distgrad.op import is_tensor
from distgrad.warn import warn_user

_P = ParamSpec("_P")
_NOTE = "\n\n    With `out` (a tensor, or a tuple of them) the result is written into it and `out` is given back."


def takes_out(function: Callable[_P, Any]) -> Callable[..., Any]:
    """Gives the function with the keyword `out`; without it the call is passed on as it is."""
    name = function.__name__  # type: ignore[attr-defined]  # functions and ops have one

    def call(*args: Any, out: Any = None, **options: Any) -> Any:
        if out is None:
            try:
                return function(*args, **options)
            except AttributeError:  # of something that is no tensor, most likely
                if args and not is_tensor(args[0]) and not isinstance(args[0], tuple):
                    given = type(args[0]).__name__
                    raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {given}") from None
                raise
        return _write(name, function(*args, **options), out)

    call.__name__ = call.__qualname__ = name
    call.__module__ = "distgrad"  # where pickle finds it
    call.__doc__ = (function.__doc__ or "") + _NOTE
    call.__wrapped__ = function  # type: ignore[attr-defined]  # what inspect.signature and help() follow
    return call


def _write(name: str, result: Any, out: Any) -> Any:
    results = (result,) if is_tensor(result) else tuple(result)
    targets = (out,) if is_tensor(out) else tuple(out)
    if len(targets) != len(results):
        raise TypeError(f"{name}(): out has {len(targets)} tensors, but there are {len(results)} results")
    for target in targets:
        if not is_tensor(target):
            raise TypeError(f"{name}(): argument 'out' must be Tensor or a tuple of them, not {type(target).__name__}")
    if mode.enabled and any(is_tensor(v) and v.requires_grad for v in (*results, *targets)):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, but one of the "
            "arguments "
            "requires grad."
        )
    for target, value in zip(targets, results):
        if value.shape == target.shape:
            target._assign(value)
            continue
        if target.numel():
            warn_user(
                f"An output with one or more elements was resized since it had shape {list(target.shape)}, which "
                "does not "
                f"match the required output shape {list(value.shape)}. Give an empty tensor, or one of that shape.",
            )
        target._resize(value)
    return out if is_tensor(result) or not hasattr(result, "_fields") else type(result)(*targets)
