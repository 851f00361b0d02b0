"""Functions that draw random numbers, and the fillers behind `Tensor.uniform_` and its relatives, as in PyTorch.

Invariant: a call takes exactly one draw of its generator (see `distgrad.random`); everything else about the numbers is
the global position of an element, so they are the same for any number of workers. The values differ from PyTorch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions.creation import as_real, as_size, finish
from distgrad.meta import broadcast_shapes
from distgrad.op import is_tensor
from distgrad.ops import random as ops
from distgrad.random import Generator, default_generator

__all__ = ["bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial", "normal",
           "normal_", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_",
           "randperm", "uniform_"]

Tensor = Any


def next_draw(generator: Generator | None) -> tuple[int, int]:
    """Takes the address (seed, counter) of the next draw of a generator (None: the default one)."""
    if generator is None:
        return default_generator.draw()
    if not isinstance(generator, Generator):
        raise TypeError(f"generator must be a distgrad.Generator, got {type(generator).__name__}")
    return generator.draw()


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
    return finish("rand", ops.uniform(0.0, 1.0, *next_draw(generator), shape=shape, dtype=kind), options)


def randn(*size: Any, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns standard normal numbers, shape `size`. PyTorch: torch.randn."""
    shape = as_size("randn", size or (options.pop("size", ()),))
    kind = _kind("randn", dtype)
    return finish("randn", ops.normal(0.0, 1.0, *next_draw(generator), shape=shape, dtype=kind), options)


def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns numbers uniform on [0, 1) in the input's shape and dtype (or `dtype`). PyTorch: torch.rand_like."""
    grad = {"requires_grad": options.pop("requires_grad", False)}
    made = rand(tuple(input.shape), generator=generator, dtype=dtype or input.dtype, **options)
    return finish("rand_like", made, grad, input)


def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns standard normal numbers in the input's shape and dtype (or `dtype`). PyTorch: torch.randn_like."""
    grad = {"requires_grad": options.pop("requires_grad", False)}
    made = randn(tuple(input.shape), generator=generator, dtype=dtype or input.dtype, **options)
    return finish("randn_like", made, grad, input)


def _integers(name: str, low: Any, high: Any, shape: tuple[int, ...], kind: dtypes.dtype,
              generator: Generator | None) -> Tensor:
    first, stop = int(as_real(name, low)), int(as_real(name, high))
    if first >= stop:
        raise RuntimeError(f"{name}: random_ expects 'from' to be less than 'to', but got from={first} >= to={stop}")
    _check_integers(name, first, stop, kind)
    return ops.randint(first, stop, *next_draw(generator), shape=shape, dtype=kind.name)


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
    made = randint(*args, size=tuple(input.shape), generator=generator, dtype=dtype or input.dtype, **options)
    return finish("randint_like", made, grad, input)


