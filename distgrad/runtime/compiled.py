"""`compile`: a function whose recording is the same every time is replayed without running its Python again.

Two recordings are compared: the program, where each input comes from (an argument, or the same tensor of the user's),
where each output goes (the result, a tensor changed in place, a gradient) and every Python number. Only when they agree
is the third call a replay. Numbers of optimizers (learning rate, step count) are asked for anew each time.

Invariant: a replay is the run that recording would have sent. Whatever is not understood (a value read inside, a number
that changes, a result that keeps its graph, an output that somebody else keeps) is recorded again, and counted.
"""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from distgrad import graph
from distgrad.changes import modes
from distgrad.graph import Node
from distgrad.lower import Recorded
from distgrad.op import is_tensor
from distgrad.placement import Spec
from distgrad.program import Program
from distgrad.runtime.interrupts import uninterrupted
from distgrad.runtime.steady import Steady
from distgrad.runtime.surroundings import PLAIN, Surroundings, glimpse, is_plain
from distgrad.tensor import Tensor

_FORMS = 16  # kinds of arguments, and of surroundings, that are remembered per function
_RECENT = 64  # replays after which a program counts as used again
_MOST_PATIENCE = 256


class Trace:
    """What one recording of the function was."""

    def __init__(self) -> None:
        self.reason: str | None = None  # why it cannot be replayed
        self.confirmed = False  # the recording before it was the same
        self.program_id = -1
        self.program: Program | None = None
        self.sites: list[Any] = []
        self.numbers: list[Any] = []
        self.live: list[tuple[int, int, Any]] = []  # where in the numbers, how many, who gives them
        self.gradients: list[tuple[Any, Any]] = []  # tensors whose gradient was read first, and what it was
        self.ran: list[tuple[Any, bool]] = []  # modules that were called, and whether they were training
        self.modes = -1  # `changes.modes` when these were looked at last
        self.watched: list[tuple[dict[str, Any], list[Any], dict[str, Any]]] = []  # groups of optimizers: what they had
        self.arguments: list[tuple[int, Any]] = []  # those that must be this very tensor
        self.leaves: list[Any] = []  # tensors that are inputs
        self.needs_grad: list[bool] = []  # whether they required a gradient
        self.inputs: list[tuple[int, Any, Spec]] = []  # position among the arguments or -1, the tensor, its spec
        self.specs: list[Spec] = []  # of the outputs
        self.actions: list[list[tuple[str, Any]]] = []  # what holds each output
        self.result: Any = None  # the function's result, tensors replaced by `_Out`
        self.around: list[Any] = []  # what the function found around it, kept because forms have its ids
        self.replays = 0
        self.steady: Steady | None = None
        self.patience = 2  # replays to wait for before slots are kept, doubled when that did not last

    def agrees(self, other: Trace) -> bool:
        """Says whether another recording was the same."""
        if self.reason or other.reason or self.program_id != other.program_id or self.result != other.result:
            return False  # `result` compares structure and plain values
        fixed = self._fixed()
        return (
            fixed == other._fixed()
            and all(type(self.numbers[i]) is type(other.numbers[i]) and self.numbers[i] == other.numbers[i] for i in fixed)
            and len(self.inputs) == len(other.inputs)
            and all(a[0] == b[0] and a[2] is b[2] and (a[0] >= 0 or a[1] is b[1]) for a, b in zip(self.inputs, other.inputs))
            and [[(k, id(t)) for k, t in a] for a in self.actions] == [[(k, id(t)) for k, t in a] for a in other.actions]
            and _identities(self.gradients) == _identities(other.gradients)
            and [(p, id(t)) for p, t in self.arguments] == [(p, id(t)) for p, t in other.arguments]
            and [(id(m), t) for m, t in self.ran] == [(id(m), t) for m, t in other.ran]
            and len(self.watched) == len(other.watched)
            and all(a[0] is b[0] and a[2] == b[2] for a, b in zip(self.watched, other.watched))
        )

    def holds(self, arguments: list[Any]) -> bool:
        """Says whether gradients and options are what they were, as far as the recording depended on them."""
        for place, tensor in self.arguments:
            if arguments[place] is not tensor:
                return False
        for tensor, gradient in self.gradients:
            if tensor._grad is not gradient:
                return False
        if self.modes != modes[0]:
            if any(module.training is not training for module, training in self.ran):
                return False
            self.modes = modes[0]
        if [holder._needs_grad for holder in self.leaves] != self.needs_grad:
            return False
        for group, parameters, known in self.watched:
            if len(parameters) != len(group["params"]) or not all(map(operator.is_, parameters, group["params"])):
                return False
            for name, value in known.items():
                if group.get(name) != value:
                    return False
        return all(numbers.ready() for _, _, numbers in self.live)

    def next_numbers(self) -> list[Any]:
        """Gives the numbers of the next step."""
        found = list(self.numbers)
        for start, count, numbers in self.live:
            found[start : start + count] = numbers.next()
        return found

    def _fixed(self) -> list[int]:
        live = {i for start, count, _ in self.live for i in range(start, start + count)}
        return [i for i in range(len(self.numbers)) if i not in live]


