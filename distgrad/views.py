"""Views and writing in place: how tensors that share memory follow each other.

Nodes never change. Writing to a tensor gives it, and everything it is a view of, new nodes; tensors that share memory
share a clock, and a view whose clock has moved on reads its parent anew. Invariant: what shares only values (a detached
tensor, a view taken under `no_grad`) never keeps a history alive.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from distgrad import graph
from distgrad.grad_mode import mode
from distgrad.graph import Node, recorder
from distgrad.meta import TensorMeta
from distgrad.op import Op, is_tensor
from distgrad.ops.movement import reshape, slice
from distgrad.placement import Spec


class View:
    """How a tensor reads another one's memory: by which op (None: all of it), from which version of it.

    `clock` holds one number, which counts the writes to the memory; `seen` is what it was at the last look. `strides`
    are kept by whoever works them out.
    """

    __slots__ = ("attrs", "clock", "numbers", "op", "parent", "seen", "strides", "version")

    def __init__(self, parent: Any, op: Op | None, numbers: tuple[Any, ...], attrs: dict[str, Any]) -> None:
        self.parent, self.op, self.attrs = parent, op, attrs
        # An index tensor may be written to later; the view stays where it was taken.
        self.numbers = tuple(_bare(n, n._now()) if is_tensor(n) else n for n in numbers) if numbers else ()
        if parent._view is not None:
            self.clock = parent._view.clock
        else:
            if parent._clock is None:
                parent._clock = [0]
            self.clock = parent._clock
        self.seen: int = self.clock[0]
        self.version: int = parent._version
        self.strides: tuple[int, ...] | None = None

    def take(self) -> Any:
        """Reads the parent anew."""
        assert self.op is not None
        return self.op(self.parent, *self.numbers, **self.attrs)

    def put(self, new: Any) -> Any:
        """Gives the parent's value with `new` written where this view reads."""
        if self.op is None:
            return _bare(new, new._now())
        assert self.op.put is not None
        return self.op.put(self.parent, new, *self.numbers, **self.attrs)


class RowView(View):
    """How a row without its dim reads a tensor: by a `reshape` of a `slice`, which is made when somebody asks for it."""

    __slots__ = ("array", "origin", "place", "row")

    def __init__(self, origin: tuple[Any, int, int], clock: list[int], place: int, array: np.ndarray,
                 attrs: dict[str, Any]) -> None:
        self.origin = origin  # the tensor, its version, the dim: one for all rows
        self.clock, self.place, self.array, self.attrs, self.seen = clock, place, array, attrs, clock[0]
        self.op, self.numbers, self.version, self.strides, self.row = reshape, (), 0, None, None

    @property
    def parent(self) -> Any:  # type: ignore[override]  # what is a slot there is made here when needed
        """The row with its dim, itself a view of the tensor."""
        if self.row is None:
            source, version, axis = self.origin
            array = np.expand_dims(self.array, axis)
            row = _bare(source, Node(Spec.of(TensorMeta.of(array.shape, source._node.spec.meta.dtype)), array))
            link = row._view = View(source, slice, (self.place,), {"axis": axis, "size": 1, "step": 1})
            link.seen, link.version = self.seen, version
            self.row = row
        return self.row


def _clock_of_rows(tensor: Any) -> list[int] | None:
    """Gives the clock of a tensor that is here and has no history; None for any other."""
    node = tensor._now()
    if (tensor._needs_grad or tensor._fn is not None or node.data is None or node.spec.placement is not None
            or graph.session() is not None or not mode.track_views):
        return None
    if tensor._view is not None:
        return tensor._view.clock  # type: ignore[no-any-return]  # a view's clock is a list
    if tensor._clock is None:
        tensor._clock = [0]
    return tensor._clock  # type: ignore[no-any-return]


def rows_of(tensor: Any, axis: int) -> tuple[Any, ...] | None:
    """Gives views of all rows along a dim of a tensor that is here and has no history; None for any other.

    They are what `slice` and `reshape` give, without two calls for each.
    """
    clock = _clock_of_rows(tensor)
    if clock is None:
        return None
    data = tensor._node.data
    rows: Any = data if axis == 0 else data.swapaxes(0, axis) if data.ndim == 2 else np.moveaxis(data, axis, 0)
    if data.ndim == 1:
        rows = [row.reshape(()) for row in data.reshape(-1, 1)]
    shape = (*data.shape[:axis], *data.shape[axis + 1 :])
    spec, attrs = Spec.of(TensorMeta.of(shape, tensor._node.spec.meta.dtype)), {"shape": shape}
    origin, make, found = (tensor, tensor._version, axis), tensor._from_node, []
    for place, array in enumerate(rows):
        row = make(Node(spec, array))
        row._view = RowView(origin, clock, place, array, attrs)
        found.append(row)
    return tuple(found)


def first_dim_row(tensor: Any, place: int) -> Any:
    """Gives a view of one row along dim 0 as `rows_of` does, for a position from 0 on; None for other tensors."""
    clock = _clock_of_rows(tensor)
    if clock is None:
        return None
    data = tensor._node.data
    array = data[place] if data.ndim > 1 else data[place : place + 1].reshape(())
    row = _bare(tensor, Node(Spec.of(TensorMeta.of(array.shape, tensor._node.spec.meta.dtype)), array))
    row._view = RowView((tensor, tensor._version, 0), clock, place, array, {"shape": array.shape})
    return row


def _bare(like: Any, node: Node) -> Any:
    return like._from_node(node)


