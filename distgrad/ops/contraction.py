"""Products that sum over shared indices: `matmul`, `linear` and einsum's one- and two-operand forms.

Invariant: rows follow from the index strings alone, and the gradient of a contraction is another contraction of the
same kind, so nothing is transposed in memory and every derivative has the forward's speed. Rules are plain derivatives,
without conjugation, as those of every op are.

An einsum of any operands is first brought to clean parts: `einsum_single` sums and takes diagonals within one operand,
`einsum_pair` multiplies two operands in which every index stands once and is shared with the other operand or the
output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from string import ascii_letters
from typing import Any, NamedTuple

import numpy as np

from distgrad import dtypes
from distgrad.dtypes import HALVES, dtype
from distgrad.families import contraction_rows
from distgrad.kernels import compiled, products
from distgrad.meta import TensorMeta, broadcast_shapes
from distgrad.op import MetaResult, Op, Row
from distgrad.ops import across_blocks
from distgrad.ops.elementwise import cast
from distgrad.ops.movement import diagonal, permute
from distgrad.ops.reduction import sum as sum_over
from distgrad.placement import Spec

_SMALL_MATRIX = 16  # below so many elements per product, a loop over BLAS calls is slower than numpy's einsum


def same_dtype(name: str, a: TensorMeta, b: TensorMeta) -> dtype:
    """Gives the dtype both factors have; RuntimeError if they differ, as in PyTorch (products do not promote)."""
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"{name}: expected m1 and m2 to have the same dtype, but got: {a.dtype.name} != {b.dtype.name}; convert "
            f"one with .to({a.dtype.name})"
        )
    return a.dtype


def no_bool(name: str, kind: dtype) -> None:
    """Raises NotImplementedError for bool, which PyTorch does not multiply as matrices."""
    if kind is dtypes.bool_:
        raise NotImplementedError(f"\"{name}\" not implemented for 'Bool'; convert with .int() or .float()")


def _half(kind: np.dtype) -> bool:
    return kind.char in HALVES


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiplies matrices (..., m, k) and (..., k, n); halves are summed in float32."""
    if _half(a.dtype):
        return _product(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous:
        return products.matmul(a.reshape(prod(a.shape[:-1]), a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[1])
    return products.matmul(a, b)


def _mt(x: Any) -> Any:
    return permute(x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


# Matrices ---------------------------------------------------------------------------------------------------


def _batch_rows(
    a: tuple[int, ...], b: tuple[int, ...], out: tuple[int, ...], columns: int, a_k: int, b_k: int
) -> Iterable[Row]:
    """Rows of (..., m, k) with (..., k, n) or (..., n, k): batch dims, m, n, k, and Partial in either factor."""
    last = len(out) - 1
    for dim in range(len(out) - 2):
        own = [dim - (len(out) - len(s)) for s in (a, b)]
        entries = tuple(o if o >= 0 and s[o] == out[dim] else None for o, s in zip(own, (a, b)))
        yield Row(entries, (dim,))
    yield Row((len(a) - 2, None), (last - 1,))
    yield Row((None, columns), (last,))
    yield Row((a_k, b_k), ("sum",))
    yield Row(("sum", None), ("sum",))
    yield Row((None, "sum"), ("sum",))


def _matmul_meta(a: TensorMeta, b: TensorMeta) -> MetaResult:
    if a.ndim < 2 or b.ndim < 2:
        raise RuntimeError(
            f"matmul: both tensors must be matrices (..., m, k) and (..., k, n), got {a.shape} @ {b.shape}"
        )
    if a.shape[-1] != b.shape[-2]:
        raise RuntimeError(f"matmul: inner dimensions differ, {a.shape} @ {b.shape}: {a.shape[-1]} != {b.shape[-2]}")
    kind = same_dtype("matmul", a, b)
    no_bool("matmul", kind)
    batch = broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2])
    return (TensorMeta.of((*batch, a.shape[-2], b.shape[-1]), kind),), None


def _matmul_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    a, b = ins
    yield from _batch_rows(a.shape, b.shape, outs[0].shape, b.ndim - 1, a.ndim - 1, b.ndim - 2)
    last = outs[0].ndim - 1
    for dim in (b.ndim - 2, b.ndim - 1):
        yield Row((a.ndim - 2, dim), (last - 1,), through=across_blocks.matmul_right)
    for dim in (a.ndim - 2, a.ndim - 1):
        yield Row((dim, b.ndim - 1), (last,), through=across_blocks.matmul_left)


def _transposed_product(left: Any, right: Any, ndim: int) -> Any:
    """Gives left^T @ right for a factor of `ndim` dims; batch dims the factor lacks are summed in the same product."""
    batch = max(left.ndim, right.ndim) - 2
    extra = batch - (ndim - 2)
    if extra <= 0 or left.ndim != right.ndim or left.shape[:batch] != right.shape[:batch]:
        return matmul(_mt(left), right)
    letters = ascii_letters[:batch]
    return einsum_pair(left, right, equation=f"{letters}YX,{letters}YZ->{letters[extra:]}XZ")


def _product_transposed(left: Any, right: Any, ndim: int) -> Any:
    """Gives left @ right^T for a factor of `ndim` dims; batch dims the factor lacks are summed in the same product."""
    batch = max(left.ndim, right.ndim) - 2
    extra = batch - (ndim - 2)
    if extra <= 0 or left.ndim != right.ndim or left.shape[:batch] != right.shape[:batch]:
        return matmul(left, _mt(right))
    letters = ascii_letters[:batch]
    return einsum_pair(left, right, equation=f"{letters}XY,{letters}ZY->{letters[extra:]}XZ")


matmul: Op = Op(
    "matmul",
    _product,
    meta=_matmul_meta,
    inputs="a b",
    rows=_matmul_rows,
    vjps=(
        lambda g, b, a_shape: _product_transposed(g, b, len(a_shape)),
        lambda g, a, b_shape: _transposed_product(a, g, len(b_shape)),
    ),
)


def _linear_meta(x: TensorMeta, w: TensorMeta) -> MetaResult:
    if x.ndim < 2 or w.ndim != 2:
        raise RuntimeError(f"linear: input must be (..., in) and weight (out, in), got {x.shape} and {w.shape}")
    if x.shape[-1] != w.shape[1]:
        raise RuntimeError(
            f"linear: inner dimensions differ, input {x.shape} and weight {w.shape}: {x.shape[-1]} != {w.shape[1]}"
        )
    kind = same_dtype("linear", x, w)
    no_bool("linear", kind)
    return (TensorMeta.of((*x.shape[:-1], w.shape[0]), kind),), None


def _linear_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    x, w = ins
    yield from _batch_rows(x.shape, w.shape, outs[0].shape, 0, x.ndim - 1, 1)
    for dim in range(2):
        yield Row((x.ndim - 2, dim), (x.ndim - 2,), through=across_blocks.linear)


linear = Op(
    "linear",
    lambda x, w: _product(x, w.T),
    meta=_linear_meta,
    inputs="x w",
    rows=_linear_rows,
    vjps=(
        lambda g, w: matmul(g, w),
        lambda g, x: _transposed_product(g, x, 2),
    ),
)


def _linear_bias(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    y = _product(x, w.T)  # fresh memory: the bias is added in place
    if b.size > 1 and y.size >= compiled.LEAST and compiled.fits(y) and b.dtype == y.dtype and compiled.fits(b):
        from distgrad.kernels import elementwise

        return elementwise.add_to_rows(y, b)
    return np.add(y, b, out=y)


def _linear_bias_meta(x: TensorMeta, w: TensorMeta, b: TensorMeta) -> MetaResult:
    same_dtype("linear", x, b)
    return _linear_meta(x, w)


def _linear_bias_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    """Rows of `linear`; the bias goes with the columns of the result, and parts that add up share it among them."""
    for row in _linear_rows(ins[:2], outs, attrs):
        (made,) = row.outs
        if row.through is not None:
            yield Row((*row.ins, None), row.outs, through=across_blocks.linear_bias)
            continue
        yield Row((*row.ins, "sum" if made == "sum" else 0 if made == outs[0].ndim - 1 else None), row.outs)


linear_bias = Op(
    "linear_bias",
    _linear_bias,
    meta=_linear_bias_meta,
    inputs="x w b",
    rows=_linear_bias_rows,
    vjps=(
        lambda g, w: matmul(g, w),
        lambda g, x: _transposed_product(g, x, 2),
        lambda g: sum_over(g, axis=tuple(range(g.ndim - 1)), keepdims=False),
    ),
)
"""`linear` plus a bias (out,), added while the result is in cache."""


# One operand ------------------------------------------------------------------------------------------------


def _sizes(terms: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for position, (term, shape) in enumerate(zip(terms, shapes)):
        if len(term) != len(shape):
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({len(term)}) does not match the number of "
                f"dimensions ({len(shape)}) for operand {position}"
            )
        for letter, size in zip(term, shape):
            if sizes.setdefault(letter, size) != size:
                raise RuntimeError(
                    f"einsum(): subscript {letter} has size {size} for operand {position} which does not broadcast "
                    f"with previously seen size {sizes[letter]}"
                )
    return sizes


def _split(equation: str) -> tuple[list[str], str]:
    inputs, output = equation.split("->")
    return inputs.split(","), output


@lru_cache(maxsize=4096)
def _single_steps(equation: str) -> tuple[str | None, tuple[int, ...], tuple[int, ...] | None]:
    """Gives what `_single` does in turn: an equation that takes diagonals, the axes it sums, the order of the others."""
    (term,), output = _split(equation)
    letters = "".join(dict.fromkeys(term))
    gone = tuple(position for position, letter in enumerate(letters) if letter not in output)
    kept = [letter for letter in letters if letter in output]
    order = tuple(kept.index(letter) for letter in output)
    return f"{term}->{letters}" if letters != term else None, gone, None if list(output) == kept else order


def _single(x: np.ndarray, *, equation: str) -> np.ndarray:
    diagonals, gone, order = _single_steps(equation)
    view: Any = x.astype(np.float32) if _half(x.dtype) else x
    if diagonals is not None:
        view = np.einsum(diagonals, view)
    if gone:  # numpy's einsum adds one by one
        view = np.asarray(sum_over.kernel(view, axis=gone, keepdims=False))
    return (view if order is None else view.transpose(order)).astype(x.dtype, copy=False)


def _single_meta(x: TensorMeta, *, equation: str) -> MetaResult:
    (term,), output = _split(equation)
    sizes = _sizes([term], [x.shape])
    kind, casts = x.dtype, None
    if x.dtype.category < 2 and len(output) < len(set(term)):
        kind, casts = dtypes.int64, (dtypes.int64,)
    return (TensorMeta.of(tuple(sizes[letter] for letter in output), kind),), casts


def _single_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    (term,), output = _split(attrs["equation"])
    for position, letter in enumerate(term):
        if term.count(letter) == 1:
            yield Row((position,), (output.index(letter) if letter in output else "sum",))
    yield Row(("sum",), ("sum",))


def _spread(g: np.ndarray, *, equation: str, shape: tuple[int, ...]) -> np.ndarray:
    (term,), output = _split(equation)
    out = np.zeros(shape, g.dtype)
    letters = "".join(dict.fromkeys(term))
    view = np.einsum(f"{term}->{letters}", out)  # without a sum, numpy's einsum gives a writable view
    kept = [letter for letter in letters if letter in output]
    source = g.transpose([output.index(letter) for letter in kept])
    view[...] = source[tuple(slice(None) if letter in output else None for letter in letters)]
    return out


def _spread_meta(g: TensorMeta, *, equation: str, shape: tuple[int, ...]) -> MetaResult:
    return (TensorMeta.of(shape, g.dtype),), None


def _spread_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    (term,), output = _split(attrs["equation"])
    for position, letter in enumerate(output):
        if term.count(letter) == 1:
            yield Row((position,), (term.index(letter),))
    yield Row(("sum",), ("sum",))


def _spread_localize(attrs: dict[str, Any], ins: Sequence[Spec], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    return {**attrs, "shape": outs[0].local_shape(rank)}


einsum_single = Op(
    "einsum_single",
    _single,
    meta=_single_meta,
    inputs="x",
    rows=_single_rows,
    vjps=(lambda g, equation, x_shape: einsum_spread(g, equation=equation, shape=x_shape),),
)
einsum_spread: Op = Op(
    "einsum_spread",
    _spread,
    meta=_spread_meta,
    inputs="g",
    rows=_spread_rows,
    localize=_spread_localize,
    vjps=(lambda g, equation: einsum_single(g, equation=equation),),
)
"""The adjoint of `einsum_single`: repeats along summed indices and writes diagonals into zeros."""


# Two operands -----------------------------------------------------------------------------------------------


def _pair(a: np.ndarray, b: np.ndarray, *, equation: str) -> np.ndarray:
    if _half(a.dtype):
        return _pair(a.astype(np.float32), b.astype(np.float32), equation=equation).astype(a.dtype)
    plan = _pair_plan(equation, a.shape, b.shape)
    if plan is None and _outer(equation):
        return np.multiply.outer(a, b)  # numpy's einsum adds to zeros, which loses the sign of a product that is -0
    if plan is None or a.dtype.kind == "b":  # numpy's matmul of bool is a logical or of products, as einsum's is
        return np.einsum(equation, a, b)
    product = products.matmul(_brought(a, plan.a), _brought(b, plan.b))
    return product if plan.shape is None else product.reshape(plan.shape).transpose(plan.order)


@lru_cache(maxsize=4096)
def _outer(equation: str) -> bool:
    """Says whether every element of one factor meets every one of the other, in their order."""
    (left, right), output = _split(equation)
    return output == left + right and len(set(output)) == len(output)


class _PairPlan(NamedTuple):
    """How a matrix product does a contraction: each factor's dims in order and its shape, None where it is so already,
    and the shape of the product's dims, in which it is not yet the output's order."""

    a: tuple[tuple[int, ...], tuple[int, ...]] | None
    b: tuple[tuple[int, ...], tuple[int, ...]] | None
    shape: tuple[int, ...] | None
    order: tuple[int, ...]


def _brought(x: np.ndarray, plan: tuple[tuple[int, ...], tuple[int, ...]] | None) -> np.ndarray:
    return x if plan is None else x.transpose(plan[0]).reshape(plan[1])


@lru_cache(maxsize=4096)
def _pair_plan(equation: str, a: tuple[int, ...], b: tuple[int, ...]) -> _PairPlan | None:
    """Gives how a matrix product does it; None where numpy's einsum is better: nothing is summed, or matrices are tiny.

    A factor all of whose dims are summed is a vector to the product, which then has no dim for it.
    """
    (left, right), output = _split(equation)
    shared = [letter for letter in left if letter in right]
    batch = [letter for letter in shared if letter in output]
    summed = [letter for letter in shared if letter not in output]
    rows = [letter for letter in left if letter not in right]
    columns = [letter for letter in right if letter not in left]
    sizes = {**dict(zip(left, a)), **dict(zip(right, b))}
    m, n, k = (prod(sizes[letter] for letter in group) for group in (rows, columns, summed))
    if not summed or (batch and m * n * k < _SMALL_MATRIX**2):
        return None
    outer = [sizes[letter] for letter in batch]
    found = [*batch, *rows, *columns]
    no_rows, no_columns = not rows and not batch, not columns and not batch
    shapes = ((*outer, k) if no_rows else (*outer, m, k)), ((*outer, k) if no_columns else (*outer, k, n))
    orders = (
        tuple(left.index(letter) for letter in (*batch, *rows, *summed)),
        tuple(right.index(letter) for letter in (*batch, *summed, *columns)),
    )
    made = (*outer, *(() if no_rows else (m,)), *(() if no_columns else (n,)))
    shape = tuple(sizes[letter] for letter in found)
    order = tuple(found.index(letter) for letter in output)
    first, second = (
        None if order_of == tuple(range(len(given))) and shape_of == given else (order_of, shape_of)
        for order_of, shape_of, given in zip(orders, shapes, (a, b))
    )
    return _PairPlan(first, second, None if made == shape and order == tuple(range(len(shape))) else shape, order)


def _pair_meta(a: TensorMeta, b: TensorMeta, *, equation: str) -> MetaResult:
    terms, output = _split(equation)
    if a.dtype is not b.dtype:
        raise RuntimeError(f"einsum: expected scalar type {a.dtype.name} but found {b.dtype.name}")
    sizes = _sizes(terms, [a.shape, b.shape])
    return (TensorMeta.of(tuple(sizes[letter] for letter in output), a.dtype),), None


def _pair_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    terms, output = _split(attrs["equation"])
    yield from contraction_rows(terms, output)
    yield from across_blocks.einsum_rows(attrs["equation"], outs[0].dtype)


def _pair_grad_a(g: Any, b: Any, equation: str) -> Any:
    return einsum_pair(g, b, equation=_gradient_equations(equation)[0])


def _pair_grad_b(g: Any, a: Any, equation: str) -> Any:
    return einsum_pair(a, g, equation=_gradient_equations(equation)[1])


@lru_cache(maxsize=4096)
def _gradient_equations(equation: str) -> tuple[str, str]:
    (left, right), output = _split(equation)
    return f"{output},{right}->{left}", f"{left},{output}->{right}"


einsum_pair: Op = Op(
    "einsum_pair", _pair, meta=_pair_meta, inputs="a b", rows=_pair_rows, vjps=(_pair_grad_a, _pair_grad_b)
)


# Any number of operands -------------------------------------------------------------------------------------


def _reduce_single(x: Any, term: str, output: str) -> Any:
    """Brings an operand to the indices `output`: by a view where nothing is summed."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            x = diagonal(x, offset=0, axis1=first, axis2=second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + letter
    if term == output:
        return x
    if len(term) == len(output):
        return permute(x, axes=tuple(term.index(letter) for letter in output))
    return einsum_single(x, equation=f"{term}->{output}")


def _next_pair(terms: list[str], output: str, sizes: dict[str, int]) -> tuple[int, int]:
    """Gives the two operands whose product takes the fewest multiplications, the first such pair on a tie."""
    pairs = [(i, j) for j in range(len(terms)) for i in range(j)]
    return min(pairs, key=lambda p: (prod(sizes[letter] for letter in set(terms[p[0]] + terms[p[1]])), p))


def einsum(*tensors: Any, equation: str) -> Any:
    """Contracts tensors by an explicit equation like "ij,jk->ik": no spaces, no ellipsis, sizes that agree.

    Operands are multiplied two at a time, cheapest product first. RuntimeError for sizes or dtypes that do not fit.
    """
    operands = list(tensors)
    for first, second, what, kept in _einsum_steps(equation, tuple(tuple(t.shape) for t in tensors)):
        if second is None:
            operands[first] = _reduce_single(operands[first], what, kept)
            continue
        a, b = operands[first], operands[second]
        if a.dtype is not b.dtype and max(a.dtype.category, b.dtype.category) < 2:  # one was summed, which gives int64
            a, b = (cast(t, dtype="int64") if t.dtype is not dtypes.int64 else t for t in (a, b))
        rest = [o for i, o in enumerate(operands) if i not in (first, second)]
        operands = [einsum_pair(a, b, equation=what), *rest]
    return operands[0]


@lru_cache(maxsize=4096)
def _einsum_steps(
    equation: str, shapes: tuple[tuple[int, ...], ...]
) -> tuple[tuple[int, int | None, str, str], ...]:
    """Gives what `einsum` does in turn: (operand, None, its indices, those it keeps), or (one operand, the other,
    equation of their product, ""), whose result stands first and the other operands after it."""
    terms, output = _split(equation)
    sizes = _sizes(terms, shapes)
    steps: list[tuple[int, int | None, str, str]] = []
    while True:
        for position, term in enumerate(terms):  # within one operand: diagonals, and indices nobody else has
            others = output + "".join(terms[:position] + terms[position + 1 :])
            kept = "".join(letter for letter in dict.fromkeys(term) if letter in others)
            if kept != term:
                steps.append((position, None, term, kept))
            terms[position] = kept
        if len(terms) == 1:
            if terms[0] != output:
                steps.append((0, None, terms[0], output))
            return tuple(steps)
        first, second = (0, 1) if len(terms) == 2 else _next_pair(terms, output, sizes)
        rest = [i for i in range(len(terms)) if i not in (first, second)]
        needed = output + "".join(terms[i] for i in rest)
        result = (
            output
            if not rest
            else "".join(letter for letter in dict.fromkeys(terms[first] + terms[second]) if letter in needed)
        )
        steps.append((first, second, f"{terms[first]},{terms[second]}->{result}", ""))
        terms = [result, *(terms[i] for i in rest)]
        if not rest:
            return tuple(steps)
