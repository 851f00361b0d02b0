"""Derivatives of whole functions: `vjp`, `jvp`, `jacobian`, `hessian`, `vhp`, `hvp`.

Invariant: results are detached unless `create_graph` asks for their own derivatives; inputs are never changed.
Definitions: PyTorch's page "torch.autograd.functional".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.functions.creation import ones_like, zeros, zeros_like
from distgrad.functions.movement import stack
from distgrad.grad_mode import enable_grad
from distgrad.tensor import Tensor, grad

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


# Arguments --------------------------------------------------------------------------------------------------


def _tuple(name: str, what: str, value: Any) -> tuple[bool, tuple[Any, ...]]:
    """Gives whether several were given, and the tensors as a tuple."""
    several = isinstance(value, tuple | list)
    values = tuple(value) if several else (value,)
    for position, item in enumerate(values):
        if not isinstance(item, Tensor):
            raise TypeError(f"{name}: {what} must be a Tensor or a tuple of them; element {position} is {type(item)}")
    return several, values


def _prepared(inputs: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """Gives tensors to differentiate by, apart from the user's own (unless a graph to those is wanted)."""
    if create_graph:
        return tuple(x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in inputs)  # type: ignore[attr-defined]  # attached in methods.py
    return tuple(x.detach().requires_grad_() for x in inputs)


def _shaped(name: str, v: Any, like: Sequence[Tensor], what: str) -> tuple[Tensor, ...]:
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:  # type: ignore[attr-defined]  # attached in methods.py
            raise RuntimeError(f"{name}: the vector v can only be None if the {what} is a single number")
        return (ones_like(like[0]),)
    _, vectors = _tuple(name, "v", v)
    if len(vectors) != len(like):
        raise RuntimeError(f"{name}: v is a tuple of invalid length: should be {len(like)} but got {len(vectors)}")
    for position, (vector, tensor) in enumerate(zip(vectors, like)):
        if vector.shape != tensor.shape:
            raise RuntimeError(
                f"{name}: v has invalid size: entry {position} should be {tensor.shape} but got {vector.shape}"
            )
    return vectors


def _finished(values: Sequence[Tensor], several: bool, create_graph: bool) -> Any:
    out = tuple(values) if create_graph else tuple(value.detach() for value in values)
    return out if several else out[0]


