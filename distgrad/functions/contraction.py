"""Matrix products, einsum and what is built from them, with PyTorch's signatures.

Invariant: every function here ends in the contraction ops, which alone know rows and gradients; bias and `beta` terms
are added after the product, so that parts of a product are summed before them.
"""

from __future__ import annotations

import builtins
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad import dtypes, graph
from distgrad.functions.data import node_of
from distgrad.functions.labels import shown_as
from distgrad.functions.precision import in_float32
from distgrad.functions.reduction import is_plain
from distgrad.meta import broadcast_shapes, normalize_dim
from distgrad.op import is_tensor
from distgrad.ops import contraction as ops
from distgrad.ops.elementwise import cast, conj
from distgrad.ops.movement import diagonal, reshape
from distgrad.ops.reduction import sum as sum_of

__all__ = [
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "bmm",
    "chain_matmul",
    "dot",
    "einsum",
    "ger",
    "inner",
    "kron",
    "matmul",
    "mm",
    "mv",
    "outer",
    "tensordot",
    "trace",
    "vdot",
]
# linear and bilinear are PyTorch's nn.functional, multi_dot its linalg; those modules take them from here.

Tensor = Any
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _check(name: str, **tensors: Any) -> None:
    for argument, value in tensors.items():
        if not is_tensor(value):
            raise TypeError(f"{name}(): argument '{argument}' must be Tensor, not {type(value).__name__}")


def _check_ndim(name: str, ndim: int, **tensors: Any) -> None:
    _check(name, **tensors)
    for argument, value in tensors.items():
        if value.ndim != ndim:
            raise RuntimeError(
                f"{name}: {argument} must be a {ndim}D tensor, got {value.ndim}D of shape {tuple(value.shape)}"
            )


# Products ---------------------------------------------------------------------------------------------------


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Multiplies matrices (..., m, k) and (..., k, n), or vectors where a factor is 1-d (PyTorch: torch.matmul).

    RuntimeError for 0-d factors, inner sizes that differ and dtypes that differ.
    """
    _check("matmul", input=input, other=other)
    rows, columns = input.ndim, other.ndim
    if rows >= 2 and columns >= 2:
        return ops.matmul(input, other)
    if rows == 0 or columns == 0:
        raise RuntimeError(
            f"matmul: both arguments to matmul need to be at least 1D, but they are {rows}D and {columns}D"
        )
    a, b = tuple(input.shape), tuple(other.shape)
    if a[-1] != (b[-2] if columns > 1 else b[0]):
        raise RuntimeError(f"matmul: inner dimensions differ, {a} @ {b}: {a[-1]} != {b[-2] if columns > 1 else b[0]}")
    if rows + columns == 3 and input.dtype is other.dtype and input.dtype.category:  # in one op
        return ops.einsum_pair(input, other, equation="ab,b->a" if columns == 1 else "a,ab->b")
    if columns == 1:
        if rows == 1:
            return dot(input, other)
        return reshape(ops.matmul(input, reshape(other, shape=(b[0], 1))), shape=a[:-1])
    product = ops.matmul(reshape(input, shape=(1, a[0])), other)
    return reshape(product, shape=(*b[:-2], b[-1]))


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Multiplies two matrices (PyTorch: torch.mm)."""
    _check_ndim("mm", 2, input=input, mat2=mat2)
    return ops.matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Multiplies batches of matrices (B, m, k) and (B, k, n) (PyTorch: torch.bmm)."""
    _check_ndim("bmm", 3, batch1=input, batch2=mat2)
    if input.shape[0] != mat2.shape[0]:
        raise RuntimeError(
            f"bmm: batch sizes differ, {tuple(input.shape)} and {tuple(mat2.shape)}: {input.shape[0]} != "
            f"{mat2.shape[0]}"
        )
    return ops.matmul(input, mat2)


@shown_as("MvBackward0")
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Multiplies a matrix (m, k) with a vector (k,) (PyTorch: torch.mv)."""
    _check_ndim("mv", 2, input=input)
    _check_ndim("mv", 1, vec=vec)
    if input.shape[1] != vec.shape[0]:
        raise RuntimeError(f"mv: size mismatch, got mat {tuple(input.shape)} and vec {tuple(vec.shape)}")
    return matmul(input, vec)


