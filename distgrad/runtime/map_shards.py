"""`map_shards`: user Python inside every worker, on its own rows, differentiable.

Invariant: the function is pickled once, and its results' shapes are asked for once per input shapes; afterwards a
call is recorded like any op and the driver does not wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from distgrad import dtypes, graph
from distgrad.errors import PlacementError
from distgrad.graph import Plan
from distgrad.meta import TensorMeta
from distgrad.op import Op, is_tensor
from distgrad.ops.mapping import TAPE, ShardFunction, map_backward, map_results, map_run
from distgrad.placement import REPLICATE, SUM, Shard, Spec

FUNCTIONS = 64  # functions whose pickles, plans and result shapes are kept
_known: OrderedDict[Callable[..., Any], dict[Any, Any]] = OrderedDict()


def map_shards(fn: Callable[..., Any], *tensors: Any) -> Any:
    """Runs `fn` inside every worker on its own rows and gives the results as global tensors.

    `fn` takes one local tensor per argument (a sharded tensor's own block, a replicated one whole) and gives a tensor
    or a tuple of them, made with the local engine. Results with dims are laid end to end along dim 0, in worker order;
    0-d results are summed over the workers. Gradients flow through to `tensors`, once (not twice) differentiable.
    Define `fn` outside of loops: it is pickled, by Ray's means, once per function object.

    Without a session it is `fn(*tensors)`. TypeError when an argument is no tensor; what `fn` raises comes back as
    RemoteOpError.
    """
    for position, tensor in enumerate(tensors):
        if not is_tensor(tensor):
            raise TypeError(f"map_shards: argument {position} must be a Tensor, got {type(tensor).__name__}")
    session: Any = graph.session()
    if session is None or not tensors:
        return fn(*tensors)
    placed = [t.redistribute(_kept(t)) for t in tensors]
    specs = tuple(t._now().spec for t in placed)
    needs = tuple(t.requires_grad for t in placed)
    calls = _calls_of(fn)
    key = (session.world_size, specs, needs)
    function, results = calls.get(key, (None, None))
    if function is None:
        function = ShardFunction.of(fn, needs)
        if not session.backend.in_process:
            function.packed()  # what cannot be sent is an error of this call, not of the flush that would send it
    _plan(map_run, specs, (Spec.of(TAPE, REPLICATE),), {"function": function})
    tape = map_run(*(t.detach() for t in placed), function=function)
    if results is None:
        results = _result_specs(session.describe(tape._now()), session.world_size, function)
        calls[key] = (function, results)
    attrs = {"results": results}
    ins = (tape._now().spec, *specs)
    _plan(map_results, ins, results, attrs)
    return map_results(tape, *placed, **attrs)


def _plan(op: Op, ins: tuple[Spec, ...], outs: tuple[Spec, ...], attrs: dict[str, Any]) -> None:
    """Makes the plan that calling `op` on those specs will find: inputs stay where they are."""
    key = (*ins, *attrs.items())
    known = op.plans.get(key)
    if known is None or known.outs != outs:
        op.plans[key] = Plan(op, ins, outs, attrs, None, tuple(s.placement for s in ins))


def _calls_of(fn: Callable[..., Any]) -> dict[Any, Any]:
    """Gives what is known of a function's calls; the function unused for longest, and what it captured, is let go."""
    calls = _known.setdefault(fn, {})
    _known.move_to_end(fn)
    if len(_known) > FUNCTIONS:
        _, old = _known.popitem(last=False)
        gone = {id(function) for function, _ in old.values()}
        for key in [k for k, plan in map_run.plans.items() if id(plan.attrs["function"]) in gone]:
            del map_run.plans[key]
    return calls


def _kept(tensor: Any) -> Any:
    placement = tensor._now().spec.placement
    return placement if isinstance(placement, Shard) else REPLICATE


def _result_specs(described: list[Any], world_size: int, function: ShardFunction) -> tuple[Spec, ...]:
    """Gives the global specs of results from what each worker says; PlacementError when they do not fit together."""
    counts = {len(d) for d in described}
    if len(counts) != 1:
        raise PlacementError(
            f"map_shards: {function!r} gave {sorted(counts)} results on different workers; give as many on each"
        )
    specs = []
    for position, parts in enumerate(zip(*described)):
        shapes, kinds = [p[0] for p in parts], {p[1] for p in parts}
        if len(kinds) != 1 or len({len(s) for s in shapes}) != 1 or len({s[1:] for s in shapes}) != 1:
            raise PlacementError(
                f"map_shards: result {position} of {function!r} has shapes {shapes} and dtypes {sorted(kinds)} on "
                f"workers 0 to {world_size - 1}; all dims but the first must be equal"
            )
        kind = dtypes.named(kinds.pop())
        if not shapes[0]:
            specs.append(Spec.of(TensorMeta.of((), kind), SUM))
            continue
        offsets = [0]
        for shape in shapes:
            offsets.append(offsets[-1] + shape[0])
        specs.append(Spec.of(TensorMeta.of((offsets[-1], *shapes[0][1:]), kind), Shard(0, tuple(offsets))))
    return tuple(specs)


def backward_call(
    gs: tuple[Any, ...], inputs: tuple[Any, ...], needs: tuple[bool, ...], results: tuple[Spec, ...]
) -> list[Any]:
    """Records the reverse pass of a call; gives one cotangent per input of `map_results` (the tape's is None)."""
    tape, *tensors = inputs
    wanted = tuple(needs[1:])
    outs = tuple(
        Spec.of(s.meta, s.placement if isinstance(s.placement, Shard) else SUM)
        for s in (t._now().spec for t, marked in zip(tensors, wanted) if marked)
    )
    placed = [
        g.redistribute(spec.placement if isinstance(spec.placement, Shard) else REPLICATE)
        for g, spec in zip(gs, results) if spec.meta.dtype.category >= 2
    ]
    attrs = {"wanted": wanted}
    _plan(map_backward, (tape._now().spec, *(g._now().spec for g in placed)), outs, attrs)
    found = map_backward(tape, *placed, **attrs)
    cotangents = iter(found if isinstance(found, tuple) else (found,))
    return [None, *(next(cotangents) if marked else None for marked in wanted)]
