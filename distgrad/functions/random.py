"""Functions that draw random numbers, and the fillers behind `Tensor.uniform_` and its relatives, as in PyTorch.

Invariant: a call takes as many words of its generator's stream as PyTorch does, known from shape and dtype alone;
everything else about the numbers is the global position of an element, so they are the same for any number of workers.
From the same seed they are PyTorch's. Exceptions: `poisson` (see `distgrad.ops.sampling`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from distgrad import draws, dtypes
from distgrad.functions.creation import as_real, as_size, finish
from distgrad.functions.layout import is_contiguous, stride
from distgrad.meta import broadcast_shapes
from distgrad.op import is_tensor
from distgrad.ops import random as ops
from distgrad.ops import sampling
from distgrad.random import Generator, default_generator

__all__ = ["bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial", "normal",
           "normal_", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_",
           "randperm", "uniform_"]

Tensor = Any
Shape = tuple[int, ...]

_WIDE = ("float64", "complex128")  # what takes two words for a number


def _generator(given: Generator | None) -> Generator:
    if given is None:
        return default_generator
    if not isinstance(given, Generator):
        raise TypeError(f"generator must be a distgrad.Generator, got {type(given).__name__}")
    return given


def next_draw(generator: Generator | None, words: int) -> tuple[int, int]:
    """Takes words of the stream of a generator (None: the default one): gives (seed, position)."""
    return _generator(generator).take(words)


def next_doubles(generator: Generator | None, shape: Shape) -> tuple[int, int]:
    """Takes two words for each element of a shape: gives (seed, position)."""
    return _generator(generator).take(2 * prod(shape))


def _numbers(shape: Shape, kind: str) -> int:
    """Gives how many real numbers a tensor consists of."""
    return prod(shape) * (2 if kind.startswith("complex") else 1)


def next_uniforms(generator: Generator | None, shape: Shape, kind: str) -> tuple[int, int]:
    """Takes the words for uniform numbers of a dtype: gives (seed, position)."""
    return _generator(generator).take(_numbers(shape, kind) * (2 if kind in _WIDE else 1))


def next_normals(generator: Generator | None, shape: Shape, kind: str, in_order: bool = True) -> tuple[int, int, int]:
    """Takes the words for normal numbers of a dtype: gives (seed, position, cached), see `distgrad.ops.random`.

    16 numbers and more are made in runs when they lie `in_order` in memory, as in PyTorch.
    """
    source = _generator(generator)
    count = _numbers(shape, kind)
    if count < 16 or not in_order:
        return source.take_pairs(count)
    return *source.take(draws.normal_words(shape, dtypes.named(kind).numpy)), ops.IN_RUNS


def memory_order(input: Tensor) -> list[int] | None:
    """Gives the dims of a tensor in the order they lie in memory, slowest first; None when that is their order.

    Only views lie in another order here; in PyTorch so do the results of elementwise functions of such views.
    """
    if input._view is None or input.ndim < 2 or is_contiguous(input):
        return None
    strides, shape = stride(input), input.shape
    order = sorted((d for d, n in enumerate(shape) if n != 1), key=lambda d: -strides[d])
    return None if order == sorted(order) else order + [d for d, n in enumerate(shape) if n == 1]


def in_memory_order(input: Tensor, draw: Callable[[Shape], Tensor]) -> Tensor:
    """Gives `draw(shape)` for the dims of a tensor in the order they lie in memory, and puts them back in place.

    PyTorch fills memory from its beginning, so a transposed tensor gets a transposed draw.
    """
    order = memory_order(input)
    if order is None:
        return draw(tuple(input.shape))
    return draw(tuple(input.shape[d] for d in order)).permute(*(order.index(d) for d in range(len(order))))


def _floating(name: str, kind: dtypes.dtype, *, allow_complex: bool = True) -> dtypes.dtype:
    if kind.category == 2 or (allow_complex and kind.category == 3):
        return kind
    raise NotImplementedError(f"{name}: not implemented for dtype {kind.name}; allowed: floating-point dtypes")


def _kind(name: str, dtype: Any) -> str:
    return _floating(name, dtypes.default() if dtype is None else dtypes.as_dtype(dtype)).name


# New tensors ------------------------------------------------------------------------------------------------


def rand(*size: Any, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns numbers uniform on [0, 1), shape `size`. PyTorch: torch.rand.

    >>> import distgrad as dg
    >>> dg.rand(2, 3).shape
    torch.Size([2, 3])
    """
    shape = as_size("rand", size or (options.pop("size", ()),))
    kind = _kind("rand", dtype)
    return finish("rand", ops.uniform(0.0, 1.0, *next_uniforms(generator, shape, kind), shape=shape, dtype=kind), options)


