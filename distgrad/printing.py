"""Turns arrays into text exactly as PyTorch prints tensors.

Invariant: the text depends only on the corner of the array that is shown, on the full shape and on the print options,
so a sharded tensor is printed by fetching `needed_corner(shape)` and nothing else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

__all__ = [
    "dtype_is_shown",
    "format_tensor",
    "get_printoptions",
    "needed_corner",
    "printoptions",
    "set_printoptions",
]


class _PrintOptions:
    __slots__ = ("edgeitems", "linewidth", "precision", "sci_mode", "threshold")

    def __init__(self) -> None:
        self.precision: int = 4
        self.threshold: float = 1000
        self.edgeitems: int = 3
        self.linewidth: int = 80
        self.sci_mode: bool | None = None


_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}

_options = _PrintOptions()
_NAMES = ("precision", "threshold", "edgeitems", "linewidth", "sci_mode")


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors are printed, for the whole process.

    `profile` ('default', 'short' or 'full') is applied first, then the single options. An option left at None keeps its
    value, except `sci_mode`: None makes the choice of scientific notation automatic again, as in torch.
    Raises ValueError for an unknown profile or a negative precision or edgeitems.
    Definition: torch.set_printoptions.
    """
    if profile is not None and profile not in _PROFILES:
        raise ValueError(f"set_printoptions: unknown profile {profile!r}; allowed: 'default', 'short', 'full'")
    for name, value in (("precision", precision), ("edgeitems", edgeitems)):
        if value is not None and value < 0:
            raise ValueError(f"set_printoptions: {name} must be 0 or more, got {value}")
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    changes = dict(_PROFILES[profile]) if profile is not None else {}
    changes.update({name: value for name, value in given.items() if value is not None})
    for name, value in changes.items():
        setattr(_options, name, value)
    _options.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """Returns the present print options as a dict that `set_printoptions(**options)` accepts."""
    return {name: getattr(_options, name) for name in _NAMES}


@contextlib.contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """Changes the print options within a `with` block; takes what `set_printoptions` takes."""
    before = get_printoptions()
    set_printoptions(**options)
    try:
        yield
    finally:
        set_printoptions(**before)


def dtype_is_shown(dtype: np.dtype, size: int, default_dtype: np.dtype) -> bool:
    """Tells whether the dtype is part of the text of a tensor with `size` elements.

    The default float dtype, its complex partner, int64 and bool are left out; an empty tensor, whose elements cannot
    hint at the dtype, leaves out the default float dtype only.
    """
    dtype, default_dtype = np.dtype(dtype), np.dtype(default_dtype)
    if size == 0:
        return dtype != default_dtype
    default_complex = np.dtype(np.complex128 if default_dtype == np.float64 else np.complex64)
    return dtype not in (default_dtype, default_complex, np.dtype(np.int64), np.dtype(np.bool_))


def needed_corner(shape: Sequence[int]) -> tuple[list[int], ...] | None:
    """Returns, per dim, the indices that the printed text shows, or None when it shows all of them.

    `array[numpy.ix_(*needed_corner(shape))]` is the corner that `format_tensor(corner, full_shape=shape)` expects.
    """
    elided = _elided_dims(shape)
    if not any(elided):
        return None
    edge = _options.edgeitems
    return tuple(
        [*range(edge), *range(size - edge, size)] if is_elided else list(range(size))
        for size, is_elided in zip(shape, elided, strict=True)
    )


def format_tensor(
    array: np.ndarray,
    *,
    dtype_name: str,
    show_dtype: bool,
    requires_grad: bool = False,
    grad_fn: str | None = None,
    prefix: str = "tensor(",
    full_shape: Sequence[int] | None = None,
) -> str:
    """Returns the text that PyTorch prints for a tensor with these elements.

    `array` holds bool, integer, float (also float16 and bfloat16) or complex elements. With `full_shape`, `array` is
    only the corner of a tensor of that shape, taken at the indices of `needed_corner(full_shape)`.
    `grad_fn` is written as given, e.g. '<AddBackward0>', and takes the place of 'requires_grad=True'.
    Raises ValueError when `array` is neither that corner nor of the full shape.
    Definition: torch.Tensor.__repr__.
    """
    shape = tuple(array.shape if full_shape is None else full_shape)
    elided = _elided_dims(shape)
    corner = _take_corner(array, shape)
    is_empty = math.prod(shape) == 0
    body = "[]" if is_empty else _body_text(corner, elided, indent=len(prefix))

    suffixes = []
    shows_no_edge = not is_empty and _options.edgeitems == 0
    if (is_empty and len(shape) != 1) or shows_no_edge:
        suffixes.append(f"size={shape}")
    if show_dtype:
        suffixes.append(f"dtype={dtype_name}")
    if grad_fn is not None:
        suffixes.append(f"grad_fn={grad_fn}")
    elif requires_grad:
        suffixes.append("requires_grad=True")
    return _append_suffixes(prefix + body, suffixes, indent=len(prefix))


def _elided_dims(shape: Sequence[int]) -> tuple[bool, ...]:
    """Tells for each dim whether its middle is replaced by an ellipsis."""
    size = math.prod(shape)
    summarize = size > 0 and size > _options.threshold
    return tuple(summarize and extent > 2 * _options.edgeitems for extent in shape)


