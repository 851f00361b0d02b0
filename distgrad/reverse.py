"""The reverse pass: the walk over gradient functions.

Invariant: functions are visited in falling order of creation, so every cotangent is complete when it is used; the walk
is a loop, never a recursion, and a rule runs once per call.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.autodiff import POST, PRE, GradFn, anomaly
from distgrad.grad_mode import mode
from distgrad.graph import Session, held_site, recorder, session
from distgrad.quiet import enter, leave
from distgrad.tapes import Watch, read

_LEAST = 4096  # elements: below, a new array costs no more than looking


def run_backward(
    roots: Sequence[tuple[Any, Any]],
    *,
    make: Callable[..., Any],
    retain: bool,
    create: bool,
    wanted: Sequence[Any] | None = None,
) -> tuple[dict[Any, Any], list[tuple[Any, Any]]]:
    """Runs the reverse pass from (edge, cotangent) pairs.

    Gives cotangents of the `wanted` edges (all leaves when None) by key, and the leaves in the order they completed.
    An edge is a leaf Tensor or a (GradFn, index) pair; `make(node, edge)` builds a Tensor for a rule.
    """
    running = session()
    watch = None
    if running is not None and wanted is None and not create and anomaly.sites is None and recorder[0] is None:
        watch, again = _known(roots, running, make, retain)
        if again is not None:
            return {id(leaf): g for leaf, g in again}, again
    pending: dict[GradFn, list[Any]] = {}
    leaves: dict[int, list[Any]] = {}  # the leaf and its gradient
    heap: list[tuple[int, GradFn]] = []
    needed = None if wanted is None else _needed([edge for edge, _ in roots], wanted)
    results: dict[Any, Any] = {}
    targets = None if wanted is None else {key_of(edge) for edge in wanted}

    def arrive(edge: Any, g: Any) -> None:
        if isinstance(edge, tuple):
            fn, index = edge
            if needed is not None and fn not in needed and (id(fn), index) not in (targets or ()):
                return
            gs = pending.get(fn)
            if gs is None:
                gs = pending[fn] = [None] * len(fn.output_specs)
                heapq.heappush(heap, (-fn.sequence, fn))
            holder, place = gs, index
        elif targets is None or id(edge) in targets:
            found = leaves.get(id(edge))
            if found is None:
                found = leaves[id(edge)] = [edge, None]
            holder, place = found, 1
        else:
            return
        if holder[place] is None:
            holder[place] = g
        else:
            holder[place] = _sum(holder[place], g) if local else holder[place] + g

    def held(fn: GradFn) -> Any:
        edge = fn.edges[0]
        if isinstance(edge, tuple):
            gs = pending.get(edge[0])
            return None if gs is None else gs[edge[1]]
        found = leaves.get(id(edge))
        return None if found is None else found[1]

    site = None if running is None else running.site()
    before = mode.enabled, mode.track_views, mode.quiet
    warnings = enter()
    local = running is None and not create and recorder[0] is None
    # In a reverse pass gradients are recorded for `create` only, and views are not tracked.
    mode.enabled, mode.track_views, mode.quiet = create, False, True
    try:
        for edge, g in roots:
            arrive(edge, g)
        while heap:
            fn = heapq.heappop(heap)[1]
            gs = pending.pop(fn)
            if fn.hooks is not None or fn.retained is not None:
                _run_hooks(fn, gs)
            if targets is not None:
                for index, g in enumerate(gs):
                    if (id(fn), index) in targets:
                        results[(id(fn), index)] = g
                if fn not in needed:  # type: ignore[operator]  # needed is a set whenever targets is
                    continue
            fn.check()
            if local and type(fn) is GradFn:
                adds = fn.plan.op.adds
                if adds is not None and fn.hooks is None and _added(fn, adds, gs[0], held(fn)):
                    if not retain:
                        fn.release()
                    continue
                spends = fn.plan.op.spends
                if spends is not None and fn.hooks is None and _spent(fn, spends, gs[0]):
                    if not retain:
                        fn.release()
                    arrive(fn.edges[0], gs.pop())
                    continue
            if type(fn) is GradFn and fn.hooks is None:  # no code of the user's runs from here on
                held_site[0] = site
            if targets is None or not isinstance(fn, GradFn):
                cotangents = fn.cotangents(gs, create, make)
            else:
                cotangents = fn.cotangents(gs, create, make, tuple(_leads(e, targets, needed) for e in fn.edges))
            if fn.hooks is not None and POST in fn.hooks:
                cotangents = _run_post_hooks(fn, gs, cotangents)
            if anomaly.sites is not None:
                anomaly.check(fn, cotangents)
            if not retain:
                fn.release()
            if watch is not None:
                watch = watch.after(fn)
            arriving = list(cotangents)
            cotangents = g = gs = None  # type: ignore[assignment]  # what is held twice is not added to in place
            arriving.reverse()
            for edge in fn.edges:
                if not arriving:
                    break
                if edge is None or arriving[-1] is None:
                    arriving.pop()
                else:
                    arrive(edge, arriving.pop())
            held_site[0] = None
    finally:
        held_site[0] = None
        mode.enabled, mode.track_views, mode.quiet = before
        leave(warnings)
    if watch is not None:
        watch.keep([(leaf, g) for leaf, g in leaves.values()])
    for key, (_, g) in leaves.items():
        results[key] = g
    return results, [(leaf, g) for leaf, g in leaves.values()]


def _holders(tensor: Any) -> tuple[int, int, int]:
    node = tensor._node
    data = node.data
    return sys.getrefcount(tensor), sys.getrefcount(node), sys.getrefcount(data)


class _Probe:
    """Stands for a tensor or its node, to measure what `_holders` gives where nobody else holds them."""

    __slots__ = ("_node", "data")
    _node: Any
    data: Any


def _passed_on(tensor: _Probe) -> tuple[int, int, int]:
    return _holders(tensor)


def _measured() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    tensor = _Probe()
    tensor._node = _Probe()
    tensor._node.data = _Probe()
    passed = _passed_on(tensor)
    slots = [tensor]
    del tensor
    return _passed_on(slots[0]), passed


_IN_A_SLOT, _AT_HAND = _measured()  # a tensor that one list alone holds, or one name of the function that calls


def _writable(tensor: Any) -> bool:
    """Says whether a gradient's array may be written to as far as it knows itself."""
    data = tensor._node.data
    if data is None or data.size < _LEAST or tensor._view is not None or tensor._shares_numpy:
        return False
    return data.base is None and data.flags.writeable and data.dtype.char in "fd"