@shown_as("DotBackward0")
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Gives the sum of products of two vectors, without conjugation (PyTorch: torch.dot)."""
    _check("dot", input=input, tensor=tensor)
    if input.ndim != 1 or tensor.ndim != 1:
        raise RuntimeError(f"dot: 1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors")
    if input.shape != tensor.shape:
        raise RuntimeError(
            f"dot: inconsistent tensor size, expected tensor {list(input.shape)} and src {list(tensor.shape)} to have "
            "the same number of elements"
        )
    if input.dtype is not tensor.dtype:
        raise RuntimeError(
            f"dot : expected both vectors to have same dtype, but found {input.dtype.name} and {tensor.dtype.name}"
        )
    ops.no_bool("dot", input.dtype)
    return ops.einsum_pair(input, tensor, equation="a,a->")


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """Gives the sum of products of two vectors, the first one conjugated (PyTorch: torch.vdot)."""
    _check("vdot", input=input, other=other)
    return dot(conj(input) if input.dtype.is_complex else input, other)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Gives the products of every element of (n,) with every one of (m,), as (n, m) (PyTorch: torch.outer)."""
    _check("outer", input=input, vec2=vec2)
    for argument, value in (("self", input), ("vec2", vec2)):
        if value.ndim != 1:
            raise RuntimeError(f"outer: Expected 1-D argument {argument}, but got {value.ndim}-D")
    return reshape(input, shape=(input.shape[0], 1)) * vec2


ger = outer


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums products over the last dim of both; with a 0-d factor it is the product (PyTorch: torch.inner)."""
    _check("inner", input=input, other=other)
    if input.dtype is not other.dtype:
        raise RuntimeError(f"inner: both inputs should have same dtype, got {input.dtype.name} and {other.dtype.name}")
    if input.ndim == 0 or other.ndim == 0:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError(
            f"inner() the last dimension must match on both input tensors but got shapes {list(input.shape)} and "
            f"{list(other.shape)}"
        )
    return tensordot(input, other, dims=([-1], [-1]))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gives input @ weight.T + bias for (..., in), (out, in) and (out,) (PyTorch: nn.functional.linear)."""
    _check("linear", input=input, weight=weight)
    if weight.ndim == 1:
        product = matmul(input, weight)
    elif input.ndim == 1:
        product = matmul(weight, input)
    else:
        if bias is not None and bias.dtype is input.dtype and tuple(bias.shape) == tuple(weight.shape[:1]):
            return ops.linear_bias(input, weight, bias)
        product = ops.linear(input, weight)
    if bias is None:
        return product
    if bias.dtype is not product.dtype:
        raise RuntimeError(
            f"linear: input, weight and bias must have the same dtype, got {product.dtype.name} and {bias.dtype.name}"
        )
    return product + bias


@in_float32()
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gives x1^T A x2 + b for (..., in1), (..., in2), (out, in1, in2) and (out,) (PyTorch: nn.functional.bilinear)."""
    _check("bilinear", input1=input1, input2=input2)
    _check_ndim("bilinear", 3, weight=weight)
    if tuple(input1.shape[:-1]) != tuple(input2.shape[:-1]):
        raise RuntimeError(
            f"bilinear(): input batch dimensions do not match: got {list(input1.shape)} and {list(input2.shape)}"
        )
    for number, value in ((1, input1), (2, input2)):
        if value.shape[-1] != weight.shape[number]:
            raise RuntimeError(
                f"bilinear(): input{number} size does not match weight size: got {value.shape[-1]} but expected "
                f"{weight.shape[number]}"
            )
    result = einsum("...i,oij,...j->...o", input1, weight, input2)
    return result if bias is None else result + bias


# Sums with products -----------------------------------------------------------------------------------------


def _combine(name: str, input: Tensor, product: Tensor, shape: tuple[int, ...], beta: Any, alpha: Any) -> Tensor:
    if input.dtype is not product.dtype:
        raise RuntimeError(
            f"{name}: input and factors must have the same dtype, but got {input.dtype.name} and {product.dtype.name}"
        )
    try:
        fits = broadcast_shapes(name, tuple(input.shape), shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise RuntimeError(
            f"{name}: The expanded size of the tensor must match the product's: input {list(input.shape)} does not "
            f"broadcast to {list(shape)}"
        )
    if product.dtype.category < 2:  # as PyTorch reads them for integers and bools
        alpha, beta = (bool(n) if product.dtype is dtypes.bool_ else int(n) for n in (alpha, beta))
    if alpha != 1:
        product = product * alpha
    if beta == 0:  # as in PyTorch: the input is not read, so its nan and inf do not matter
        return product
    return product + (input if beta == 1 else input * beta)


@shown_as("AddmmBackward0")
@in_float32()
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Gives beta * input + alpha * (mat1 @ mat2); `input` broadcasts (PyTorch: torch.addmm)."""
    _check_ndim("addmm", 2, mat1=mat1, mat2=mat2)
    return _combine("addmm", input, ops.matmul(mat1, mat2), (mat1.shape[0], mat2.shape[1]), beta, alpha)


