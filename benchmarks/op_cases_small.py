"""Functions of about 10 elements that HIPS autograd differentiates, each spelled for it and for distgrad.

Invariant: both spellings of a case compute the same values from the same operands. `n` is `autograd.numpy` or `distgrad`;
the first operand is the one that is differentiated, or all of them where a case says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import autograd.scipy.linalg
import autograd.scipy.signal
import autograd.scipy.special
import numpy as np

import distgrad as dg


@dataclass(frozen=True)
class Case:
    """A function of operands: how each library writes it, and which operands are differentiated."""

    name: str
    theirs: Callable[..., Any]
    ours: Callable[..., Any]
    operands: tuple[Any, ...]
    wanted: tuple[int, ...] = (0,)


def operand(kind: str) -> Any:
    """Gives an operand by a short name: "v" (10,), "m" (2, 5), "p" positive (10,), "s" (3, 3), "d" (3, 3) definite..."""
    shapes = {"v": (10,), "m": (2, 5), "p": (10,), "u": (10,), "s": (3, 3), "r": (5,), "c": (2, 1), "o": (1,),
              "z": (), "t": (2, 3, 2), "k": (5, 2), "f": (8,), "g": (3, 1), "w": (4, 2)}
    generator = np.random.default_rng(ord(kind))
    if kind == "d":
        a = generator.random((3, 3))
        return a @ a.T + 3 * np.eye(3)
    if kind == "l":
        return np.tril(generator.random((3, 3))) + np.eye(3)
    x = generator.standard_normal(shapes[kind])
    if kind == "p":
        return np.abs(x) + 0.5
    return generator.uniform(0.05, 0.95, 10) if kind == "u" else x


def _case(name: str, operands: str, ours: Callable[..., Any], theirs: Callable[..., Any] | None = None,
          wanted: tuple[int, ...] = (0,)) -> Case:
    mine = (lambda *a: ours(dg, *a)) if theirs is None else ours
    other = (lambda *a: ours(anp, *a)) if theirs is None else theirs
    return Case(name, other, mine, tuple(operand(k) for k in operands), wanted)


def _unary() -> list[Case]:
    same = {"exp": "v", "exp2": "v", "expm1": "v", "log": "p", "log2": "p", "log10": "p", "log1p": "p", "sqrt": "p",
            "square": "v", "sin": "v", "cos": "v", "tan": "v", "arcsin": "u", "arccos": "u", "arctan": "v",
            "sinh": "v", "cosh": "v", "tanh": "v", "arcsinh": "v", "arccosh": "P", "arctanh": "u", "sinc": "v",
            "abs": "v", "absolute": "v", "negative": "v", "reciprocal": "p", "deg2rad": "v", "rad2deg": "v",
            "sign": "v", "floor": "v", "ceil": "v", "nan_to_num": "v", "real": "v", "conj": "v"}
    cases = []
    for name, kind in same.items():
        made = operand("p") + 1 if kind == "P" else operand(kind)
        cases.append(Case(name, getattr(anp, name), getattr(dg, name), (made,)))
    special = autograd.scipy.special
    for name, theirs, ours, kind in (
        ("expit", special.expit, dg.sigmoid, "v"), ("logit", special.logit, dg.logit, "u"),
        ("erf", special.erf, dg.erf, "v"), ("erfc", special.erfc, dg.erfc, "v"),
        ("erfinv", special.erfinv, dg.erfinv, "u"), ("gammaln", special.gammaln, dg.lgamma, "p"),
        ("psi", special.psi, dg.digamma, "p"), ("polygamma", lambda x: special.polygamma(1, x),
                                                lambda x: dg.polygamma(1, x), "p"),
        ("i0", special.i0, dg.special.i0, "v"), ("i1", special.i1, dg.special.i1, "v"),
    ):
        cases.append(Case(name, theirs, ours, (operand(kind),)))
    return cases


def _binary() -> list[Case]:
    same = {"add": "vv", "subtract": "vv", "multiply": "vv", "divide": "vp", "true_divide": "vp", "maximum": "vu",
            "minimum": "vu", "fmax": "vu", "fmin": "vu", "logaddexp": "vu", "logaddexp2": "vu", "arctan2": "vp",
            "hypot": "vp", "remainder": "vp"}
    cases = []
    for name, kinds in same.items():
        pair = tuple(operand(k) for k in kinds)
        theirs, ours = getattr(anp, name), getattr(dg, name)
        cases.append(Case(name, theirs, ours, pair))
        cases.append(Case(f"{name} by second", theirs, ours, pair, (1,)))
        cases.append(Case(f"{name} by both", theirs, ours, pair, (0, 1)))
    cases += [
        _case("power", "pv", lambda n, x, y: x ** y),
        _case("power by both", "pv", lambda n, x, y: x ** y, wanted=(0, 1)),
        _case("x + y", "vv", lambda n, x, y: x + y),
        _case("x - 1.5", "v", lambda n, x: x - 1.5),
        _case("1.5 - x", "v", lambda n, x: 1.5 - x),
        _case("x * 1.5", "v", lambda n, x: x * 1.5),
        _case("2 * x", "v", lambda n, x: 2 * x),
        _case("x / 1.5", "v", lambda n, x: x / 1.5),
        _case("1 / x", "p", lambda n, x: 1 / x),
        _case("x ** 2", "v", lambda n, x: x ** 2),
        _case("x ** 3", "v", lambda n, x: x ** 3),
        _case("x ** 0.5", "p", lambda n, x: x ** 0.5),
        _case("2 ** x", "v", lambda n, x: 2 ** x),
        _case("-x", "v", lambda n, x: -x),
        _case("x * x", "v", lambda n, x: x * x),
        _case("x % 2", "v", lambda n, x: x % 2),
    ]
    for symbol, function in (("+", lambda n, x, y: x + y), ("*", lambda n, x, y: x * y),
                             ("/", lambda n, x, y: x / (y * y + 1.0))):
        for kinds in ("mr", "rm", "mc", "cm", "vo", "ov", "vz", "zv", "cr"):
            cases.append(_case(f"broadcast {kinds[0]} {symbol} {kinds[1]}", kinds, function, wanted=(0, 1)))
    cases.append(_case("broadcast row by itself", "rm", lambda n, x, y: x * y))
    cases.append(_case("maximum with scalar", "v", lambda x: dg.maximum(x, dg.tensor(0.0, dtype=dg.float64)),
                       lambda x: anp.maximum(x, 0.0)))
    return cases


def _reductions() -> list[Case]:
    cases = []
    for name in ("sum", "mean", "prod", "max", "min", "var", "std"):
        theirs = getattr(anp, name)
        ours = {"max": dg.amax, "min": dg.amin}.get(name, getattr(dg, name))
        more = {"correction": 0} if name in ("var", "std") else {}
        for axis in (None, 0, 1, -1, (0, 1)):
            for keep in (False, True):
                if name == "prod" and (axis == (0, 1) or (axis is None and keep)):
                    continue
                cases.append(_case(
                    f"{name} axis={axis}{' keepdims' if keep else ''}", "m",
                    lambda x, f=ours, a=axis, k=keep, o=more: f(x, dim=a, keepdim=k, **o),
                    lambda x, f=theirs, a=axis, k=keep: f(x, axis=a, keepdims=k)))
        cases.append(_case(f"{name} of vector", "v", lambda x, f=ours, o=more: f(x, **o), theirs))
    cases += [
        _case("var ddof=1", "v", lambda x: dg.var(x), lambda x: anp.var(x, ddof=1)),
        _case("std ddof=1", "v", lambda x: x.std(), lambda x: anp.std(x, ddof=1)),
        _case("method max", "v", lambda x: x.max(), lambda x: x.max()),
        _case("max dim values", "m", lambda x: dg.max(x, 1).values, lambda x: anp.max(x, 1)),
        _case("method sum", "m", lambda x: x.sum(0), lambda x: x.sum(0)),
        _case("method mean", "m", lambda x: x.mean(1), lambda x: x.mean(1)),
        _case("logsumexp", "v", lambda x: dg.logsumexp(x, 0), lambda x: autograd.scipy.special.logsumexp(x)),
        _case("logsumexp axis=0", "m", lambda x: dg.logsumexp(x, 0),
              lambda x: autograd.scipy.special.logsumexp(x, axis=0)),
        _case("logsumexp axis=1 keepdims", "m", lambda x: dg.logsumexp(x, 1, keepdim=True),
              lambda x: autograd.scipy.special.logsumexp(x, axis=1, keepdims=True)),
        _case("cumsum", "v", lambda n, x: n.cumsum(x, 0)),
        _case("cumsum axis=1", "m", lambda n, x: n.cumsum(x, 1)),
        _case("cumsum axis=0", "m", lambda n, x: n.cumsum(x, 0)),
        _case("norm", "v", lambda n, x: n.linalg.norm(x)),
        _case("norm ord=3", "v", lambda n, x: n.linalg.norm(x, 3)),
        _case("norm axis=1", "m", lambda x: dg.linalg.norm(x, dim=1), lambda x: anp.linalg.norm(x, axis=1)),
        _case("norm fro", "m", lambda n, x: n.linalg.norm(x)),
        _case("norm nuc", "s", lambda n, x: n.linalg.norm(x, "nuc")),
        _case("sort", "v", lambda x: dg.sort(x)[0], anp.sort),
        _case("partition", "v", lambda x: dg.sort(x)[0], lambda x: anp.partition(x, 4)),
        _case("diff", "v", lambda n, x: n.diff(x)),
        _case("diff n=2", "v", lambda n, x: n.diff(x, 2)),
        _case("gradient", "v", lambda x: dg.gradient(x)[0], anp.gradient),
    ]
    return cases


def _products() -> list[Case]:
    both = (0, 1)
    cases = []
    for wanted, suffix in (((0,), ""), ((1,), " by second"), (both, " by both")):
        for name, kinds, ours, theirs in (
            ("dot", "vv", dg.dot, anp.dot),
            ("dot matrices", "mk", dg.matmul, anp.dot),
            ("dot matrix vector", "mr", dg.mv, anp.dot),
            ("matmul", "mk", dg.matmul, anp.matmul),
            ("matmul vectors", "vv", dg.matmul, anp.matmul),
            ("matmul matrix vector", "mr", dg.matmul, anp.matmul),
            ("matmul vector matrix", "rk", dg.matmul, anp.matmul),
            ("matmul batched", "tt", lambda x, y: x @ y.mT, lambda x, y: x @ anp.swapaxes(y, 1, 2)),
            ("inner", "vv", dg.inner, anp.inner),
            ("inner matrices", "mm", dg.inner, anp.inner),
            ("outer", "rr", dg.outer, anp.outer),
            ("kron", "rk", dg.kron, anp.kron),
            ("kron vectors", "rr", dg.kron, anp.kron),
            ("tensordot 1", "mk", lambda x, y: dg.tensordot(x, y, 1), lambda x, y: anp.tensordot(x, y, 1)),
            ("tensordot 2", "mm", lambda x, y: dg.tensordot(x, y, 2), lambda x, y: anp.tensordot(x, y, 2)),
            ("tensordot axes", "mm", lambda x, y: dg.tensordot(x, y, dims=([1], [1])),
             lambda x, y: anp.tensordot(x, y, axes=([1], [1]))),
            ("einsum ij,jk->ik", "mk", lambda x, y: dg.einsum("ij,jk->ik", x, y),
             lambda x, y: anp.einsum("ij,jk->ik", x, y)),
            ("einsum i,i->", "vv", lambda x, y: dg.einsum("i,i->", x, y), lambda x, y: anp.einsum("i,i->", x, y)),
            ("einsum i,j->ij", "rr", lambda x, y: dg.einsum("i,j->ij", x, y), lambda x, y: anp.einsum("i,j->ij", x, y)),
            ("cross", "GG", dg.linalg.cross, anp.cross),
        ):
            made = tuple(np.random.default_rng(i).random(3) if k == "G" else operand(k) for i, k in enumerate(kinds))
            cases.append(Case(name + suffix, theirs, ours, made, wanted))
    cases += [
        _case("einsum ij->", "m", lambda n, x: n.einsum("ij->", x)),
        _case("einsum ij->j", "m", lambda n, x: n.einsum("ij->j", x)),
        _case("einsum ij->ji", "m", lambda n, x: n.einsum("ij->ji", x)),
        _case("einsum bij,bjk->bik", "tt", lambda n, x, y: n.einsum("bij,bkj->bik", x, y)),
        _case("einsum three", "mkm", lambda n, x, y, z: n.einsum("ij,jk,kl->il", x, y, z)),
        _case("trace", "s", lambda n, x: n.trace(x)),
        _case("convolve", "vr", lambda x, y: dg.nn.functional.conv1d(x[None, None], y.flip(0)[None, None], padding=4),
              lambda x, y: autograd.scipy.signal.convolve(x, y)),
    ]
    return cases


def _movement() -> list[Case]:
    return [
        _case("reshape", "v", lambda n, x: n.reshape(x, (5, 2))),
        _case("method reshape", "v", lambda n, x: x.reshape(2, 5)),
        _case("ravel", "m", lambda n, x: n.ravel(x)),
        _case("flatten", "m", lambda n, x: x.flatten()),
        _case("transpose", "m", lambda x: dg.t(x), lambda x: anp.transpose(x)),
        _case(".T", "m", lambda n, x: x.T),
        _case("permute", "t", lambda x: x.permute(2, 0, 1), lambda x: anp.transpose(x, (2, 0, 1))),
        _case("swapaxes", "t", lambda n, x: n.swapaxes(x, 0, 2)),
        _case("moveaxis", "t", lambda n, x: n.moveaxis(x, 0, 2)),
        _case("squeeze", "c", lambda n, x: n.squeeze(x)),
        _case("squeeze axis", "c", lambda n, x: n.squeeze(x, 1)),
        _case("expand_dims", "v", lambda x: dg.unsqueeze(x, 0), lambda x: anp.expand_dims(x, 0)),
        _case("broadcast_to", "c", lambda n, x: n.broadcast_to(x, (2, 5))),
        _case("concatenate", "vv", lambda n, x, y: n.concatenate((x, y))),
        _case("concatenate by both", "vv", lambda n, x, y: n.concatenate((x, y)), wanted=(0, 1)),
        _case("concatenate axis=1", "mm", lambda n, x, y: n.concatenate((x, y), 1), wanted=(0, 1)),
        _case("concatenate of three", "vvv", lambda n, x, y, z: n.concatenate((x, y, z)), wanted=(0, 1, 2)),
        _case("stack", "vv", lambda n, x, y: n.stack((x, y)), wanted=(0, 1)),
        _case("vstack", "vv", lambda n, x, y: n.vstack((x, y)), wanted=(0, 1)),
        _case("hstack", "vv", lambda n, x, y: n.hstack((x, y)), wanted=(0, 1)),
        _case("column_stack", "vv", lambda n, x, y: n.column_stack((x, y)), wanted=(0, 1)),
        _case("split", "v", lambda x: dg.split(x, 5)[0], lambda x: anp.split(x, 2)[0]),
        _case("split all", "v", lambda x: sum(dg.split(x, 5)), lambda x: sum(anp.split(x, 2))),
        _case("array_split", "v", lambda x: dg.tensor_split(x, 3)[1], lambda x: anp.array_split(x, 3)[1]),
        _case("hsplit", "w", lambda n, x: n.hsplit(x, 2)[1]),
        _case("vsplit", "m", lambda n, x: n.vsplit(x, 2)[1]),
        _case("tile", "v", lambda n, x: n.tile(x, (3,))),
        _case("tile rows", "r", lambda n, x: n.tile(x, (2, 2))),
        _case("repeat", "v", lambda x: dg.repeat_interleave(x, 2), lambda x: anp.repeat(x, 2)),
        _case("repeat axis", "m", lambda x: dg.repeat_interleave(x, 2, dim=1), lambda x: anp.repeat(x, 2, axis=1)),
        _case("roll", "v", lambda n, x: n.roll(x, 3)),
        _case("roll axis", "m", lambda n, x: n.roll(x, 1, 1)),
        _case("flipud", "m", lambda n, x: n.flipud(x)),
        _case("fliplr", "m", lambda n, x: n.fliplr(x)),
        _case("flip by slice", "v", lambda x: dg.flip(x, (0,)), lambda x: x[::-1]),
        _case("rot90", "m", lambda n, x: n.rot90(x)),
        _case("pad", "v", lambda x: dg.nn.functional.pad(x, (2, 3)), lambda x: anp.pad(x, (2, 3), "constant")),
        _case("pad matrix", "m", lambda x: dg.nn.functional.pad(x, (1, 1, 1, 1)),
              lambda x: anp.pad(x, ((1, 1), (1, 1)), "constant")),
        _case("diag of vector", "r", lambda n, x: n.diag(x)),
        _case("diag of matrix", "s", lambda n, x: n.diag(x)),
        _case("diagonal", "s", lambda n, x: n.diagonal(x, 0, -1, -2)),
        _case("tril", "s", lambda n, x: n.tril(x)),
        _case("triu", "s", lambda n, x: n.triu(x)),
        _case("atleast_1d", "z", lambda n, x: n.atleast_1d(x)),
        _case("atleast_2d", "v", lambda n, x: n.atleast_2d(x)),
        _case("atleast_3d", "v", lambda n, x: n.atleast_3d(x)),
        _case("astype", "v", lambda x: x.to(dg.float32), lambda x: x.astype(np.float32)),
    ]


def _selection() -> list[Case]:
    mask = operand("v") > 0
    index = np.array([0, 3, 3, 7])
    ours_mask, ours_index = dg.tensor(mask), dg.tensor(index)
    pairs = (np.array([0, 1, 1]), np.array([4, 0, 2]))
    ours_pairs = tuple(dg.tensor(p) for p in pairs)
    return [
        _case("where", "vu", lambda x, y: dg.where(ours_mask, x, y), lambda x, y: anp.where(mask, x, y)),
        _case("where by both", "vu", lambda x, y: dg.where(ours_mask, x, y), lambda x, y: anp.where(mask, x, y),
              wanted=(0, 1)),
        _case("where of comparison", "vu", lambda n, x, y: n.where(x > 0, x, y)),
        _case("clip", "v", lambda n, x: n.clip(x, -0.5, 0.5)),
        _case("x[3]", "v", lambda n, x: x[3]),
        _case("x[-1]", "v", lambda n, x: x[-1]),
        _case("x[2:5]", "v", lambda n, x: x[2:5]),
        _case("x[1:9:2]", "v", lambda n, x: x[1:9:2]),
        _case("x[1]", "m", lambda n, x: x[1]),
        _case("x[:, 2]", "m", lambda n, x: x[:, 2]),
        _case("x[0, 1]", "m", lambda n, x: x[0, 1]),
        _case("x[1, 1:4]", "m", lambda n, x: x[1, 1:4]),
        _case("x[..., 1]", "t", lambda n, x: x[..., 1]),
        _case("x[None]", "v", lambda n, x: x[None]),
        _case("x[:, None]", "v", lambda n, x: x[:, None]),
        _case("x[:, ::2]", "m", lambda n, x: x[:, ::2]),
        _case("x[tensor]", "v", lambda x: x[ours_index], lambda x: x[index]),
        _case("x[list]", "v", lambda n, x: x[[0, 3, 3, 7]]),
        _case("x[array]", "v", lambda n, x: x[index]),
        _case("x[mask]", "v", lambda x: x[ours_mask], lambda x: x[mask]),
        _case("x[x > 0]", "v", lambda n, x: x[x > 0]),
        _case("x[pairs]", "m", lambda x: x[ours_pairs], lambda x: x[pairs]),
        _case("x[:, tensor]", "m", lambda x: x[:, ours_pairs[0]], lambda x: x[:, pairs[0]]),
        _case("x[0] * x[1]", "m", lambda n, x: x[0] * x[1]),
        _case("unpack", "c", lambda n, x: x[0] + x[1]),
        _case("iteration", "r", lambda n, x: sum(e * e for e in x)),
        _case("array of scalars", "r", lambda x: dg.stack([x[0], x[1]]), lambda x: anp.array([x[0], x[1]])),
    ]


def _matrices() -> list[Case]:
    linalg = autograd.scipy.linalg
    return [
        _case("solve", "ds", lambda n, a, b: n.linalg.solve(a, b), wanted=(0, 1)),
        _case("solve by matrix", "ds", lambda n, a, b: n.linalg.solve(a, b)),
        _case("solve by right side", "ds", lambda n, a, b: n.linalg.solve(a, b), wanted=(1,)),
        _case("solve_triangular", "ls", lambda a, b: dg.linalg.solve_triangular(a, b, upper=False),
              lambda a, b: linalg.solve_triangular(a, b, lower=True), wanted=(0, 1)),
        _case("inv", "d", lambda n, x: n.linalg.inv(x)),
        _case("pinv", "s", lambda n, x: n.linalg.pinv(x)),
        _case("det", "d", lambda n, x: n.linalg.det(x)),
        _case("slogdet", "d", lambda n, x: n.linalg.slogdet(x)[1]),
        _case("cholesky", "d", lambda n, x: n.linalg.cholesky(x)),
        _case("eigh values", "d", lambda n, x: n.linalg.eigh(x)[0]),
        _case("eigh vectors", "d", lambda n, x: n.linalg.eigh(x)[1] ** 2),
        _case("svd values", "d", lambda x: dg.linalg.svd(x, full_matrices=False)[1],
              lambda x: anp.linalg.svd(x, full_matrices=False)[1]),
        _case("svd", "m", lambda x: dg.linalg.svd(x, full_matrices=False)[0] ** 2,
              lambda x: anp.linalg.svd(x, full_matrices=False)[0] ** 2),
        _case("eig values", "d", lambda n, x: n.real(n.linalg.eig(x)[0])),
    ]


def _transforms() -> list[Case]:
    cases = []
    for name in ("fft", "ifft", "rfft", "fft2", "ifft2", "fftn", "ifftn", "rfft2", "rfftn"):
        kind = "w" if "2" in name or name.endswith("n") else "f"
        cases.append(_case(name, kind, lambda n, x, f=name: n.real(getattr(n.fft, f)(x))))
    cases += [
        _case("irfft", "f", lambda n, x: n.fft.irfft(x, 14)),
        _case("fftshift", "f", lambda n, x: n.fft.fftshift(x)),
        _case("abs of fft", "f", lambda n, x: n.abs(n.fft.fft(x))),
        _case("product of fft", "ff", lambda n, x, y: n.real(n.fft.ifft(n.fft.fft(x) * n.fft.fft(y)))),
    ]
    return cases


def _programs() -> list[Case]:
    def chain(n: Any, x: Any) -> Any:
        for _ in range(10):
            x = n.sin(x) * 1.1
        return x

    def layers(n: Any, w: Any, b: Any, v: Any, x: Any) -> Any:
        return n.mean((n.tanh(x @ w + b) @ v - 1.0) ** 2)

    def softmax(n: Any, x: Any) -> Any:
        e = n.exp(x - 0.5)
        return -n.log(e / n.sum(e))[2]

    def rosenbrock(n: Any, x: Any) -> Any:
        return n.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    def pendulum(n: Any, x: Any) -> Any:
        a, b = x[0], x[1]
        for _ in range(5):
            a, b = a + 0.1 * b, b - 0.1 * n.sin(a)
        return a * a + b * b

    return [
        _case("program: chain of 20 ops", "v", chain),
        _case("program: MLP loss", "krkm", lambda n, w, b, v, x: layers(n, w, b[:2], v[:2], x), wanted=(0, 1, 2)),
        _case("program: MLP loss by one", "kzkm", lambda n, w, b, v, x: layers(n, w, b, v[:2], x)),
        _case("program: softmax loss", "v", softmax),
        _case("program: logistic loss", "rm", lambda n, w, x: -n.sum(n.log(1 / (1 + n.exp(-n.matmul(x, w)))))),
        _case("program: tanh as in HIPS's README", "v",
              lambda n, x: (1.0 - n.exp(-2 * x)) / (1.0 + n.exp(-2 * x))),
        _case("program: Rosenbrock", "v", rosenbrock),
        _case("program: pendulum", "c", lambda n, x: pendulum(n, x)),
        _case("program: normal log density", "v", lambda n, x: -0.5 * ((x - 0.3) / 1.7) ** 2 - 0.919),
    ]


def cases() -> list[Case]:
    """Gives all cases."""
    return [*_unary(), *_binary(), *_reductions(), *_products(), *_movement(), *_selection(), *_matrices(),
            *_transforms(), *_programs()]
