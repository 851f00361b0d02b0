"""Optimizer steps over many parameters at once: one op, one pass over memory for each parameter.

With `sliced`, each worker has its rows of the gradients and states only. It updates these rows of the parameters, whole on
every worker, and the workers send each other what they have updated.

Invariant: the ops compute what the formulas in `distgrad.optim` say, element by element, in the parameter's dtype; all
their numbers are inputs, so that a learning rate that changes makes no new program.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.kernels.compiled import takes
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row, exchanging

_BLOCK = 16_384  # elements: the operands of a block stay in the nearest cache


def _meta(states: int, numbers: int) -> Callable[..., MetaResult]:
    """Inputs: all parameters, all gradients, then each kind of state, then the numbers. Outputs: all but gradients."""

    def meta(*ins: Any, count: int, **attrs: Any) -> MetaResult:
        tensors = ins[: count * (2 + states)]
        if len(ins) != len(tensors) + numbers:
            raise TypeError(f"an optimizer step of {count} parameters takes {count * (2 + states) + numbers} inputs")
        return (*tensors[:count], *tensors[2 * count :]), None

    return meta


def _rows(through: Callable[..., Any], states: int) -> Callable[..., Iterable[Row]]:
    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        count = attrs["count"]
        if attrs.get("sliced"):
            cut = (None,) * count + (0,) * (count * (1 + states))
            yield Row(cut + (None,) * (len(ins) - len(cut)), (None,) * count + (0,) * (count * states), through=through)
        elif count == 1:
            for dim in range(outs[0].ndim):
                yield Row(tuple(None if isinstance(i, type) else dim for i in ins), (dim,) * len(outs))

    return rows


def _kernel(step: Callable[..., None], states: int) -> Callable[..., Any]:
    """Makes a kernel over all parameters of `step(compiled, gradient, ins, outs, numbers, **attrs)` on flat arrays.

    `compiled` says which loop to take, by the size of the whole parameter. `ins` are a parameter and its states, `outs`
    where they go: the same memory where `reuse` allows it for all of them.
    """

    def kernel(*values: Any, count: int, reuse: Sequence[bool] = (), sliced: bool = False, **attrs: Any) -> Any:
        outs: list[Any] = [None] * (count * (1 + states))
        numbers = values[count * (2 + states) :]
        for i in range(count):
            places = [i, *(count * k + i for k in range(2, 2 + states))]
            ins = [values[p] for p in places]
            if reuse and all(reuse[p] and values[p].flags.c_contiguous for p in places):
                made = ins
            else:
                made = [np.empty(value.shape, value.dtype) for value in ins]
            flat = [np.ascontiguousarray(value).reshape(-1) for value in (values[count + i], *ins)]
            targets = flat[1:] if made is ins else [value.reshape(-1) for value in made]
            step(takes(flat[0]), flat[0], flat[1:], targets, tuple(map(flat[0].dtype.type, numbers)), **attrs)
            outs[i::count] = made
        return outs[0] if len(outs) == 1 else tuple(outs)  # an op of one output gives it alone

    return kernel


def _in_slices(
    step: Callable[..., None], states: int, context: Any, values: Sequence[Any], *, count: int,
    reuse: Sequence[bool] = (), sliced: bool = True, **attrs: Any,
) -> Generator[Any, Any, Any]:
    """Makes a step of this rank's rows and gathers the parameters, both in place where `reuse` allows it.

    A rank whose step fails still takes part in the exchange, for the others wait for it.
    """
    from distgrad.runtime import slices

    rank = context.rank
    outs: list[Any] = [None] * (count * (1 + states))
    offsets = [spec.placement.offsets for spec in context.ins[count : 2 * count]]
    failed: Exception | None = None
    for i in range(count):
        places = [i, *(count * k + i for k in range(2, 2 + states))]
        start, stop = offsets[i][rank : rank + 2]
        ins = [values[p] for p in places]
        if reuse and all(reuse[p] and values[p].flags.c_contiguous for p in places):
            made = ins
        else:
            made = [np.empty(value.shape, value.dtype) for value in ins]
        outs[i::count] = made
        own = [np.ascontiguousarray(value).reshape(-1) for value in (ins[0][start:stop], *ins[1:])]
        targets = own if made is ins else [value.reshape(-1) for value in (made[0][start:stop], *made[1:])]
        gradient = np.ascontiguousarray(values[count + i]).reshape(-1)
        try:
            numbers = tuple(map(gradient.dtype.type, values[count * (2 + states) :]))
            step(takes(ins[0]), gradient, own, targets, numbers, **attrs)
        except Exception as error:
            failed = error
    yield from slices.all_gather_all(rank, context.world_size, outs[:count], offsets)
    if failed is not None:
        raise failed
    return outs[0] if len(outs) == 1 else tuple(outs)


def _run(name: str, gradient: np.ndarray, ins: list[np.ndarray], outs: list[np.ndarray], *rest: Any) -> None:
    """Runs the compiled loop of that name."""
    from distgrad.kernels import optimizer_loops

    if outs[0] is ins[0]:
        getattr(optimizer_loops, f"{name}_in_place")(ins[0], gradient, *ins[1:], *rest)
    else:
        getattr(optimizer_loops, name)(ins[0], gradient, *ins[1:], *outs, *rest)


def _blocks(*arrays: np.ndarray) -> Iterable[list[np.ndarray]]:
    for start in range(0, arrays[0].size, _BLOCK):
        yield [a[start : start + _BLOCK] for a in arrays]


def _adam(
    compiled: bool, gradient: np.ndarray, ins: list[np.ndarray], outs: list[np.ndarray], numbers: tuple[Any, ...]
) -> None:
    """p *= keep; g += decay*p; m = beta1*m + rest1*g; v = beta2*v + rest2*g*g; p += rate * m / (sqrt(v)/root + eps)."""
    if compiled:
        _run("adam", gradient, ins, outs, *numbers)
        return
    keep, decay, beta1, rest1, beta2, rest2, root, eps, rate = numbers
    for g, p, m, v, p_out, m_out, v_out in _blocks(gradient, *ins, *outs):
        np.multiply(p, keep, out=p_out)
        if decay:
            g = g + decay * p_out
        np.multiply(m, beta1, out=m_out)
        m_out += g * rest1
        square = g * g
        square *= rest2
        np.multiply(v, beta2, out=v_out)
        v_out += square
        np.sqrt(v_out, out=square)
        square /= root
        square += eps
        np.divide(m_out, square, out=square)
        square *= rate
        p_out += square


def _sgd(
    compiled: bool, gradient: np.ndarray, ins: list[np.ndarray], outs: list[np.ndarray], numbers: tuple[Any, ...]
) -> None:
    """p += rate * (g + decay*p)."""
    if compiled:
        _run("sgd", gradient, ins, outs, *numbers)
        return
    decay, rate = numbers
    for g, p, p_out in _blocks(gradient, *ins, *outs):
        np.add(p, (g + decay * p if decay else g) * rate, out=p_out)


def _momentum(
    compiled: bool, gradient: np.ndarray, ins: list[np.ndarray], outs: list[np.ndarray], numbers: tuple[Any, ...],
    *, nesterov: bool,
) -> None:
    """g += decay*p; b = momentum*b + rest*g; p += rate * (g + momentum*b if nesterov else b)."""
    if compiled:
        _run("momentum", gradient, ins, outs, *numbers, nesterov)
        return
    decay, momentum, rest, rate = numbers
    for g, p, b, p_out, b_out in _blocks(gradient, *ins, *outs):
        if decay:
            g = g + decay * p
        np.multiply(b, momentum, out=b_out)
        b_out += g * rest
        np.add(p, (g + momentum * b_out if nesterov else b_out) * rate, out=p_out)


@exchanging(gathers=True, reuses=True)
def adam_in_slices(context: Any, *values: Any, **attrs: Any) -> Generator[Any, Any, Any]:
    """Makes an Adam step of this rank's rows."""
    return (yield from _in_slices(_adam, 2, context, values, **attrs))


@exchanging(gathers=True, reuses=True)
def sgd_in_slices(context: Any, *values: Any, **attrs: Any) -> Generator[Any, Any, Any]:
    """Makes a plain gradient step of this rank's rows."""
    return (yield from _in_slices(_sgd, 0, context, values, **attrs))


@exchanging(gathers=True, reuses=True)
def momentum_in_slices(context: Any, *values: Any, **attrs: Any) -> Generator[Any, Any, Any]:
    """Makes a step with momentum of this rank's rows."""
    return (yield from _in_slices(_momentum, 1, context, values, **attrs))


def _op(name: str, step: Callable[..., None], through: Any, states: int, numbers: int) -> Op:
    rows = _rows(through, states)
    return Op(name, _kernel(step, states), meta=_meta(states, numbers), inputs="*", rows=rows, reuses=True)


adam_steps = _op("adam_steps", _adam, adam_in_slices, 2, 9)
sgd_steps = _op("sgd_steps", _sgd, sgd_in_slices, 0, 2)
momentum_steps = _op("momentum_steps", _momentum, momentum_in_slices, 1, 4)
