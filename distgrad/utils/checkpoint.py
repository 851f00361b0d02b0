"""Trading computation for memory: `checkpoint` forgets what a function saved for backward and computes it again there.

Invariant: the graph is the ordinary one, gradient function by gradient function; only the values they saved are left
out and put back, all at once, when backward asks for the first of them. So gradients of any order, hooks and
`autograd.grad` work as without a checkpoint. Source: torch.utils.checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import distgrad as dg
from distgrad.autodiff import GradFn, next_sequence
from distgrad.grad_mode import enable_grad, mode
from distgrad.random import default_generator
from distgrad.tensor import Tensor

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential"]


class CheckpointError(RuntimeError):
    """The function did something else when it was computed again."""


class _Forgotten(dict[int, Any]):
    """What a gradient function saved, left out until it is asked for."""

    def __init__(self, region: _Region) -> None:
        super().__init__()
        self._region = region
        self.source: dict[int, Any] = {}

    def __missing__(self, position: int) -> Any:
        if not self.source:
            self._region.compute_again()
        # What an inner checkpoint left out is forgotten in the source as well, and computed again by asking for it.
        return self.source[position]

    def __bool__(self) -> bool:
        return True


class _Region:
    """One checkpointed call: how to make it again and the gradient functions it made."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any, state: tuple[int, int, int] | None,
                 functions: list[GradFn]) -> None:
        self._function, self._args, self._kwargs, self._state = function, args, kwargs, state
        self._functions = functions
        for fn in functions:
            fn.ins, fn.outs = _Forgotten(self), _Forgotten(self)

    def compute_again(self) -> None:
        """Runs the function again and hands its saved values to the gradient functions of the first run."""
        tracking, mode.track_views = mode.track_views, True
        try:
            with enable_grad(), _generator_at(self._state):
                # Fresh tensors each time: the function may write to its arguments.
                args, kwargs = _mapped(self._args, _fresh), _mapped(self._kwargs, _fresh)
                start = next_sequence()
                outputs = self._function(*args, **kwargs)
        finally:
            mode.track_views = tracking
        again = _made_since(start, outputs)
        if [fn.plan.op for fn in again] != [fn.plan.op for fn in self._functions]:
            raise CheckpointError(
                "checkpoint: the recomputed values differ from those of the forward pass: then "
                f"{len(self._functions)} operations were recorded, now {len(again)} or others; the function must do "
                "the same both times"
            )
        for fn, new in zip(self._functions, again):
            for lost, values in ((fn.ins, new.ins), (fn.outs, new.outs)):
                if isinstance(lost, _Forgotten):
                    lost.source = values


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Gives the same containers with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _snapshot(tensor: Tensor) -> Tensor:
    """Gives the tensor's value now, which later writes to the tensor do not change."""
    kept = Tensor._from_node(tensor._now())
    kept._needs_grad = tensor.requires_grad
    return kept


def _fresh(kept: Tensor) -> Tensor:
    leaf = Tensor._from_node(kept._now())
    leaf._needs_grad = kept._needs_grad
    # Something made it, so it may be written to as in the first run.
    return leaf.clone() if leaf._needs_grad else leaf  # type: ignore[attr-defined]  # attached in methods.py


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _made_since(start: int, outputs: Any) -> list[GradFn]:
    """Gives the gradient functions made after `start` that the outputs depend on, in order of creation."""
    found: set[Any] = set()
    stack = [t._fn for t in _tensors(outputs) if t.requires_grad and t._fn is not None]
    while stack:
        fn = stack.pop()
        if fn in found or fn.sequence < start:
            continue
        found.add(fn)
        stack.extend(edge[0] for edge in fn.edges if isinstance(edge, tuple))
    return sorted((fn for fn in found if isinstance(fn, GradFn)), key=lambda fn: fn.sequence)


@contextlib.contextmanager
def _generator_at(state: tuple[int, int, int] | None) -> Iterator[None]:
    """Lets the default generator draw from `state` on, and restores it at the end; None leaves it alone."""
    if state is None:
        yield
        return
    before = default_generator.place
    default_generator.place = state
    try:
        yield
    finally:
        default_generator.place = before


def checkpoint(
    function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True,
    context_fn: Any = None, determinism_check: str = "default", debug: bool = False, **kwargs: Any,
) -> Any:
    """Gives `function(*args, **kwargs)`; what its operations save for backward is computed again when it is needed.

    `preserve_rng_state` makes the second computation draw the same random numbers. `use_reentrant`,
    `determinism_check` and `debug` are accepted and change nothing; RuntimeError for a `context_fn`. CheckpointError in
    backward when the function does something else the second time. PyTorch: torch.utils.checkpoint.checkpoint.
    """
    if context_fn is not None:
        raise RuntimeError("checkpoint: context_fn is not supported; leave it out")
    if not mode.enabled:
        return function(*args, **kwargs)
    kept = _mapped(args, _snapshot), _mapped(kwargs, _snapshot)
    state = default_generator.place if preserve_rng_state else None
    start = next_sequence()
    outputs = function(*args, **kwargs)
    made = _made_since(start, outputs)
    if made:
        _Region(function, *kept, state, made)
    return outputs


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """Gives the input sent through the functions (or a `Sequential`) one after the other, in checkpointed segments.

    All segments but the last are checkpointed. PyTorch: torch.utils.checkpoint.checkpoint_sequential.
    """
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    steps: Sequence[Any] = list(functions.children()) if isinstance(functions, dg.nn.Sequential) else list(functions)
    size = len(steps) // segments

    def run(start: int, end: int) -> Callable[[Any], Any]:
        def forward(value: Any) -> Any:
            for step in steps[start:end]:
                value = step(value)
            return value

        return forward

    end = 0
    for start in range(0, size * (segments - 1), size):
        end = start + size
        input = checkpoint(run(start, end), input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
    return run(end, len(steps))(input)
