"""Fourier transforms, under torch.fft's names.

Invariant: a name here means what the same name in torch.fft means.
"""

from __future__ import annotations

from distgrad.functions import fft as _functions
from distgrad.functions.fft import fftshift, ifftshift
from distgrad.functions.takes_out import takes_out

fft = takes_out(_functions.fft)
fft2 = takes_out(_functions.fft2)
fftfreq = takes_out(_functions.fftfreq)
fftn = takes_out(_functions.fftn)
hfft = takes_out(_functions.hfft)
hfft2 = takes_out(_functions.hfft2)
hfftn = takes_out(_functions.hfftn)
ifft = takes_out(_functions.ifft)
ifft2 = takes_out(_functions.ifft2)
ifftn = takes_out(_functions.ifftn)
ihfft = takes_out(_functions.ihfft)
ihfft2 = takes_out(_functions.ihfft2)
ihfftn = takes_out(_functions.ihfftn)
irfft = takes_out(_functions.irfft)
irfft2 = takes_out(_functions.irfft2)
irfftn = takes_out(_functions.irfftn)
rfft = takes_out(_functions.rfft)
rfft2 = takes_out(_functions.rfft2)
rfftfreq = takes_out(_functions.rfftfreq)
rfftn = takes_out(_functions.rfftn)

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ifftshift",
    "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip
