"""User functions on shards: the ops behind `map_shards`. Only that function makes calls of them.

A call is three ops. `map_run` runs the function with the local autograd engine and gives a tape, a value that stays on
its worker; `map_results` reads the function's results off the tape; `map_backward` runs the tape's reverse pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op
from distgrad.placement import Spec

# The spec of a tape. Its shape says nothing; it is too large to be sent back with a run.
TAPE = TensorMeta.of((4096,), dtypes.float64)
_functions = itertools.count()


class ShardFunction:
    """A user function as an attribute of a call: hashed by identity, pickled once by Ray's means.

    It is unpickled when it is first called, so that a function a worker cannot import fails as an operation does.
    """

    def __init__(
        self, function: Callable[..., Any] | None, needs: tuple[bool, ...], name: str, packed: bytes | None = None
    ) -> None:
        self._function, self._packed = function, packed
        self.needs, self.name = needs, name
        self.uid = next(_functions)

    @classmethod
    def of(cls, function: Callable[..., Any], needs: tuple[bool, ...]) -> ShardFunction:
        """Wraps a function; `needs` says of which arguments gradients are wanted."""
        return cls(function, needs, getattr(function, "__qualname__", type(function).__name__))

    def __call__(self, *inputs: Any) -> Any:
        if self._function is None:
            from ray import cloudpickle

            assert self._packed is not None
            self._function = cloudpickle.loads(self._packed)
        return self._function(*inputs)

    def __repr__(self) -> str:
        return self.name

    def packed(self) -> bytes:
        """Gives the function as bytes; TypeError when it holds what cannot be sent."""
        if self._packed is None:
            from ray import cloudpickle

            try:
                self._packed = cloudpickle.dumps(self._function)
            except Exception as error:  # whatever the pickling of what it refers to raises
                raise TypeError(
                    f"map_shards: {self!r} cannot be sent to the workers: {error}; it and all it refers to must pickle"
                ) from error
        return self._packed

    def __reduce__(self) -> tuple[Any, ...]:
        return (ShardFunction, (None, self.needs, self.name, self.packed()))


class Tape:
    """What one worker keeps of a call: the function's inputs and results, linked by the local engine."""

    def __init__(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        self.inputs, self.results = inputs, results

    def describe(self) -> list[tuple[tuple[int, ...], str]]:
        """Gives shape and dtype of each result."""
        return [(tuple(r.shape), r.dtype.name) for r in self.results]


def _tape_meta(*inputs: Any, function: ShardFunction) -> MetaResult:
    return (TAPE,), None


def _run(*arrays: np.ndarray, function: ShardFunction) -> np.ndarray:
    import distgrad.namespace  # the user's function finds all methods  # noqa: F401
    from distgrad import graph
    from distgrad.functions.data import node_of
    from distgrad.tensor import Tensor

    with graph.local_only():
        inputs = []
        for array, needs in zip(arrays, function.needs):
            tensor = Tensor._from_node(node_of(np.ascontiguousarray(array).reshape(array.shape)))
            tensor._needs_grad = needs
            inputs.append(tensor)
        results = function(*inputs)
        listed = list(results) if isinstance(results, tuple | list) else [results]
        for result in listed:
            if not isinstance(result, Tensor):
                raise TypeError(f"map_shards: {function!r} must return tensors, got {type(result).__name__}")
    tape = np.empty((), dtype=object)
    tape[()] = Tape(inputs, listed)
    return tape


def _results(tape: np.ndarray, *inputs: np.ndarray, results: tuple[Spec, ...]) -> Any:
    found = [(tuple(r.shape), r.dtype.name) for r in tape.item().results]
    expected = list(results)  # localized: this rank's (shape, dtype name) of each
    if found != expected:
        raise ValueError(
            f"map_shards: results {found} where the first call with inputs of these shapes gave {expected}; shapes and "
            "dtypes must depend on the inputs' shapes alone"
        )
    arrays = tuple(r.detach().numpy() for r in tape.item().results)
    return arrays if len(arrays) > 1 else arrays[0]


def _unplanned(*inputs: Any, **attrs: Any) -> MetaResult:
    raise RuntimeError("map_shards plans its own calls")


def _local_shapes(attrs: dict[str, Any], ins: Sequence[Any], outs: Sequence[Any], rank: int) -> dict[str, Any]:
    return {"results": tuple((o.local_shape(rank), o.meta.dtype.name) for o in outs)}


def _backward(tape: np.ndarray, *gs: np.ndarray, wanted: tuple[bool, ...]) -> Any:
    from distgrad import graph
    from distgrad.functions.data import node_of
    from distgrad.tensor import Tensor, grad

    saved: Tape = tape.item()
    with graph.local_only():
        pairs = [
            (r, Tensor._from_node(node_of(np.ascontiguousarray(g).reshape(g.shape))))
            for r, g in zip((r for r in saved.results if r.dtype.category >= 2), gs) if r.requires_grad
        ]
        inputs = [t for t, marked in zip(saved.inputs, wanted) if marked]
        found: Sequence[Any] = [None] * len(inputs)
        if pairs:
            found = grad([r for r, _ in pairs], inputs, [g for _, g in pairs], retain_graph=True, allow_unused=True)
    arrays = tuple(
        np.zeros(t.shape, t.dtype.numpy) if g is None else g.numpy() for t, g in zip(inputs, found)
    )
    return arrays if len(arrays) > 1 else arrays[0]


def _refuse_second(g: Any) -> Any:
    raise RuntimeError("map_shards: gradients through it can be taken once, not twice, since it runs on the workers")


def _results_vjp(g: Any, inputs: Any, needs: Any, results: Any) -> list[Any]:
    from distgrad.runtime.map_shards import backward_call

    return backward_call(g if isinstance(g, tuple) else (g,), inputs, needs, results)


map_run = Op("map_run", _run, meta=_tape_meta, inputs="*")
map_results = Op("map_results", _results, meta=_unplanned, inputs="*", joint_vjp=_results_vjp, localize=_local_shapes)
map_backward = Op("map_backward", _backward, meta=_unplanned, inputs="*", joint_vjp=_refuse_second)