@in_float32()
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Gives beta * input + alpha * (mat @ vec) (PyTorch: torch.addmv)."""
    return _combine("addmv", input, mv(mat, vec), (mat.shape[0],), beta, alpha)


@in_float32()
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Gives beta * input + alpha * outer(vec1, vec2) (PyTorch: torch.addr)."""
    return _combine("addr", input, outer(vec1, vec2), (vec1.shape[0], vec2.shape[0]), beta, alpha)


@in_float32()
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Gives beta * input + alpha * bmm(batch1, batch2) (PyTorch: torch.baddbmm)."""
    product = bmm(batch1, batch2)
    return _combine("baddbmm", input, product, tuple(product.shape), beta, alpha)


@in_float32()
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Gives beta * input + alpha * the sum over the batch of batch1[i] @ batch2[i] (PyTorch: torch.addbmm)."""
    _check_ndim("addbmm", 3, batch1=batch1, batch2=batch2)
    product = einsum("bmk,bkn->mn", batch1, batch2)
    return _combine("addbmm", input, product, tuple(product.shape), beta, alpha)


# Tensor contractions ----------------------------------------------------------------------------------------


def _narrowed(x: Tensor, kind: dtypes.dtype) -> Tensor:
    """Gives back its dtype to a sum of integers, which is int64."""
    return x if x.dtype is kind else cast(x, dtype=kind.name)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: None = None) -> Tensor:
    """Sums products over `dims`: the last n of `a` with the first n of `b`, or two lists (PyTorch: torch.tensordot)."""
    _check("tensordot", a=a, b=b)
    if is_tensor(dims):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0 or dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims >= 0 and at most the dims of both tensors, but got dims={dims}")
        first, second = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        first = [normalize_dim("tensordot", d, a.ndim) for d in dims[0]]
        second = [normalize_dim("tensordot", d, b.ndim) for d in dims[1]]
    if len(first) != len(second):
        raise RuntimeError(f"tensordot: both dimension lists should have same length, got {first} and {second}")
    if a.dtype is not b.dtype:
        raise RuntimeError(f"tensordot: both inputs should have same dtype, got {a.dtype.name} and {b.dtype.name}")
    left = list(_LETTERS[: a.ndim])
    right = list(_LETTERS[a.ndim : a.ndim + b.ndim])
    for i, j in zip(first, second):
        if a.shape[i] != b.shape[j] and 1 in (a.shape[i], b.shape[j]):  # a size of 1 broadcasts: sum the other one first
            if a.shape[i] == 1:
                b = _narrowed(sum_of(b, axis=(j,), keepdims=True), b.dtype)
            else:
                a = _narrowed(sum_of(a, axis=(i,), keepdims=True), a.dtype)
        if a.shape[i] != b.shape[j]:
            raise RuntimeError(
                f"contracted dimensions need to match, but first has size {a.shape[i]} in dim {i} and second has size "
                f"{b.shape[j]} in dim {j}"
            )
        right[j] = left[i]
    output = [c for d, c in enumerate(left) if d not in first] + [c for d, c in enumerate(right) if d not in second]
    return ops.einsum_pair(a, b, equation=f"{''.join(left)},{''.join(right)}->{''.join(output)}")


def _subscripts(equation: str, count: int) -> tuple[list[str], str | None]:
    """Splits an equation into the operands' indices and the output's (None: implicit), spaces removed."""
    text = equation.replace(" ", "")
    left, arrow, output = text.partition("->")
    terms = left.split(",")
    if len(terms) != count:
        kind = "more" if count > len(terms) else "fewer"
        raise RuntimeError(f"einsum(): {kind} operands were provided than specified in the equation")
    for where, term in [*((f"operand {i}", t) for i, t in enumerate(terms)), ("the output", output)]:
        if term.count("...") > 1:
            raise RuntimeError(f"einsum(): found '.' for {where} for which an ellipsis was already found")
        bare = term.replace("...", "")
        if "." in bare:
            raise RuntimeError(f"einsum(): found '.' for {where} that is not part of any ellipsis")
        wrong = re.search("[^a-zA-Z]", bare)
        if wrong:
            raise RuntimeError(
                f"einsum(): invalid subscript given at index {text.index(wrong[0])} in the equation string, "
                f"subscripts must be in [a-zA-Z]"
            )
    return terms, output if arrow else None


