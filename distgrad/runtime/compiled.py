"""`compile`: a function whose recording is the same every time is replayed without running its Python again.

Two recordings are compared: the program, where each input comes from (an argument, or the same tensor of the user's),
where each output goes (the result, a tensor changed in place, a gradient) and every Python number. Only when they agree
is the third call a replay. Numbers of optimizers (learning rate, step count) are asked for anew each time.

Invariant: a replay is the run that recording would have sent. Whatever is not understood (a value read inside, a number
that changes, a result that keeps its graph, an output that somebody else keeps) is recorded again, and counted.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from distgrad import graph
from distgrad.graph import Node
from distgrad.lower import Recorded
from distgrad.op import is_tensor
from distgrad.placement import Spec
from distgrad.program import Program
from distgrad.runtime.interrupts import uninterrupted

_FORMS = 16  # kinds of arguments, and of surroundings, that are remembered per function
_INSIDE = 32  # entries of a container that are looked at
_PLAIN = (int, float, bool, str, bytes, type(None))


class Trace:
    """What one recording of the function was."""

    def __init__(self) -> None:
        self.reason: str | None = None  # why it cannot be replayed
        self.confirmed = False  # the recording before it was the same
        self.key: Any = None
        self.program_id = -1
        self.program: Program | None = None
        self.sites: list[Any] = []
        self.numbers: list[Any] = []
        self.live: list[tuple[int, int, Callable[[], Any]]] = []  # where in the numbers, how many, who gives them
        self.inputs: list[tuple[int, Any, Spec]] = []  # position among the arguments or -1, the tensor, its spec
        self.specs: list[Spec] = []  # of the outputs
        self.actions: list[list[tuple[str, Any]]] = []  # what holds each output
        self.result: Any = None  # the function's result, tensors replaced by `_Out`

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
        )

    def _fixed(self) -> list[int]:
        live = {i for start, count, _ in self.live for i in range(start, start + count)}
        return [i for i in range(len(self.numbers)) if i not in live]


class _Out:
    """Stands in a function's result for the tensor of an output."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Out) and other.index == self.index

    __hash__ = None  # type: ignore[assignment]


class Recorder:
    """Watches one recording."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.held: dict[int, Any] = {}  # the tensor through which a node from outside was given to an op
        self.changed: list[weakref.ref[Any]] = []
        self.numbers: dict[int, Callable[[], Any]] = {}
        self.runs = 0
        self.outputs: list[Node] = []

    def saw(self, args: tuple[Any, ...], values: list[Any]) -> None:
        """Is told the arguments of every op that is recorded."""
        for argument, value in zip(args, values):
            if type(value) is Node and value.call is None:
                self.held.setdefault(id(value), argument)

    def bound(self, tensor: Any) -> None:
        """Is told every tensor that is changed in place."""
        self.changed.append(weakref.ref(tensor))

    def live(self, numbers: Callable[[], Any]) -> None:
        """Is told who gives the numbers of the call that was recorded last."""
        session: Any = graph.session()
        if session.pending:
            self.numbers[id(session.pending[-1])] = numbers

    def launched(self, program_id: int, program: Program, recorded: Recorded, sites: list[Any]) -> None:
        """Is told what is sent."""
        self.runs += 1
        trace = self.trace
        trace.program_id, trace.program, trace.sites, trace.key = program_id, program, sites, recorded.key
        trace.numbers = list(recorded.numbers)
        position = 0
        for call in recorded.calls:
            count = sum(type(value) is not Node for value in call.inputs)
            if id(call) in self.numbers:
                trace.live.append((position, count, self.numbers[id(call)]))
            position += count
        self.given = list(recorded.inputs)
        self.outputs = list(recorded.outputs)


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
    return _plain(value)


def _plain(value: Any) -> Any:
    """Gives what of a value from around a function is looked at: plain values and which tensors, also one level inside;
    modules' flags."""
    if isinstance(value, _PLAIN):
        return (type(value), value)
    if is_tensor(value):
        return id(value)
    if isinstance(value, list | tuple) and len(value) <= _INSIDE:
        inside: Any = enumerate(value)
    elif isinstance(value, dict) and len(value) <= _INSIDE:
        inside = value.items()
    else:
        inside = getattr(value, "__dict__", {}).items() if not isinstance(value, type | ModuleType) else ()
    flags = tuple(m.training for m in value.modules()) if hasattr(value, "named_modules") else ()
    plain = ((k, type(v), id(v) if is_tensor(v) else v) for k, v in inside if isinstance(v, _PLAIN) or is_tensor(v))
    return (type(value), id(value), flags, *plain)