def randn(*size: Any, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns standard normal numbers, shape `size`. PyTorch: torch.randn."""
    shape = as_size("randn", size or (options.pop("size", ()),))
    kind = _kind("randn", dtype)
    made = ops.normal(0.0, 1.0, *next_normals(generator, shape, kind), shape=shape, dtype=kind)
    return finish("randn", made, options)


def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns numbers uniform on [0, 1) in the input's shape and dtype (or `dtype`). PyTorch: torch.rand_like."""
    grad = {"requires_grad": options.pop("requires_grad", False)}
    kind = dtype or input.dtype
    made = in_memory_order(input, lambda shape: rand(shape, generator=generator, dtype=kind, **options))
    return finish("rand_like", made, grad, input)


def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns standard normal numbers in the input's shape and dtype (or `dtype`). PyTorch: torch.randn_like."""
    grad = {"requires_grad": options.pop("requires_grad", False)}
    kind = _kind("randn_like", dtype or input.dtype)

    def draw(shape: Shape) -> Tensor:
        numbers = next_normals(generator, shape, kind, memory_order(input) is None)
        return finish("randn_like", ops.normal(0.0, 1.0, *numbers, shape=shape, dtype=kind), options)

    return finish("randn_like", in_memory_order(input, draw), grad, input)


def _integers(name: str, low: Any, high: Any, shape: tuple[int, ...], kind: dtypes.dtype,
              generator: Generator | None) -> Tensor:
    first, stop = int(as_real(name, low)), int(as_real(name, high))
    if first >= stop:
        raise RuntimeError(f"{name}: random_ expects 'from' to be less than 'to', but got from={first} >= to={stop}")
    _check_integers(name, first, stop, kind)
    count = stop - first
    wide = count >= draws.WIDE_RANGE
    return ops.randint(first, count, wide, *next_draw(generator, (1 + wide) * prod(shape)), shape=shape,
                       dtype=kind.name)


_MANTISSA = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def _integer_limits(kind: dtypes.dtype) -> tuple[int, int]:
    """Gives the smallest and the largest of the consecutive whole numbers that a dtype holds."""
    if kind.category == 0:
        return 0, 1
    if kind.category == 2:
        return -(2 ** _MANTISSA[kind.name]), 2 ** _MANTISSA[kind.name]
    limits = np.iinfo(kind.numpy)
    return int(limits.min), int(limits.max)


def _check_integers(name: str, low: int, high: int, kind: dtypes.dtype) -> None:
    if kind.category == 3:
        raise NotImplementedError(f"{name}: not implemented for dtype {kind.name}")
    least, most = _integer_limits(kind)
    if low < least or high - 1 > most:
        which = "from" if low < least else "to - 1"
        raise RuntimeError(f"{name}: {which} is out of bounds for {kind.name}; allowed: {least} to {most}")


def randint(*args: Any, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns whole numbers uniform on {low, ..., high - 1}, int64 unless `dtype` is given.

    Called as randint(high, size) or randint(low, high, size). RuntimeError when low >= high or a bound does not fit the
    dtype. PyTorch: torch.randint.
    """
    named: dict[str, Any] = {key: options.pop(key) for key in ("low", "high", "size") if key in options}
    names = ("low", "high", "size") if len(args) + len(named) == 3 else ("high", "size")
    given: dict[str, Any] = {**dict(zip([n for n in names if n not in named], args)), **named}
    if len(args) + len(named) > 3 or "high" not in given or "size" not in given:
        raise TypeError("randint() takes (high, size) or (low, high, size)")
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    shape = as_size("randint", (given["size"],))
    return finish("randint", _integers("randint", given.get("low", 0), given["high"], shape, kind, generator), options)


def randint_like(input: Tensor, *args: Any, generator: Generator | None = None, dtype: Any = None,
                 **options: Any) -> Tensor:
    """Returns whole numbers uniform on {low, ..., high - 1} in the input's shape and dtype (or `dtype`).

    Called as randint_like(input, high) or randint_like(input, low, high). PyTorch: torch.randint_like.
    """
    grad = {"requires_grad": options.pop("requires_grad", False)}
    kind = dtype or input.dtype
    made = in_memory_order(input, lambda shape: randint(*args, size=shape, generator=generator, dtype=kind, **options))
    return finish("randint_like", made, grad, input)


def randperm(n: Any, *, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a random order of 0, ..., n - 1, shape (n,), int64 unless `dtype` is given. PyTorch: torch.randperm."""
    shape = as_size("randperm", (n,))
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    _check_integers("randperm", 0, max(shape[0], 1), kind)
    numbers = next_draw(generator, draws.permutation_words(shape[0]))
    return finish("randperm", ops.permutation(*numbers, shape=shape, dtype=kind.name), options)


def _check_std(name: str, std: Any) -> None:
    if not std >= 0:
        raise RuntimeError(f"{name}: normal expects std >= 0.0, but found std {std}")


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
           **options: Any) -> Tensor:
    """Returns normally distributed numbers with means and standard deviations given as tensors or numbers.

    Two numbers need `size`; tensors decide the shape together. RuntimeError for a negative `std`.

    PyTorch: torch.normal.
    """
    tensors = [value for value in (mean, std) if is_tensor(value)]
    if not tensors:
        if size is None:
            raise TypeError("normal() needs 'size' when mean and std are numbers")
        _check_std("normal", std)
        shape, kind = as_size("normal", (size,)), _kind("normal", dtype)
        made = ops.normal(float(mean), float(std), *next_normals(generator, shape, kind), shape=shape, dtype=kind)
        return finish("normal", made, options)
    if size is not None:
        raise TypeError("normal() takes no 'size' when mean or std is a tensor; their shapes decide")
    if not is_tensor(std):
        _check_std("normal", std)
    kind = _floating("normal", dtypes.result_type(tensors)).name
    shape = broadcast_shapes("normal", *(tuple(t.shape) for t in tensors))
    mean, std = (v if is_tensor(v) else float(v) for v in (mean, std))
    numbers = next_normals(generator, shape, kind)
    return finish("normal", ops.normal_each(mean, std, *numbers, shape=shape, dtype=kind), options)


def _check_probability(name: str, p: Any) -> float:
    p = float(as_real(name, p))
    if not 0 <= p <= 1:
        raise RuntimeError(f"{name}: expects p to be in [0, 1], but got p={p}")
    return p


def bernoulli(input: Tensor, p: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Returns ones with the probabilities in `input` (a floating dtype), or with probability `p` in the input's shape.

    RuntimeError for a probability outside [0, 1]. PyTorch: torch.bernoulli.
    """
    shape, kind = tuple(input.shape), input.dtype.name
    if p is not None:
        return ops.bernoulli(_check_probability("bernoulli", p), *next_doubles(generator, shape), shape=shape, dtype=kind)
    _floating("bernoulli", input.dtype, allow_complex=False)
    return ops.bernoulli_each(input, *next_uniforms(generator, shape, kind), shape=shape, dtype=kind)


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Returns Poisson counts with the rates in `input`, in its floating dtype; RuntimeError for a negative rate.

    The numbers are not PyTorch's (see `distgrad.ops.sampling`). PyTorch: torch.poisson.
    """
    _floating("poisson", input.dtype, allow_complex=False)
    shape = tuple(input.shape)
    return sampling.poisson(input, *next_doubles(generator, shape), shape=shape, dtype=input.dtype.name)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """Returns indices drawn with the weights in the rows of `input`, (K,) or (N, K): int64 (num_samples,) or
    (N, num_samples).

    Weights need not sum to 1. RuntimeError for more samples than weights without replacement, and for rows that hold
    negative or infinite weights or sum to 0. PyTorch: torch.multinomial.
    """
    if input.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: prob_dist must be 1 or 2 dim, got shape {tuple(input.shape)}")
    if not input.dtype.is_floating_point:
        raise RuntimeError(f"multinomial: only supports floating-point dtypes for input, got: {input.dtype!r}")
    if num_samples <= 0:
        raise RuntimeError(f"multinomial: cannot sample n_sample <= 0 samples, got {num_samples}")
    if not replacement and num_samples > input.shape[-1]:
        raise RuntimeError(
            f"multinomial: cannot sample n_sample > prob_dist.size(-1) samples without replacement: {num_samples} > "
            f"{input.shape[-1]}"
        )
    shape = tuple(input.shape)
    drawn = (*shape[:-1], int(num_samples)) if replacement and num_samples > 1 else shape
    return ops.multinomial(input.detach(), *next_doubles(generator, drawn), num_samples=int(num_samples),
                           replacement=bool(replacement), shape=shape)


# Fillers: new values for a tensor that is there -------------------------------------------------------------


def uniform_(input: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with numbers uniform on [from, to); RuntimeError when from > to. PyTorch: torch.Tensor.uniform_."""
    kind = _floating("uniform_", input.dtype, allow_complex=False).name
    low, high = float(from_), float(to)
    if not low <= high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={from_} > to={to}")
    return input._assign(in_memory_order(input, lambda shape: ops.uniform(
        low, high, *next_uniforms(generator, shape, kind), shape=shape, dtype=kind)))


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with normally distributed numbers; RuntimeError for a negative `std`. PyTorch: torch.Tensor.normal_."""
    kind = _floating("normal_", input.dtype).name
    _check_std("normal_", std)
    in_order = is_contiguous(input)
    return input._assign(in_memory_order(input, lambda shape: ops.normal(
        float(mean), float(std), *next_normals(generator, shape, kind, in_order), shape=shape, dtype=kind)))


_LIMIT: Any = object()


def random_(input: Tensor, from_: int | None = None, to: Any = _LIMIT, *, generator: Generator | None = None) -> Tensor:
    """Fills with whole numbers: random_(from, to) uniform on {from, ..., to - 1}, random_(to) on {0, ..., to - 1},
    random_() on all from 0 that the dtype holds, random_(from, None) on all from `from` that it holds.

    PyTorch: torch.Tensor.random_.
    """
    kind = input.dtype
    if kind.category == 3:
        raise NotImplementedError(f"random_: not implemented for dtype {kind.name}")
    limit = _integer_limits(kind)[1] + 1
    if to is _LIMIT and from_ is None:
        wide = kind.name in ("float64", "int64", "uint64")
        return input._assign(in_memory_order(input, lambda shape: ops.randint(
            0, limit, wide, *next_draw(generator, (1 + wide) * prod(shape)), shape=shape, dtype=kind.name)))
    low, high = (0, from_) if to is _LIMIT else (from_ or 0, limit if to is None else to)
    return input._assign(in_memory_order(input, lambda shape: _integers("random_", low, high, shape, kind, generator)))


def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fills with ones of probability `p`, a number or a tensor that broadcasts. PyTorch: torch.Tensor.bernoulli_."""
    kind = input.dtype.name
    if is_tensor(p):
        chances = _floating("bernoulli_", p.dtype, allow_complex=False).name
        shape = tuple(input.shape)
        p = p.detach().expand(shape)
        numbers = next_uniforms(generator, shape, chances)
        return input._assign(ops.bernoulli_each(p, *numbers, shape=shape, dtype=kind))
    chance = _check_probability("bernoulli_", p)
    return input._assign(in_memory_order(input, lambda shape: ops.bernoulli(
        chance, *next_doubles(generator, shape), shape=shape, dtype=kind)))


def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with exponentially distributed numbers of rate `lambd`; RuntimeError unless it is positive.

    PyTorch: torch.Tensor.exponential_.
    """
    kind = _floating("exponential_", input.dtype, allow_complex=False).name
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    return input._assign(in_memory_order(input, lambda shape: ops.exponential(
        float(lambd), *next_doubles(generator, shape), shape=shape, dtype=kind)))


def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with numbers whose logarithm is normally distributed; RuntimeError unless `std` is positive.

    PyTorch: torch.Tensor.log_normal_.
    """
    kind = _floating("log_normal_", input.dtype, allow_complex=False).name
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    return input._assign(in_memory_order(input, lambda shape: ops.log_normal(
        float(mean), float(std), *next_normals(generator, shape, kind, False), shape=shape, dtype=kind)))


def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with Cauchy distributed numbers; RuntimeError unless `sigma` is positive. PyTorch: torch.Tensor.cauchy_."""
    kind = _floating("cauchy_", input.dtype, allow_complex=False).name
    if not sigma > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    return input._assign(in_memory_order(input, lambda shape: ops.cauchy(
        float(median), float(sigma), *next_doubles(generator, shape), shape=shape, dtype=kind)))


def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fills with the number of trials up to the first success, each of probability `p`; RuntimeError outside (0, 1).

    PyTorch: torch.Tensor.geometric_.
    """
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    return input._assign(in_memory_order(input, lambda shape: ops.geometric(
        float(p), *next_doubles(generator, shape), shape=shape, dtype=input.dtype.name)))