def _take_corner(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    corner_indices = needed_corner(shape)
    corner_shape = shape if corner_indices is None else tuple(len(indices) for indices in corner_indices)
    if array.shape == corner_shape:
        return array
    if array.shape == shape and corner_indices is not None:
        return array[np.ix_(*corner_indices)]
    raise ValueError(
        f"format_tensor: an array of shape {array.shape} is no corner of shape {shape}; "
        f"allowed: {corner_shape} or {shape}; take it with needed_corner({shape})"
    )


def _body_text(corner: np.ndarray, elided: tuple[bool, ...], indent: int) -> str:
    element_text: Callable[[Any], str]
    if corner.dtype.kind == "c":
        real_text, real_width = _number_format(corner.real)
        imag_text, imag_width = _number_format(corner.imag)

        def complex_text(value: complex) -> str:
            imag = (imag_text(value.imag) + "j").lstrip()
            return real_text(value.real) + ("" if imag[0] in "+-" else "+") + imag

        element_text = complex_text

        # One more than both parts for the 'j'; the sign between them is not counted (torch does not count it either).
        width = real_width + imag_width + 1
    else:
        element_text, width = _number_format(corner)

    if corner.ndim == 0:
        return element_text(_python_values(corner))
    return _nested_text(_python_values(corner), elided, element_text, width + 2, indent)


def _nested_text(
    values: list, elided: tuple[bool, ...], element_text: Callable[[Any], str], cell_width: int, indent: int
) -> str:
    """Writes nested lists; `cell_width` is the width of an element with the ', ' after it."""
    edge = _options.edgeitems
    if len(elided) > 1:
        parts = [_nested_text(value, elided[1:], element_text, cell_width, indent + 1) for value in values]
        if elided[0]:
            parts.insert(edge, "...")
        separator = "," + "\n" * (len(elided) - 1) + " " * (indent + 1)
        return "[" + separator.join(parts) + "]"

    cells = [element_text(value) for value in values]
    if elided[0]:
        # The leading blank is torch's: '2,  ..., 7'. Without edges there is nothing that it could stand apart from.
        cells.insert(edge, " ..." if edge else "...")
    per_line = max(1, (_options.linewidth - indent) // cell_width)
    lines = [", ".join(cells[first : first + per_line]) for first in range(0, len(cells), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _is_float(dtype: np.dtype) -> bool:
    """True for numpy's floats and for ml_dtypes' extension floats (bfloat16 has kind 'V' and no fields)."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.names is None and dtype.type is not np.void)


def _python_values(array: np.ndarray) -> Any:
    """Nested lists of Python numbers; every float is widened to double first, as torch's formatting does."""
    if _is_float(array.dtype):
        return array.astype(np.float64).tolist()
    if array.dtype.kind in "biuc":
        return array.tolist()
    raise TypeError(f"format_tensor: cannot print dtype {array.dtype}; allowed: bool, integer, float, complex")


def _number_format(array: np.ndarray) -> tuple[Callable[[float], str], int]:
    """Chooses one format for all elements of `array`; returns the function and the common width."""
    values = _python_values(array.reshape(-1))
    if not _is_float(array.dtype):
        width = max((len(str(value)) for value in values), default=1)
        return lambda value: str(value).rjust(width), max(width, 1)

    # Zeros and non-finite values influence neither the notation nor the width: they may stand out of line, as in torch.
    deciding = [value for value in values if value != 0 and math.isfinite(value)]
    if not deciding:
        return _integral_text(1), 1
    smallest, largest = min(map(abs, deciding)), max(map(abs, deciding))
    all_integral = all(value.is_integer() for value in deciding)
    scientific = _options.sci_mode
    if scientific is None:
        scientific = largest / smallest > 1000.0 or largest > 1.0e8 or smallest < 1.0e-4

    precision = _options.precision
    if scientific or not all_integral:
        notation = f".{precision}{'e' if scientific else 'f'}"
        width = max(len(format(value, notation)) for value in deciding)
        return lambda value: format(value, notation).rjust(width), width
    width = max(len(f"{value:.0f}") + 1 for value in deciding)
    return _integral_text(width), width


def _integral_text(width: int) -> Callable[[float], str]:
    """Whole floats are written '2.'; the point marks the dtype, so nan and inf do without it."""

    def text(value: float) -> str:
        return (f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}").rjust(width)

    return text


def _append_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    """Appends ', suffix' for each suffix, on a new line where the present one would become too long."""
    # Two characters more than the last line holds: torch counts so, and the same count is needed to break alike.
    column = len(text) - text.rfind("\n") + 1
    parts = [text]
    for suffix in suffixes:
        length = _length_in_torch(suffix)
        if column + length + 2 > _options.linewidth:
            parts.append(",\n" + " " * indent + suffix)
            column = indent + length
        else:
            parts.append(", " + suffix)
            column += length + 2
    return "".join(parts) + ")"


def _length_in_torch(suffix: str) -> int:
    """Length of the suffix with torch's module name in the dtype, so that lines break exactly where torch's do."""
    if not suffix.startswith("dtype="):
        return len(suffix)
    return len("dtype=torch.") + len(suffix.rpartition(".")[2].removeprefix("dtype="))
