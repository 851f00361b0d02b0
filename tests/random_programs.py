"""Random programs over tensors: chains of 10 to 40 ops from a wide menu, on rows that do not divide evenly.

Invariant: a program is made from its seed and shapes alone, so every run of it does the same operations.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import distgrad as dg

F = dg.nn.functional
Step = tuple[str, Callable[..., Any], tuple[int, ...]]


@dataclass
class Program:
    """Steps over numbered values; the first ones are the leaves."""

    seed: int
    arrays: list[np.ndarray]
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}", *(f"%{i} = leaf {a.dtype}{a.shape}" for i, a in enumerate(self.arrays))]
        for number, (text, _, ins) in enumerate(self.steps, len(self.arrays)):
            lines.append(f"%{number} = {text}({', '.join(f'%{i}' for i in ins)})")
        return "\n".join(lines)

    def leaves(self) -> list[Any]:
        """Gives new leaves, local to this process."""
        return [dg.from_numpy(a.copy()).requires_grad_() for a in self.arrays]

    def run(self, leaves: list[Any]) -> list[Any]:
        """Runs the steps; gives all values."""
        dg.manual_seed(self.seed)
        values = list(leaves)
        for _, function, ins in self.steps:
            values.append(function(*(values[i] for i in ins)))
        return values


UNARY: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "exp tanh": lambda x: x.tanh().exp(),
    "relu": lambda x: x.relu(),
    "gelu": lambda x: F.gelu(x),
    "abs": lambda x: x.abs(),
    "softplus": lambda x: F.softplus(x),
    "square": lambda x: (x * 0.5).square(),
    "sqrt": lambda x: (x * x + 1).sqrt(),
    "log": lambda x: (x * x + 1).log(),
    "neg": lambda x: -x,
    "clamp": lambda x: x.clamp(-0.9, 0.8),
    "erf": lambda x: x.erf(),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "times": lambda x: x * 0.75,
    "one minus": lambda x: 1 - x,
    "over": lambda x: x / 3,
    "cube": lambda x: x.tanh() ** 3,
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach() * x,
    "float32 and back": lambda x: x.to(dg.float32).to(x.dtype) * 0 + x,
    "contiguous": lambda x: x.contiguous(),
    "count": lambda x: (x > 0).sum() * 0.01 + x,
    "sign": lambda x: x * x.sign(),
    "elu": lambda x: F.elu(x),
    "silu": lambda x: F.silu(x),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a.tanh() * b,
    "div": lambda a, b: a / (b * b + 1),
    "maximum": lambda a, b: dg.maximum(a, b),
    "minimum": lambda a, b: dg.minimum(a, b),
    "where": lambda a, b: dg.where(a > b, a, b * 2),
    "lerp": lambda a, b: dg.lerp(a, b, 0.3),
    "atan2": lambda a, b: dg.atan2(a, b * b + 1),
    "masked_fill": lambda a, b: a.masked_fill((b > 0).expand(a.shape), 0.5) if a.shape == b.shape else a + b,
    "addcmul": lambda a, b: dg.addcmul(a, a, b, value=0.3),
    "hypot": lambda a, b: (a * a + b * b + 1).sqrt(),
}
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda x, **k: x.sum(**k) * 0.3,
    "mean": lambda x, **k: x.mean(**k),
    "amax": lambda x, **k: x.amax(**k),
    "amin": lambda x, **k: x.amin(**k),
    "logsumexp": lambda x, **k: x.logsumexp(**k),
    "var": lambda x, **k: x.var(correction=0, **k),
    "norm": lambda x, **k: (x * x + 0.1).sum(**k).sqrt(),
    "prod": lambda x, **k: x.tanh().prod(**k) if isinstance(k["dim"], int) else x.mean(**k),
    "std": lambda x, **k: (
        (
            x
            + dg.arange(x.shape[k["dim"]] if isinstance(k["dim"], int) and k["dim"] == x.ndim - 1 else 1, dtype=x.dtype)
        ).std(correction=0, **k)
        if isinstance(k["dim"], int) and k["dim"] == x.ndim - 1 and x.shape[-1] > 1
        else x.mean(**k)
    ),
}


class Generator:
    """Builds a program step by step, running it locally to know the shapes."""

    def __init__(self, seed: int, dtype: str = "float64", random_ops: bool = True) -> None:
        self.random = random.Random(seed)
        numbers = np.random.default_rng(seed)
        r = self.random
        rows, columns, width = r.choice([0, 1, 2, 3, 5, 7, 11]), r.choice([1, 3, 4]), r.choice([2, 3])
        shapes = [(rows, columns), (rows, columns), (columns, width), (columns,), (rows, 1), (rows, 2, columns)]
        arrays = [numbers.standard_normal(s).astype(dtype) for s in shapes]
        self.program = Program(seed, arrays)
        self.random_ops = random_ops
        self.values = self.program.leaves()
        dg.manual_seed(seed)

    def build(self) -> Program:
        """Gives the program."""
        length = self.random.randint(10, 40)
        attempts = 0
        while len(self.program.steps) < length and attempts < 400:
            attempts += 1
            made = self.candidate()
            if made is None:
                continue
            text, function, ins = made
            value = function(*(self.values[i] for i in ins))
            self.values.append(value)
            self.program.steps.append((text, function, ins))
        return self.program

    def pick(self, wanted: Callable[[Any], bool] = lambda t: True) -> int | None:
        # Later values more often, so that chains get deep.
        fitting = [i for i, v in enumerate(self.values) if wanted(v) and v.shape.numel() <= 400]
        if not fitting:
            return None
        return fitting[min(int(self.random.triangular(0, len(fitting), len(fitting))), len(fitting) - 1)]

    def candidate(self) -> Step | None:
        kinds = [
            self.unary,
            self.unary,
            self.binary,
            self.binary,
            self.matmul,
            self.matmul,
            self.reduce,
            self.along,
            self.move,
            self.move,
            self.index,
            self.join,
            self.loss,
            self.norm,
            self.write,
            self.write,
            self.update,
            self.scatter,
        ]
        if self.random_ops:
            kinds.append(self.draw)
        return self.random.choice(kinds)()

    def unary(self) -> Step | None:
        name, i = self.random.choice(list(UNARY)), self.pick()
        return None if i is None else (name, UNARY[name], (i,))

    def binary(self) -> Step | None:
        i = self.pick()
        if i is None:
            return None
        shape = tuple(self.values[i].shape)

        def fits(t: Any) -> bool:
            try:
                return np.broadcast_shapes(shape, tuple(t.shape)) is not None
            except ValueError:
                return False

        j = self.pick(fits)
        name = self.random.choice(list(BINARY))
        if j is not None and name == "addcmul" and np.broadcast_shapes(shape, tuple(self.values[j].shape)) != shape:
            name = "add"
        return None if j is None else (name, BINARY[name], (i, j))

    def matmul(self) -> Step | None:
        i = self.pick(lambda t: t.ndim in (2, 3))
        if i is None:
            return None
        left = self.values[i]
        if self.random.random() < 0.4 and left.ndim == 2:
            j = self.pick(lambda t: t.ndim == 2 and t.shape[0] == left.shape[0])
            return None if j is None else ("t @", lambda a, b: a.t() @ b * 0.3, (i, j))
        j = self.pick(lambda t: t.ndim in (1, 2) and t.shape[0] == left.shape[-1])
        if j is None:
            return None
        if self.values[j].ndim == 2 and self.random.random() < 0.5:
            return "linear", lambda a, b: F.linear(a, b.t()) * 0.3, (i, j)
        return "@", lambda a, b: (a @ b) * 0.3, (i, j)

    def reduce(self) -> Step | None:
        i = self.pick(lambda t: t.ndim > 0)
        if i is None:
            return None
        t = self.values[i]
        dim: Any = self.random.randrange(t.ndim)
        dims = (dim,)
        keepdim = self.random.random() < 0.5
        name = self.random.choice(list(REDUCTIONS))
        if self.random.random() < 0.3:
            dim = dims = tuple(range(t.ndim))
        if any(t.shape[d] == 0 for d in dims):
            name = "sum"
        function = REDUCTIONS[name]
        return f"{name} dim={dim} keepdim={keepdim}", lambda x: function(x, dim=dim, keepdim=keepdim), (i,)

    def along(self) -> Step | None:
        i = self.pick(lambda t: t.ndim > 0)
        if i is None:
            return None
        dim = self.random.randrange(self.values[i].ndim)
        name, function = self.random.choice(
            [
                ("softmax", lambda x: F.softmax(x, dim=dim)),
                ("log_softmax", lambda x: F.log_softmax(x, dim=dim) * 0.3),
                ("cumsum", lambda x: x.cumsum(dim) * 0.3),
                ("sort", lambda x: x.sort(dim=dim, stable=True).values),
                ("flip", lambda x: x.flip(dim)),
                ("roll", lambda x: x.roll(1, dim)),
                ("cumprod", lambda x: x.tanh().cumprod(dim)),
                ("argsort", lambda x: x.gather(dim, x.detach().argsort(dim=dim, stable=True))),
                ("logcumsumexp", lambda x: x.logcumsumexp(dim)),
            ]
        )
        return f"{name} dim={dim}", function, (i,)

    def move(self) -> Step | None:
        i = self.pick(lambda t: t.ndim > 0)
        if i is None:
            return None
        r, t = self.random, self.values[i]
        shape = tuple(t.shape)
        dim = r.randrange(t.ndim)
        start = r.randrange(shape[dim] + 1)
        size = r.randint(0, shape[dim] - start)
        step = r.choice([1, 2, 3])
        order = list(range(t.ndim))
        r.shuffle(order)
        shuffled = list(shape)
        r.shuffle(shuffled)
        name, function = r.choice(
            [
                ("flatten", lambda x: x.reshape(-1)),
                (f"reshape {shuffled}", lambda x: x.reshape(shuffled)),
                (f"permute {order}", lambda x: x.permute(*order)),
                (f"narrow {dim} {start} {size}", lambda x: x.narrow(dim, start, size)),
                (f"step {step}", lambda x: x[::step]),
                (f"unsqueeze {dim}", lambda x: x.unsqueeze(dim)),
                ("squeeze", lambda x: x.squeeze()),
                ("expand", lambda x: x.unsqueeze(0).expand(2, *shape)),
                ("repeat", lambda x: x.repeat(2, *(1,) * (len(shape) - 1))),
                ("pad", lambda x: F.pad(x, (1, 0))),
                ("tail", lambda x: x[..., 1:]),
                ("split", lambda x: x.split(2, dim)[0]),
                ("chunk", lambda x: x.chunk(2, dim)[-1]),
                ("tril", lambda x: x.tril() if x.ndim > 1 else x[:1]),
            ]
        )
        return (name, function, (i,)) if not (name == "expand" and t.ndim > 3) else None

    def index(self) -> Step | None:
        i = self.pick(lambda t: t.ndim > 0 and t.shape[0] > 0)
        if i is None:
            return None
        r = self.random
        rows = self.values[i].shape[0]
        chosen = [r.randrange(-rows, rows) for _ in range(r.choice([1, 3, 6]))]
        up = [c % rows for c in chosen]
        name, function = r.choice(
            [
                (f"[{chosen}]", lambda x: x[dg.tensor(chosen)]),
                (f"index_select {up}", lambda x: x.index_select(0, dg.tensor(up))),
                (f"row {chosen[0]}", lambda x: x[chosen[0]]),
                ("mask", lambda x: x[dg.tensor([j % 2 == 0 for j in range(rows)])]),
                ("argmax", lambda x: x[x.detach().reshape(x.shape[0], -1).sum(1).argmax()]),
                ("take_along", lambda x: x.gather(0, dg.zeros(x.shape, dtype=dg.int64) + chosen[0] % rows)),
                ("embedding", lambda x: F.embedding(dg.tensor([up, up]), x) if x.ndim == 2 else x[up]),
            ]
        )
        return name, function, (i,)

    def join(self) -> Step | None:
        i = self.pick(lambda t: t.ndim > 0)
        if i is None:
            return None
        dim = self.random.randrange(self.values[i].ndim)
        own = self.values[i].shape

        def fits(t: Any) -> bool:
            return t.ndim == len(own) and all(a == b for d, (a, b) in enumerate(zip(t.shape, own)) if d != dim)

        j = self.pick(fits)
        assert j is not None
        if tuple(self.values[j].shape) == tuple(own) and self.random.random() < 0.4 and len(own) < 3:
            return f"stack {dim}", lambda a, b: dg.stack([a, b], dim=dim), (i, j)
        return f"cat {dim}", lambda a, b: dg.cat([a, b, a], dim=dim), (i, j)

    def scatter(self) -> Step | None:
        i = self.pick(lambda t: t.ndim > 0 and t.shape[0] > 0)
        if i is None:
            return None
        r, rows = self.random, self.values[i].shape[0]
        targets = [r.randrange(4) for _ in range(rows)]
        own = [r.randrange(rows) for _ in range(rows)]
        name, function = r.choice(
            [
                (
                    f"index_add {targets}",
                    lambda x: dg.zeros(4, *x.shape[1:], dtype=x.dtype).index_add(0, dg.tensor(targets), x),
                ),
                (f"index_add own {own}", lambda x: x.index_add(0, dg.tensor(own), x * 0.5)),
                (f"index_copy {own[:1]}", lambda x: x.index_copy(0, dg.tensor(own[:1]), x[:1] * 2)),
                ("scatter_add", lambda x: x.scatter_add(0, dg.zeros(x.shape, dtype=dg.int64) + own[0], x * 0.1)),
            ]
        )
        return name, function, (i,)

    def loss(self) -> Step | None:
        i = self.pick(lambda t: t.ndim == 2 and t.shape.numel() > 0)
        if i is None:
            return None
        r, shape = self.random, tuple(self.values[i].shape)
        labels = [r.randrange(shape[1]) for _ in range(shape[0])]
        reduction = r.choice(["mean", "sum", "none"])
        j = self.pick(lambda t: tuple(t.shape) == shape)
        assert j is not None
        name, function = r.choice(
            [
                (
                    f"cross_entropy {labels}",
                    lambda a, b: F.cross_entropy(a, dg.tensor(labels), reduction=reduction) * 0.2,
                ),
                ("mse_loss", lambda a, b: F.mse_loss(a, b, reduction=reduction) * 0.2),
                ("smooth_l1", lambda a, b: F.smooth_l1_loss(a, b, reduction=reduction)),
                (
                    "bce_logits",
                    lambda a, b: F.binary_cross_entropy_with_logits(a, b.detach().sigmoid(), reduction=reduction),
                ),
                ("kl_div", lambda a, b: F.kl_div(F.log_softmax(a, 1), F.softmax(b, 1), reduction="none")),
                (
                    "nll_loss ignore",
                    lambda a, b: F.nll_loss(F.log_softmax(a, 1), dg.tensor(labels), ignore_index=0, reduction="sum"),
                ),
            ]
        )
        return f"{name} {reduction}", function, (i, j)

    def norm(self) -> Step | None:
        i = self.pick(lambda t: t.ndim >= 2 and t.shape[-1] > 1)
        if i is None:
            return None
        columns = self.values[i].shape[-1]
        j = self.pick(lambda t: tuple(t.shape) == (columns,))
        if j is None or self.random.random() < 0.4:
            if self.values[i].ndim == 2 and self.values[i].shape[0] > 1 and self.random.random() < 0.6:
                return "batch_norm", lambda x: F.batch_norm(x, None, None, training=True, eps=0.1), (i,)
            return "layer_norm", lambda x: F.layer_norm(x, (columns,), eps=0.1), (i,)
        return "layer_norm affine", lambda x, w: F.layer_norm(x, (columns,), w, w * 0.5, eps=0.1), (i, j)

    def write(self) -> Step | None:
        """Writes in place: to a copy, or to a value that others are views of."""
        leaves = len(self.program.arrays)
        i = self.pick(lambda t: t.ndim > 0)
        if i is None:
            return None
        r, t = self.random, self.values[i]
        row = r.randrange(t.shape[0]) if t.shape[0] else None
        value = round(r.uniform(-1, 1), 2)

        def add(x: Any) -> Any:
            return x.add_(value)

        def mul(x: Any) -> Any:
            return x.mul_(x.detach().tanh() + 1)

        def assign(x: Any) -> Any:
            x[row] = value
            return x

        def scale_rows(x: Any) -> Any:
            x[row:] *= 0.5
            return x

        def through_view(x: Any) -> Any:
            x.reshape(-1)[::2].sub_(0.25)
            return x

        def masked(x: Any) -> Any:
            x[x.detach() > 0.5] = value
            return x

        def column(x: Any) -> Any:
            x[..., 0] = x[..., -1].clone() * 2 if x.shape[-1] else 1.0
            return x

        def zero(x: Any) -> Any:
            x[:1].zero_()
            return x

        choices: list[Any] = [add, mul, masked, zero]
        if row is not None:
            choices += [assign, scale_rows]
        if t.is_contiguous():
            choices.append(through_view)
        if t.ndim > 1 and t.shape[-1]:
            choices.append(column)
        function = r.choice(choices)
        # Values that overlap themselves refuse writes, leaves too: those are copied first.
        root = t
        while root._view is not None:
            root = root._view.parent
        if i < leaves or root.is_leaf or r.random() < 0.5 or 0 in t.stride():
            return f"clone, {function.__name__} {row} {value}", lambda x: function(x.clone()), (i,)
        return f"{function.__name__} {row} {value}", function, (i,)

    def update(self) -> Step | None:
        """A leaf changes under no_grad, as an optimizer changes it."""
        if self.random.random() < 0.6:
            return None
        i = self.random.randrange(len(self.program.arrays))
        shape = tuple(self.values[i].shape)
        j = self.pick(lambda t: tuple(t.shape) == shape)
        assert j is not None

        def step(w: Any, g: Any) -> Any:
            with dg.no_grad():
                w -= 0.1 * g
                w.data.mul_(0.9)
            return w * 1.0

        return "no_grad update", step, (i, j)

    def draw(self) -> Step | None:
        i = self.pick()
        if i is None:
            return None
        shape = tuple(self.values[i].shape)
        name, function = self.random.choice(
            [
                ("plus randn", lambda x: x + dg.randn(shape, dtype=x.dtype) * 0.1),
                ("dropout", lambda x: F.dropout(x, 0.4)),
                ("times rand_like", lambda x: x * dg.rand_like(x)),
                ("bernoulli", lambda x: x * dg.bernoulli(dg.full(shape, 0.5, dtype=x.dtype))),
                ("uniform_", lambda x: x + x.detach().clone().uniform_(-0.1, 0.1)),
                ("randint", lambda x: x * dg.randint(0, 3, shape)),
                ("permuted", lambda x: x[dg.randperm(x.shape[0])] if x.ndim else x * 2),
            ]
        )
        return name, function, (i,)


@dataclass
class Outcome:
    """All values, gradients and double gradients of a run, as numpy arrays (None: no gradient)."""

    values: list[np.ndarray]
    first: list[np.ndarray | None]
    second: list[np.ndarray | None]


def evaluate(program: Program, place: Callable[[Any, int], Any] = lambda t, i: t, order: int = 2) -> Outcome:
    """Runs a program with placed leaves; gradients are those of a fixed weighted sum of its last values."""
    leaves = [place(leaf, i).detach().requires_grad_() for i, leaf in enumerate(program.leaves())]
    values = program.run(leaves)
    total: Any = 0.0
    last = [v for v in values[len(leaves) :] if v.requires_grad][-6:]
    for number, value in enumerate(last):
        total = total + (value.sin() * (1 + 0.3 * number)).sum()
    first: list[Any] = [None] * len(leaves)
    second: list[Any] = [None] * len(leaves)
    if last:
        first = list(dg.autograd.grad(total, leaves, create_graph=order > 1, allow_unused=True))
        again = [g for g in first if g is not None and g.requires_grad]
        if order > 1 and again:
            energy: Any = 0.0
            for g in again:
                energy = energy + g.sin().sum()
            second = list(dg.autograd.grad(energy, leaves, allow_unused=True))
    numpy = [None if g is None else g.detach().numpy() for g in (*first, *second)]
    arrays = [v.detach().numpy() for v in values]
    return Outcome(arrays, numpy[: len(leaves)], numpy[len(leaves) :])


def well_conditioned(program: Program, outcome: Outcome, tolerance: float, order: int) -> bool:
    """Says whether rounding-size changes of the leaves change the results by less than a tenth of the tolerance.

    A program that fails this cannot be compared: its results depend on the order of additions, whoever computes them.
    """
    numbers = np.random.default_rng(program.seed)
    nudged = [
        (a * (1 + np.finfo(a.dtype).eps * numbers.choice([-2.0, 2.0], a.shape))).astype(a.dtype) for a in program.arrays
    ]
    other = Program(program.seed, nudged, program.steps)
    try:
        compare(evaluate(other, order=order), outcome, tolerance / 10, program, "nudged")
    except AssertionError:
        return False
    return True


def compare(found: Outcome, expected: Outcome, tolerance: float, program: Program, note: str) -> None:
    """Asserts equality up to `tolerance`, relative to the largest magnitude; the message prints the program."""
    groups = (
        ("value", found.values, expected.values),
        ("gradient", found.first, expected.first),
        ("double gradient", found.second, expected.second),
    )
    for kind, ours, theirs in groups:
        scale = max((float(np.abs(b).max()) for b in theirs if b is not None and b.size), default=1.0)
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            where = f"{kind} %{number}, {note}\n{program}"
            if a is None or b is None:
                present = a if b is None else b
                if present is not None:
                    assert not np.any(present), where
                continue
            assert (a.shape, a.dtype) == (b.shape, b.dtype), where
            np.testing.assert_allclose(
                a, b, rtol=tolerance, atol=tolerance * max(1.0, scale), equal_nan=True, err_msg=where
            )