def _identities(pairs: list[tuple[Any, Any]]) -> list[tuple[int, int]]:
    return [(id(a), id(b)) for a, b in pairs]


class _Out:
    """Stands in a function's result for the tensor of an output."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Out) and other.index == self.index

    __hash__ = None  # type: ignore[assignment]


class _Held:
    """Stands in a function's result for a tensor that was there before, or (`gradient`) for its gradient."""

    def __init__(self, tensor: Any, gradient: bool) -> None:
        self.tensor, self.gradient = tensor, gradient

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.tensor is self.tensor and other.gradient is self.gradient

    __hash__ = None  # type: ignore[assignment]


class Recorder:
    """Watches one recording."""

    def __init__(self, arguments: list[tuple[Any, Node]]) -> None:
        self.trace = Trace()
        self.held: dict[int, Any] = {}  # the tensor through which a node from outside was given to an op
        self.own = {id(n) for _, node in arguments for n in (node, node.twin) if n is not None}
        self.arguments = arguments
        self.aliases: list[tuple[int, weakref.ref[Any]]] = []  # other tensors with the node of an argument
        self.changed: list[weakref.ref[Any]] = []
        self.numbers: dict[int, Any] = {}
        self.gradients: dict[int, tuple[Any, Any]] = {}  # by tensor: the first access was this read
        self.written: dict[int, Any] = {}  # by tensor: its gradient was written
        self.watched: dict[int, tuple[dict[str, Any], list[Any], dict[str, Any]]] = {}
        self.runs = 0
        self.outputs: list[Node] = []

    def saw(self, args: tuple[Any, ...], values: list[Any]) -> None:
        """Is told the arguments of every op that is recorded."""
        for argument, value in zip(args, values):
            if type(value) is Node and value.call is None:
                argument = _owner(argument)
                if id(value) not in self.own:
                    self.held.setdefault(id(value), argument)
                elif all(argument is not tensor for tensor, _ in self.arguments):
                    self.aliases.append((id(value), weakref.ref(argument)))

    def bound(self, tensor: Any) -> None:
        """Is told every tensor that is changed in place."""
        self.changed.append(weakref.ref(_owner(tensor)))

    def read_gradient(self, tensor: Any, value: Any) -> None:
        """Is told of every read of a gradient."""
        if id(tensor) not in self.written:
            self.gradients.setdefault(id(tensor), (tensor, value))

    def wrote_gradient(self, tensor: Any) -> None:
        """Is told of every gradient that is set."""
        self.written[id(tensor)] = tensor

    def called(self, module: Any) -> None:
        """Is told every module that is called."""
        self.trace.ran.append((module, module.training))

    def watches(self, group: dict[str, Any]) -> None:
        """Is told the options that an optimizer's step goes by."""
        plain = {k: v for k, v in group.items() if is_plain(v)}
        self.watched.setdefault(id(group), (group, list(group["params"]), plain))

    def refuse(self, reason: str) -> None:
        """Is told that a replay would leave something out."""
        self.trace.reason = reason

    def live(self, numbers: Any, group: dict[str, Any], names: frozenset[str]) -> None:
        """Is told who gives the numbers of the call that was recorded last, and which options they stand for."""
        for name in names:
            self.watched[id(group)][2].pop(name, None)
        session: Any = graph.session()
        if session.pending:
            self.numbers[id(session.pending[-1])] = numbers

    def launched(self, program_id: int, program: Program, recorded: Recorded, sites: list[Any]) -> None:
        """Is told what is sent."""
        self.runs += 1
        trace = self.trace
        trace.program_id, trace.program, trace.sites = program_id, program, sites
        trace.numbers = list(recorded.numbers)
        position = 0
        for call in recorded.calls:
            count = sum(type(value) is not Node for value in call.inputs)
            if id(call) in self.numbers:
                trace.live.append((position, count, self.numbers[id(call)]))
            position += count
        self.given = list(recorded.inputs)
        self.outputs = list(recorded.outputs)


