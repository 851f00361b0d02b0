"""`Function`: an operation with a user-written backward, as PyTorch's page "torch.autograd.Function" defines it.

Invariant: forward runs unrecorded and its outputs are linked to one node of the graph; backward is ordinary code on
global tensors, so it runs on every placement, and is itself recorded when a derivative of it is asked for.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from distgrad.autodiff import GraphNode, anomaly, backward_twice, match, next_sequence, zeros_like_spec
from distgrad.dispatch import edge_of
from distgrad.grad_mode import mode
from distgrad.tensor import Tensor, make_saved

__all__ = ["Function", "FunctionCtx", "once_differentiable"]


class FunctionCtx:
    """What forward hands to backward: saved tensors, and any attribute the user sets."""

    needs_input_grad: tuple[bool, ...] = ()
    _saved: tuple[Any, ...] = ()
    _taken: tuple[Any, ...] | None = None  # values with their edges; an int is the index of an output of this call
    _node: Callable[[], Any]
    _freed = False
    _non_differentiable: tuple[Any, ...] = ()
    _dirty: tuple[Any, ...] = ()
    _materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps inputs, outputs or other tensors for backward; TypeError for anything else."""
        for position, tensor in enumerate(tensors):
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument {position} is of type "
                    f"{type(tensor).__name__}; set it as an attribute of ctx"
                )
        self._saved = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Does nothing: there is no forward-mode differentiation."""

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, as it was then; RuntimeError when the graph has been freed."""
        if self._freed:
            raise backward_twice()
        if self._taken is None:
            return self._saved
        return tuple(None if taken is None else self._tensor_of(*taken) for taken in self._taken)

    def _tensor_of(self, value: Any, edge: Any) -> Tensor:
        return make_saved(value, (self._node(), edge) if isinstance(edge, int) else edge)

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says that these outputs have no gradient."""
        self._non_differentiable = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says that these inputs were changed in place and are returned as outputs."""
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Says whether backward gets zeros (the default) or None for outputs without a gradient."""
        self._materialize = value

    def _take(self, outputs: Sequence[Any], node: FunctionNode) -> None:
        """Swaps the saved tensors for their values and edges, so that outputs do not keep themselves alive."""
        taken: list[Any] = []
        for tensor in self._saved:
            if tensor is None:
                taken.append(None)
                continue
            index = next((i for i, out in enumerate(outputs) if out is tensor), None)
            if index is None:
                edge = edge_of(tensor)
            else:
                edge = index if index in node.differentiable else None
            tensor._mark_saved()
            taken.append((tensor._now(), edge))
        self._node = weakref.ref(node)
        self._taken, self._saved = tuple(taken), ()
        self._dirty = self._non_differentiable = ()


class FunctionNode(GraphNode):
    """The graph's node of one call of a Function; the reverse pass uses it as it uses a `GradFn`."""

    def __init__(self, function: type[Function], ctx: FunctionCtx, args: Sequence[Any]) -> None:
        self.function, self.ctx = function, ctx
        self.edges = tuple(edge_of(a) if isinstance(a, Tensor) else None for a in args)
        self.input_specs = tuple(a._now().spec if isinstance(a, Tensor) else None for a in args)
        self.output_specs: tuple[Any, ...] = ()
        self.differentiable: frozenset[int] = frozenset()
        self.sequence = next_sequence()
        self.hooks: dict[int, dict[int, Callable[..., Any]]] | None = None
        self.retained: dict[int, Any] | None = None
        if anomaly.sites is not None:
            anomaly.note(self)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What forward saved for backward."""
        return self.ctx.saved_tensors

    def name(self) -> str:
        """Gives the name shown for such a node, like MyFunctionBackward."""
        return f"{self.function.__name__}Backward"

    def check(self) -> None:
        """Does nothing: `ctx.saved_tensors` raises when they are gone, and not every backward needs any."""

    def release(self) -> None:
        """Lets go of the saved values."""
        if self.ctx._taken:
            self.ctx._freed, self.ctx._taken = True, None

    def cotangents(self, gs: list[Any], create: bool, make: Callable[..., Any]) -> list[Any]:
        """Calls the user's backward; gives one cotangent per argument of forward, None where there is none."""
        if self.ctx._materialize:
            gs = [
                zeros_like_spec(spec) if g is None and spec is not None and spec.meta.dtype.category >= 2 else g
                for g, spec in zip(gs, self.output_specs)
            ]
        before, mode.track_views = mode.track_views, True  # the user's code may write to slices
        try:
            found = self.function.backward(self.ctx, *gs)
        finally:
            mode.track_views = before
        results = list(found) if isinstance(found, tuple | list) else [found]
        expected = len(self.edges)
        while len(results) > expected and results[-1] is None:
            results.pop()
        if len(results) != expected:
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients (expected {expected}, got "
                f"{len(results)})"
            )
        return [self._checked(position, result) for position, result in enumerate(results)]

    def _checked(self, position: int, result: Any) -> Any:
        if result is None:
            return None
        spec = self.input_specs[position]
        if spec is None:
            raise RuntimeError(
                f"function {self.name()} returned a gradient different than None at position {position + 1}, but the "
                "corresponding forward input was not a Variable"
            )
        if not isinstance(result, Tensor):
            raise TypeError(f"{self.name()} should return tensors or None, got {type(result)} at {position + 1}")
        if self.edges[position] is None:
            return None
        want, given = spec.meta.shape, tuple(result.shape)
        if given != want:
            extra = len(given) - len(want)
            if extra < 0 or any(n not in (1, m) for n, m in zip(want, given[extra:])):
                raise RuntimeError(
                    f"Function {self.name()} returned an invalid gradient at index {position} - got {list(given)} but "
                    f"expected shape compatible with {list(want)}"
                )
        return match(result, spec)


