"""Gradient functions: what made a tensor, the values its rules need, and how cotangents go through it.

Invariant: a rule is built from ops, so what it does can be recorded, and differentiated, itself.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from distgrad.graph import Node, Plan
from distgrad.handles import RemovableHandle
from distgrad.op import OPS, Rule
from distgrad.placement import Partial, Shard

_LARGE_BYTES = 1 << 20  # from which a gradient is no longer made whole for the sake of sharing a bucket

_sequence = itertools.count()
_NOTHING: dict[int, Any] = {}  # what functions that save nothing have in common; never written to
PRE, POST = -1, -2  # keys of a node's hooks beside the indices of its outputs


def next_sequence() -> int:
    """Gives the number of the next function; later functions have higher ones."""
    return next(_sequence)


def backward_twice() -> RuntimeError:
    """Gives the error of using saved values that are gone."""
    return RuntimeError(
        "Trying to backward through the graph a second time (or directly access saved tensors after they have already "
        "been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). "
        "Specify retain_graph=True if you need to backward through the graph a second time or if you need to access "
        "saved tensors after calling backward."
    )


class Anomaly:
    """Whether gradients are checked for NaN, and where the functions were recorded (None: not checked)."""

    def __init__(self) -> None:
        self.sites: weakref.WeakKeyDictionary[Any, str] | None = None
        self.check_nan = True

    def switch(self, on: bool, check_nan: bool = True) -> None:
        """Starts or ends the check."""
        self.sites = (self.sites or weakref.WeakKeyDictionary()) if on else None
        self.check_nan = check_nan

    def note(self, fn: Any) -> None:
        """Remembers the user's lines that lead to a new function."""
        import traceback

        if self.sites is not None:
            self.sites[fn] = "".join(traceback.format_stack(limit=12)[:-2])

    def check(self, fn: Any, cotangents: Sequence[Any]) -> None:
        """Raises RuntimeError when a cotangent holds a NaN."""
        if not self.check_nan or self.sites is None:
            return
        for position, g in enumerate(cotangents):
            if g is not None and g.dtype.category >= 2 and bool((g != g).any()):
                site = self.sites.get(fn)
                where = f" It was recorded here (most recent call last):\n{site}" if site else ""
                raise RuntimeError(f"Function '{fn.name()}' returned nan values in its {position}th output.{where}")


anomaly = Anomaly()