class Compiled:
    """A function that is replayed where it can be. PyTorch: torch.compile."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._forms: dict[Any, Trace] = {}
        self._home: Any = None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        session: Any = graph.session()
        if session is None or graph.recorder[0] is not None:
            return self._function(*args, **kwargs)
        if self._home is not session:
            self._forms.clear()
            self._home = session
        form = (_form(args), _form(kwargs), self._surroundings())
        known = self._forms.get(form)
        if known is not None and known.confirmed:
            done, result = _replay(session, known, list(flat((args, kwargs))))
            if done:
                return result
        result, trace = self._record(session, args, kwargs)
        trace.confirmed = known is not None and known.agrees(trace)
        if len(self._forms) >= _FORMS and form not in self._forms:
            self._forms.pop(next(iter(self._forms)))
        self._forms[form] = trace
        return result

    def _surroundings(self) -> tuple[Any, ...]:
        """Gives the Python values that the function takes from around it."""
        function = self._function
        code = getattr(function, "__code__", None)
        if code is None:
            return ()
        around = [function.__globals__.get(name) for name in code.co_names]
        for cell in function.__closure__ or ():
            try:
                around.append(cell.cell_contents)
            except ValueError:
                around.append(None)
        return (graph.structure[0], *map(_plain, around))

    def _record(self, session: Any, args: Any, kwargs: Any) -> tuple[Any, Trace]:
        session.stats.steps_recorded += 1
        session.flush()
        recorder = Recorder()
        arguments = list(flat((args, kwargs)))
        before = [(t, t._now()) for t in arguments]
        graph.recorder[0] = recorder
        try:
            result = self._function(*args, **kwargs)
            session.flush()
        finally:
            graph.recorder[0] = None
        _finish(recorder, before, result)
        return result, recorder.trace


def _finish(recorder: Recorder, arguments: list[tuple[Any, Node]], result: Any) -> None:
    """Finds where the inputs came from and where the outputs went."""
    trace = recorder.trace
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
    actions: dict[int, list[tuple[str, Any]]] = {id(node): [] for node in recorder.outputs}
    changed = {id(t): t for reference in recorder.changed if (t := reference()) is not None}
    seen = {id(t): t for t in (*recorder.held.values(), *changed.values(), *(t for t, _ in arguments))}
    for tensor in changed.values():
        if id(tensor._node) in actions:
            if tensor._view is not None or tensor._fn is not None:
                trace.reason = "a view, or a tensor with a history, is changed in place"
                return
            actions[id(tensor._node)].append(("node", tensor))
    for tensor in seen.values():
        if tensor.grad is not None and id(tensor.grad) not in changed and id(tensor.grad._node) in actions:
            actions[id(tensor.grad._node)].append(("grad", tensor))
    index = {id(node): i for i, node in enumerate(recorder.outputs)}

    stepped = any(kind == "grad" for found in actions.values() for kind, _ in found)  # its graph was used inside

    trace.result = (_replaced(result, trace, index, actions, stepped),)
    trace.actions = [actions[id(node)] for node in recorder.outputs]
    trace.specs = [node.spec for node in recorder.outputs]
    if not all(trace.actions) and trace.reason is None:
        trace.reason = "an output that something else keeps"


def _replaced(value: Any, trace: Trace, index: dict[int, int], actions: dict[int, list[tuple[str, Any]]], stepped: bool) -> Any:
    """Gives a result with an `_Out` in the place of every tensor; `trace.reason` says when it cannot be replayed."""
    # No function inside `_finish`: one that calls itself is a cycle, which would keep the outputs' memory.
    if is_tensor(value):
        if (value._needs_grad and not stepped) or id(value._now()) not in index:
            trace.reason = "a result that keeps its graph, or that is not new"
            return None
        actions[id(value._node)].append(("result", None))
        return _Out(index[id(value._node)])
    if isinstance(value, tuple | list):
        return _like(value, [_replaced(part, trace, index, actions, stepped) for part in value])
    if isinstance(value, dict):
        return {key: _replaced(part, trace, index, actions, stepped) for key, part in value.items()}
    if not isinstance(value, _PLAIN):
        trace.reason = "a result that is no tensor and no plain value"
    return value


def _like(value: Any, parts: list[Any]) -> Any:
    """Gives a list, tuple or named tuple of the kind of `value`."""
    return type(value)._make(parts) if hasattr(value, "_make") else type(value)(parts)


def _replay(session: Any, trace: Trace, arguments: list[Any]) -> tuple[bool, Any]:
    """Sends the run of a trace; says whether that was possible."""
    from distgrad.tensor import Tensor

    session.flush()
    known = session._programs.get(trace.key)
    if known is None or known[0] != trace.program_id:
        return False, None  # forgotten, for so many others came since
    session._programs.move_to_end(trace.key)
    inputs = []
    for place, holder, spec in trace.inputs:
        node = (arguments[place] if place >= 0 else holder)._now()
        if node.data is not None:
            node = session._promoted(node, spec.placement)
        if node.home is not session or node.slot is None or node.spec is not spec:
            return False, None
        inputs.append(node)
    node = None  # a name that still holds a node would keep its slot
    if any(kind == "grad" and tensor._hooks for actions in trace.actions for kind, tensor in actions):
        return False, None
    numbers = list(trace.numbers)
    for start, count, give in trace.live:
        found = give()
        if found is None or len(found) != count:
            raise RuntimeError(
                "compile: the parameters of an optimizer group, which took their steps together, have different step "
                "counts now; call the function without compile"
            )
        numbers[start : start + count] = found
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
                    tensor.grad = Tensor._from_node(node)

    with uninterrupted():
        session.start(trace.program_id, trace.program, inputs, numbers, outputs, trace.sites, forget)
        session.stats.steps_replayed += 1
        session.stats.programs_reused += 1
    session._hold_back()

    return True, _restored(trace.result[0], outputs)


def _restored(value: Any, outputs: list[Node]) -> Any:
    """Gives a result with the tensors of a run in their places."""
    # No function inside `_replay`: one that calls itself is a cycle, which would keep the outputs' memory.
    from distgrad.tensor import Tensor

    if isinstance(value, _Out):
        return Tensor._from_node(outputs[value.index])
    if isinstance(value, tuple | list):
        return _like(value, [_restored(part, outputs) for part in value])
    if isinstance(value, dict):
        return {key: _restored(part, outputs) for key, part in value.items()}
    return value
