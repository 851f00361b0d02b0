"""Calling an op: look up or make its plan, run it here or record it, and link the gradient function.

Invariant: everything that can be wrong with shapes, dtypes and placements is found here, before a kernel runs or a
message is sent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad import dtypes, graph, temporaries
from distgrad.autodiff import GradFn, anomaly
from distgrad.engine.values import convert
from distgrad.grad_mode import mode
from distgrad.graph import Node, Plan
from distgrad.op import Op, set_dispatcher
from distgrad.placement import Spec
from distgrad.propagate import plan_sharded
from distgrad.quiet import enter, enter_by_rows, leave
from distgrad.views import View, detached, mark_saved, root_of

NUMBERS = frozenset((float, int, bool, complex))
_PLANS_PER_OP = 20_000  # a program with ever-changing shapes must not grow without bound


def run_kernel(plan: Plan, values: list[Any]) -> tuple[np.ndarray, ...]:
    """Runs an op's kernel on arrays and numbers in this process."""
    if plan.casts is not None:
        values = [v if c is None else convert(v, c.numpy) for v, c in zip(values, plan.casts)]
    if mode.quiet and not plan.by_rows:
        out = plan.op.kernel(*values, **plan.attrs)
    else:
        before = enter_by_rows() if plan.by_rows else enter()
        try:
            out = plan.op.kernel(*values, **plan.attrs)
        finally:
            leave(before)
    if plan.single:
        return (out if type(out) is np.ndarray else np.asarray(out),)
    return tuple(o if type(o) is np.ndarray else np.asarray(o) for o in out)


def make_plan(op: Op, specs: tuple[Any, ...], attrs: dict[str, Any]) -> Plan:
    """Checks a call's metadata and decides how it runs."""
    metas = [s if isinstance(s, type) else s.meta for s in specs]
    if not op.variadic and len(specs) != len(op.input_names):
        names = ", ".join(op.input_names)
        raise TypeError(f"{op.name}: takes {len(op.input_names)} inputs ({names}), got {len(specs)}")
    outs, casts = op.meta(*metas, **attrs)
    session = graph.session()
    tensors = [s for s in specs if not isinstance(s, type)]
    if session is None and any(s.placement is not None for s in tensors):
        raise graph.session_ended(next(s for s in tensors if s.placement is not None))
    if session is not None and (op.collective or not tensors or any(s.placement is not None for s in tensors)):
        return plan_sharded(op, specs, outs, casts, attrs, session)
    return Plan(op, specs, tuple(Spec.of(m) for m in outs), attrs, casts)


def install(tensor_type: type) -> None:
    """Makes calling an op give tensors of this class."""
    new = object.__new__  # past Tensor.__new__, which builds from data
    stray = tensor_type._from_stray  # type: ignore[attr-defined]  # the Tensor class provides it

    def wrap(node: Node) -> Any:
        tensor: Any = new(tensor_type)
        tensor._node = node
        return tensor

    def dispatch(op: Op, /, *args: Any, **attrs: Any) -> Any:
        values: list[Any] = []
        specs: list[Any] = []
        arrays: list[Any] = []
        needs_grad = False
        for value in args:
            kind = type(value)
            if kind is not tensor_type:
                if kind in NUMBERS:
                    values.append(value)
                    specs.append(kind)
                    arrays.append(value)
                    continue
                if not isinstance(value, tensor_type):
                    position = len(values)
                    value = stray(op, position, value)
                    args = (*args[:position], value, *args[position + 1 :])
                    if type(value) in NUMBERS:
                        values.append(value)
                        specs.append(type(value))
                        arrays.append(value)
                        continue
            view = value._view
            node = value._node if view is None or view.seen == view.clock[0] else value._synced()
            values.append(node)
            specs.append(node.spec)
            arrays.append(node.data)
            if value._needs_grad:
                needs_grad = True
        key = (*specs, *attrs.items()) if attrs else tuple(specs)
        plan = op.plans.get(key)
        if plan is None:
            if graph.session() is None:
                values = [_at_home(v) if type(v) is Node else v for v in values]
                specs = [v.spec if type(v) is Node else s for v, s in zip(values, specs)]
                key = (*specs, *attrs.items())
            plan = op.plans.get(key) or make_plan(op, tuple(specs), attrs)
            if len(op.plans) >= _PLANS_PER_OP:
                op.plans.clear()
            op.plans[key] = plan

        nodes: tuple[Node, ...]
        if plan.local:
            outs = run_kernel(plan, arrays)
            if op.put is None and outs and outs[0].base is not None:
                outs = _own_memory(args, arrays, outs)
            if plan.single:  # nearly always, and worth the shorter way
                nodes = (Node(plan.outs[0], outs[0]),)
            else:
                nodes = tuple(Node(spec, out) for spec, out in zip(plan.outs, outs))
        else:
            session = graph.session()
            assert session is not None
            if graph.recorder[0] is not None:
                graph.recorder[0].saw(args, values)
            nodes = session.record(plan, values)

        fn = None
        if needs_grad and mode.enabled and op.rules:
            fn = _link(plan, args, values, nodes)
        if plan.single:
            tensor: Any = new(tensor_type)
            tensor._node = nodes[0]
            if fn is not None and plan.outs[0].meta.dtype.category >= 2:
                tensor._fn, tensor._index, tensor._needs_grad = fn, 0, True
            elif plan.large:
                temporaries.note(tensor)
            if op.put is not None and mode.track_views:
                source = args[0]
                if fn is None and source._fn is not None:
                    source = detached(source)
                tensor._view = View(source, op, args[1:], attrs)
            return tensor
        results = []
        for index, node in enumerate(nodes):
            tensor = wrap(node)
            if fn is not None and plan.outs[index].meta.dtype.category >= 2:
                tensor._fn, tensor._index, tensor._needs_grad = fn, index, True
            results.append(tensor)
        return tuple(results)

    set_dispatcher(dispatch)