def _gradients(name: str, outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Any], *,
               create_graph: bool, strict: bool) -> tuple[Tensor, ...]:
    """Gives the cotangents of the inputs, zeros where an input does not matter (RuntimeError when strict)."""
    pairs = [(out, v) for out, v in zip(outputs, vectors) if out.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        found = grad([out for out, _ in pairs], list(inputs), [v for _, v in pairs], create_graph=create_graph,
                     retain_graph=True, allow_unused=True)
    for position, g in enumerate(found):
        if g is None and strict:
            raise RuntimeError(
                f"{name}: the output of the user-provided function is independent of input {position}. This is "
                "not allowed in "
                "strict mode."
            )
    return tuple(zeros_like(x) if g is None else g for g, x in zip(found, inputs))


def _called(name: str, func: Callable[..., Any], inputs: Sequence[Tensor]) -> tuple[bool, tuple[Any, ...]]:
    return _tuple(name, "the outputs of the user-provided function", func(*inputs))


# Products ---------------------------------------------------------------------------------------------------


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """Gives (outputs, v @ Jacobian): the gradients of `func` for the cotangent `v`, of the shape of the outputs.

    RuntimeError for a `v` of another shape, and with `strict` for an input that does not matter.
    """
    with enable_grad():
        several, given = _tuple("vjp", "inputs", inputs)
        xs = _prepared(given, create_graph)
        many, outs = _called("vjp", func, xs)
        vectors = _shaped("vjp", v, outs, "user-provided function's output")
        gs = _gradients("vjp", outs, xs, vectors, create_graph=create_graph, strict=strict)
    return _finished(outs, many, create_graph), _finished(gs, several, create_graph)


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """Gives (outputs, Jacobian @ v) for a direction `v` of the shape of the inputs, by differentiating `vjp` by its
    v.
    """
    with enable_grad():
        _, given = _tuple("jvp", "inputs", inputs)
        xs = _prepared(given, create_graph)
        vectors = _shaped("jvp", v, xs, "input")
        many, outs = _called("jvp", func, xs)
        dummies = tuple(zeros_like(out).requires_grad_() for out in outs)
        gs = _gradients("jvp", outs, xs, dummies, create_graph=True, strict=strict)
        products = _gradients("jvp", gs, dummies, vectors, create_graph=create_graph, strict=strict)
    return _finished(outs, many, create_graph), _finished(products, many, create_graph)


def _scalar(name: str, func: Callable[..., Any], inputs: Sequence[Tensor]) -> Tensor:
    many, outs = _called(name, func, inputs)
    if many or outs[0].numel() != 1:
        raise RuntimeError(f"{name}: the function must give one Tensor with a single element")
    return outs[0]


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """Gives (output, v @ Hessian) of a function with one number as output; `v` has the shape of the inputs."""
    with enable_grad():
        several, given = _tuple("vhp", "inputs", inputs)
        xs = _prepared(given, create_graph)
        vectors = _shaped("vhp", v, xs, "input")
        out = _scalar("vhp", func, xs)
        first = _gradients("vhp", (out,), xs, (ones_like(out),), create_graph=True, strict=strict)
        second = _gradients("vhp", first, xs, vectors, create_graph=create_graph, strict=strict)
    return _finished((out,), False, create_graph), _finished(second, several, create_graph)


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """Gives (output, Hessian @ v) of a function with one number as output; `v` has the shape of the inputs."""
    with enable_grad():
        several, given = _tuple("hvp", "inputs", inputs)
        xs = _prepared(given, create_graph)
        vectors = _shaped("hvp", v, xs, "input")
        out = _scalar("hvp", func, xs)
        dummy = ones_like(out).requires_grad_()
        first = _gradients("hvp", (out,), xs, (dummy,), create_graph=True, strict=strict)
        products = tuple((g * w).sum() for g, w in zip(first, vectors))  # type: ignore[operator]  # attached in operators.py
        ones = [ones_like(p) for p in products]
        second = _gradients("hvp", products, xs, ones, create_graph=create_graph, strict=strict)
    return _finished((out,), False, create_graph), _finished(second, several, create_graph)


# Whole matrices ---------------------------------------------------------------------------------------------


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False,
             vectorize: bool = False, strategy: str = "reverse-mode") -> Any:
    """Gives the derivatives of every output element by every input element, shape (*output, *input).

    Nested tuples, outputs first, where several outputs or inputs are given. Always one reverse pass per output element:
    `vectorize` changes nothing; ValueError for a strategy other than "reverse-mode".
    """
    if strategy != "reverse-mode":
        raise ValueError(f"jacobian: strategy {strategy!r} is not available; allowed: 'reverse-mode'")
    with enable_grad():
        several, given = _tuple("jacobian", "inputs", inputs)
        xs = _prepared(given, create_graph)
        many, outs = _called("jacobian", func, xs)
        table = [_rows_of("jacobian", out, xs, create_graph, strict) for out in outs]
    rows = tuple(_finished(row, several, create_graph) for row in table)
    return rows if many else rows[0]


def _rows_of(name: str, out: Any, xs: Sequence[Tensor], create_graph: bool, strict: bool) -> list[Tensor]:
    parts: list[list[Tensor]] = [[] for _ in xs]
    flat = out.reshape(-1)
    for number in range(flat.shape[0]):
        one = flat[number]
        gs = _gradients(name, (one,), xs, (ones_like(one),), create_graph=create_graph, strict=strict)
        for part, g in zip(parts, gs):
            part.append(g)
    shape = tuple(out.shape)
    found: list[Tensor] = []
    for part, x in zip(parts, xs):
        whole: Any = stack(part) if part else zeros(0, *x.shape, dtype=x.dtype)
        found.append(whole.reshape(*shape, *x.shape))
    return found


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False,
            vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """Gives the second derivatives of a function with one number as output, shape (*input, *input); nested for
    several.
    """
    several, given = _tuple("hessian", "inputs", inputs)

    def gradient(*xs: Tensor) -> tuple[Tensor, ...]:
        moved = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in xs)
        out = _scalar("hessian", func, moved)
        return _gradients("hessian", (out,), moved, (ones_like(out),), create_graph=True, strict=strict)

    found = jacobian(gradient, given, create_graph=create_graph, strict=strict, vectorize=vectorize,
                     strategy=outer_jacobian_strategy)
    return found if several else found[0][0]
