"""Functions of large operands as plain numpy and as distgrad write them.

Invariant: a case's two sides read the same memory and compute the same values in the same dtype; `n` is `numpy` or
`distgrad`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import op_cases_more

import distgrad as dg

Side = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A case: `make` gives both sides, numpy's first; `tolerance` is for values that rounding moves further."""

    name: str
    make: Callable[[], tuple[Side, Side]]
    tolerance: float | None = None


def _pair(theirs: Callable[..., Any], ours: Callable[..., Any], arrays: Callable[[], tuple[Any, ...]]) -> Any:
    def make() -> tuple[Side, Side]:
        given = arrays()
        tensors = [dg.from_numpy(a) if isinstance(a, np.ndarray) else a for a in given]
        return (lambda: theirs(*given)), (lambda: ours(*tensors))

    return make


def _random(shape: Any, kind: str, low: float = 0.05, high: float = 0.95, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(kind)


_UNARY = {
    "exp": (-3, 3), "exp2": (-3, 3), "expm1": (-3, 3), "log": (0.1, 9), "log2": (0.1, 9), "log10": (0.1, 9),
    "log1p": (0.1, 9), "sqrt": (0.1, 9), "square": (-3, 3), "sin": (-3, 3), "cos": (-3, 3), "tan": (-1, 1),
    "arcsin": (-0.9, 0.9), "arccos": (-0.9, 0.9), "arctan": (-3, 3), "sinh": (-3, 3), "cosh": (-3, 3),
    "tanh": (-3, 3), "arcsinh": (-3, 3), "arccosh": (1.1, 9), "arctanh": (-0.9, 0.9), "sinc": (-3, 3),
    "abs": (-3, 3), "negative": (-3, 3), "reciprocal": (0.1, 9), "sign": (-3, 3), "floor": (-3, 3), "ceil": (-3, 3),
    "trunc": (-3, 3), "rint": (-3, 3), "isnan": (-3, 3), "isinf": (-3, 3), "isfinite": (-3, 3), "signbit": (-3, 3),
    "nan_to_num": (-3, 3), "deg2rad": (-3, 3), "rad2deg": (-3, 3), "logical_not": (-3, 3),
}
_BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "fmax", "fmin", "logaddexp", "logaddexp2",
           "arctan2", "hypot", "remainder", "fmod", "floor_divide", "copysign", "nextafter", "power", "greater",
           "less_equal", "equal", "not_equal", "logical_and", "heaviside")
_OURS = {"rint": "round", "power": "pow", "equal": "eq"}


