"""Memory of driver and workers stays flat over many small training steps, whatever fails in between.

`DISTGRAD_MEMORY_STEPS=10000 pytest tests/test_memory.py` runs the long version.
"""

from __future__ import annotations

import json
import os

import pytest
from ray_session import driver, line_of, rest

STEPS = int(os.environ.get("DISTGRAD_MEMORY_STEPS", "1500"))

TRAINING = """
import gc, json, os, random, signal, sys, threading, time
import numpy as np
import psutil
import distgrad as dg

steps, kind = int(sys.argv[1]), sys.argv[2]
chance = random.Random(0)
session = dg.init(num_workers=2, timeout=20)
processes = [psutil.Process()] + [psutil.Process(pid) for pid in session.pids]
rng = np.random.default_rng(0)
data, target = rng.standard_normal((96, 16)).astype(np.float32), rng.standard_normal((96, 4)).astype(np.float32)
x, y = dg.shard(data), dg.shard(target)
model = dg.nn.Sequential(dg.nn.Linear(16, 32), dg.nn.ReLU(), dg.nn.Linear(32, 4))
optimizer = dg.optim.Adam(model.parameters(), lr=1e-3)
bad = dg.shard(np.full((96, 1), 99))

def step(x, y):
    optimizer.zero_grad()
    loss = dg.nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

def failing(number):
    if number % 20 == 3:
        try:
            model(dg.ones(3, 7))
        except RuntimeError:
            pass
    if number % 20 == 7:
        lost = dg.gather(x, 1, bad) + 1
        if number % 40 == 7:
            try:
                lost.sum().item()
            except dg.errors.RemoteOpError:
                pass
    if number % 50 == 11:
        try:
            threading.Timer(0.001 + 0.003 * chance.random(), os.kill, (os.getpid(), signal.SIGINT)).start()
            for _ in range(100):
                step(x, y).item()
                time.sleep(0.001)
        except KeyboardInterrupt:
            pass
        optimizer.zero_grad()

def batch(number):
    rows = chance.randrange(1, 97)
    return (x[:rows], y[:rows]) if number % 2 else (dg.shard(data[:rows]), dg.shard(target[:rows]))

def memory():
    gc.collect()
    return [p.memory_info().rss for p in processes]

series = []
for number in range(steps + steps // 4):
    if number >= steps // 4 and (number - steps // 4) % (steps // 10) == 0:
        dg.synchronize()
        if not series:  # workers load their compiled kernels in the background, which is no growth
            before, now, limit = [], memory(), time.monotonic() + 60
            while any(abs(a / b - 1) > 0.002 for a, b in zip(now, before or [1])) and time.monotonic() < limit:
                time.sleep(3)
                before, now = now, memory()
        series.append(memory())
    if kind == "failing":
        failing(number)
    here = batch(number) if kind == "batches" else (x, y)
    loss = step(*here)
    if number % 5 == 0:
        loss.item()
dg.synchronize()
series.append(memory())
c = session._coordinator
held = dict(runs=len(c.lost.runs), poisoned=len(c.lost.poisoned), failures=len(c.lost.places), fetched=len(c._fetched),
            programs=len(c._programs))
print("result", json.dumps([series, held]), flush=True)
dg.shutdown()
"""


@pytest.mark.parametrize("kind", ["steady", "failing", "batches"])
def test_memory_is_flat(cluster, kind):
    with driver(TRAINING, str(STEPS), kind, **cluster.environment) as process:
        series, held = json.loads(line_of(process, "result"))
        rest(process)
    for name, values in zip(("driver", "worker 0", "worker 1"), zip(*series)):
        growth = values[-1] / values[0] - 1
        print(f"{kind}: {name} {values[0] / 2**20:.1f} -> {values[-1] / 2**20:.1f} MiB, {100 * growth:+.2f} %")
        assert growth < 0.05, (name, [round(v / 2**20, 1) for v in values])
    assert held["runs"] == held["poisoned"] == held["fetched"] == 0
    assert held["failures"] <= 1000
    assert held["programs"] <= 512
