"""`testing.assert_close`: are two results the same up to the rounding of their dtype?

Invariant: the tolerances are PyTorch's (page "torch.testing"), and a failure names how many elements differ and where
the largest differences are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions.data import as_tensor
from distgrad.tensor import Tensor

__all__ = ["assert_allclose", "assert_close"]

_TOLERANCES = {  # dtype: relative, absolute
    dtypes.float16: (1e-3, 1e-5),
    dtypes.bfloat16: (1.6e-2, 1e-5),
    dtypes.float32: (1.3e-6, 1e-5),
    dtypes.float64: (1e-7, 1e-7),
    dtypes.complex64: (1.3e-6, 1e-5),
    dtypes.complex128: (1e-7, 1e-7),
}
_NUMBERS = (bool, int, float, complex, np.generic)


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
                 atol: float | None = None, equal_nan: bool = False, check_device: bool = True,
                 check_dtype: bool = True, check_layout: bool = True, check_stride: bool = False,
                 msg: str | Callable[[str], str] | None = None) -> None:
    """Raises AssertionError unless all |actual - expected| <= atol + rtol * |expected|, in equal structure.

    Tensors, arrays, numbers, None, and sequences and mappings of these. Tolerances are given together or not at all
    (ValueError): by default those of the dtype, float32 1.3e-6 and 1e-5, float64 1e-7 and 1e-7, integers 0. With
    `check_dtype=False` dtypes are promoted first. TypeError for what cannot be compared. PyTorch:
    torch.testing.assert_close.
    """
    if (rtol is None) != (atol is None):
        raise ValueError(
            f"rtol and atol must both be specified or both be unspecified, but got rtol={rtol} and atol={atol}; "
            "give both"
        )
    given = None if rtol is None or atol is None else (float(rtol), float(atol))
    _Comparison(given, equal_nan, check_dtype, allow_subclasses, msg).compare(actual, expected, [])


def assert_allclose(actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None,
                    equal_nan: bool = True, msg: str = "") -> None:
    """Does what `assert_close` does without looking at dtypes; expected NaNs are equal. PyTorch: assert_allclose."""
    assert_close(as_tensor(actual), as_tensor(expected), rtol=rtol, atol=atol, equal_nan=equal_nan, check_dtype=False,
                 msg=msg or None)


class _Comparison:
    """One call's settings, applied to every pair of leaves."""

    def __init__(self, tolerances: tuple[float, float] | None, equal_nan: bool, check_dtype: bool,
                 allow_subclasses: bool, msg: Any) -> None:
        self.tolerances, self.equal_nan, self.check_dtype = tolerances, equal_nan, check_dtype
        self.allow_subclasses, self.msg = allow_subclasses, msg

    def compare(self, actual: Any, expected: Any, path: list[Any]) -> None:
        if isinstance(actual, str | bytes) or isinstance(expected, str | bytes):
            raise TypeError(f"assert_close: cannot compare {type(actual)} and {type(expected)}{_place(path)}")
        if isinstance(actual, Mapping) and isinstance(expected, Mapping):
            if set(actual) != set(expected):
                missing = sorted(map(repr, set(expected) - set(actual)))
                extra = sorted(map(repr, set(actual) - set(expected)))
                self._fail(
                    "The keys of the mappings do not match:\n"
                    f"Missing keys in the actual mapping: {missing}\nAdditional keys in the actual mapping: "
                    f"{extra}", path
                )
            for key in expected:
                self.compare(actual[key], expected[key], [*path, key])
        elif isinstance(actual, Sequence) and isinstance(expected, Sequence):
            if len(actual) != len(expected):
                self._fail(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}", path)
            for position, pair in enumerate(zip(actual, expected)):
                self.compare(*pair, [*path, position])
        elif actual is None or expected is None:
            if actual is not expected:
                self._fail(f"None mismatch: {actual} is not {expected}", path)
        else:
            self._compare_leaves(actual, expected, path)

    def _compare_leaves(self, actual: Any, expected: Any, path: list[Any]) -> None:
        plain = isinstance(actual, _NUMBERS) and isinstance(expected, _NUMBERS)
        if not plain and (isinstance(actual, _NUMBERS) or isinstance(expected, _NUMBERS)):
            raise TypeError(
                f"assert_close: a number and a tensor cannot be compared{_place(path)}: {type(actual)} and "
                f"{type(expected)}"
            )
        if not self.allow_subclasses and type(actual) is not type(expected):
            raise TypeError(f"assert_close: {type(actual)} and {type(expected)} differ{_place(path)}")
        values = [_array(value, path) for value in (actual, expected)]
        kinds = [dtypes.from_numpy(value.dtype) for value in values]
        if values[0].shape != values[1].shape:
            shapes = [tuple(value.shape) for value in values]
            self._fail(f"The values for attribute 'shape' do not match: {shapes[0]} != {shapes[1]}.", path)
        if self.check_dtype and not plain and kinds[0] is not kinds[1]:
            self._fail(f"The values for attribute 'dtype' do not match: {kinds[0]!r} != {kinds[1]!r}.", path)
        if self.check_dtype and plain and type(actual) is not type(expected):
            self._fail(f"The (d)types do not match: {type(actual)} != {type(expected)}.", path)
        self._compare_arrays(values[0], values[1], kinds, plain, path)

    def _compare_arrays(self, actual: np.ndarray, expected: np.ndarray, kinds: list[dtypes.dtype], plain: bool,
                        path: list[Any]) -> None:
        loosest = [max(pair) for pair in zip(*(_TOLERANCES.get(kind, (0.0, 0.0)) for kind in kinds))]
        rtol, atol = self.tolerances or loosest
        common = dtypes.promote_types(*kinds)
        wide = {2: np.dtype(np.float64), 3: np.dtype(np.complex128)}.get(common.category, common.numpy)
        a, b = actual.astype(wide), expected.astype(wide)
        if common.category < 2 and rtol == atol == 0:
            close = a == b
        else:
            close = np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=self.equal_nan)
        if close.all():
            return
        different, relative = _differences(actual, expected, close, common)
        exact = rtol == atol == 0
        if plain:
            self._fail(
                f"Scalars are not {'equal' if exact else 'close'}!\n\nExpected {expected.item()} but got "
                f"{actual.item()}.\n"
                f"Absolute difference: {different.item()}{'' if exact else f' (up to {atol} allowed)'}\n"
                f"Relative difference: {relative.item()}{'' if exact else f' (up to {rtol} allowed)'}", path
            )
        wrong, total = int(np.size(close) - np.count_nonzero(close)), close.size
        lines = [
            f"Tensor-likes are not {'equal' if exact else 'close'}!\n",
            f"Mismatched elements: {wrong} / {total} ({wrong / total:.1%})",
        ]
        for name, values, allowed in (("absolute", different, atol), ("relative", relative, rtol)):
            shown = np.where(np.isnan(values), np.inf, values)  # a NaN is the largest difference there is
            at = tuple(int(i) for i in np.unravel_index(int(shown.argmax()), shown.shape))
            where = f" at index {at}" if at else ""
            limit = "" if exact else f" (up to {allowed} allowed)"
            lines.append(f"Greatest {name} difference: {values[at].item()}{where}{limit}")
        self._fail("\n".join(lines), path)

    def _fail(self, text: str, path: list[Any]) -> None:
        if path:
            text += f"\n\nThe failure occurred for item {''.join(f'[{key!r}]' for key in path)}"
        if self.msg is not None:
            text = self.msg(text) if callable(self.msg) else self.msg
        raise AssertionError(text)


