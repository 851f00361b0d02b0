"""Reverse passes of known structure: what such a pass recorded before is recorded again, and no gradient rule runs.

Invariant: a tape's key holds all that the calls of its pass depend on: the plans, the edges between them, which of the
saved values are the same one, their specs, by which plans pending ones are made, and the Python numbers among them. A
pass that depends on more (hooks, functions of the user's, values the driver holds) has no key, and is never repeated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from distgrad.autodiff import GradFn
from distgrad.graph import Node, Plan, Session

KEPT = 64  # structures of passes that a session remembers

_newest_first = attrgetter("sequence")


class Tape:
    """The functions that a pass may visit, in its order, the values it starts from, its leaves, and the structural key.

    `values`: the cotangents of the roots and what the functions saved, each once.
    """

    __slots__ = ("fns", "key", "leaves", "values")

    def __init__(self, fns: list[GradFn], values: list[Node], leaves: list[Any], key: tuple[Any, ...]) -> None:
        self.fns, self.values, self.leaves, self.key = fns, values, leaves, key


def read(roots: Sequence[tuple[Any, Any]], home: Session) -> Tape | None:
    """Gives the tape of a pass from (edge, cotangent) pairs in the session `home`; None when it must not be repeated."""
    place: dict[GradFn, int] = {}
    stack: list[GradFn] = []
    for edge, g in roots:
        if type(edge) is not tuple or g._view is not None:
            return None
        stack.append(edge[0])
    while stack:
        fn = stack.pop()
        if fn in place:
            continue
        if type(fn) is not GradFn or fn.hooks is not None or fn.retained is not None or fn.released:
            return None
        place[fn] = 0
        for edge in fn.edges:
            if type(edge) is tuple and edge[0] not in place:
                stack.append(edge[0])
    fns = sorted(place, key=_newest_first, reverse=True)
    for position, fn in enumerate(fns):
        place[fn] = position

    key: list[Any] = []
    values: list[Node] = []
    seen: dict[int, int] = {}
    leaves: list[Any] = []
    leaf_place: dict[int, int] = {}

    def add(node: Node) -> bool:
        known = seen.get(id(node))
        if known is None:
            if node.data is not None or node.home is not home:
                return False
            known = seen[id(node)] = len(values)
            values.append(node)
            key.append(node.spec)
            key.append(-1 if node.call is None else node.call.plan.uid)
        key.append(known)
        return True

    for (fn, index), g in roots:
        key.append(place[fn])
        key.append(index)
        if not add(g._node):
            return None
    for fn in fns:
        key.append(fn.plan.uid)
        for edge in fn.edges:
            if edge is None:
                key.append(-1)
            elif type(edge) is tuple:
                key.append(place[edge[0]])
                key.append(edge[1])
            else:
                known = leaf_place.get(id(edge))
                if known is None:
                    known = leaf_place[id(edge)] = len(leaves)
                    leaves.append(edge)
                key.append(-2 - known)
        for held in (fn.ins, fn.outs):
            for value in held.values():
                if type(value) is not Node:
                    key.append(repr(value))  # tells 1 from 1.0, and 0.0 from -0.0
                elif not add(value):
                    return None
    return Tape(fns, values, leaves, tuple(key))


class Recording:
    """What a pass recorded, with places in a table instead of values.

    The table starts with the tape's values and the `numbers`; each call adds its outputs.
    """

    __slots__ = ("calls", "gradients", "numbers", "visited")

    def __init__(
        self, calls: list[tuple[Plan, tuple[int, ...]]], numbers: list[Any], gradients: list[tuple[int, int]],
        visited: list[int],
    ) -> None:
        self.calls, self.numbers, self.gradients, self.visited = calls, numbers, gradients, visited

    def replay(self, tape: Tape, home: Session) -> list[tuple[Any, Node]] | None:
        """Records the calls again; gives the leaves and their gradients in the order they were complete.

        None, and nothing is recorded, when that would be more than may wait for a flush.
        """
        table = [*tape.values, *self.numbers]
        if not home.record_again(self.calls, table):
            return None
        return [(tape.leaves[leaf], table[place]) for leaf, place in self.gradients]


class Tapes:
    """The passes a session remembers. One is repeated from the third time on: many are only run once."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], Recording | None] = OrderedDict()

    def clear(self) -> None:
        """Forgets them all."""
        self._known.clear()

    def find(self, key: tuple[Any, ...]) -> Recording | None:
        """Gives what a pass of this key recorded; None if that is not known."""
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def awaits(self, key: tuple[Any, ...]) -> bool:
        """Says whether a pass of this key is run for the second time, so that it is worth keeping; notes the first."""
        if key in self._known:
            return True
        self._known[key] = None
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return False

    def keep(self, key: tuple[Any, ...], recording: Recording) -> None:
        """Remembers what a pass recorded."""
        self._known[key] = recording


class Watch:
    """A pass that is to be remembered, while it runs.

    It refers to the values the pass starts from, which the pass itself lets go of one by one: none of them may come
    to an end, and give its place to another, before the calls were looked at.
    """

    __slots__ = ("_first", "_flushes", "_home", "_remade", "_tape", "_visited")

    def __init__(self, tape: Tape, home: Session) -> None:
        self._tape, self._home = tape, home
        self._first, self._flushes, self._remade = len(home.pending), home.flushes, len(home.remade)
        self._visited: list[GradFn] = []

    def after(self, fn: GradFn) -> Watch | None:
        """Notes that a function was visited; None when nothing is to be kept any more, so that its values can go."""
        if self._home.flushes != self._flushes:
            return None
        self._visited.append(fn)
        return self

    def keep(self, leaves: Sequence[tuple[Any, Any]]) -> None:
        """Remembers what the pass recorded, unless that depends on more than its structure."""
        tape, home = self._tape, self._home
        calls = home.pending[self._first :]
        own = set(map(id, calls))
        if home.flushes != self._flushes or any(id(call) not in own for call in home.remade[self._remade :]):
            return
        # The table: the tape's values, then numbers, then outputs.
        places = {id(node): place for place, node in enumerate(tape.values)}
        numbers = [value for call in calls for value in call.inputs if type(value) is not Node]
        number = len(tape.values)
        output = number + len(numbers)
        kept: list[tuple[Plan, tuple[int, ...]]] = []
        for call in calls:
            ins: list[int] = []
            for value in call.inputs:
                if type(value) is Node:
                    place = places.get(id(value))
                    if place is None:  # it came from elsewhere
                        return
                    ins.append(place)
                else:
                    ins.append(number)
                    number += 1
            kept.append((call.plan, tuple(ins)))
            for node in call.outputs:
                places[id(node)] = output
                output += 1
        leaf_places = {id(leaf): place for place, leaf in enumerate(tape.leaves)}
        gradients: list[tuple[int, int]] = []
        for leaf, g in leaves:
            place = places.get(id(g._node))
            if place is None or g._view is not None:
                return
            gradients.append((leaf_places[id(leaf)], place))
        visits = {fn: place for place, fn in enumerate(tape.fns)}
        home.tapes.keep(tape.key, Recording(kept, numbers, gradients, [visits[fn] for fn in self._visited]))