def _expand_ellipsis(terms: list[str], output: str | None, shapes: Sequence[Any]) -> tuple[list[str], str]:
    """Gives every ellipsis letters, aligned at its last dim, and an implicit output its letters."""
    used = set("".join(terms).replace(".", ""))
    spare = [letter for letter in reversed(_LETTERS) if letter not in used]
    most = 0
    for position, (term, shape) in enumerate(zip(terms, shapes)):
        named = len(term.replace("...", ""))
        if named > len(shape) or ("..." not in term and named != len(shape)):
            tail = "" if "..." in term else " and no ellipsis was given"
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({named}) does not match the number of dimensions "
                f"({len(shape)}) for operand {position}{tail}"
            )
        if "..." in term:
            most = max(most, len(shape) - named)
    dots = "".join(spare[:most])
    found = []
    for term, shape in zip(terms, shapes):
        own = len(shape) - len(term.replace("...", ""))
        found.append(term.replace("...", dots[most - own :] if own else ""))
    if output is None:
        letters = "".join(terms).replace(".", "")
        output = dots + "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    else:
        output = output.replace("...", dots)
    return found, output


def _check_output(terms: list[str], output: str) -> None:
    for letter in output:
        if output.count(letter) > 1:
            raise RuntimeError(f"einsum(): output subscript {letter} appears more than once in the output")
        if letter not in "".join(terms):
            raise RuntimeError(
                f"einsum(): output subscript {letter} does not appear in the equation for any input operand"
            )


def _drop_stretched(terms: list[str], shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...] | None]:
    """Takes dims of size 1 that broadcast against a larger size out of terms; gives the shapes they leave (None: all)."""
    sizes: dict[str, int] = {}
    for position, (term, shape) in enumerate(zip(terms, shapes)):
        own: dict[str, int] = {}
        for letter, size in zip(term, shape):
            if own.setdefault(letter, size) != size:
                raise RuntimeError(
                    f"einsum(): subscript {letter} is repeated for operand {position} but the sizes don't match, "
                    f"{size} != {own[letter]}"
                )
            known = sizes.setdefault(letter, size)
            if 1 not in (known, size) and known != size:
                raise RuntimeError(
                    f"einsum(): subscript {letter} has size {size} for operand {position} which does not broadcast "
                    f"with previously seen size {known}"
                )
            sizes[letter] = size if known == 1 else known
    left: list[tuple[int, ...] | None] = []
    for position, (term, shape) in enumerate(zip(terms, shapes)):
        kept = [d for d, letter in enumerate(term) if shape[d] == sizes[letter]]
        left.append(tuple(shape[d] for d in kept) if len(kept) < len(term) else None)
        terms[position] = "".join(term[d] for d in kept)
    return left


@functools.lru_cache(maxsize=4096)
def _read_equation(
    equation: str, shapes: tuple[tuple[int, ...], ...]
) -> tuple[tuple[str, ...], str, tuple[tuple[int, ...] | None, ...]]:
    """Gives the operands' indices, the output's, and the shapes to which operands are brought first (None: as is)."""
    terms, given = _subscripts(equation, len(shapes))
    terms, output = _expand_ellipsis(terms, given, shapes)
    _check_output(terms, output)
    left = _drop_stretched(terms, shapes)
    return tuple(terms), output, tuple(left)


def einsum(*args: Any) -> Tensor:
    """Sums products of operands over indices by an equation like "ij,jk->ik" (PyTorch: torch.einsum).

    Takes an ellipsis, an implicit output, repeated indices (diagonals), sizes of 1 that broadcast, and the sublist form
    `einsum(op1, [0, 1], op2, [1, 2], [0, 2])`. RuntimeError says what in the equation does not fit.
    """
    if not args:
        raise ValueError("einsum(): must specify the equation string and at least one operand")
    if isinstance(args[0], str):
        equation, operands = args[0], list(args[1:])
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = list(operands[0])
    else:
        equation, operands = _from_sublists(args)
    if not operands:
        raise RuntimeError("einsum(): must provide at least one operand")
    for position, operand in enumerate(operands):
        if not is_tensor(operand):
            _check("einsum", **{f"operand {position}": operand})
    terms, output, left = _read_equation(equation, tuple(tuple(o.shape) for o in operands))
    for position, kept in enumerate(left):
        if kept is not None:
            operands[position] = reshape(operands[position], shape=kept)
    if len({operand.dtype.name for operand in operands}) > 1 and builtins.all(
        "".join(terms).count(letter) == 1 or letter in output for letter in "".join(terms)
    ):
        kind = dtypes.result_type(operands)  # nothing is summed: a plain product, which promotes
        operands = [cast(o, dtype=kind.name) if o.dtype is not kind else o for o in operands]
    return ops.einsum(*operands, equation=f"{','.join(terms)}->{output}")


