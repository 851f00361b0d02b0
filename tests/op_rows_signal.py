"""Rows of window functions and short-time Fourier transforms."""

from op_db import normal, positive, row


def _windows(T, x):
    w = T.signal.windows
    return x * 0, [
        window(7, **shape, sym=sym, dtype=T.float64)
        for sym in (True, False)
        for window, shape in [
            (w.bartlett, {}), (w.blackman, {}), (w.cosine, {}), (w.exponential, {"tau": 2.0}),
            (w.gaussian, {"std": 0.9}), (w.general_cosine, {"a": [0.5, 0.3, 0.1]}), (w.general_hamming, {"alpha": 0.7}),
            (w.hamming, {}), (w.hann, {}), (w.kaiser, {"beta": 5.0}), (w.nuttall, {}),
        ]
    ]  # fmt: skip


ROWS = [
    row("signal.windows", _windows, [normal(2)], grad=False, float32=False),
    row("hann_window", lambda T, x: [
        T.hann_window(6), T.hamming_window(5, False), T.blackman_window(4), T.bartlett_window(5), T.kaiser_window(6)],
        [normal(1)], grad=False),
    row("stft", lambda T, x, w: T.view_as_real(T.stft(x, 4, hop_length=2, window=w, return_complex=True)),
        [normal(3, 9), positive(4)], [normal(9), positive(4)]),
    row("istft", lambda T, x, w: T.istft(T.view_as_complex(x), 4, hop_length=2, window=w.detach(), length=8),
        [normal(3, 3, 5, 2), positive(4)]),
]