def randperm(n: Any, *, generator: Generator | None = None, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a random order of 0, ..., n - 1, shape (n,), int64 unless `dtype` is given. PyTorch: torch.randperm."""
    shape = as_size("randperm", (n,))
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    _check_integers("randperm", 0, max(shape[0], 1), kind)
    return finish("randperm", ops.permutation(*next_draw(generator), shape=shape, dtype=kind.name), options)


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
        made = ops.normal(float(mean), float(std), *next_draw(generator), shape=as_size("normal", (size,)),
                          dtype=_kind("normal", dtype))
        return finish("normal", made, options)
    if size is not None:
        raise TypeError("normal() takes no 'size' when mean or std is a tensor; their shapes decide")
    if not is_tensor(std):
        _check_std("normal", std)
    kind = _floating("normal", dtypes.result_type(tensors))
    shape = broadcast_shapes("normal", *(tuple(t.shape) for t in tensors))
    mean, std = (v if is_tensor(v) else float(v) for v in (mean, std))
    return finish("normal", ops.normal_each(mean, std, *next_draw(generator), shape=shape, dtype=kind.name), options)


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
        return ops.bernoulli(_check_probability("bernoulli", p), *next_draw(generator), shape=shape, dtype=kind)
    _floating("bernoulli", input.dtype, allow_complex=False)
    return ops.bernoulli_each(input, *next_draw(generator), shape=shape, dtype=kind)


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Returns Poisson counts with the rates in `input`, in its floating dtype; RuntimeError for a negative rate.

    PyTorch: torch.poisson.
    """
    _floating("poisson", input.dtype, allow_complex=False)
    return ops.poisson(input, *next_draw(generator), shape=tuple(input.shape), dtype=input.dtype.name)


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
    return ops.multinomial(input.detach(), *next_draw(generator), num_samples=int(num_samples),
                           replacement=bool(replacement), shape=tuple(input.shape))


# Fillers: new values for a tensor that is there -------------------------------------------------------------


def uniform_(input: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with numbers uniform on [from, to); RuntimeError when from > to. PyTorch: torch.Tensor.uniform_."""
    kind = _floating("uniform_", input.dtype, allow_complex=False)
    low, high = float(from_), float(to)
    if not low <= high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={from_} > to={to}")
    return input._assign(ops.uniform(low, high, *next_draw(generator), shape=tuple(input.shape), dtype=kind.name))


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with normally distributed numbers; RuntimeError for a negative `std`. PyTorch: torch.Tensor.normal_."""
    kind = _floating("normal_", input.dtype)
    _check_std("normal_", std)
    made = ops.normal(float(mean), float(std), *next_draw(generator), shape=tuple(input.shape), dtype=kind.name)
    return input._assign(made)


def random_(input: Tensor, from_: int | None = None, to: int | None = None, *,
            generator: Generator | None = None) -> Tensor:
    """Fills with whole numbers: random_(from, to) uniform on {from, ..., to - 1}, random_(to) on {0, ..., to - 1},
    random_() on all from 0 that the dtype holds. PyTorch: torch.Tensor.random_.
    """
    kind = input.dtype
    if to is None:
        from_, to = None, from_
    if to is None:
        if kind.category == 3:
            raise NotImplementedError(f"random_: not implemented for dtype {kind.name}")
        to = _integer_limits(kind)[1] + 1
    low, high = from_ or 0, to
    return input._assign(_integers("random_", low, high, tuple(input.shape), kind, generator))


def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fills with ones of probability `p`, a number or a tensor that broadcasts. PyTorch: torch.Tensor.bernoulli_."""
    shape, kind = tuple(input.shape), input.dtype.name
    if is_tensor(p):
        _floating("bernoulli_", p.dtype, allow_complex=False)
        p = p.detach().expand(shape)
        return input._assign(ops.bernoulli_each(p, *next_draw(generator), shape=shape, dtype=kind))
    chance = _check_probability("bernoulli_", p)
    return input._assign(ops.bernoulli(chance, *next_draw(generator), shape=shape, dtype=kind))


def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with exponentially distributed numbers of rate `lambd`; RuntimeError unless it is positive.

    PyTorch: torch.Tensor.exponential_.
    """
    kind = _floating("exponential_", input.dtype, allow_complex=False)
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    made = ops.exponential(float(lambd), *next_draw(generator), shape=tuple(input.shape), dtype=kind.name)
    return input._assign(made)


def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with numbers whose logarithm is normally distributed; RuntimeError unless `std` is positive.

    PyTorch: torch.Tensor.log_normal_.
    """
    kind = _floating("log_normal_", input.dtype, allow_complex=False)
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    made = ops.log_normal(float(mean), float(std), *next_draw(generator), shape=tuple(input.shape), dtype=kind.name)
    return input._assign(made)


def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills with Cauchy distributed numbers; RuntimeError unless `sigma` is positive. PyTorch: torch.Tensor.cauchy_."""
    kind = _floating("cauchy_", input.dtype, allow_complex=False)
    if not sigma > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    made = ops.cauchy(float(median), float(sigma), *next_draw(generator), shape=tuple(input.shape), dtype=kind.name)
    return input._assign(made)


def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fills with the number of trials up to the first success, each of probability `p`; RuntimeError outside (0, 1).

    PyTorch: torch.Tensor.geometric_.
    """
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    made = ops.geometric(float(p), *next_draw(generator), shape=tuple(input.shape), dtype=input.dtype.name)
    return input._assign(made)
