"""Random training loops, recorded and compiled: whatever happens between two steps, a replay is what recording would do."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import distgrad as dg

F = dg.nn.functional
OPTIMIZERS = {
    "adam": lambda p: dg.optim.Adam(p, lr=0.02),
    "sgd": lambda p: dg.optim.SGD(p, lr=0.1),
    "momentum": lambda p: dg.optim.SGD(p, lr=0.1, momentum=0.9),
    "rmsprop": lambda p: dg.optim.RMSprop(p, lr=0.01),
    "amsgrad": lambda p: dg.optim.AdamW(p, lr=0.02, amsgrad=True),
}
EVENTS = ("read", "keep gradient", "keep data", "keep view", "write", "write gradient", "save", "load", "rate", "mode",
          "switch", "zero", "scale", "hook", "drop gradient", "new gradient", "synchronize", "state")


class Loop:
    """A training loop whose course is decided by a seed; `found` is all that it ever saw."""

    def __init__(self, seed: int, compiled: bool, quiet: float) -> None:
        self.choose, self.quiet = random.Random(seed), quiet
        dg.manual_seed(seed)
        rng, choose = np.random.default_rng(seed), self.choose
        middle = dg.nn.BatchNorm1d(6) if choose.random() < 0.4 else dg.nn.Tanh()
        self.model = dg.nn.Sequential(dg.nn.Linear(5, 6), middle, dg.nn.Linear(6, 3)).double()
        self.batches = [
            (dg.shard(dg.from_numpy(rng.standard_normal((9, 5)))), dg.shard(dg.from_numpy(rng.integers(0, 3, 9))))
            for _ in range(2)
        ]
        self.optimizer = OPTIMIZERS[choose.choice(list(OPTIMIZERS))](self.model.parameters())
        self.zeroes, self.clips = choose.random() < 0.6, choose.random() < 0.3
        self.result = choose.choice(["loss", "detached", "dict", "none", "gradient"])
        self.options, self.batch = {"scale": 1.0}, 0
        self.found: list[float] = []
        self.kept: list[Any] = []
        self.saved: dict[str, Any] = {}
        step = self.make_step()
        self.step: Any = dg.compile(step) if compiled else step

    def make_step(self) -> Any:
        model, optimizer, options = self.model, self.optimizer, self.options

        def body(x: Any, y: Any) -> Any:
            if self.zeroes:
                optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y) * options["scale"]
            loss.backward()
            if self.clips:
                dg.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            results = {"loss": loss, "detached": loss.detach(), "dict": {"loss": loss.detach(), "count": 3}}
            return model[0].weight.grad if self.result == "gradient" else results.get(self.result)

        if self.choose.random() < 0.5:
            return body
        x, y = self.batches[0]
        return lambda *batch: body(x, y)

    def run(self, steps: int) -> list[float]:
        for _ in range(steps):
            self.kept.append(self.step(*self.batches[self.batch]))
            if not self.zeroes and self.choose.random() < 0.7:
                self.optimizer.zero_grad()
            if self.choose.random() > self.quiet:
                self.happen(self.choose.choice(EVENTS))
        for value in self.kept:
            if value is not None:
                self.see(value["loss"] if isinstance(value, dict) else value)
        for parameter in self.model.parameters():
            self.see(parameter)
            self.see(parameter.grad)
        return self.found

    def see(self, tensor: Any) -> None:
        if tensor is not None:
            self.found += tensor.detach().double().flatten().tolist()

    def happen(self, event: str) -> None:
        first, second = list(self.model.parameters())[:2]
        if event == "read":
            self.see(first)
        elif event.startswith("keep"):
            self.kept.append(first.grad if event == "keep gradient" else second.data if event == "keep data" else first[0])
        elif event == "write":
            with dg.no_grad():
                first.mul_(0.9)
        elif event == "write gradient" and first.grad is not None:
            first.grad.add_(0.1)
        elif event == "save":
            weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.saved = {"model": weights, "optimizer": self.optimizer.state_dict()}
        elif event == "load" and self.saved:
            self.model.load_state_dict(self.saved["model"])
            self.optimizer.load_state_dict(self.saved["optimizer"])
        elif event == "rate":
            self.optimizer.param_groups[0]["lr"] *= 0.9
        elif event == "mode":
            self.model.train(not self.model.training)
        elif event == "switch":
            self.batch = 1 - self.batch
        elif event == "zero":
            self.optimizer.zero_grad(set_to_none=self.choose.random() < 0.5)
        elif event == "scale":
            self.options["scale"] = self.choose.choice([1.0, 0.5])
        elif event == "hook":
            handle = first.register_hook(lambda g: g * 2)
            if self.choose.random() < 0.5:
                handle.remove()
        elif event == "drop gradient":
            first.grad = None
        elif event == "new gradient":
            first.grad = dg.zeros_like(first)
        elif event == "synchronize":
            dg.synchronize()
        elif event == "state":
            for value in self.model.state_dict().values():
                self.see(value.double().sum())


@pytest.mark.parametrize("quiet", [0.55, 0.9, 1.0])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_random_loops(workers: int, quiet: float) -> None:
    replayed = 0
    for seed in range(5):
        with dg.init(local_mode=True, num_workers=workers, shard_threshold=seed % 2 and 1 << 20):
            plain = Loop(seed, False, quiet).run(30)
            assert dg.stats().steps_replayed == 0
            compiled = Loop(seed, True, quiet).run(30)
            replayed += dg.stats().steps_replayed
        assert repr(compiled) == repr(plain), f"seed {seed}"  # as text, so that nan is equal to nan
    assert replayed > 5
