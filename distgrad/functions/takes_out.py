"""The `out=` keyword: a function's result is written into a tensor the caller gives, as in PyTorch.

Invariant: one wrapper serves every function; the ops below never see `out`. The tensor keeps its dtype, takes the
result's shape, and gradients are never recorded through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from distgrad.functions.layout import is_contiguous, stride
from distgrad.functions.strided import storage_offset
from distgrad.grad_mode import mode
from distgrad.op import is_tensor
from distgrad.views import root_of
from distgrad.warn import warn_user

_P = ParamSpec("_P")
_NOTE = "\n\n    With `out` (a tensor, or a tuple of them) the result is written into it and `out` is given back."


def takes_out(function: Callable[_P, Any], *, tensors: str = "", exact: bool = False,
              apart: bool = False) -> Callable[..., Any]:
    """Gives the function with the keyword `out`; without it the call is passed on as it is.

    `tensors`: of its first two arguments the "first", "both" or "one" must be tensors (TypeError). `exact`: `out` has
    the result's dtype; `apart`: it shares no memory with the arguments (RuntimeError).
    """
    name = function.__name__  # type: ignore[attr-defined]  # functions and ops have one

    def call(*args: Any, out: Any = None, **options: Any) -> Any:
        if tensors:
            _check_tensors(name, tensors, args, options)
        if out is None:
            try:
                return function(*args, **options)
            except AttributeError:  # of something that is no tensor, most likely
                if args and not is_tensor(args[0]) and not isinstance(args[0], tuple):
                    given = type(args[0]).__name__
                    raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {given}") from None
                raise
        _check_memory(name, out, (*args, *options.values()), apart)
        return _write(name, function(*args, **options), out, exact)

    call.__name__ = call.__qualname__ = name
    call.__module__ = "distgrad"  # where pickle finds it
    call.__doc__ = (function.__doc__ or "") + _NOTE
    call.__wrapped__ = function  # type: ignore[attr-defined]  # what inspect.signature and help() follow
    return call


def _check_tensors(name: str, tensors: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Raises TypeError for numbers where PyTorch has no overload for them."""
    given = (*args, *(v for k, v in options.items() if k in ("input", "other", "exponent")))[:2]
    found = [is_tensor(value) for value in given]
    if not found or (found[0] if tensors == "first" else all(found) if tensors == "both" else any(found)):
        return
    position = found.index(False)
    raise TypeError(
        f"{name}(): argument '{('input', 'other')[position]}' (position {position + 1}) must be Tensor, not "
        f"{type(given[position]).__name__}"
    )


def _check_memory(name: str, out: Any, values: tuple[Any, ...], apart: bool) -> None:
    """Raises RuntimeError when writing to `out` would write a place twice, or change what is still to be read."""
    targets = [t for t in (out if isinstance(out, tuple | list) else (out,)) if is_tensor(t) and t._view is not None]
    if apart:
        targets = [t for t in (out if isinstance(out, tuple | list) else (out,)) if is_tensor(t)]
    for target in targets:
        if any(n > 1 and s == 0 for n, s in zip(target.shape, stride(target))):
            raise RuntimeError(
                f"{name}(): unsupported operation: more than one element of the written-to tensor refers to a single "
                "memory location. Please clone() the tensor before performing the operation."
            )
        for value in values:
            for read in value if isinstance(value, tuple | list) else (value,):
                if is_tensor(read) and root_of(read) is root_of(target) and _overlap(read, target, apart):
                    raise RuntimeError(
                        f"{name}(): unsupported operation: some elements of the input tensor and the written-to tensor "
                        "refer to a single memory location. Please clone() the tensor before performing the operation."
                    )


def _overlap(read: Any, target: Any, apart: bool) -> bool:
    """Says whether two contiguous tensors of one memory share elements; the very same elements only with `apart`."""
    if read is target or not (is_contiguous(read) and is_contiguous(target)):
        return read is target and apart
    start, other = storage_offset(read), storage_offset(target)
    if start == other and read.numel() == target.numel():
        return apart
    return start < other + target.numel() and other < start + read.numel()


def _write(name: str, result: Any, out: Any, exact: bool) -> Any:
    results = (result,) if is_tensor(result) else tuple(result)
    targets = (out,) if is_tensor(out) else tuple(out)
    if is_tensor(out) and not is_tensor(result):
        raise TypeError(f"{name}(): argument 'out' must be tuple of Tensors, not Tensor; there are {len(results)} results")
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
        if exact and target.dtype is not value.dtype:
            raise RuntimeError(
                f"{name}(): Expected out tensor to have dtype {value.dtype.name}, but got {target.dtype.name} instead"
            )
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