def _elementwise(count: int, kind: str) -> Iterator[Case]:
    for name, (low, high) in _UNARY.items():
        theirs, ours = getattr(np, name), getattr(dg, _OURS.get(name, name))
        yield Case(f"{name} {kind}", _pair(theirs, ours, lambda a=low, b=high: (_random(count, kind, a, b),)))
    for name in _BINARY:
        theirs, ours = getattr(np, name), getattr(dg, _OURS.get(name, name))
        yield Case(f"{name} {kind}", _pair(theirs, ours, lambda: (_random(count, kind), _random(count, kind, seed=1))))
    side = int(count ** 0.5) // 8 * 8
    shape = (side, side)
    for name in ("exp", "abs", "sqrt", "tanh"):
        theirs, ours = getattr(np, name), getattr(dg, name)
        yield Case(f"{name} of transposed {kind}", _pair(
            theirs, ours, lambda: (_random(shape, kind).T,)))
        yield Case(f"{name} of every other column {kind}", _pair(
            theirs, ours, lambda: (_random((side, 2 * side), kind)[:, ::2],)))
    for name in ("add", "multiply", "divide", "maximum", "greater"):
        function, ours = getattr(np, name), getattr(dg, name)
        for what, arrays in (
            ("matrix and row", lambda: (_random(shape, kind), _random(side, kind))),
            ("matrix and column", lambda: (_random(shape, kind), _random((side, 1), kind))),
            ("row and column", lambda: (_random((1, side), kind), _random((side, 1), kind))),
            ("matrix and transposed", lambda: (_random(shape, kind), _random(shape, kind).T)),
            ("both transposed", lambda: (_random(shape, kind).T, _random(shape, kind, seed=1).T)),
        ):
            yield Case(f"{name} {what} {kind}", _pair(function, ours, arrays))
        if name != "maximum":
            yield Case(f"{name} by number {kind}", _pair(
                lambda x, f=function: f(x, np.asarray(0.7, x.dtype)), lambda x, f=ours: f(x, 0.7),
                lambda: (_random(count, kind),)))
    for what, function in (
        ("x ** 2", lambda n, x: x ** 2), ("x ** 3", lambda n, x: x ** 3), ("x ** 0.5", lambda n, x: x ** 0.5),
        ("x ** 2.5", lambda n, x: x ** 2.5), ("2 ** x", lambda n, x: 2 ** x), ("1 / x", lambda n, x: 1 / x),
        ("1 - x", lambda n, x: 1 - x), ("-x", lambda n, x: -x), ("x > 0.5", lambda n, x: x > 0.5),
        ("clip", lambda n, x: n.clip(x, 0.2, 0.8)),
        ("where", lambda n, x: n.where(x > 0.5, x, -x)),
        ("x * x + x", lambda n, x: x * x + x),
        ("sigmoid", lambda n, x: 1 / (1 + n.exp(-x)) if n is np else n.sigmoid(x)),
        ("relu", lambda n, x: n.maximum(x, 0) if n is np else n.relu(x)),
        ("softmax", lambda n, x: _softmax(n, x.reshape(-1, 1000))),
    ):
        yield Case(f"{what} {kind}", _pair(
            lambda x, f=function: f(np, x), lambda x, f=function: f(dg, x), lambda: (_random(count // 1000 * 1000, kind),)))
    other = "float64" if kind == "float32" else "float32"
    yield Case(f"cast {kind} to {other}", _pair(
        lambda x: x.astype(other), lambda x: x.to(getattr(dg, other)), lambda: (_random(count, kind),)))
    yield Case(f"cast {kind} to int64", _pair(
        lambda x: x.astype(np.int64), lambda x: x.long(), lambda: (_random(count, kind),)))
    yield Case(f"copy {kind}", _pair(lambda x: x.copy(), lambda x: x.clone(), lambda: (_random(count, kind),)))
    yield Case(f"{kind} plus its double", _pair(
        lambda x, y: x + y, lambda x, y: x + y, lambda: (_random(count, kind), _random(count, other))))


def _softmax(n: Any, x: Any) -> Any:
    if n is dg:
        return dg.softmax(x, -1)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


_REDUCTIONS = ("sum", "mean", "prod", "max", "min", "var", "std", "argmax", "argmin", "all", "any", "count_nonzero")


def _reductions(count: int, kind: str) -> Iterator[Case]:
    side = int(count ** 0.5) // 8 * 8
    shapes = {"square": (side, side), "long": (count // 50, 50), "flat": (50, count // 50),
              "cube": (side // 16, 16, side)}
    for name in _REDUCTIONS:
        theirs, ours = getattr(np, name), {"max": dg.amax, "min": dg.amin}.get(name, getattr(dg, name))
        more = {"correction": 0} if name in ("var", "std") else {}
        span = (0.9999, 1.0001) if name == "prod" else (0.05, 0.95)
        for what, shape in shapes.items():
            for axis in (None, *range(len(shape))):
                yield Case(f"{name} {what} axis={axis} {kind}", _pair(
                    lambda x, f=theirs, a=axis: f(x, axis=a),
                    lambda x, f=ours, a=axis, o=more: f(x, dim=a, **o),
                    lambda s=shape, p=span: (_random(s, kind, *p),)), 1e-3 if kind == "float32" else None)
        for axis in (None, 0, 1):
            yield Case(f"{name} transposed axis={axis} {kind}", _pair(
                lambda x, f=theirs, a=axis: f(x, axis=a),
                lambda x, f=ours, a=axis, o=more: f(x, dim=a, **o),
                lambda s=shapes["square"], p=span: (_random(s, kind, *p).T,)), 1e-3 if kind == "float32" else None)
            yield Case(f"{name} every other axis={axis} {kind}", _pair(
                lambda x, f=theirs, a=axis: f(x, axis=a),
                lambda x, f=ours, a=axis, o=more: f(x, dim=a, **o),
                lambda s=shapes["square"], p=span: (_random((s[0], 2 * s[1]), kind, *p)[:, ::2],)),
                1e-3 if kind == "float32" else None)
    for axis in (0, 1):
        for name, theirs, ours in (
            ("cumsum", np.cumsum, dg.cumsum), ("cumprod", np.cumprod, dg.cumprod),
            ("sort with positions", lambda x, a: _sorted(x, a), lambda x, a: dg.sort(x, a)[0]),
            ("median", np.median, lambda x, a: dg.quantile(x, 0.5, dim=a)),
            ("norm", lambda x, a: np.linalg.norm(x, axis=a), lambda x, a: dg.linalg.norm(x, dim=a)),
            ("diff", lambda x, a: np.diff(x, axis=a), lambda x, a: dg.diff(x, dim=a)),
            ("logsumexp", lambda x, a: _logsumexp(x, a), dg.logsumexp),
        ):
            small = shapes["square"] if name not in ("sort with positions", "median") else (side // 2, side // 2)
            span = (0.99, 1.01) if name == "cumprod" else (0.05, 0.95)
            yield Case(f"{name} axis={axis} {kind}", _pair(
                lambda x, f=theirs, a=axis: f(x, a), lambda x, f=ours, a=axis: f(x, a),
                lambda s=small, p=span: (_random(s, kind, *p),)), 1e-3 if kind == "float32" else None)


def _sorted(x: Any, axis: int) -> Any:
    return np.take_along_axis(x, np.argsort(x, axis, kind="stable"), axis)


def _logsumexp(x: Any, axis: int) -> Any:
    top = x.max(axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis)


def _movement(count: int, kind: str) -> Iterator[Case]:
    """What moves elements; what gives views takes as long for any size, and stands among the small cases."""
    side = int(count ** 0.5) // 8 * 8
    index = np.random.default_rng(5).integers(0, side, side)
    mask = np.random.default_rng(6).random((side, side)) < 0.5
    both = {
        "concatenate 0": lambda n, x: n.concatenate((x, x), 0), "concatenate 1": lambda n, x: n.concatenate((x, x), 1),
        "stack": lambda n, x: n.stack((x, x)), "roll": lambda n, x: n.roll(x, 3, 1), "tile": lambda n, x: n.tile(x, (2, 2)),
        "tril": lambda n, x: n.tril(x), "triu": lambda n, x: n.triu(x),
        "x[:, ::2] + 1": lambda n, x: x[:, ::2] + 1, "x.T + 1": lambda n, x: x.T + 1,
        "transposed copied": lambda n, x: np.ascontiguousarray(x.T) if n is np else x.T.contiguous(),
        "reshape of transposed": lambda n, x: x.T.reshape(-1),
        "flip copied": lambda n, x: np.ascontiguousarray(x[::-1]) if n is np else n.flip(x, (0,)),
        "fliplr copied": lambda n, x: np.ascontiguousarray(x[:, ::-1]) if n is np else n.flip(x, (1,)),
        "x[index]": lambda n, x: x[index] if n is np else x[dg.tensor(index)],
        "x[:, index]": lambda n, x: x[:, index] if n is np else x[:, dg.tensor(index)],
        "x[mask]": lambda n, x: x[mask] if n is np else x[dg.from_numpy(mask)],
        "pad": lambda n, x: np.pad(x, 2) if n is np else n.nn.functional.pad(x, (2, 2, 2, 2)),
        "repeat": lambda n, x: np.repeat(x, 2, 1) if n is np else n.repeat_interleave(x, 2, dim=1),
        "take_along_axis": lambda n, x: np.take_along_axis(x, np.broadcast_to(index, x.shape), 1) if n is np
        else n.take_along_dim(x, n.from_numpy(np.broadcast_to(index, (side, side)).copy()), 1),
        "zeros": lambda n, x: n.zeros(x.shape, dtype=getattr(n, kind)),
        "ones": lambda n, x: n.ones(x.shape, dtype=getattr(n, kind)),
        "full": lambda n, x: n.full(x.shape, 0.5, dtype=getattr(n, kind)),
        "arange": lambda n, x: n.arange(count, dtype=getattr(n, kind)),
        "zeros_like": lambda n, x: n.zeros_like(x),
    }
    for name, function in both.items():
        yield Case(f"{name} {kind}", _pair(
            lambda x, f=function: f(np, x), lambda x, f=function: f(dg, x), lambda: (_random((side, side), kind),)))


def _products(kind: str) -> Iterator[Case]:
    square, half = (1024, 1024), (512, 512)
    loose = 1e-3 if kind == "float32" else 1e-9

    def matrices(shape: Any, turned: str = "") -> Callable[[], tuple[Any, ...]]:
        def make() -> tuple[Any, ...]:
            a, b = _random(shape, kind), _random(shape, kind, seed=1)
            return a.T if "a" in turned else a, b.T if "b" in turned else b

        return make

    def definite() -> tuple[Any, ...]:
        a = _random(half, kind)
        return (a @ a.T + 512 * np.eye(512, dtype=kind), _random((512, 4), kind))

    yield Case(f"matmul {kind}", _pair(np.matmul, dg.matmul, matrices(square)), loose)
    for turned in ("a", "b", "ab"):
        yield Case(f"matmul transposed {turned} {kind}", _pair(np.matmul, dg.matmul, matrices(square, turned)), loose)
    for name, theirs, ours in (
        ("dot of vectors", lambda x, y: np.dot(x.ravel(), y.ravel()), lambda x, y: dg.dot(x.ravel(), y.ravel())),
        ("matrix vector", lambda x, y: x @ y[0], lambda x, y: x @ y[0]),
        ("vector matrix", lambda x, y: y[0] @ x, lambda x, y: y[0] @ x),
        ("inner", np.inner, dg.inner), ("outer", lambda x, y: np.outer(x[0], y[0]), lambda x, y: dg.outer(x[0], y[0])),
        ("tensordot", lambda x, y: np.tensordot(x, y, 1), lambda x, y: dg.tensordot(x, y, 1)),
        ("kron", lambda x, y: np.kron(x[:32, :32], y[:32, :32]), lambda x, y: dg.kron(x[:32, :32], y[:32, :32])),
        ("einsum ij,ij->i", lambda x, y: np.einsum("ij,ij->i", x, y), lambda x, y: dg.einsum("ij,ij->i", x, y)),
        ("einsum ij,ij->ij", lambda x, y: np.einsum("ij,ij->ij", x, y), lambda x, y: dg.einsum("ij,ij->ij", x, y)),
        ("einsum ij,ij->", lambda x, y: np.einsum("ij,ij->", x, y), lambda x, y: dg.einsum("ij,ij->", x, y)),
        ("einsum ij->j", lambda x, y: np.einsum("ij->j", x), lambda x, y: dg.einsum("ij->j", x)),
        ("einsum ij->i", lambda x, y: np.einsum("ij->i", x), lambda x, y: dg.einsum("ij->i", x)),
        ("einsum ii->", lambda x, y: np.einsum("ii->", x), lambda x, y: dg.einsum("ii->", x)),
        ("einsum i,j->ij", lambda x, y: np.einsum("i,j->ij", x[0], y[0]), lambda x, y: dg.einsum("i,j->ij", x[0], y[0])),
        ("matmul stacked", lambda x, y: x.reshape(16, 256, 256) @ y.reshape(16, 256, 256),
         lambda x, y: x.reshape(16, 256, 256) @ y.reshape(16, 256, 256)),
        ("matmul of many small", lambda x, y: x.reshape(-1, 4, 4) @ y.reshape(-1, 4, 4),
         lambda x, y: x.reshape(-1, 4, 4) @ y.reshape(-1, 4, 4)),
    ):
        yield Case(f"{name} {kind}", _pair(theirs, ours, matrices(square)), loose)
    loose = 2e-2 if kind == "float32" else 1e-6
    for name, theirs, ours in (
        ("solve", np.linalg.solve, dg.linalg.solve), ("inv", lambda a, b: np.linalg.inv(a), lambda a, b: dg.linalg.inv(a)),
        ("cholesky", lambda a, b: np.linalg.cholesky(a), lambda a, b: dg.linalg.cholesky(a)),
        ("slogdet", lambda a, b: np.linalg.slogdet(a)[1], lambda a, b: dg.linalg.slogdet(a)[1]),
        ("eigvalsh", lambda a, b: np.linalg.eigvalsh(a), lambda a, b: dg.linalg.eigvalsh(a)),
        ("eigh", lambda a, b: np.linalg.eigh(a)[0], lambda a, b: dg.linalg.eigh(a)[0]),
        ("svd", lambda a, b: np.linalg.svd(a)[1], lambda a, b: dg.linalg.svd(a)[1]),
        ("qr", lambda a, b: np.abs(np.linalg.qr(a)[1]), lambda a, b: dg.abs(dg.linalg.qr(a)[1])),
    ):
        yield Case(f"{name} {kind}", _pair(theirs, ours, definite), loose)
    wave = 1 << 19
    for name, theirs, ours in (
        ("fft", np.fft.fft, dg.fft.fft), ("ifft", np.fft.ifft, dg.fft.ifft), ("rfft", np.fft.rfft, dg.fft.rfft),
        ("fft2", lambda x: np.fft.fft2(x.reshape(512, -1)), lambda x: dg.fft.fft2(x.reshape(512, -1))),
        ("irfft", lambda x: np.fft.irfft(x + 0j), lambda x: dg.fft.irfft(x + 0j)),
    ):
        yield Case(f"{name} {kind}", _pair(theirs, ours, lambda: (_random(wave, kind),)), 1e-3)


def _gradients(count: int, kind: str) -> Iterator[Case]:
    """A few functions in both directions: numpy's is written by hand as one would, ours is differentiated."""
    side = int(count ** 0.5) // 8 * 8
    one = np.ones((), kind)

    def both(theirs: Callable[..., Any], ours: Callable[..., Any], *shapes: Any) -> Any:
        def make() -> tuple[Side, Side]:
            arrays = [_random(s, kind, -0.9, 0.9, seed) for seed, s in enumerate(shapes)]
            tensors = [dg.tensor(a, requires_grad=True) for a in arrays]

            def run() -> Any:
                for t in tensors:
                    t.grad = None
                ours(*tensors).sum().backward()
                return tuple(t.grad for t in tensors)

            return (lambda: theirs(*arrays)), run

        return make

    def tanh(x: Any) -> Any:
        y = np.tanh(x)
        y.sum()
        return (np.broadcast_to(one, y.shape) * (1 - y * y),)

    def exp(x: Any) -> Any:
        y = np.exp(x)
        y.sum()
        return (np.broadcast_to(one, y.shape) * y,)

    def multiply(x: Any, y: Any) -> Any:
        (x * y).sum()
        g = np.broadcast_to(one, x.shape)
        return g * y, g * x

    def with_row(x: Any, r: Any) -> Any:
        (x * r).sum()
        g = np.broadcast_to(one, x.shape)
        return g * r, (g * x).sum(0)

    def product(a: Any, b: Any) -> Any:
        y = a @ b
        y.sum()
        g = np.ones_like(y)
        return g @ b.T, a.T @ g

    def layer(x: Any, w: Any, b: Any) -> Any:
        y = np.maximum(x @ w.T + b, 0)
        y.sum()
        g = np.broadcast_to(one, y.shape) * (y > 0)
        return g @ w, g.T @ x, g.sum(0)

    def squares(x: Any) -> Any:
        np.mean(x * x)
        return (np.full(x.shape, 1 / x.size, kind) * 2 * x,)

    for name, theirs, ours, shapes in (
        ("tanh", tanh, dg.tanh, [(side, side)]), ("exp", exp, dg.exp, [(side, side)]),
        ("x * y", multiply, lambda x, y: x * y, [(side, side)] * 2),
        ("x * row", with_row, lambda x, r: x * r, [(side, side), (side,)]),
        ("a @ b", product, lambda a, b: a @ b, [(1024, 1024)] * 2),
        ("relu layer", layer, lambda x, w, b: dg.relu(dg.nn.functional.linear(x, w, b)), [(1024, 512), (512, 512), (512,)]),
        ("mean square", squares, lambda x: (x * x).mean(), [(side, side)]),
    ):
        yield Case(f"both ways {name} {kind}", both(theirs, ours, *shapes), 1e-3)


def cases(count: int, kinds: list[str]) -> Iterator[Case]:
    """Gives all cases with `count` elements where it can be chosen."""
    for kind in kinds:
        yield from _elementwise(count, kind)
        yield from _reductions(count, kind)
        yield from _movement(count, kind)
        yield from _products(kind)
        yield from _gradients(count, kind)
        side = int(count ** 0.5) // 8 * 8
        for name, theirs, ours in op_cases_more.rules(side, kind):
            yield Case(f"{name} {kind}", _pair(theirs, ours, lambda s=side, k=kind: (_random((s, s), k),)),
                       1e-3 if kind == "float32" else 1e-6)
