"""The `.grad` of a tensor: what may be assigned to it, and how `backward` adds to it.

Invariant: whoever watches a recording is told of every gradient that is read before it was written, and so knows on
which gradients the recording depends.
"""

from __future__ import annotations

from typing import Any

from distgrad.grad_mode import mode
from distgrad.graph import recorder
from distgrad.op import is_tensor
from distgrad.warn import warn_user


def read(tensor: Any) -> Any:
    """The gradient that `backward` has added up, of the tensor's shape and dtype, or None. PyTorch: torch.Tensor.grad.

    UserWarning for a tensor that is no leaf and was not told to `retain_grad()`: it never has one.
    """
    found = tensor._grad
    if recorder[0] is not None:
        recorder[0].read_gradient(tensor, found)
    if found is None and tensor._fn is not None and not tensor._retains:
        warn_user(
            "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad attribute won't be "
            "populated during autograd.backward(). If you indeed want the .grad field to be populated for a non-leaf "
            "Tensor, use .retain_grad() on the non-leaf Tensor."
        )
    return found


def write(tensor: Any, value: Any) -> None:
    """Sets the gradient; TypeError for what is no tensor, RuntimeError for another shape or dtype."""
    if value is not None:
        if not is_tensor(value):
            raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type {type(value).__name__}")
        if value is tensor:
            raise RuntimeError("can't assign Variable as its own grad")
        ours, given = tensor._now().spec.meta, value._now().spec.meta
        if ours.shape != given.shape:
            raise RuntimeError(
                f"attempting to assign a gradient of size '{list(given.shape)}' to a tensor of size "
                f"'{list(ours.shape)}'. Please ensure that the gradient and the tensor are the same size"
            )
        if ours.dtype is not given.dtype:
            raise RuntimeError(
                f"attempting to assign a gradient with dtype {given.dtype!r} to a tensor with dtype {ours.dtype!r}: "
                "the gradient must have the tensor's dtype"
            )
    if recorder[0] is not None:
        recorder[0].wrote_gradient(tensor)
    tensor._grad = value


def forget(tensor: Any) -> None:
    """Sets the gradient to None."""
    write(tensor, None)


def accumulate(tensor: Any, gradient: Any, made: Any) -> None:
    """Adds a gradient, of the tensor's placement; `made` gives a tensor for a node."""
    before = tensor._grad
    if recorder[0] is not None:
        recorder[0].read_gradient(tensor, before)
        recorder[0].wrote_gradient(tensor)
    if before is None:
        out = made(gradient._node)
        if mode.enabled:
            out._fn, out._index, out._needs_grad = gradient._fn, gradient._index, gradient._needs_grad
        tensor._grad = out
    elif mode.enabled:
        tensor._grad = before + gradient
    else:
        before._assign(before.detach() + gradient)