def synced(tensor: Any) -> Node:
    """Gives the node of a view, which follows its parent when that has changed since."""
    if tensor._view.seen == tensor._view.clock[0]:
        return tensor._node
    chain = []
    member = tensor
    while member._view is not None:
        chain.append(member)
        member = member._view.parent
    for member in reversed(chain):
        link = member._view
        if link.version != link.parent._version:
            _refresh(member, link)
        link.seen = link.clock[0]
    return tensor._node


def _refresh(member: Any, link: View) -> None:
    if link.op is None:
        member._node = link.parent._node
    else:
        before = mode.track_views, mode.enabled
        mode.track_views, mode.enabled = False, True
        try:
            fresh = link.take()
        finally:
            mode.track_views, mode.enabled = before
        member._node = fresh._node
        member._fn, member._index, member._needs_grad = fresh._fn, fresh._index, fresh._needs_grad
    link.version = link.parent._version
    member._version += 1


def root_of(tensor: Any) -> Any:
    """Gives the tensor whose memory a view reads; itself when it is none."""
    while tensor._view is not None:
        tensor = tensor._view.parent
    return tensor


def reads_through(tensor: Any, other: Any) -> bool:
    """Says whether a tensor is a view of another one, or of a view of it."""
    while tensor._view is not None:
        tensor = tensor._view.parent
        if tensor is other:
            return True
    return False


def mark_saved(tensor: Any) -> None:
    """Says that a value will be needed as it is now, also when its memory is a numpy array of the user's."""
    tensor._now().saved = True
    while tensor._view is not None:
        tensor = tensor._view.parent
        tensor._node.saved = True


def rebind(tensor: Any, value: Any) -> None:
    """Makes a tensor, and what it is a view of, have another value of the same shape.

    Their history becomes that of the value, unless gradients are off or they are written through a detached tensor.
    """
    tensor._now()
    if recorder[0] is not None:
        recorder[0].bound(tensor)
    if value is not tensor and root_of(value)._shares_numpy and value._now().data is not None:
        value = _copied(value)  # its owner may write to it later
    written = []  # the tensor and what it is a view of: each with its new value, and whether that has no history
    before, mode.track_views = mode.track_views, False
    detached = False
    try:
        while tensor._view is not None:
            written.append((tensor, value, detached))
            detached = detached or tensor._view.op is None
            value = tensor._view.put(value)
            tensor = tensor._view.parent
    finally:
        mode.track_views = before
    kept_memory = _store(tensor, value._now())
    tensor._version += 1
    if tensor._clock is not None:
        tensor._clock[0] += 1
    _take_history(tensor, value, detached)
    for member, new, without in reversed(written):
        link = member._view
        if link.op is None:
            member._node = link.parent._node
        elif not kept_memory:
            member._node = new._now()
        if link.op is None or not kept_memory:  # else it reads its parent anew when next used
            link.version, link.seen = link.parent._version, link.clock[0]
            member._version += 1
        _take_history(member, new, without)


def _store(root: Any, node: Node) -> bool:
    """Puts a value into a tensor that is no view; says whether its memory, a numpy array of the user's, was kept."""
    old = root._node
    fits = old.data is not None and node.data is not None and old.spec is node.spec
    if root._shares_numpy and fits and not old.saved:
        np.copyto(old.data, node.data)
        return True
    root._shares_numpy = False
    root._node = node
    return False


def whole(tensor: Any, array: np.ndarray) -> np.ndarray:
    """Gives a tensor's array for its user to write to: one that repeats a number, as gradients may, is made whole first."""
    if array.flags.writeable or 0 not in array.strides or array.size < 2:
        return array
    tensor._node.data = array = array.copy()
    return array


def alone(tensor: Any, array: np.ndarray) -> bool:
    """Says whether a tensor that is no view is the only one that knows of its array, which may then be written to.

    Counted are, for the array, the node, the caller's two names, ours and getrefcount's; for the node, the tensor, our name
    and getrefcount's.
    """
    node = tensor._node
    if node.data is not array or array.base is not None or node.saved:
        return False
    return sys.getrefcount(array) == 4 and sys.getrefcount(node) == 3


def _take_history(tensor: Any, value: Any, detached: bool) -> None:
    if mode.enabled and not detached and (value._needs_grad or tensor._needs_grad):
        tensor._fn, tensor._index, tensor._needs_grad = value._fn, value._index, value._needs_grad


def _copied(value: Any) -> Any:
    node = value._now()
    copy = _bare(value, Node(node.spec, node.data.copy()))
    copy._fn, copy._index, copy._needs_grad = value._fn, value._index, value._needs_grad
    return copy


def detached(tensor: Any) -> Any:
    """Gives a tensor that shares memory with another one and not its history.

    A tensor with a history hands its memory to a hidden tensor without one and becomes a view of that, as the result
    does; so the result keeps the memory alive and nothing else.
    """
    node = tensor._now()
    path = []
    member = tensor
    while member._fn is not None and member._view is not None and member._view.op is not None:
        path.append(member)
        member = member._view.parent
    if member._view is None and member._fn is not None:
        storage = _bare(member, member._node)
        storage._shares_numpy, storage._clock, storage._version = member._shares_numpy, member._clock, member._version
        member._view = View(storage, None, (), {})
    memory = member._view.parent if member._view is not None and member._view.op is None else member
    out = _bare(tensor, node if not path else member._node)
    out._view = View(memory, None, (), {})
    for view in reversed(path):
        base, out = out, _bare(tensor, view._node)
        out._view = View(base, view._view.op, view._view.numbers, view._view.attrs)
    return out