def _added(fn: GradFn, adds: Callable[..., None], g: Any, known: Any) -> bool:
    """Adds to the gradient of a function's input what is not zero of its own; False where that may not be done."""
    if known is None or g is None or known is g or g._view is not None or anomaly.sites is not None:
        return False
    if not _writable(known) or known._node.spec.meta.dtype is not g._node.spec.meta.dtype:
        return False
    if known._node.spec.meta.shape != fn.plan.ins[0].meta.shape or _holders(known) != _IN_A_SLOT:
        return False
    data = known._node.data
    adds(data, g._node.data, *[fn.ins[position] for position in range(1, len(fn.plan.ins))], **fn.plan.attrs)
    return True


def _spent(fn: GradFn, spends: Callable[..., Any], g: Any) -> bool:
    """Makes a gradient that only the reverse pass holds the one of a function's input; False where that may not be done."""
    if g is None or anomaly.sites is not None or not _writable(g) or _holders(g) != _IN_A_SLOT:
        return False
    meta = fn.plan.ins[0].meta
    saved = [node.data for node in (*fn.ins.values(), *fn.outs.values())]
    if g._node.spec.meta != meta or any(a is None or a.shape != meta.shape or a.dtype != meta.dtype.numpy for a in saved):
        return False
    spends(g._node.data, *saved)
    return True


