"""Short-time Fourier transforms and the window functions of the torch namespace.

Invariant: both transforms are compositions (frames, window, transform, overlapping sums), so their gradients are
exact and signals sharded over the batch do not communicate. Definitions: the PyTorch pages torch.stft, torch.istft,
torch.hann_window.
"""

from __future__ import annotations

from typing import Any

from distgrad import dtypes
from distgrad.functions import fft as transforms
from distgrad.functions.creation import finish, ones
from distgrad.functions.movement import narrow, transpose
from distgrad.functions.movement import pad as padded
from distgrad.ops import elementwise as ops
from distgrad.ops.complexes import view_as_real
from distgrad.ops.movement import expand, fold, reshape, unfold
from distgrad.ops.reduction import amin

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "istft", "kaiser_window", "stft"]

Tensor = Any


# Windows ----------------------------------------------------------------------------------------------------


def _window(name: str, length: int, periodic: bool, options: dict[str, Any], **shape: Any) -> Tensor:
    from distgrad.signal import windows

    if length < 0:
        raise RuntimeError(f"{name}_window requires non-negative window_length, got window_length={length}")
    kind = options.pop("dtype", None)
    kind = dtypes.default() if kind is None else dtypes.as_dtype(kind)
    if not kind.is_floating_point:
        raise RuntimeError(f"{name}_window expects floating point dtypes, got: {kind!r}")
    wide = kind if kind.itemsize >= 4 else dtypes.float32
    made = getattr(windows, name)(length, sym=not periodic, dtype=wide, **shape)
    return finish(f"{name}_window", made if wide is kind else ops.cast(made, dtype=kind.name), options)


def hann_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """Gives the Hann window, by default one period of it."""
    return _window("hann", window_length, periodic, options)


def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46,
                   **options: Any) -> Tensor:
    """Gives the window alpha - beta cos(t), by default one period of it."""
    return _window("general_cosine", window_length, periodic, options, a=[alpha, beta])


def blackman_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """Gives the Blackman window, by default one period of it."""
    return _window("blackman", window_length, periodic, options)


def bartlett_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """Gives the triangular window, by default one period of it."""
    return _window("bartlett", window_length, periodic, options)


def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, **options: Any) -> Tensor:
    """Gives the Kaiser window, by default one period of it."""
    return _window("kaiser", window_length, periodic, options, beta=beta)


# Short-time Fourier transforms ------------------------------------------------------------------------------


def _spread_window(name: str, window: Tensor | None, n_fft: int, win_length: int, kind: dtypes.dtype) -> Tensor:
    """Gives the window with zeros on both sides, n_fft long."""
    if window is not None and (window.ndim != 1 or window.shape[0] != win_length):
        raise RuntimeError(
            f"{name}: expected a 1D window tensor of size equal to win_length={win_length}, but got window with size "
            f"{list(window.shape)}"
        )
    if window is None:
        window = ones(win_length, dtype=kind)
    left = (n_fft - win_length) // 2
    return window if win_length == n_fft else padded(window, (left, n_fft - win_length - left))


def _lengths(name: str, n_fft: int, hop_length: int | None, win_length: int | None) -> tuple[int, int]:
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    if hop <= 0:
        raise RuntimeError(f"{name}: expected hop_length > 0, but got hop_length={hop}")
    if not 0 < width <= n_fft:
        raise RuntimeError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={width} and n_fft={n_fft}")
    return hop, width


def stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    """Gives the Fourier transforms of windowed frames of a signal (L,) or (B, L): shape (B, frequencies, frames).

    RuntimeError for lengths that do not fit, or a real signal without `return_complex` (False gives pairs of reals).
    """
    if align_to_window is not None and center:
        raise RuntimeError("stft: align_to_window should only be set when center = false.")
    complex_in = input.dtype.is_complex or (window is not None and window.dtype.is_complex)
    if return_complex is None and not complex_in:
        raise RuntimeError("stft requires the return_complex parameter be given for real inputs, and will further "
                           "require that return_complex=True in a future PyTorch release.")
    if input.dtype.category < 2:
        raise RuntimeError(f"stft: expected a tensor of floating point or complex values, got {input.dtype.name}")
    if input.ndim not in (1, 2):
        raise RuntimeError(f"stft: expected a 1D or 2D tensor, got shape {list(input.shape)}")
    hop, width = _lengths("stft", n_fft, hop_length, win_length)
    signal = input if input.ndim == 2 else reshape(input, shape=(1, input.shape[0]))
    if center:
        signal = padded(signal, (n_fft // 2, n_fft // 2), pad_mode)
    length = signal.shape[1]
    if align_to_window and length < width:
        signal, length = padded(signal, (0, width - length)), width
    if not 0 < n_fft <= length and not align_to_window:
        raise RuntimeError(f"stft: expected 0 < n_fft <= {length}, but got n_fft={n_fft}")
    if align_to_window:
        left = (n_fft - width) // 2
        signal = padded(signal, (left, n_fft - width - left))
    frames = unfold(signal, axis=1, size=n_fft, step=hop)
    frames = frames * _spread_window("stft", window, n_fft, width, input.dtype.to_real())
    half = onesided if onesided is not None else not frames.dtype.is_complex
    if half and frames.dtype.is_complex:
        raise RuntimeError("stft: Cannot have onesided output if window or input is complex")
    norm = "ortho" if normalized else None
    found = transpose(transforms.rfft(frames, norm=norm) if half else transforms.fft(frames, norm=norm), 1, 2)
    if input.ndim == 1:
        found = reshape(found, shape=tuple(found.shape[1:]))
    return found if return_complex or (return_complex is None and complex_in) else view_as_real(found)


def istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """Gives the signal whose `stft` is the input (frequencies, frames) or (B, frequencies, frames): least squares.

    RuntimeError for a real input, shapes that do not fit, or windows that leave points uncovered (values are read).
    """
    if not input.dtype.is_complex:
        raise RuntimeError(
            "istft requires a complex-valued input tensor matching the output from stft with return_complex=True."
        )
    hop, width = _lengths("istft", n_fft, hop_length, win_length)
    if input.ndim not in (2, 3):
        raise RuntimeError(f"istft: expected a tensor with 2 or 3 dimensions, but got {input.ndim}")
    if 0 in input.shape:
        raise RuntimeError("istft: input tensor cannot be empty.")
    spectrum = input if input.ndim == 3 else reshape(input, shape=(1, *input.shape))
    terms, count = spectrum.shape[1], spectrum.shape[2]
    half = onesided if onesided is not None else terms != n_fft
    if terms != (n_fft // 2 + 1 if half else n_fft):
        raise RuntimeError(
            f"istft: expected the frequency dimension (3rd to the last) of the input tensor to match n_fft "
            f"{'/ 2 + 1 ' if half else ''}when onesided={half}, but got {terms}"
        )
    if half and return_complex:
        raise RuntimeError("istft: cannot have onesided input with complex output")
    norm = "ortho" if normalized else None
    frames = transpose(spectrum, 1, 2)
    # A real signal is made from the first half of the terms, also where all are given.
    invert = transforms.ifft if return_complex else transforms.irfft
    frames = invert(frames, n_fft, norm=norm)
    weights = _spread_window("istft", window, n_fft, width, input.dtype.to_real())
    total = (count - 1) * hop + n_fft
    signal = fold(frames * weights, shape=(spectrum.shape[0], total), axis=1, step=hop)
    squares = expand(ops.square(weights), shape=(1, count, n_fft))
    envelope = fold(squares, shape=(1, total), axis=1, step=hop)
    start = n_fft // 2 if center else 0
    stop = start + length if length is not None else total - (n_fft // 2 if center else 0)
    signal = narrow(signal, 1, start, min(stop, total) - start)
    envelope = narrow(envelope, 1, start, min(stop, total) - start)
    lowest = amin(ops.abs(envelope), axis=(0, 1), keepdims=False).item()
    if lowest <= 1e-11:
        raise RuntimeError(
            f"istft: window overlap add min: {lowest:g} is not above 1e-11; use frames that overlap more"
        )
    signal = signal / envelope
    if stop > total:
        signal = padded(signal, (0, stop - total))
    return signal if input.ndim == 3 else reshape(signal, shape=(signal.shape[1],))
