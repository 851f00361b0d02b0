"""Deep copies and pickles of tensors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")


def leaf(library: Any, *shape: int, seed: int = 0, grad: bool = True) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape)
    return library.tensor(values.tolist(), dtype=library.float64, requires_grad=grad)


def same(ours: Any, theirs: Any, message: str = "") -> None:
    assert tuple(ours.shape) == tuple(theirs.shape), message
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-10, atol=1e-12, err_msg=message)


def on_both(function: Callable[[Any], list[Any]]) -> None:
    for mine, other in zip(function(dg), function(torch), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            same(mine, other)


def test_deepcopy_is_independent() -> None:
    def run(T: Any) -> list[Any]:
        w = leaf(T, 3)
        (w * w).sum().backward()
        v = w.detach()[1:]
        other, part = copy.deepcopy(w), copy.deepcopy(v)
        v.add_(1)
        assert other.requires_grad
        assert other.is_leaf
        return [w, other, other.grad, part]

    on_both(run)
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly by the user"):
        copy.deepcopy(leaf(dg, 3) * 2)


def test_deepcopy_keeps_sharing_inside_one_object() -> None:
    w = leaf(dg, 3)
    first, second = copy.deepcopy([w, w])
    assert first is second
    assert first is not w


def test_pickle_round_trip() -> None:
    for tensor in (leaf(dg, 3), dg.arange(4).reshape(2, 2).t(), dg.ones(2, dtype=dg.bfloat16), dg.tensor(True)):
        other = pickle.loads(pickle.dumps(tensor))
        assert other.dtype is tensor.dtype
        assert other.requires_grad == tensor.requires_grad
        assert other.tolist() == tensor.tolist()
        with dg.no_grad():
            other.zero_()
        assert tensor.tolist() != other.tolist()


def test_pickle_of_a_sharded_tensor() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.arange(5.0))
        data = pickle.dumps(x)
    assert pickle.loads(data).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_numpy_shares_memory_as_in_pytorch() -> None:
    """The tutorial's bridge: what is added to the tensor shows in the array, and the other way round."""
    for library in (torch, dg):
        tensor = library.ones(5)
        array = tensor.numpy()
        tensor.add_(1)
        assert array.tolist() == [2.0] * 5
        array += 1
        assert tensor.tolist() == [3.0] * 5
        part = tensor[1:3]
        part.mul_(2)
        assert array.tolist() == [3.0, 6.0, 6.0, 3.0, 3.0]


def test_a_result_of_the_users_array_is_not_copied_unless_it_lies_in_it() -> None:
    """A kernel that shapes what it made gives a view of it: the memory is the result's own already."""
    array = np.ones((3, 16, 400), np.float32)
    tensor = dg.from_numpy(array)
    total = dg.sum(tensor, 1)
    assert total._node.data.base is not None, "the kernel shapes no more: this says nothing"
    assert not np.may_share_memory(total._node.data, array)
    for made in (dg.sum(tensor, 1), tensor + 0, dg.cat([tensor]), tensor.clone(), tensor.amax(1), tensor.to(dg.float64)):
        before = made.tolist()
        array += 1
        assert made.tolist() == before