class AccumulateGrad:
    """The end of the graph at a leaf, which `grad_fn.next_functions` shows; `variable` is the leaf."""

    __slots__ = ("variable",)
    next_functions: tuple[Any, ...] = ()

    def __init__(self, variable: Any) -> None:
        self.variable = variable

    def name(self) -> str:
        """Gives the name PyTorch shows."""
        return "AccumulateGrad"

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {id(self):#x}>"


class GraphNode:
    """What users see of a function in the graph: `name()`, `next_functions`, hooks."""

    __slots__ = ()
    edges: tuple[Any, ...]
    hooks: dict[int, dict[int, Callable[..., Any]]] | None

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The functions of the inputs, each with the index of its output; (None, 0) where no gradient goes."""
        found: list[tuple[Any, int]] = []
        for edge in self.edges:
            if edge is None:
                found.append((None, 0))
            else:
                found.append(edge if isinstance(edge, tuple) else (AccumulateGrad(edge), 0))
        return tuple(found)

    def register_prehook(self, fn: Callable[..., Any]) -> Any:
        """Calls `fn(grad_outputs)` before this function runs; a tuple it returns replaces them."""
        return self._register(PRE, fn)

    def register_hook(self, fn: Callable[..., Any]) -> Any:
        """Calls `fn(grad_inputs, grad_outputs)` after this function ran; a tuple it returns replaces grad_inputs."""
        return self._register(POST, fn)

    def _register(self, key: int, fn: Callable[..., Any]) -> Any:
        if self.hooks is None:
            self.hooks = {}  # type: ignore[misc]  # a slot of the subclasses
        hooks = self.hooks.setdefault(key, {})
        handle = RemovableHandle(hooks)
        hooks[handle.id] = fn
        return handle

    def name(self) -> str:
        """Gives the name PyTorch shows."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class GradFn(GraphNode):
    """What made a tensor: its plan, where its inputs came from, and the values its rules need.

    `edges` holds per input a (GradFn, output index) pair, a leaf Tensor, or None.
    """

    __slots__ = ("__weakref__", "edges", "hooks", "ins", "label", "marks", "outs", "plan", "released", "retained",
                 "sequence")
    label: str  # the name to show, when the user's function is made of several ops

    def __init__(self, plan: Plan, edges: tuple[Any, ...], marks: tuple[bool, ...] | None = None) -> None:
        self.plan = plan
        self.edges = edges
        self.marks = tuple(edge is not None for edge in edges) if marks is None else marks  # which edges there are
        self.ins: dict[int, Any] = _NOTHING
        self.outs: dict[int, Any] = _NOTHING
        self.released = False
        self.sequence = next(_sequence)
        self.hooks: dict[int, dict[int, Callable[..., Any]]] | None = None
        self.retained: dict[int, Any] | None = None

    @property
    def output_specs(self) -> tuple[Any, ...]:
        return self.plan.outs

    def name(self) -> str:
        """Gives the name PyTorch shows for such a function, like AddBackward0."""
        label = getattr(self, "label", None)
        if label is None:
            from distgrad.grad_names import name_of  # only printing needs it

            label = name_of(self)
        return label

    def release(self) -> None:
        """Lets go of the saved values; a view saves where it was taken, which PyTorch keeps."""
        if (self.ins or self.outs) and not self._is_place():
            self.released = True
            self.ins, self.outs = _NOTHING, _NOTHING

    def _is_place(self) -> bool:
        return self.plan.op.put is not None and not self.outs and not any(type(v) is Node for v in self.ins.values())

    def check(self) -> None:
        """Raises RuntimeError when the saved values are gone."""
        if self.released:
            raise backward_twice()

    def cotangents(
        self, gs: list[Any], create: bool, make: Callable[..., Any], needs: tuple[bool, ...] | None = None
    ) -> Sequence[Any]:
        """Gives the cotangent of each input (None where none is needed) from those of the outputs.

        `needs` marks the inputs whose cotangents lead somewhere (None: all that have an edge).
        """
        plan = self.plan
        if needs is None:
            needs = self.marks
        op = plan.op
        # Rules are plain derivatives; PyTorch's gradient of a complex value is the conjugate of that.
        if len(gs) == 1:
            g = conjugate(gs[0])
        else:
            gs = [conjugate(h) for h in gs]
            g = tuple(
                zeros_like_spec(s) if h is None and s.meta.dtype.category >= 2 and not op.takes_none else h
                for s, h in zip(plan.outs, gs)
            )
        rules = op.rules
        if isinstance(rules, Rule):
            results = list(rules.function(*self._arguments(rules, g, create, make, needs)))
        elif op.twice is not None and not create and self.hooks is None and self._same_inputs(needs):
            results = [op.twice(g, self._input(0, create, make)), None]
        else:
            results = [
                rule.function(*self._arguments(rule, g, create, make, needs)) if needed and rule is not None else None
                for rule, needed in zip(rules, needs)
            ]
        for position, result in enumerate(results):
            if result is not None and needs[position]:
                results[position] = match(conjugate(result), plan.ins[position])
        return results

    def _same_inputs(self, needs: tuple[bool, ...]) -> bool:
        """Says whether gradients go along two edges that are one: to the same leaf, or output of the same function."""
        if not (needs[0] and needs[1]) or self.ins[0] is not self.ins[1] or self.plan.ins[0] is not self.plan.ins[1]:
            return False
        first, second = self.edges
        if isinstance(first, tuple):
            return isinstance(second, tuple) and first[0] is second[0] and first[1] == second[1]
        return first is second

    def _arguments(
        self, rule: Rule, g: Any, create: bool, make: Callable[..., Any], needs: tuple[bool, ...]
    ) -> list[Any]:
        values: list[Any] = []
        plan = self.plan
        for kind, key in rule.sources:
            if kind == "g":
                values.append(g)
            elif kind == "in":
                values.append(self._input(key, create, make))
            elif kind == "out":
                values.append(make(self.outs[key], (self, key) if create else None))
            elif kind == "attr":
                values.append(plan.attrs[key])
            elif kind == "shape":
                values.append(() if isinstance(plan.ins[key], type) else plan.ins[key].meta.shape)
            elif kind == "dtype":
                values.append(plan.ins[key].meta.dtype.name)
            elif kind == "sharded":
                placement = None if isinstance(plan.ins[key], type) else plan.ins[key].placement
                values.append(placement.dim if isinstance(placement, Shard) else None)
            elif kind == "out_shape":
                values.append(plan.outs[key].meta.shape)
            elif kind == "out_dtype":
                values.append(plan.outs[key].meta.dtype.name)
            elif kind == "inputs":
                values.append(tuple(self._input(i, create, make) for i in range(len(plan.ins))))
            elif kind == "shapes":
                values.append(tuple(() if isinstance(i, type) else i.meta.shape for i in plan.ins))
            elif kind == "dtypes":
                values.append(tuple(None if isinstance(i, type) else i.meta.dtype.name for i in plan.ins))
            else:
                values.append(needs)
        return values

    def _input(self, position: int, create: bool, make: Callable[..., Any]) -> Any:
        value = self.ins[position]
        if isinstance(self.plan.ins[position], type):
            return value
        return make(value, self.edges[position] if create else None)


def zeros_like_spec(spec: Any) -> Any:
    """Gives zeros for a cotangent that nobody supplied."""
    return OPS["full"](0.0, shape=spec.meta.shape, dtype=spec.meta.dtype.name)


def conjugate(g: Any) -> Any:
    """Gives the conjugate of a complex tensor, and anything else as it is."""
    return OPS["conj"](g) if g is not None and g._node.spec.meta.dtype.is_complex else g


def match(g: Any, spec: Any) -> Any:
    """Gives a cotangent the shape and dtype of the input it belongs to, undoing broadcasts and casts."""
    if g._node.spec is spec and g._view is None:
        return g
    shape = spec.meta.shape
    if g.shape != shape:
        g = sum_to(g, shape)
    if g.dtype is not spec.meta.dtype:
        if g.dtype.is_complex and not spec.meta.dtype.is_complex:
            g = OPS["real"](g)
        if g.dtype is not spec.meta.dtype:
            g = OPS["cast"](g, dtype=spec.meta.dtype.name)
    if isinstance(spec.placement, Shard) and spec.meta.nbytes > _LARGE_BYTES and isinstance(g.placement, Partial):
        g = OPS["redistribute"](g, placement=spec.placement)  # half the bytes of making it whole on every worker
    return g


def sum_to(g: Any, shape: tuple[int, ...]) -> Any:
    """Sums a tensor over the dims that broadcasting `shape` to its shape added or stretched."""
    extra = len(g.shape) - len(shape)
    axis = tuple(
        d for d, n in enumerate(g.shape) if d < extra or (shape[d - extra] == 1 and n != 1)
    )
    if axis:
        g = OPS["sum"](g, axis=axis, keepdims=axis[-1] >= extra)
    return g if g.shape == shape else OPS["reshape"](g, shape=shape)


def weak(tensor: Any) -> Any:
    """Gives a weak reference to a tensor."""
    return weakref.ref(tensor)