def _from_sublists(args: tuple[Any, ...]) -> tuple[str, list[Any]]:
    def letters(entries: Any) -> str:
        if not isinstance(entries, (list, tuple)):
            raise TypeError(f"einsum(): expected a list of subscripts after each operand, got {type(entries).__name__}")
        for entry in entries:
            if entry is not Ellipsis and not (isinstance(entry, int) and 0 <= entry < 52):
                raise RuntimeError(f"einsum(): subscripts must be Ellipsis or in [0, 52), got {entry}")
        return "".join("..." if entry is Ellipsis else _LETTERS[entry] for entry in entries)

    operands = list(args[0 : len(args) - len(args) % 2 : 2])
    equation = ",".join(letters(entries) for entries in args[1::2])
    return (f"{equation}->{letters(args[-1])}" if len(args) % 2 else equation), operands


def kron(input: Tensor, other: Tensor) -> Tensor:
    """Gives the Kronecker product; the tensor with fewer dims gets leading dims of 1 (PyTorch: torch.kron)."""
    _check("kron", input=input, other=other)
    ndim = max(input.ndim, other.ndim)
    a = (1,) * (ndim - input.ndim) + tuple(input.shape)
    b = (1,) * (ndim - other.ndim) + tuple(other.shape)
    left = reshape(input, shape=tuple(n for size in a for n in (size, 1)))
    right = reshape(other, shape=tuple(n for size in b for n in (1, size)))
    return reshape(left * right, shape=tuple(m * n for m, n in zip(a, b)))


def trace(input: Tensor) -> Tensor:
    """Sums the diagonal of a matrix (PyTorch: torch.trace)."""
    _check("trace", input=input)
    if input.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    data = input._now().data
    if data is not None and data.dtype.char in "fd" and graph.session() is None and is_plain(input):
        return input._from_node(node_of(np.asarray(sum_of.kernel(data.diagonal(), axis=(0,), keepdims=False))))
    return sum_of(diagonal(input, offset=0, axis1=0, axis2=1), axis=(0,), keepdims=False)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """Multiplies matrices in the order that takes the fewest multiplications (PyTorch: linalg.multi_dot).

    The first and the last may be vectors. RuntimeError for fewer than two tensors or shapes that do not chain.
    """
    tensors = list(tensors)
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    first, last = tensors[0].ndim == 1, tensors[-1].ndim == 1
    if first:
        tensors[0] = reshape(tensors[0], shape=(1, tensors[0].shape[0]))
    if last:
        tensors[-1] = reshape(tensors[-1], shape=(tensors[-1].shape[0], 1))
    for position, tensor in enumerate(tensors):
        if tensor.ndim != 2:
            raise RuntimeError(f"multi_dot(): tensor {position} must be 2D but got {tensor.ndim}D")
        if position and tensors[position - 1].shape[1] != tensor.shape[0]:
            raise RuntimeError(
                f"multi_dot(): tensors {position - 1} and {position} with shapes {list(tensors[position - 1].shape)} "
                f"and {list(tensor.shape)} cannot be multiplied"
            )
    sizes = [tensors[0].shape[0], *(t.shape[1] for t in tensors)]
    count = len(tensors)
    costs: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(count)}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            costs[i, j] = min(
                (costs[i, s][0] + costs[s + 1, j][0] + sizes[i] * sizes[s + 1] * sizes[j + 1], s) for s in range(i, j)
            )

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return tensors[i]
        split = costs[i, j][1]
        return ops.matmul(product(i, split), product(split + 1, j))

    result = product(0, count - 1)
    shape = tuple(n for n, gone in zip(result.shape, (first, last)) if not gone)
    return reshape(result, shape=shape) if first or last else result


def chain_matmul(*matrices: Tensor) -> Tensor:
    """Multiplies matrices in the cheapest order (PyTorch: torch.chain_matmul)."""
    return matrices[0] if len(matrices) == 1 else multi_dot(matrices)
