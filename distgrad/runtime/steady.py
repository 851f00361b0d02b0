"""The steady state of a replayed step: what it changes stays in its slots, and a message of a few numbers repeats it.

Invariant: a slot is written again only when nothing but its own tensor refers to the value in it. Before every repetition
the driver looks for other references to the nodes; with one, the step is replayed with slots of its own.
"""

from __future__ import annotations

import itertools
import weakref
from sys import getrefcount
from typing import Any

from distgrad.graph import LATEST, Node
from distgrad.runtime.interrupts import uninterrupted
from distgrad.runtime.messages import Again, Keep, Run

_numbers = itertools.count()
# References to a node that only its tensor has: the tensor's, two of `Steady`'s, a loop's and `getrefcount`'s own.
_NODE = 5
# References to a gradient that nobody has, and to one that only its tensor has: a tuple's, a loop's, `getrefcount`'s own;
# the tensor's and one to compare it by.
_GRADIENT = (3, 5)


class Steady:
    """One replayed step whose tensors are where the run before has left them."""

    def __init__(self, session: Any, trace: Any, run: Run, drop: tuple[int, ...]) -> None:
        self.number = next(_numbers)
        self.run, self.sites, self.program = run, trace.sites, trace.program
        session.post(Keep(self.number, run, drop))
        weakref.finalize(self, session.ended.append, self.number).atexit = False
        self.tensors: list[tuple[Any, Node]] = []  # changed in place, and what they have now
        self.gradients: list[tuple[Any, Any, Node]] = []  # tensors, their gradients, and what those have now
        self.fixed: list[tuple[Any, Node, Node]] = []  # tensors that are only read, their nodes, and these on the workers
        self.arguments: list[tuple[int, int, Any]] = []  # position among inputs, among the arguments, the spec
        self.fresh: list[tuple[int, Any]] = []  # positions among outputs that get a slot each time, and their specs
        self.outputs: list[Node | None] = []

    @classmethod
    def of(cls, session: Any, trace: Any, outputs: list[Node]) -> Steady | None:
        """Makes the steady state after a replay whose outputs are given; None where tensors share values."""
        positions = session.read_positions(trace.program_id)
        slots: list[int] = []
        arguments, fixed = [], []
        for position, (place, holder, spec) in enumerate(trace.inputs):
            if place >= 0:
                arguments.append((position, place, spec))
                slots.append(-1)
                continue
            own = holder._node
            node = session.sent(own, spec) if holder._view is None else None
            if node is None:
                return None
            fixed.append((holder, own, node))
            slots.append(node.slot.id)
        tensors, gradients, fresh, made = [], [], [], []
        for position, (node, actions) in enumerate(zip(outputs, trace.actions)):
            kinds = [kind for kind, _ in actions]
            assert node.slot is not None
            if kinds == ["result"]:
                fresh.append((position, node.spec))
            elif kinds == ["node"]:
                tensors.append((actions[0][1], node))
            elif kinds == ["grad"]:
                gradients.append((actions[0][1], actions[0][1]._grad, node))
            else:
                return None
            made.append(-1 if kinds == ["result"] else node.slot.id)
        changed = {id(node) for _, node in tensors}
        last = tuple(position for position, slot in enumerate(slots) if slot >= 0 and slot in made)
        taken = {slots[position] for position in last}
        if len(taken) != len(last):
            return None
        drop = tuple(slot for slot in made if slot >= 0 and slot not in taken)
        found = cls(session, trace, Run(-1, trace.program_id, tuple(slots), (), tuple(made), positions, last), drop)
        found.tensors, found.gradients = tensors, gradients
        found.fixed = [entry for entry in fixed if id(entry[1]) not in changed]
        found.arguments, found.fresh = arguments, fresh
        for _, node in tensors:
            node.slot.run = LATEST  # type: ignore[union-attr]  # it has one
        for _, _, node in gradients:
            node.slot.run = LATEST  # type: ignore[union-attr]
        found.outputs = [None if slot < 0 else node for slot, node in zip(made, outputs)]
        return found

    def ready(self, session: Any, arguments: list[Any]) -> list[Node] | None:
        """Gives the arguments' nodes when every tensor has what the run before has left, and nobody else has it."""
        if session.lost.poisoned or session.read_positions(self.run.program) != self.run.returned:
            return None
        for tensor, node in self.tensors:
            if tensor._node is not node or getrefcount(node) != _NODE:
                return None
        for tensor, gradient, node in self.gradients:
            here = tensor._grad
            if here is not gradient and here is not None:
                return None
            if getrefcount(gradient) != _GRADIENT[here is gradient] or gradient._node is not node:
                return None
            if getrefcount(node) != _NODE or gradient._needs_grad or tensor._hooks or tensor._post_hooks:
                return None
        for holder, own, node in self.fixed:
            if holder._node is not own or holder._view is not None or (node is not own and own.twin is not node):
                return None
        given = []
        for _, place, spec in self.arguments:
            node = session.sent(arguments[place]._now(), spec)
            if node is None:
                return None
            given.append(node)
        return given

    def repeat(self, session: Any, given: list[Node], numbers: list[Any]) -> list[Any]:
        """Sends the run; gives the nodes of the results in the outputs' places."""
        made: list[Node | None] = list(self.outputs)
        for position, spec in self.fresh:
            node = made[position] = Node(spec)
            node.home = session
        with uninterrupted():
            sequence, slots = session.begin_again(self, given, tuple(numbers), made)
            for tensor, _ in self.tensors:
                tensor._version += 1
                clock = tensor._clock
                if clock is not None:
                    clock[0] += 1
            for tensor, gradient, _ in self.gradients:
                tensor._grad = gradient
            places = tuple(node.slot.id for node in given)  # type: ignore[union-attr]
            session.send_again(Again(sequence, self.number, tuple(numbers), places, slots))
        session.hold_back()
        return made
