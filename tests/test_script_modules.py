"""Modules and helpers that scripts use beside the common layers, each against torch: the same code, the same numbers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")


def _arrays(values: list[Any]) -> list[np.ndarray]:
    return [np.asarray(v.detach().numpy() if hasattr(v, "detach") else v) for v in values]


def _lazy(T: Any) -> list[Any]:
    def model() -> Any:
        return T.nn.Sequential(T.nn.LazyConv2d(4, 3, padding=1), T.nn.LazyBatchNorm2d(), T.nn.ReLU(), T.nn.Flatten(),
                               T.nn.LazyLinear(3))  # fmt: skip

    made = model()
    optimizer = T.optim.SGD(made.parameters(), lr=0.1)  # before the shapes are known
    x = T.randn(5, 2, 4, 4)
    for _ in range(3):
        optimizer.zero_grad()
        made(x).pow(2).mean().backward()
        optimizer.step()
    loaded = model()
    loaded.load_state_dict(made.state_dict())
    names = [type(m).__name__ for m in made]
    assert names == ["Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear"]
    return [*made.state_dict().values(), loaded(x)]


def _adaptive_softmax(T: Any) -> list[Any]:
    module = T.nn.AdaptiveLogSoftmaxWithLoss(16, 20, [5, 12], div_value=2.0)
    x, target = T.randn(30, 16, requires_grad=True), T.randint(0, 20, (30,))
    output, loss = module(x, target)
    loss.backward()
    return [output, loss, x.grad, module.log_prob(x), module.predict(x), module.tail[1][0].weight.grad]


def _embedding_bag(T: Any) -> list[Any]:
    summed, averaged = T.nn.EmbeddingBag(10, 4, mode="sum", padding_idx=2), T.nn.EmbeddingBag(10, 4)
    loss = summed(T.tensor([[1, 2, 3], [4, 4, 2]])).pow(2).sum()
    loss.backward()
    return [loss, summed.weight.grad, averaged(T.tensor([1, 2, 4, 5, 4]), T.tensor([0, 2]))]


def _ctc(T: Any) -> list[Any]:
    scores = T.randn(12, 3, 5, requires_grad=True)
    loss = T.nn.CTCLoss(zero_infinity=True)(scores.log_softmax(2), T.randint(1, 5, (3, 4)), (12, 12, 10), (4, 3, 2))
    loss.backward()
    return [loss, scores.grad]


def _normalized_weights(T: Any) -> list[Any]:
    utils = T.nn.utils
    a, b = utils.weight_norm(T.nn.Conv1d(3, 4, 2)), utils.spectral_norm(T.nn.ConvTranspose2d(2, 3, 2))
    c, d = utils.parametrizations.weight_norm(T.nn.Linear(4, 3), dim=1), utils.parametrizations.spectral_norm(T.nn.Linear(3, 2))
    modules = T.nn.ModuleList([a, b, c, d])
    keys = sorted(modules.state_dict())
    optimizer = T.optim.SGD(modules.parameters(), lr=0.05)
    x, y = T.randn(2, 3, 5), T.randn(2, 2, 3, 3)
    for _ in range(3):
        optimizer.zero_grad()
        loss = a(x).pow(2).mean() + b(y).pow(3).mean() + d(c(a(x).transpose(1, 2))).pow(2).mean()
        loss.backward()
        optimizer.step()
    modules.eval()
    last = d(c(a(x).transpose(1, 2))), b(y)
    utils.parametrize.remove_parametrizations(c, "weight")
    utils.remove_spectral_norm(b)
    utils.remove_weight_norm(a)
    assert not utils.parametrize.is_parametrized(c) and utils.parametrize.is_parametrized(d, "weight")
    return [loss, a.weight, b.weight, c.weight, d.weight, *last, len(keys), *[len(key) for key in keys]]


def _averages(T: Any) -> list[Any]:
    swa = T.optim.swa_utils
    model = T.nn.Sequential(T.nn.Linear(2, 3), T.nn.BatchNorm1d(3), T.nn.Linear(3, 1))
    optimizer = T.optim.SGD(model.parameters(), lr=0.5)
    schedule = swa.SWALR(optimizer, 0.05, anneal_epochs=4)
    averaged = [
        swa.AveragedModel(model), swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9)),
        swa.AveragedModel(model, avg_fn=lambda a, b, n: 0.1 * a + 0.9 * b, use_buffers=True),
    ]  # fmt: skip
    rates, x = [], T.randn(8, 2)
    for _ in range(6):
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        optimizer.step()
        schedule.step()
        for average in averaged:
            average.update_parameters(model)
        rates.append(optimizer.param_groups[0]["lr"])
    swa.update_bn([x[:4], x[4:]], averaged[0])
    return [*rates, *(v for average in averaged for v in average.state_dict().values())]


def _complex_parameters(T: Any) -> list[Any]:
    start = np.random.RandomState(0).randn(3) + 1j * np.random.RandomState(1).randn(3)
    options = [("SGD", {"lr": 0.1, "momentum": 0.9}), ("Adam", {"lr": 0.1, "weight_decay": 0.01, "amsgrad": True}),
               ("AdamW", {}), ("RMSprop", {"centered": True}), ("Adagrad", {}), ("Adadelta", {}), ("Adamax", {}),
               ("NAdam", {}), ("RAdam", {}), ("Rprop", {}), ("LBFGS", {"max_iter": 4}),
               ("LBFGS", {"max_iter": 4, "line_search_fn": "strong_wolfe"})]  # fmt: skip
    out = []
    for name, given in options:
        w = T.nn.Parameter(T.from_numpy(start.copy()))
        optimizer = getattr(T.optim, name)([w], **given)

        def closure(optimizer: Any = optimizer, w: Any = w) -> Any:
            optimizer.zero_grad()
            loss = ((w * (1 + 2j)).abs() ** 2).sum() + (w.real * w.imag).sum()
            loss.backward()
            return loss

        for _ in range(4):
            optimizer.step(closure)
        out.append(w)
    return out


def _wrapped_optimizer(T: Any) -> list[Any]:
    """An optimizer around another, without super().__init__(), as is often published."""

    class Every(T.optim.Optimizer):
        def __init__(self, inner: Any) -> None:
            self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state

        def step(self, closure: Any = None) -> Any:
            return self.inner.step(closure)

    w = T.nn.Parameter(T.ones(2))
    optimizer = Every(T.optim.Adam([w], lr=0.1))
    (w * w).sum().backward()
    optimizer.step()
    return [w]


def _old_names(T: Any) -> list[Any]:
    F, x = T.nn.functional, T.randn(4, 3)
    square = T.zeros(5, 3)
    out = [F.relu_(x.clone()), F.elu_(x.clone(), 0.5), F.leaky_relu_(x.clone(), 0.3), F.hardtanh_(x.clone(), -0.5, 0.5),
           F.selu_(x.clone()), F.threshold_(x.clone(), 0.1, 7.0), T.embedding(x, T.tensor([2, 0])), T.detach(x),
           T.adjoint(x), square.fill_diagonal_(3.0).clone(), square.fill_diagonal_(2.0, wrap=True).clone(),
           x.clone().apply_(lambda v: 2 * v + 1), x.clone().map_(x + 1, lambda a, b: a * b),
           T.frombuffer(bytearray(b"\x01\x00\x02\x00"), dtype=T.int16), T.get_device(x)]  # fmt: skip
    assert x.data_ptr() == x.view(-1).data_ptr() != 0
    sampler = T.utils.data.DistributedSampler(range(10), 3, 1, shuffle=False)
    shuffled = T.utils.data.DistributedSampler(range(10), 3, 2, seed=4, drop_last=True)
    shuffled.set_epoch(2)
    return [*out, list(sampler), list(shuffled), len(shuffled)]


@pytest.mark.parametrize("program", [
    _old_names, _lazy, _adaptive_softmax, _embedding_bag, _ctc, _normalized_weights, _averages, _complex_parameters,
    _wrapped_optimizer,
])  # fmt: skip
def test_equals_torch(program: Callable[[Any], list[Any]]) -> None:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for T in (dg, torch):
            T.manual_seed(0)
            found.append(_arrays(program(T)))
    assert len(found[0]) == len(found[1])
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)


def test_precision_is_never_lowered_and_nothing_is_scaled() -> None:
    model, scaler = dg.nn.Linear(2, 2), dg.amp.GradScaler("cuda")
    optimizer = dg.optim.SGD(model.parameters(), lr=1.0)
    with dg.autocast("cpu", dtype=dg.bfloat16), dg.cuda.amp.autocast():
        loss = model(dg.ones(1, 2)).sum()
    assert loss.dtype is dg.float32 and not dg.is_autocast_enabled()
    before = model.bias.tolist()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert model.bias.tolist() == pytest.approx([b - 1 for b in before])
    assert (scaler.get_scale(), scaler.is_enabled(), scaler.state_dict()) == (1.0, False, {})
    with pytest.raises(RuntimeError, match="unsupported autocast device_type 'tpux'"):
        dg.autocast("tpux")


def test_there_is_no_gpu_and_no_process_group() -> None:
    assert not (dg.cuda.is_available() or dg.mps.is_available() or dg.xpu.is_available() or dg.accelerator.is_available())
    assert dg.cuda.memory_allocated() == 0 and dg.version.cuda is None
    assert not isinstance(dg.ones(1), dg.cuda.FloatTensor)
    for call in (dg.cuda.current_device, dg.cuda.synchronize, lambda: dg.cuda.FloatTensor(3), dg.nn.Linear(1, 1).cuda):
        with pytest.raises(RuntimeError, match="CPU"):
            call()
    assert not dg.distributed.is_available() and not dg.distributed.is_initialized()
    for call in (dg.distributed.init_process_group, lambda: dg.nn.parallel.DistributedDataParallel(dg.nn.Linear(1, 1))):
        with pytest.raises(RuntimeError, match="process groups"):
            call()
    wrapped = dg.nn.DataParallel(dg.nn.Linear(2, 1))
    assert list(wrapped.state_dict()) == ["module.weight", "module.bias"] and wrapped(dg.ones(3, 2)).shape == (3, 1)
    assert type(copy.deepcopy(wrapped)).__name__ == "DataParallel"
    for hub in (lambda: dg.hub.load("a/b", "c"), lambda: dg.jit.load("file"), lambda: dg.jit.save(wrapped, "file")):
        with pytest.raises(RuntimeError, match=r"^(hub|jit)\."):
            hub()


def test_default_tensor_types_and_typed_classes() -> None:
    try:
        dg.set_default_tensor_type("torch.DoubleTensor")
        assert dg.zeros(1).dtype is dg.float64
    finally:
        dg.set_default_tensor_type(dg.FloatTensor)
    assert dg.zeros(1).dtype is dg.float32
    with pytest.raises(TypeError, match="cuda"):
        dg.set_default_tensor_type("torch.cuda.FloatTensor")
    assert isinstance(dg.LongTensor([1]), dg.LongTensor) and not isinstance([1], dg.LongTensor)
    assert dg.FloatTensor(2, 3).shape == (2, 3) and dg.ByteTensor([1, 2]).dtype is dg.uint8
