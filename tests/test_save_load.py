"""`save` and `load`: everything comes back equal, of the same type, and local."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad import nn


def _again(obj: Any, **options: Any) -> Any:
    file = io.BytesIO()
    dg.save(obj, file)
    file.seek(0)
    return dg.load(file, **options)


DTYPES = [dg.bool, dg.uint8, dg.int8, dg.int16, dg.int32, dg.int64, dg.float16, dg.bfloat16, dg.float32, dg.float64,
          dg.complex64, dg.complex128]  # fmt: skip


@pytest.mark.parametrize("kind", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3)], ids=str)
def test_tensors_of_every_dtype_and_shape(kind: Any, shape: tuple[int, ...]) -> None:
    x = (dg.arange(6)[: int(np.prod(shape))].reshape(shape) - 1).to(kind)
    found = _again(x)
    assert found.dtype is kind
    assert found.shape == shape
    assert bool((found == x).all())


def test_nested_state_keeps_types_and_order(tmp_path: Path) -> None:
    state = OrderedDict(
        model=OrderedDict(b=dg.ones(2), a=dg.zeros(3, dtype=dg.int64)),
        history=[1.5, (2, None, "text", True)], step=3, nan=float("nan"), betas=(0.9, 0.999), empty={}, param={0: 1j},
        size=dg.zeros(2, 3).shape, kind=dg.float16, place=dg.device("cpu"), array=np.arange(3),
    )  # fmt: skip
    path = tmp_path / "state.dg"
    dg.save(state, path)
    found = dg.load(path)
    assert type(found) is OrderedDict
    assert list(found) == list(state)
    assert type(found["model"]) is OrderedDict
    assert list(found["model"]) == ["b", "a"]
    assert found["model"]["a"].dtype is dg.int64
    assert found["history"] == state["history"]
    assert type(found["history"][1]) is tuple
    assert np.isnan(found["nan"])
    assert (found["betas"], found["empty"], found["param"], found["step"]) == ((0.9, 0.999), {}, {0: 1j}, 3)
    assert type(found["size"]) is dg.Size
    assert found["size"] == (2, 3)
    assert found["kind"] is dg.float16
    assert found["place"] == dg.device("cpu")
    assert found["array"].tolist() == [0, 1, 2]


def test_parameters_requires_grad_and_ties() -> None:
    weight = nn.Parameter(dg.ones(2, 2))
    frozen = nn.Parameter(dg.zeros(1), requires_grad=False)
    leaf = dg.tensor([1.0], requires_grad=True)
    found = _again({"a": weight, "b": weight, "frozen": frozen, "leaf": leaf, "result": leaf * 2})
    assert type(found["a"]) is nn.Parameter
    assert found["a"] is found["b"]
    assert found["a"].requires_grad
    assert type(found["frozen"]) is nn.Parameter
    assert not found["frozen"].requires_grad
    assert found["leaf"].requires_grad
    assert found["result"].is_leaf


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))


def _step(model: Any, optimizer: Any) -> float:
    x = dg.linspace(-1, 1, 20).reshape(5, 4)
    loss = (model(x) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_training_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    def optimizer_of(model: Any) -> Any:
        options = {"momentum": 0.9} if kind == "SGD" else {}
        return getattr(dg.optim, kind)(model.parameters(), lr=0.01, **options)

    dg.manual_seed(0)
    model = _model()
    optimizer = optimizer_of(model)
    for _ in range(3):
        _step(model, optimizer)
    dg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint")
    expected = [_step(model, optimizer) for _ in range(3)]

    dg.manual_seed(1)
    other = _model()
    again = optimizer_of(other)
    state = dg.load(tmp_path / "checkpoint", map_location="cpu", weights_only=True)
    other.load_state_dict(state["model"])
    again.load_state_dict(state["optimizer"])
    assert [_step(other, again) for _ in range(3)] == expected


def test_sharded_tensors_come_back_local_and_whole() -> None:
    x = dg.arange(14.0).reshape(7, 2)
    with dg.init(num_workers=3, local_mode=True):
        placed = {"rows": dg.shard(x), "columns": dg.shard(x, 1), "all": dg.replicate(x)}
        found = _again({**placed, "model": _model().state_dict()})
        assert all(found[name].placement is None for name in placed)
    for name in ("rows", "columns", "all"):
        assert bool((found[name] == x).all())
    assert found["model"]["0.weight"].shape == (3, 4)


def test_a_flat_state_dict_is_a_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    state = _model().state_dict()
    dg.save(state, tmp_path / "model.safetensors")
    arrays = load_file(tmp_path / "model.safetensors")
    assert set(arrays) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, state[name].numpy())
    save_file({"w": np.arange(3.0)}, tmp_path / "other.safetensors")
    found = dg.load(tmp_path / "other.safetensors")
    assert isinstance(found["w"], dg.Tensor)
    assert found["w"].tolist() == [0.0, 1.0, 2.0]


def test_loaded_tensors_are_writable_and_apart_from_the_saved() -> None:
    x = dg.zeros(2)
    found = _again([x, x[:1]])
    found[0].add_(1)
    assert x.tolist() == [0.0, 0.0]
    assert found[0].tolist() == [1.0, 1.0]
    assert found[1].tolist() == [0.0]


def test_whole_objects_are_pickled_and_loaded_when_trusted(tmp_path: Path) -> None:
    model = _model()
    path = tmp_path / "model.pt"
    dg.save({"model": model, "names": {"a", "b"}}, path)
    with pytest.raises(pickle.UnpicklingError, match=r"weights_only=False"):
        dg.load(path)
    found = dg.load(path, weights_only=False)
    assert found["names"] == {"a", "b"}
    for name, tensor in model.state_dict().items():
        assert found["model"].state_dict()[name].tolist() == tensor.tolist(), name
    buffer = io.BytesIO()
    dg.save(model, buffer)
    buffer.seek(0)
    assert type(dg.load(buffer, weights_only=False)) is type(model)


def test_what_cannot_be_saved_or_loaded(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        dg.save({"a": [lambda: None]}, tmp_path / "function")
    assert not list(tmp_path.iterdir())
    looped: list[Any] = []
    looped.append(looped)
    with pytest.raises(ValueError, match="contains itself"):
        dg.save(looped, io.BytesIO())
    with pytest.raises(RuntimeError, match="CPU"):
        _again(dg.ones(1), map_location="cuda")
    (tmp_path / "bad").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="safetensors"):
        dg.load(tmp_path / "bad")
    with pytest.raises(FileNotFoundError):
        dg.load(tmp_path / "absent")


@pytest.mark.parametrize("workers", [(3, 2), (2, 5), (3, None)])
def test_training_goes_on_in_another_session_with_the_same_objects(workers):
    """What a session held is written anew from a file: model and optimizer made before it ended go on as if it had not."""
    x, y = np.linspace(-1, 1, 44).reshape(11, 4), np.arange(11) % 3

    def part(model: Any, optimizer: Any, steps: int) -> list[float]:
        losses = []
        data, target = dg.shard(dg.from_numpy(x)), dg.shard(dg.from_numpy(y))
        for _ in range(steps):
            optimizer.zero_grad()
            loss = dg.nn.functional.cross_entropy(model(data), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def made() -> tuple[Any, Any]:
        dg.manual_seed(0)
        model = dg.nn.Linear(4, 3).double()
        return model, dg.optim.Adam(model.parameters(), lr=0.1)

    whole = part(*made(), 8)
    file = io.BytesIO()
    with dg.init(local_mode=True, num_workers=workers[0]):
        model, optimizer = made()
        begun = part(model, optimizer, 4)
        dg.save([model.state_dict(), optimizer.state_dict()], file)
        part(model, optimizer, 1)  # lost
    with dg.init(local_mode=True, num_workers=workers[1]) if workers[1] else contextlib.nullcontext():
        file.seek(0)
        weights, state = dg.load(file)
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
        np.testing.assert_allclose([*begun, *part(model, optimizer, 4)], whole, rtol=1e-12)