def _differences(actual: np.ndarray, expected: np.ndarray, close: np.ndarray, common: dtypes.dtype) -> tuple[Any, Any]:
    """Gives the absolute and relative differences where elements are not close, zero elsewhere, as PyTorch rounds
    them.
    """
    real = common.to_real()
    kind = np.dtype(np.int64) if common.category < 2 else np.dtype(np.float64 if real is dtypes.float64 else np.float32)
    number = kind if common.category < 3 else common.numpy
    with np.errstate(all="ignore"):
        a, b = actual.astype(number), expected.astype(number)
        absolute = np.where(close, 0, np.abs(a - b)).astype(kind)
        fraction = np.dtype(np.float32) if kind.kind == "i" else kind
        relative = np.where(close, 0, absolute.astype(fraction) / np.abs(b).astype(fraction)).astype(fraction)
    return absolute, relative


def _place(path: list[Any]) -> str:
    return f" at {''.join(f'[{key!r}]' for key in path)}" if path else ""


def _array(value: Any, path: list[Any]) -> np.ndarray:
    if isinstance(value, Tensor):
        return value.detach().numpy()
    if isinstance(value, np.ndarray | np.generic | bool | int | float | complex):
        return np.asarray(value)
    raise TypeError(
        f"assert_close: no comparison for {type(value)}{_place(path)}; allowed: tensors, arrays, numbers, None, "
        "and sequences "
        "and mappings of these"
    )