def _owner(tensor: Any) -> Any:
    """Gives the tensor that a detached one stands for: both are the same memory."""
    while tensor._view is not None and tensor._view.op is None:
        tensor = tensor._view.parent
    return tensor


def flat(value: Any) -> Iterator[Any]:
    """Gives the tensors in arguments or a result."""
    if is_tensor(value):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from flat(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from flat(part)


def _form(value: Any) -> Any:
    """Gives what of arguments must be equal for a replay: structure, specs and Python values."""
    if is_tensor(value):
        return (value._now().spec, value._needs_grad, value._fn is None)
    if isinstance(value, tuple | list):
        return (type(value), *map(_form, value))
    if isinstance(value, dict):
        return (dict, *((key, _form(part)) for key, part in value.items()))
    return glimpse(value)


class Compiled:
    """A function that is replayed where it can be. PyTorch: torch.compile."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._forms: dict[Any, Trace] = {}
        self._home: Any = None
        self._around = Surroundings(function)
        self._last: tuple[Any, Trace | None] = (None, None)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        session: Any = graph.session()
        if session is None or graph.recorder[0] is not None:
            return self._function(*args, **kwargs)
        if self._home is not session:
            self._forms.clear()
            self._last = (None, None)
            self._home = session
        tensors = list(flat((args, kwargs)))
        nodes = [id(t._now()) for t in tensors]
        form = (_form(args), _form(kwargs), tuple([nodes.index(n) for n in nodes]), self._around.now())
        # Comparing with the form of the last call is quicker than hashing a long one.
        known = self._last[1] if form == self._last[0] else self._forms.get(form)
        if known is not None and known.confirmed:
            done, result = _replay(session, known, tensors)
            if done:
                return result
        result, trace = self._record(session, args, kwargs)
        trace.around = self._around.values
        trace.confirmed = known is not None and known.agrees(trace)
        if len(self._forms) >= _FORMS and form not in self._forms:
            self._forms.pop(next(iter(self._forms)))
        self._forms[form] = trace
        self._last = (form, trace)
        return result

    def _record(self, session: Any, args: Any, kwargs: Any) -> tuple[Any, Trace]:
        session.stats.steps_recorded += 1
        session.flush()
        before = [(t, t._now()) for t in flat((args, kwargs))]
        recorder = Recorder(before)
        graph.recorder[0] = recorder
        try:
            result = self._function(*args, **kwargs)
            session.flush()
        finally:
            graph.recorder[0] = None
        _finish(recorder, result)
        return result, recorder.trace


def _finish(recorder: Recorder, result: Any) -> None:
    """Finds where the inputs came from and where the outputs went."""
    trace, arguments = recorder.trace, recorder.arguments
    trace.gradients = list(recorder.gradients.values())
    trace.watched = list(recorder.watched.values())
    if trace.reason is not None:
        return
    if recorder.runs != 1:
        trace.reason = "a value was read inside" if recorder.runs else "nothing was recorded"
        return
    places = {id(n): position for position, (_, node) in enumerate(arguments) for n in (node, node.twin) if n is not None}
    twins = {id(t._now().twin): t for t in recorder.held.values() if t._now().twin is not None}
    for node in recorder.given:
        place = places.get(id(node), -1)
        holder = recorder.held.get(id(node), twins.get(id(node)))
        if place < 0 and holder is None:
            trace.reason = "an input that no tensor holds"
            return
        if holder is not None and holder._view is not None and holder._view.op is not None:
            trace.reason = "an input that is a part of another tensor"
            return
        trace.inputs.append((place, holder if place < 0 else None, node.spec))
        if place < 0 and holder is not None:
            trace.leaves.append(holder)
            trace.needs_grad.append(holder._needs_grad)
    actions: dict[int, list[tuple[str, Any]]] = {id(node): [] for node in recorder.outputs}
    changed = {id(t): t for reference in recorder.changed if (t := reference()) is not None}
    before = {id(gradient) for _, gradient in trace.gradients}
    seen = {id(t): t for t in (*recorder.held.values(), *changed.values(), *(t for t, _ in arguments))}
    for tensor in changed.values():
        if id(tensor._node) in actions:
            if tensor._view is not None or tensor._fn is not None:
                trace.reason = "a view, or a tensor with a history, is changed in place"
                return
            actions[id(tensor._node)].append(("node", tensor))
    for tensor in seen.values():
        gradient = tensor._grad
        if gradient is None or id(gradient) in before or id(gradient._node) not in actions:
            continue
        made = actions[id(gradient._node)]
        made[:] = [entry for entry in made if entry[1] is not gradient]  # changed as well, after it was made here
        made.append(("grad", tensor))
    trace.arguments = _fixed_arguments(recorder, arguments, actions)
    known: dict[int, Any] = {}
    for found in actions.values():
        for kind, tensor in found:
            known[id(tensor if kind == "node" else tensor._grad)] = _Held(tensor, kind == "grad")
    stepped = any(held.gradient for held in known.values())  # the result's graph was used inside
    index = {id(node): i for i, node in enumerate(recorder.outputs)}
    trace.result = (_replaced(result, trace, index, actions, known, stepped),)
    trace.actions = [actions[id(node)] for node in recorder.outputs]
    trace.specs = [node.spec for node in recorder.outputs]
    if not all(trace.actions) and trace.reason is None:
        trace.reason = "an output that something else keeps"


def _fixed_arguments(
    recorder: Recorder, arguments: list[tuple[Any, Node]], actions: dict[int, list[tuple[str, Any]]]
) -> list[tuple[int, Any]]:
    """Gives the arguments for which no other tensor may come: those that are changed, or that the function has, too."""
    inside = {node for node, alias in recorder.aliases if alias() is not None}  # not a passing one, made by the function
    written = {id(tensor) for found in actions.values() for kind, tensor in found}
    return [
        (place, tensor) for place, (tensor, node) in enumerate(arguments)
        if id(tensor) in written or id(node) in inside or id(node.twin) in inside
    ]


def _replaced(
    value: Any, trace: Trace, index: dict[int, int], actions: dict[int, list[tuple[str, Any]]], known: dict[int, _Held],
    stepped: bool,
) -> Any:
    """Gives a result with an `_Out` or a `_Held` in the place of every tensor; `trace.reason` says why it cannot be."""
    # No function inside `_finish`: one that calls itself is a cycle, which would keep the outputs' memory.
    if is_tensor(value):
        if id(value) in known:
            return known[id(value)]
        if (value._needs_grad and not stepped) or id(value._now()) not in index:
            trace.reason = "a result that keeps its graph, or that is not new"
            return None
        actions[id(value._node)].append(("result", None))
        return _Out(index[id(value._node)])
    if isinstance(value, tuple | list):
        return _like(value, [_replaced(part, trace, index, actions, known, stepped) for part in value])
    if isinstance(value, dict):
        return {key: _replaced(part, trace, index, actions, known, stepped) for key, part in value.items()}
    if not isinstance(value, PLAIN):
        trace.reason = "a result that is no tensor and no plain value"
    return value


def _like(value: Any, parts: list[Any]) -> Any:
    """Gives a list, tuple or named tuple of the kind of `value`."""
    return type(value)._make(parts) if hasattr(value, "_make") else type(value)(parts)


def _replay(session: Any, trace: Trace, arguments: list[Any]) -> tuple[bool, Any]:
    """Sends the run of a trace; says whether that was possible."""
    session.flush()
    if not trace.holds(arguments) or not session.still_has(trace.program_id, used=trace.replays % _RECENT == 0):
        return False, None  # or forgotten, for so many other programs came since
    if trace.steady is not None:
        given = trace.steady.ready(session, arguments)
        if given is not None:
            made = trace.steady.repeat(session, given, trace.next_numbers())
            trace.replays += 1
            return True, _restored(trace.result[0], made)
        _unsteady(trace)
    inputs = _inputs(session, trace, arguments)
    if inputs is None:
        return False, None
    outputs = [Node(spec) for spec in trace.specs]
    for node in outputs:
        node.home = session

    def forget() -> None:
        inputs.clear()
        for node, actions in zip(outputs, trace.actions):
            for kind, tensor in actions:
                if kind == "node":
                    tensor._node = node
                    tensor._version += 1
                    if tensor._clock is not None:
                        tensor._clock[0] += 1
                elif kind == "grad":
                    tensor._grad = Tensor._from_node(node)

    with uninterrupted():
        session.start(trace.program_id, trace.program, inputs, trace.next_numbers(), outputs, trace.sites, forget)
        session.stats.steps_replayed += 1
        session.stats.programs_reused += 1
    session.hold_back()
    trace.replays += 1
    result = _restored(trace.result[0], outputs)
    if trace.replays >= trace.patience:
        trace.steady = Steady.of(session, trace, outputs)
    return True, result


def _unsteady(trace: Trace) -> None:
    """Gives up the kept slots for a while: somebody holds on to what is in them."""
    trace.steady = None
    trace.patience = trace.replays + min(2 * max(trace.patience, 1), _MOST_PATIENCE)


def _inputs(session: Any, trace: Trace, arguments: list[Any]) -> list[Node] | None:
    """Gives the nodes a run takes in; None when one is not as it was."""
    if any(kind == "grad" and (tensor._hooks or tensor._post_hooks) for actions in trace.actions for kind, tensor in actions):
        return None
    inputs = []
    for place, holder, spec in trace.inputs:
        node = session.sent((arguments[place] if place >= 0 else holder)._now(), spec)
        if node is None:
            return None
        inputs.append(node)
    return inputs


def _restored(value: Any, outputs: Any) -> Any:
    """Gives a result with the tensors of a run in their places."""
    # No function inside `_replay`: one that calls itself is a cycle, which would keep the outputs' memory.
    if isinstance(value, _Held):
        return value.tensor._grad if value.gradient else value.tensor
    if isinstance(value, _Out):
        return Tensor._from_node(outputs[value.index])
    if isinstance(value, tuple | list):
        return _like(value, [_restored(part, outputs) for part in value])
    if isinstance(value, dict):
        return {key: _restored(part, outputs) for key, part in value.items()}
    return value
