"""Fourier transforms and what goes with them: communication, errors, views of complex numbers, memory by strides."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as dg
from distgrad import fft, masked
from distgrad.signal import windows


@pytest.mark.parametrize(
    "call",
    [
        lambda x: fft.rfft(x, dim=1), lambda x: fft.irfft(fft.rfft(x)), lambda x: fft.fft2(x), lambda x: fft.hfft(x),
        lambda x: fft.fftshift(x, (1, 2)), lambda x: masked.sum(x, (1, 2), mask=x > 0),
        lambda x: masked.softmax(x, 1, mask=x > 0), lambda x: dg.special.i1e(x), lambda x: dg.quantile(x, 0.2, dim=1),
        lambda x: dg.trapezoid(x), lambda x: dg.gradient(x, dim=2)[0], lambda x: dg.view_as_real(dg.complex(x, x)),
    ],
)  # fmt: skip
def test_other_dims_do_not_communicate(call):
    data = np.random.default_rng(0).standard_normal((7, 4, 6))
    with dg.init(local_mode=True, num_workers=3, shard_threshold=1 << 30):
        x = dg.shard(dg.from_numpy(data))
        result = call(x)
        assert isinstance(result.placement, dg.Shard)
        before = dg.stats().collectives
        dg.synchronize()
        assert dg.stats().collectives == before


def test_parseval_along_the_sharded_dim():
    data = np.random.default_rng(1).standard_normal((9, 4))
    with dg.init(local_mode=True, num_workers=4, shard_threshold=1 << 30):
        x = dg.shard(dg.from_numpy(data))
        energy = (fft.fft(x, dim=0, norm="ortho").abs() ** 2).sum()
        assert energy.item() == pytest.approx((data**2).sum(), rel=1e-12)


def test_errors_name_what_is_wrong():
    x = dg.ones(4, 4)
    with pytest.raises(RuntimeError, match="Invalid normalization mode"):
        fft.fft(x, norm="orthonormal")
    with pytest.raises(RuntimeError, match=r"Invalid number of data points \(0\)"):
        fft.rfft(x, n=0)
    with pytest.raises(RuntimeError, match="expects a real input"):
        fft.rfft(x.cdouble())
    with pytest.raises(RuntimeError, match="must be unique"):
        fft.fftn(x, dim=(0, -2))
    with pytest.raises(IndexError, match="Dimension out of range"):
        fft.fft(x, dim=2)
    with pytest.raises(ValueError, match="non-negative window length"):
        windows.hann(-1)
    with pytest.raises(ValueError, match="Tau must be positive"):
        windows.exponential(4, tau=0)
    with pytest.raises(RuntimeError, match="complex tensors"):
        dg.view_as_real(x)
    with pytest.raises(RuntimeError, match="out of bounds for storage"):
        dg.as_strided(x, (4, 4), (4, 2))


def test_writing_through_pairs_of_reals():
    z = dg.complex(dg.zeros(3), dg.zeros(3))
    dg.view_as_real(z)[:, 1] = dg.tensor([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(z.numpy(), np.array([1j, 2j, 3j], "complex64"))


def test_strided_views_read_the_memory_of_their_base():
    x = dg.arange(12).reshape(3, 4)
    assert dg.as_strided(x[1:], (2, 2), (1, 2)).tolist() == [[4, 6], [5, 7]]
    assert dg.as_strided(x.t(), (2, 3), (4, 1)).tolist() == [[0, 1, 2], [4, 5, 6]]
    base = dg.zeros(6)
    dg.as_strided(base, (2, 2), (3, 1), 1).fill_(1.0)
    assert base.tolist() == [0, 1, 1, 0, 1, 1]


def test_gradient_of_a_strided_scatter_is_exact():
    base = dg.zeros(5, requires_grad=True)
    new = dg.zeros(2, requires_grad=True)
    dg.as_strided_scatter(base, new, (2,), (2,), 1).backward(dg.arange(5.0))
    assert base.grad.tolist() == [0, 0, 2, 0, 4]
    assert new.grad.tolist() == [1, 3]
