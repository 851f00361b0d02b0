"""How tensors print: as PyTorch prints them. A long sharded tensor sends only the corners that are shown."""

from __future__ import annotations

from typing import Any

from distgrad import dtypes, printing


def represent(tensor: Any, prefix: str = "tensor(") -> str:
    """Gives a tensor's text, PyTorch's character for character except for the module name of the dtype."""
    kind = tensor.dtype
    shape = tuple(tensor.shape)
    corner = printing.needed_corner(shape)
    shown = tensor.detach()
    if corner is not None and tensor._now().data is None:
        for dim, positions in enumerate(corner):
            if positions is not None and len(positions) < shape[dim]:
                shown = _take(shown, dim, list(positions))
        array = shown.numpy()
    elif corner is not None:
        import numpy as np

        array = shown.numpy()[np.ix_(*[range(n) if c is None else c for c, n in zip(corner, shape)])]
    else:
        array = shown.numpy()
    fn = tensor.grad_fn
    return printing.format_tensor(
        array,
        dtype_name=repr(kind),
        show_dtype=printing.dtype_is_shown(kind.numpy, tensor.numel(), dtypes.default().numpy),
        requires_grad=tensor.requires_grad,
        grad_fn=None if fn is None else f"<{fn.name()}>",
        prefix=prefix,
        full_shape=shape if corner is not None else None,
    )


def _take(tensor: Any, dim: int, positions: list[int]) -> Any:
    """Gives the first and last rows of a dim: two runs of consecutive positions."""
    from distgrad.op import OPS

    split = next((i for i in range(1, len(positions)) if positions[i] != positions[i - 1] + 1), len(positions))
    runs = [run for run in (positions[:split], positions[split:]) if run]
    parts = [OPS["slice"](tensor, run[0], axis=dim, size=len(run), step=1) for run in runs]
    return parts[0] if len(parts) == 1 else OPS["concat"](*parts, axis=dim)