class Function:
    """An operation with a backward of its own: subclass it, define `forward` and `backward`, call `apply`.

    `forward(ctx, *args)`, or `forward(*args)` with `setup_context(ctx, inputs, output)`; `backward(ctx, *grads)` gives
    one
    gradient per argument of forward, None for arguments that have none. PyTorch: torch.autograd.Function.

    >>> import distgrad as dg
    >>> class Cube(dg.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 3 * x**2
    >>> x = dg.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs from the arguments; every Function defines it."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Saves on `ctx` what backward needs, where forward does not take `ctx`."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Computes the gradients of the arguments from those of the outputs; every Function that is differentiated has
        it.
        """
        raise NotImplementedError("You must implement the backward function to use it with distgrad's autograd.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs forward and links its outputs to the graph when an argument requires grad. Tensors go by position."""
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        records = mode.enabled and any(ctx.needs_input_grad)
        node = FunctionNode(cls, ctx, args) if records else None
        before, mode.enabled = mode.enabled, False
        try:
            if cls.setup_context is Function.setup_context:
                output = cls.forward(ctx, *args, **kwargs)
            else:
                output = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, output)
        finally:
            mode.enabled = before
        single = not isinstance(output, tuple | list)
        outputs = [output] if single else list(output)
        if single and not isinstance(output, Tensor):
            raise TypeError(f"{cls.__name__}: forward must return a tensor or a tuple of them, got {type(output)}")
        outputs = _linked(ctx, node, args, outputs)
        return outputs[0] if single else tuple(outputs)


def _linked(ctx: FunctionCtx, node: FunctionNode | None, args: Sequence[Any], outputs: list[Any]) -> list[Any]:
    """Gives the outputs as parts of the graph. An input that is returned as it is becomes another tensor."""
    dirty, plain = ctx._dirty, ctx._non_differentiable
    results: list[Any] = []
    smooth: set[int] = set()
    for index, out in enumerate(outputs):
        if not isinstance(out, Tensor):
            results.append(out)
            continue
        if any(out is d for d in dirty):
            if node is not None and out.is_leaf and out.requires_grad:
                raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
            result = out
        elif out._view is not None or out.requires_grad or any(out is a for a in args):
            result = Tensor._from_node(out._now())
        else:
            result = out
        results.append(result)
        if node is not None and out.dtype.category >= 2 and not any(out is p for p in plain):
            smooth.add(index)
    if node is not None:
        node.output_specs = tuple(r._now().spec if isinstance(r, Tensor) else None for r in results)
        node.differentiable = frozenset(smooth)
        ctx._saved = tuple(_renamed(tensor, outputs, results, args) for tensor in ctx._saved)
        ctx._take(results, node)
        for index in smooth:
            results[index]._fn, results[index]._index, results[index]._needs_grad = node, index, True
    return results


def _renamed(tensor: Any, outputs: list[Any], results: list[Any], args: Sequence[Any]) -> Any:
    """Gives what a saved output is called now; inputs keep their own history."""
    if tensor is None or any(tensor is a for a in args):
        return tensor
    return next((r for o, r in zip(outputs, results) if o is tensor), tensor)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a backward that cannot be differentiated: a second derivative through it raises RuntimeError."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        recording = mode.enabled
        mode.enabled = False
        try:
            found = backward(ctx, *grads)
        finally:
            mode.enabled = recording
        inputs = [g for g in (*grads, *ctx.saved_tensors) if isinstance(g, Tensor) and g.requires_grad]
        if not recording or not inputs:
            return found
        results = found if isinstance(found, tuple) else (found,)
        stopped = tuple(_Stop.apply(r.detach(), *inputs) if isinstance(r, Tensor) else r for r in results)
        return stopped if isinstance(found, tuple) else stopped[0]

    return wrapped


class _Stop(Function):
    """Passes a gradient on and refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