def _sum(known: Any, g: Any) -> Any:
    """Adds a gradient to another one: in the memory of one of them that only the reverse pass holds, if there is one."""
    if known._node.spec is g._node.spec or known._node.spec.meta == g._node.spec.meta:
        if _writable(known) and _holders(known) == _IN_A_SLOT and g._view is None:
            np.add(known._node.data, g._node.data, out=known._node.data)
            return known
        if _writable(g) and _holders(g) == _AT_HAND and known._view is None:
            np.add(known._node.data, g._node.data, out=g._node.data)
            return g
    return known + g


def _known(roots: Sequence[tuple[Any, Any]], running: Session, make: Callable[..., Any], retain: bool
           ) -> tuple[Watch | None, list[tuple[Any, Any]] | None]:
    """Repeats a pass whose structure is known; gives the leaves with their gradients.

    Otherwise gives the watch over a pass that is to be kept, if it is.
    """
    tape = read(roots, running)
    if tape is None:
        return None, None
    known = running.tapes.find(tape.key)
    if known is None:
        return (Watch(tape, running) if running.tapes.awaits(tape.key) else None), None
    again = known.replay(tape, running)
    if again is None:
        return None, None
    if not retain:
        for position in known.visited:
            tape.fns[position].release()
    return None, [(leaf, make(node, None)) for leaf, node in again]


def key_of(edge: Any) -> Any:
    return (id(edge[0]), edge[1]) if isinstance(edge, tuple) else id(edge)


def _run_hooks(fn: GradFn, gs: list[Any]) -> None:
    if fn.hooks is not None:
        before, mode.track_views = mode.track_views, True  # hooks are the user's code, which may write to slices
        try:
            for index, hooks in fn.hooks.items():
                if index >= 0 and gs[index] is not None:
                    for hook in list(hooks.values()):
                        changed = hook(gs[index])
                        if changed is not None:
                            gs[index] = changed
            for hook in list(fn.hooks.get(PRE, {}).values()):
                changed = hook(tuple(gs))
                if changed is not None:
                    gs[:] = changed if isinstance(changed, tuple) else (changed,)
        finally:
            mode.track_views = before
    if fn.retained is not None:
        for index, reference in fn.retained.items():
            tensor = reference()
            if tensor is not None and gs[index] is not None:
                tensor._accumulate(gs[index])


def _run_post_hooks(fn: GradFn, gs: list[Any], cotangents: Sequence[Any]) -> Sequence[Any]:
    assert fn.hooks is not None
    before, mode.track_views = mode.track_views, True
    try:
        for hook in list(fn.hooks[POST].values()):
            changed = hook(tuple(cotangents), tuple(gs))
            if changed is not None:
                cotangents = changed if isinstance(changed, tuple) else (changed,)
    finally:
        mode.track_views = before
    return cotangents


def _needed(roots: Sequence[Any], wanted: Sequence[Any]) -> set[GradFn]:
    """Gives the functions through which a root reaches a wanted edge."""
    targets = {key_of(edge) for edge in wanted}
    seen: set[GradFn] = set()
    stack = [edge[0] for edge in roots if isinstance(edge, tuple)]
    while stack:
        fn = stack.pop()
        if fn in seen:
            continue
        seen.add(fn)
        stack.extend(edge[0] for edge in fn.edges if isinstance(edge, tuple) and edge[0] not in seen)
    needed: set[GradFn] = set()
    for fn in sorted(seen, key=lambda f: f.sequence):
        if any(_leads(edge, targets, needed) for edge in fn.edges):
            needed.add(fn)
    return needed


def _leads(edge: Any, targets: set[Any], needed: Any) -> bool:
    """Says whether a gradient that goes along an edge reaches a target."""
    return edge is not None and (key_of(edge) in targets or (isinstance(edge, tuple) and edge[0] in needed))
