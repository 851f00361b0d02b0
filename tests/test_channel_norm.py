"""Batch, group and instance normalization: kernels against numpy's, results and derivatives against PyTorch's, placements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import distgrad as dg
from distgrad.kernels import compiled

SHAPES = [(5, 6, 9, 11), (40, 6), (3, 6, 2), (2, 6, 3, 4, 5), (1, 6, 700), (1300, 6), (4, 6, 0), (64, 6, 1, 1)]
NORMS = ["batch", "group", "instance"]


def normal(*shape: int, seed: int = 0, kind: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def apply(library: Any, norm: str, x: Any, weight: Any, bias: Any) -> Any:
    F = library.nn.functional
    if norm == "batch":
        return F.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-5)
    return F.group_norm(x, 2, weight, bias) if norm == "group" else F.instance_norm(x, None, None, weight, bias)


@pytest.mark.parametrize("fused", [True, False], ids=["loops", "numpy"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("norm", NORMS)
def test_values_and_derivatives_are_pytorchs(norm: str, affine: bool, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LEAST", 1)
    before = dg.are_fused_kernels_enabled()
    dg.set_fused_kernels(fused)
    try:
        for shape in SHAPES:
            if 0 in shape or (norm == "instance" and np.prod(shape[2:], initial=1) == 1):
                continue
            found = []
            for library in (dg, torch):
                x, w, b, v = (
                    library.from_numpy(normal(*s, seed=i)).requires_grad_()
                    for i, s in enumerate((shape, shape[1:2], shape[1:2], shape))
                )
                y = apply(library, norm, x, w if affine else None, b if affine else None)
                leaves = [x, w, b] if affine else [x]
                first = library.autograd.grad((y * v).sum(), leaves, create_graph=True)
                plain = library.autograd.grad(
                    (apply(library, norm, x, w if affine else None, b if affine else None) * v).sum(), leaves)
                total = sum((g.sin()).sum() for g in first)
                second = library.autograd.grad(total, [*leaves[:2], v])
                found.append([t.detach().numpy() for t in (y, *first, *plain, *second)])
            for ours, theirs in zip(*found, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9, err_msg=f"{norm} {shape}")
    finally:
        dg.set_fused_kernels(before)


def test_a_large_mean_does_not_hide_the_deviation() -> None:
    x = normal(64, 4, 40, kind=np.float32) * np.float32(0.01) + np.float32(100.0)
    wide = torch.from_numpy(x).double()
    for norm in NORMS:
        ours = apply(dg, norm, dg.from_numpy(x), None, None)
        theirs = apply(torch, norm, wide, None, None)
        np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-3)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("norm", NORMS)
def test_every_placement_gives_the_same(norm: str, workers: int) -> None:
    shape = (7, 6, 5, 4)
    arrays = [normal(*s, seed=i) for i, s in enumerate((shape, (6,), (6,), shape))]

    def run(place: Any) -> list[np.ndarray]:
        x, w, b, v = (dg.from_numpy(a) for a in arrays)
        x, w, b, v = place(x).requires_grad_(), w.requires_grad_(), b.requires_grad_(), place(v)
        y = apply(dg, norm, x, w, b)
        (y * v).sum().backward()
        return [t.detach().numpy() for t in (y, x.grad, w.grad, b.grad)]

    expected = run(lambda t: t)
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=1 << 30):
        rows = (0, *(0,) * (workers - 1), 7)  # all on the last worker
        places = [dg.Shard(d) for d in range(4)] + [dg.Replicate(), dg.Partial("sum"), dg.Shard(0, rows)]
        for placement in places:
            for ours, theirs in zip(run(lambda t, p=placement: t.redistribute(p)), expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12, err_msg=str(placement))


def test_batches_on_all_workers_are_normalized_with_one_exchange_each_way() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.from_numpy(normal(12, 6, 5))).requires_grad_()
        layer = dg.nn.BatchNorm1d(6).double()
        layer(x).sum().backward()  # makes the programs
        dg.synchronize()
        before = dg.stats().collectives
        y = layer(x)
        y.sum().item()
        assert dg.stats().collectives - before <= 2  # the statistics, and the sum that was asked for


def test_running_statistics_are_pytorchs_on_any_number_of_workers() -> None:
    theirs = torch.nn.BatchNorm2d(4, momentum=0.3).double()
    batches = [normal(9, 4, 3, 2, seed=s) * (s + 1) + s for s in range(4)]
    for batch in batches:
        theirs(torch.from_numpy(batch))
    for workers in (None, 1, 4):
        layer = dg.nn.BatchNorm2d(4, momentum=0.3).double()
        if workers is None:
            for batch in batches:
                layer(dg.from_numpy(batch))
        else:
            with dg.init(local_mode=True, num_workers=workers, shard_threshold=0):
                for batch in batches:
                    layer(dg.shard(dg.from_numpy(batch)))
                layer.running_mean, layer.running_var = layer.running_mean.cpu(), layer.running_var.cpu()
        np.testing.assert_allclose(layer.running_mean.numpy(), theirs.running_mean, rtol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy(), theirs.running_var, rtol=1e-12)


def test_other_dtypes() -> None:
    x = normal(8, 6, 5)
    halves = dg.nn.functional.batch_norm(dg.from_numpy(x).to(dg.bfloat16), None, None, None, None, True)
    assert halves.dtype is dg.bfloat16
    np.testing.assert_allclose(halves.float().numpy(), apply(torch, "batch", torch.from_numpy(x), None, None), atol=0.05)
    mixed = dg.nn.functional.group_norm(dg.from_numpy(x), 2, dg.ones(6), dg.zeros(6))  # float32 beside float64
    np.testing.assert_allclose(mixed.numpy(), apply(torch, "group", torch.from_numpy(x), None, None), rtol=1e-6, atol=1e-6)