def _at_home(node: Node) -> Node:
    """Gives a local node for data of a session that is not running here; its values never left this process."""
    return node if node.data is None or node.spec.placement is None else Node(Spec.of(node.spec.meta), node.data)


def _own_memory(args: tuple[Any, ...], arrays: list[Any], outs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Copies results that may lie in a numpy array of the user's, who may write to it; only views do that.

    What a kernel made and then shaped has a base, too, and lies in none of the user's arrays.
    """
    theirs = [array for a, array in zip(args, arrays) if type(a) not in NUMBERS and root_of(a)._shares_numpy]
    if not theirs:
        return outs
    return tuple(
        o.copy() if o.base is not None and any(np.may_share_memory(o, array) for array in theirs) else o for o in outs
    )


def edge_of(tensor: Any) -> Any:
    """Gives the edge by which a gradient reaches a tensor: (GradFn, index), the leaf itself, or None."""
    if not tensor._needs_grad:
        return None
    return tensor if tensor._fn is None else (tensor._fn, tensor._index)


def _link(plan: Plan, args: tuple[Any, ...], values: list[Any], nodes: tuple[Node, ...]) -> GradFn:
    edges: list[Any] = []
    mask: list[bool] = []
    for a in args:
        if type(a) in NUMBERS or not a._needs_grad:
            edges.append(None)
            mask.append(False)
        else:
            made_by = a._fn
            edges.append(a if made_by is None else (made_by, a._index))
            mask.append(True)
    marks = tuple(mask)
    fn = GradFn(plan, tuple(edges), marks)
    if anomaly.sites is not None:
        anomaly.note(fn)
    ins, outs = plan.op.needs.get(marks) or plan.op.saved_for(marks)
    if ins:
        held: dict[int, Any] = {}
        for position in ins:
            value = values[position]
            held[position] = value
            if type(value) is Node:
                if args[position]._view is None:
                    value.saved = True
                else:
                    mark_saved(args[position])
        fn.ins = held
    if outs:
        fn.outs = {position: nodes[position] for position in outs}
        for position in outs:
            nodes[position].saved = True
    return fn


def default_dtype_changed() -> None:
    """Forgets the plans, which depend on the default dtype."""
    from distgrad.op import OPS

    for op in OPS.values():
        op.plans.clear()
    running = graph.session()
    if running is not None:
        running.tapes.clear()  # rules make tensors of the default dtype


def set_default_dtype(value: Any) -> None:
    """Sets the default floating dtype (PyTorch: torch.set_default_dtype); TypeError unless it is floating."""
    dtypes.set_default(value)
    default_dtype_changed()
