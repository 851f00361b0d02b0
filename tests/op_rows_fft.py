"""Rows of the Fourier transforms; complex results are compared as pairs of reals."""

from op_db import normal, row


def _pair(T, x):
    return T.view_as_real(T.resolve_conj(x))


def _made(T, x, y):
    return T.complex(x, y)


ROWS = [
    row("fft.fft", lambda T, x, y: _pair(T, T.fft.fft(_made(T, x, y), dim=1)), [normal(4, 3), normal(4, 3)]),
    row("fft.fft_of_real", lambda T, x: _pair(T, T.fft.fft(x, 6, dim=0, norm="ortho")), [normal(4, 3)]),
    row("fft.ifft", lambda T, x, y: _pair(T, T.fft.ifft(_made(T, x, y), 2, norm="forward")),
        [normal(4, 3), normal(4, 3)]),
    row("fft.rfft", lambda T, x: _pair(T, T.fft.rfft(x)), [normal(4, 5)], [normal(4, 6)]),
    row("fft.irfft", lambda T, x, y: T.fft.irfft(_made(T, x, y)), [normal(4, 3), normal(4, 3)]),
    row("fft.irfft_odd", lambda T, x, y: T.fft.irfft(_made(T, x, y), 7, dim=0), [normal(4, 3), normal(4, 3)]),
    row("fft.hfft", lambda T, x, y: T.fft.hfft(_made(T, x, y), norm="ortho"), [normal(4, 3), normal(4, 3)]),
    row("fft.ihfft", lambda T, x: _pair(T, T.fft.ihfft(x)), [normal(4, 5)]),
    row("fft.fft2", lambda T, x: _pair(T, T.fft.fft2(x)), [normal(3, 4, 2)]),
    row("fft.ifft2", lambda T, x: _pair(T, T.fft.ifft2(x, (2, 3))), [normal(3, 4, 2)]),
    row("fft.fftn", lambda T, x: _pair(T, T.fft.fftn(x, dim=(0, 2))), [normal(3, 2, 4)]),
    row("fft.ifftn", lambda T, x: _pair(T, T.fft.ifftn(x)), [normal(3, 4)]),
    row("fft.rfft2", lambda T, x: _pair(T, T.fft.rfft2(x)), [normal(3, 4)]),
    row("fft.rfftn", lambda T, x: _pair(T, T.fft.rfftn(x, dim=(1, 0))), [normal(3, 4, 2)]),
    row("fft.irfft2", lambda T, x, y: T.fft.irfft2(_made(T, x, y)), [normal(4, 3), normal(4, 3)]),
    row("fft.irfftn", lambda T, x, y: T.fft.irfftn(_made(T, x, y), (4, 4)), [normal(4, 3), normal(4, 3)]),
    row("fft.hfft2", lambda T, x, y: T.fft.hfft2(_made(T, x, y)), [normal(4, 3), normal(4, 3)]),
    row("fft.hfftn", lambda T, x, y: T.fft.hfftn(_made(T, x, y)), [normal(4, 3), normal(4, 3)]),
    row("fft.ihfft2", lambda T, x: _pair(T, T.fft.ihfft2(x)), [normal(3, 4)]),
    row("fft.ihfftn", lambda T, x: _pair(T, T.fft.ihfftn(x)), [normal(3, 4)]),
    row("fft.fftshift", lambda T, x: T.fft.fftshift(x), [normal(4, 3)]),
    row("fft.ifftshift", lambda T, x: T.fft.ifftshift(x, 1), [normal(4, 3)]),
    row("fft.fftfreq", lambda T, x: (T.fft.fftfreq(5), T.fft.rfftfreq(6, 0.5)), [normal(1)], grad=False),
]
