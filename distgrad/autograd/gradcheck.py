"""`gradcheck` and `gradgradcheck`: gradients against central differences.

Invariant: a numerical derivative is (f(x + h) - f(x - h)) / 2h, element by element, of exactly the function given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.functions.data import from_numpy, tensor
from distgrad.functions.random import randn
from distgrad.grad_mode import enable_grad, no_grad
from distgrad.tensor import Tensor, grad

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """A gradient that does not agree with central differences."""


def _outputs(func: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    result = func(*inputs)
    return [out for out in (result if isinstance(result, tuple | list) else (result,)) if isinstance(out, Tensor)]


def _smooth(inputs: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]


def _directions(kind: np.dtype) -> tuple[complex, ...]:
    return (1.0, 1j) if kind.kind == "c" else (1.0,)


def _numerical(func: Callable[..., Any], inputs: list[Any], position: int, eps: float) -> list[np.ndarray]:
    """Gives per output the derivatives by every element (and direction) of one input: shape (elements, *output)."""
    given = inputs[position]
    start = np.array(given.detach().numpy())
    rows: list[list[np.ndarray]] = []

    def at(value: np.ndarray) -> list[np.ndarray]:
        with no_grad():
            moved = from_numpy(value).requires_grad_()
            found = _outputs(func, [*inputs[:position], moved, *inputs[position + 1 :]])
            return [np.array(out.detach().numpy()) for out in found]

    for index in np.ndindex(start.shape):
        for direction in _directions(start.dtype):
            ahead, behind = start.copy(), start.copy()
            ahead[index] += eps * direction
            behind[index] -= eps * direction
            rows.append([(a - b) / (2 * eps) for a, b in zip(at(ahead), at(behind))])
    return [np.stack(parts) for parts in zip(*rows)] if rows else []


def _units(out: Tensor) -> Iterator[tuple[int, complex, Tensor]]:
    """Gives the unit cotangents of an output."""
    kind = out.dtype.numpy
    for number in range(out.shape.numel()):
        for direction in _directions(kind):
            unit = np.zeros(out.shape.numel(), kind)
            unit[number] = direction
            yield number, direction, from_numpy(unit.reshape(out.shape))


def _compare(name: str, func: Callable[..., Any], inputs: list[Any], eps: float, atol: float, rtol: float) -> None:
    wanted = _smooth(inputs)
    for position in wanted:
        numerical = _numerical(func, inputs, position, eps)
        for number, out in enumerate(_outputs(func, inputs)):
            if not out.requires_grad or not numerical:
                continue
            by_element = numerical[number].reshape(numerical[number].shape[0], -1)
            for element, direction, unit in _units(out):
                g = grad(out, inputs[position], unit, retain_graph=True, allow_unused=True)[0]
                found = np.zeros_like(inputs[position].detach().numpy()) if g is None else g.detach().numpy()
                # The real part of conj(cotangent) * derivative is what moving one direction changes.
                expected = np.real(np.conj(direction) * by_element[:, element])
                actual = found.ravel()
                if actual.dtype.kind == "c":
                    actual = np.stack([actual.real, actual.imag], -1).ravel()
                if not np.allclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True):
                    raise GradcheckError(
                        f"{name}: Jacobian mismatch for output {number} with respect to input {position}, element "
                        f"{element}:\n"
                        f"numerical: {expected}\nanalytical: {actual}"
                    )


def gradcheck(func: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
              raise_exception: bool = True, nondet_tol: float = 0.0, check_undefined_grad: bool = True,
              check_batched_grad: bool = False, fast_mode: bool = False) -> bool:
    """Compares the gradients of `func` with central differences, for every element of inputs that require grad.

    GradcheckError when they differ by more than `atol + rtol * |numerical|` (False instead with
    `raise_exception=False`),
    or when the gradient of a second pass differs from the first by more than `nondet_tol`; ValueError without an input
    that requires grad. Give float64. PyTorch: torch.autograd.gradcheck.
    """
    given = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
    if not _smooth(given):
        raise ValueError("gradcheck expects at least one input tensor to require gradient; none of them does")
    try:
        _compare("gradcheck", func, given, eps, atol, rtol)
        _check_repeatable(func, given, nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check_repeatable(func: Callable[..., Any], inputs: list[Any], tolerance: float) -> None:
    wanted = [inputs[i] for i in _smooth(inputs)]
    for out in _outputs(func, inputs):
        if not out.requires_grad:
            continue
        unit = from_numpy(np.ones(out.shape, out.dtype.numpy))
        twice = [grad(out, wanted, unit, retain_graph=True, allow_unused=True) for _ in range(2)]
        for first, second in zip(*twice):
            if first is not None and second is not None:
                difference = np.abs(first.detach().numpy() - second.detach().numpy())
                if difference.size and difference.max() > tolerance:
                    raise GradcheckError(
                        "gradcheck: Backward is not reentrant: gradients of one graph differ by "
                        f"{difference.max()}, more than "
                        f"nondet_tol={tolerance}"
                    )


def gradgradcheck(func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6,
                  atol: float = 1e-5, rtol: float = 1e-3, gen_non_contig_grad_outputs: bool = False,
                  raise_exception: bool = True, nondet_tol: float = 0.0, check_undefined_grad: bool = True,
                  check_grad_dtypes: bool = False, check_batched_grad: bool = False, fast_mode: bool = False) -> bool:
    """Compares second derivatives of `func` with central differences of its gradients.

    `grad_outputs`: the cotangents to differentiate by too; random ones by default. Errors as in `gradcheck`.
    PyTorch: torch.autograd.gradgradcheck.
    """
    given = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
    count = len(given)
    if grad_outputs is None:
        outs = [out for out in _outputs(func, given) if out.requires_grad]
        cotangents = [randn(*out.shape, dtype=out.dtype).requires_grad_() for out in outs]
    else:
        cotangents = list(grad_outputs) if isinstance(grad_outputs, tuple | list) else [grad_outputs]

    def gradients(*values: Any) -> tuple[Tensor, ...]:
        moved = [
            v.detach().requires_grad_() if i in wanted and not v.requires_grad else v for i, v in enumerate(values)
        ]
        outs = [out for out in _outputs(func, moved[:count]) if out.requires_grad]
        asked = [moved[i] for i in wanted]
        found = grad(outs, asked, list(moved[count:]), create_graph=True, allow_unused=True)
        return tuple(tensor(0.0, dtype=asked[i].dtype) if g is None else g for i, g in enumerate(found))

    wanted = _smooth(given)

    def recorded(*values: Any) -> tuple[Tensor, ...]:
        with enable_grad():  # central differences are taken under no_grad
            return gradients(*values)

    return gradcheck(recorded, [*given, *cotangents], eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
                     nondet_tol=nondet_tol)
