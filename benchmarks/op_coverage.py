"""How much of PyTorch's operator database is right here: `python benchmarks/op_coverage.py SCOPE [--mode simulated]`.

SCOPE is a file of names as the database spells them (`name.variant`), in sections `## scope`, `## int`, `## random`,
`## uninit`, `## complex`. Every sample of every named OpInfo is computed by torch and by distgrad; a name passes when
all its samples do. Needs torch and expecttest, which nothing else here does.

Modes: `local` (no session), `simulated` (3 workers in this process) and `ray` (2 workers), the last two with every
tensor of one dim or more sharded along dim 0. `--gradgrad` compares second derivatives too; `--errors` runs the error
inputs instead: torch's class of error, raised at the call, with no message sent.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import json
import re
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import pin_threads, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning
import torch  # noqa: E402
from torch.testing._internal.common_device_type import precisionOverride  # noqa: E402
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

import distgrad as dg  # noqa: E402

SECTIONS = ("scope", "int", "random", "uninit", "complex")
KINDS = {"int": (torch.int64, torch.bool), "complex": (torch.float64, torch.complex128)}
NUMBER = (bool, int, float, complex)
GRADIENT_BY_DEFINITION = ("normal",)  # zero in torch, which central differences at a fixed seed are not
# Vectors are given up to a factor of size 1: what the database makes of them is compared.
FREE_SIGNS = ("linalg.svd", "svd", "linalg.eigh", "linalg.eig", "svd_lowrank", "pca_lowrank")
NO_SECOND = ("linalg.norm.subgradients_at_zero",)  # infinite, which the database expects to fail
# torch's own gradient is marked as wrong in the database: central differences decide.
WRONG_IN_TORCH = ("as_strided_scatter",)


class Failure(Exception):
    """A sample whose result is not torch's."""


class NotHere(Exception):
    """An input that cannot be made here: on another device, sparse, or of more dims than numpy's 64."""


def read_scope(path: str) -> dict[str, list[str]]:
    """Gives the names of each section of a scope file."""
    names: dict[str, list[str]] = {section: [] for section in SECTIONS}
    section = ""
    for line in Path(path).read_text().splitlines():
        if line.startswith("## "):
            section = line[3:].split(":")[0]
        elif section and line.strip() and not line.startswith(("#", "[")):
            names[section] += line.split()
    return names


def full_name(info: Any) -> str:
    """Gives an OpInfo's name as the scope file spells it."""
    return info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")


# From torch's world to ours ---------------------------------------------------------------------------------


def find(root: Any, path: str) -> Any:
    """Gives what a dotted path names, or None."""
    for part in path.split("."):
        root = getattr(root, part, None)
        if root is None:
            return None
    return root


def seeded(namespace: Any, seed: int) -> Callable[..., Any]:
    """Gives what stands for the database's `wrapper_set_seed`."""

    def call(op: Callable[..., Any], *args: Any, **options: Any) -> Any:
        namespace.manual_seed(seed)
        return op(*args, **options)

    return call


def rebound(function: types.FunctionType, namespace: Any, seed: int = 42) -> Callable[..., Any]:
    """Gives one of the database's own functions with `torch` meaning `namespace`."""
    names = {}
    for name, value in function.__globals__.items():
        if name == "wrapper_set_seed":
            value = seeded(namespace, seed)
        elif isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] == "torch":
            value = namespace if value is torch else find(namespace, value.__name__.removeprefix("torch.")) or value
        names[name] = value
    cells = tuple(types.CellType(translated_function(c.cell_contents, namespace)) for c in function.__closure__ or ())
    twin = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, cells)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def translated_function(value: Any, namespace: Any) -> Any:
    """Gives a callable's twin: a torch function by its public name, a Python function rebound, a module by its class."""
    if namespace is torch:
        return value
    if isinstance(value, functools.partial):
        return functools.partial(translated_function(value.func, namespace), *value.args, **value.keywords)
    for home in ("nn.functional", "linalg", "special", "nn", ""):
        name = getattr(value, "__name__", None) or type(value).__name__
        path = f"{home}.{name}".lstrip(".")
        named = find(torch, path)
        if named is not None and (named is value or named is type(value)):
            twin = find(namespace, path)
            return twin if named is value else twin()
    if isinstance(value, types.FunctionType):
        return rebound(value, namespace)
    return value


def our_function(info: Any) -> Callable[..., Any] | None:
    """Gives our function for an OpInfo: the public name, else the Tensor method; None when there is neither."""
    if isinstance(info.op, types.FunctionType) and info.op.__module__.startswith("torch.testing."):
        return rebound(info.op, dg)
    named = find(dg, info.name) if find(torch, info.name) is info.op else None
    return named or find(dg.Tensor, info.name) or find(dg, info.name)


def calls(info: Any, how: str) -> tuple[Callable[..., Any], Callable[..., Any] | None] | None:
    """Gives torch's callable of an OpInfo and ours: the function, or as it is called as `how` says; None without one."""
    ours = our_function(info)
    if how == "function":
        return info.op, ours
    if how == "out":
        return (into_out(info.op, torch), None if ours is None else into_out(ours, dg)) if info.supports_out else None
    method = info.method_variant if how == "method" else info.inplace_variant
    if method is None or not hasattr(method, "__name__") or not hasattr(torch.Tensor, method.__name__):
        return None
    twin = getattr(dg.Tensor, method.__name__, None)
    if how == "method":
        return method, twin
    return on_copy(method), None if twin is None else on_copy(twin)


def on_copy(method: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a method that writes to its tensor as one that writes to a copy."""
    return lambda tensor, *args, **options: method(tensor.clone(), *args, **options)


def into_out(function: Callable[..., Any], library: Any) -> Callable[..., Any]:
    """Gives a function that writes its results, which it computes twice, into empty tensors given as `out`."""

    def call(*args: Any, **options: Any) -> Any:
        with library.no_grad():
            result = function(*args, **options)
            single = isinstance(result, library.Tensor)
            out = [library.empty(0, dtype=part.dtype) for part in ([result] if single else result)]
            function(*args, **options, out=out[0] if single else tuple(out))
        return out[0] if single else tuple(out)

    return call


class Translator:
    """Converts a sample's argument tree; `leaves` pairs torch's tensors that require grad with ours."""

    def __init__(self, place: Callable[[Any], Any], aliases: bool = False) -> None:
        self.place = place
        self.aliases = aliases  # tensors that share memory do so here
        self.seen: dict[int, Any] = {}
        self.leaves: list[tuple[torch.Tensor, Any]] = []

    def __call__(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in self.seen:
                shared = self.aliases and value._is_view() and not value.requires_grad
                self.seen[id(value)] = self.view(value) if shared else self.tensor(value)
            return self.seen[id(value)]
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return getattr(dg, str(value).removeprefix("torch."))
        if isinstance(value, torch.device):
            return dg.device(str(value))
        if isinstance(value, torch.Generator):
            generator = dg.Generator()
            generator.manual_seed(value.initial_seed())
            return generator
        if isinstance(value, slice):
            return slice(self(value.start), self(value.stop), self(value.step))
        if isinstance(value, tuple | list):
            plain = tuple if isinstance(value, torch.Size) else type(value)
            return plain(self(part) for part in value)
        if isinstance(value, dict):
            return {key: self(part) for key, part in value.items()}
        return translated_function(value, dg) if callable(value) else value

    def view(self, value: torch.Tensor) -> Any:
        base = value._base
        if base is None or not base.is_contiguous() or base.dtype is not value.dtype:
            return self.tensor(value)
        return dg.as_strided(self(base), tuple(value.shape), value.stride(), value.storage_offset())

    def tensor(self, value: torch.Tensor) -> Any:
        if value.device.type != "cpu" or value.layout is not torch.strided or value.ndim > 64:
            raise NotHere(f"{value.device.type}, {value.layout}, {value.ndim} dims")
        plain = value.detach().resolve_conj().resolve_neg()
        if plain.dtype is torch.bfloat16:
            ours = dg.from_numpy(plain.float().numpy().copy()).to(dg.bfloat16)
        else:
            ours = dg.from_numpy(plain.numpy().copy())
        ours = self.place(ours)
        if value.requires_grad:
            ours = ours.detach().requires_grad_()
            self.leaves.append((value, ours))
        return ours


def sharded(tensor: Any) -> Any:
    """Gives the tensor with its rows spread over the workers, if it has rows."""
    return dg.shard(tensor, 0) if tensor.ndim else tensor


# Comparison -------------------------------------------------------------------------------------------------


def flatten(value: Any, kind: type) -> list[Any]:
    """Gives the tensors and plain values of a result, in order."""
    if not isinstance(value, kind) and isinstance(value, tuple | list) and not hasattr(value, "numel"):
        return [leaf for part in value for leaf in flatten(part, kind)]
    return [value]


def to_torch(value: Any) -> Any:
    """Gives a tensor of ours as torch's."""
    if not isinstance(value, dg.Tensor):
        return value
    value = value.detach()
    if value.dtype == dg.bfloat16:
        return torch.from_numpy(value.float().numpy().copy()).to(torch.bfloat16)
    return torch.from_numpy(np.array(value.numpy()))


def tolerances(info: Any, kind: torch.dtype) -> dict[str, float]:
    """Gives what `assert_close` allows: its defaults, or the precision the database says torch's own kernel has."""
    for decorator in info.decorators:
        if isinstance(decorator, precisionOverride) and kind in decorator.d:
            return {"atol": decorator.d[kind], "rtol": max(decorator.d[kind], 1e-7)}
    return {}


def compare(what: str, ours: list[Any], theirs: list[Any], allowed: dict[str, float], values: bool = True) -> None:
    """Raises Failure unless results agree in number, type, shape, dtype and (with `values`) value."""
    if len(ours) != len(theirs):
        raise Failure(f"{what}: {len(ours)} results, torch has {len(theirs)}")
    for number, (mine, other) in enumerate(zip(ours, theirs)):
        place = f"{what} {number}"
        if isinstance(other, torch.Tensor):
            if not isinstance(mine, dg.Tensor):
                raise Failure(f"{place}: {type(mine).__name__} where torch gives a Tensor")
            if tuple(mine.shape) != tuple(other.shape):
                raise Failure(f"{place}: shape {tuple(mine.shape)}, torch has {tuple(other.shape)}")
            if str(other.dtype) != f"torch.{mine.dtype.name}":
                raise Failure(f"{place}: dtype {mine.dtype}, torch has {other.dtype}")
            found = to_torch(mine)
        else:
            found = mine
            if type(mine) is not type(other) and isinstance(other, NUMBER):
                raise Failure(f"{place}: {type(mine).__name__}, torch has {type(other).__name__}")
        if not values:
            continue
        if isinstance(other, torch.Tensor | float | complex):
            try:
                torch.testing.assert_close(found, other.detach() if isinstance(other, torch.Tensor) else other,
                                           equal_nan=True, check_stride=False, **allowed)
            except AssertionError as error:
                raise Failure(f"{place}: {' '.join(str(error).split())}") from None
        elif isinstance(other, bool | int | str) and found != other:
            raise Failure(f"{place}: {found!r}, torch has {other!r}")


def cotangents(outs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Gives the same random cotangents at every call."""
    random = np.random.default_rng(0)
    found = []
    for out in outs:
        g = random.standard_normal(tuple(out.shape))
        if out.is_complex():
            g = g + 1j * random.standard_normal(tuple(out.shape))
        found.append(torch.from_numpy(np.asarray(g)).to(out.dtype))
    return found


def compare_gradients(what: str, ours: list[Any], theirs: list[Any], leaves: list[tuple[torch.Tensor, Any]],
                      allowed: dict[str, float], orders: int) -> None:
    """Compares gradients for random cotangents, then (with two orders) the gradients of the gradients."""
    pairs = [(x, y) for x, y in zip(ours, theirs) if isinstance(y, torch.Tensor) and y.requires_grad]
    if not pairs or not leaves:
        return
    if not all(x.requires_grad for x, y in pairs):
        raise Failure(f"{what}: the result does not require grad")
    g = cotangents([y for x, y in pairs])
    options = {"allow_unused": True, "create_graph": orders > 1}
    try:
        expected = torch.autograd.grad([y for x, y in pairs], [t for t, o in leaves], g, **options)
    except RuntimeError:
        return  # torch itself has no derivative here
    found = dg.autograd.grad([x for x, y in pairs], [o for t, o in leaves], [Translator(lambda t: t)(c) for c in g],
                             **options)
    mine, other = [], []
    for (theirs_leaf, ours_leaf), x, y in zip(leaves, found, expected):
        if x is not None or y is not None:  # a gradient that is not there is zero
            mine.append(dg.zeros_like(ours_leaf) if x is None else x)
            other.append(torch.zeros_like(theirs_leaf) if y is None else y)
    compare(what, mine, other, allowed)
    if orders > 1:
        # where ours is constant, torch's graph may still say that it is not: its gradient then is zero
        smooth = [(x if x.requires_grad else x + 0 * sum_of(leaves), y) for x, y in zip(mine, other) if y.requires_grad]
        compare_gradients(f"second {what}", [x for x, y in smooth], [y for x, y in smooth], leaves, allowed, orders - 1)


def sum_of(leaves: list[tuple[torch.Tensor, Any]]) -> Any:
    """Gives a number that depends on every leaf."""
    return sum(ours.real.sum() if ours.is_complex() else ours.sum() for _, ours in leaves)


# One sample -------------------------------------------------------------------------------------------------


def draws(info: Any, sample: Any) -> bool:
    """Says whether torch's result for this sample depends on the seed."""
    if isinstance(info.op, types.FunctionType) and "wrapper_set_seed" in info.op.__code__.co_names:
        results = []
        for seed in range(8):
            with torch.no_grad():
                results.append(flatten(rebound(info.op, torch, seed)(sample.input, *sample.args, **sample.kwargs),
                                       torch.Tensor))
        return any(isinstance(a, torch.Tensor) and not torch.allclose(a, b, equal_nan=True)
                   for other in results[1:] for a, b in zip(results[0], other))
    return False


def run_sample(info: Any, reference: Callable[..., Any], function: Callable[..., Any] | None, sample: Any, section: str,
               orders: int, place: Callable[[Any], Any]) -> bool:
    """Raises what is wrong with a sample's values or gradients, up to the order given.

    False when it says nothing about us: torch refuses to be called this way.
    """
    translate = Translator(place)
    arguments = translate((sample.input, *sample.args))
    options = translate(sample.kwargs)
    random = section == "random" or draws(info, sample)
    torch.manual_seed(42)
    try:
        theirs = reference(sample.input, *sample.args, **sample.kwargs)
    except Exception:
        if reference is info.op:
            raise
        return False
    if function is None:
        raise Failure("no such name")
    dg.manual_seed(42)
    ours = function(*arguments, **options)
    ours_flat, theirs_flat = flatten(ours, dg.Tensor), flatten(theirs, torch.Tensor)
    compare("result", ours_flat, theirs_flat, {}, values=False)
    if section == "uninit":
        return True
    leaves = [o for t, o in translate.leaves] if orders and info.name not in GRADIENT_BY_DEFINITION else []
    call = with_leaves(function, arguments, options, leaves)
    if random:
        check_random(call, ours_flat, leaves)
        return True
    process = sample.output_process_fn_grad
    theirs_part = flatten(process(theirs), torch.Tensor)
    same = [id(t) for t in theirs_part] == [id(t) for t in theirs_flat]
    our_process = (lambda value: value) if same else rebound(process, dg)
    allowed = next((tolerances(info, t.dtype) for t in theirs_flat if isinstance(t, torch.Tensor)), {})
    ours_part = flatten(our_process(ours), dg.Tensor)
    try:
        compare("value", ours_flat, theirs_flat, allowed)
    except Failure:
        if same or info.name not in FREE_SIGNS:
            raise
        compare("processed value", ours_part, theirs_part, allowed)
    if not orders:
        return True
    if info.name in WRONG_IN_TORCH:
        dg.autograd.gradcheck(call, leaves)
        return True
    try:
        compare_gradients("gradient", ours_part, theirs_part, translate.leaves, allowed, orders)
    except Failure as failure:
        if not str(failure).startswith("second gradient"):
            raise
        # torch gives NaN or drops a term at a few points: then central differences decide
        dg.autograd.gradgradcheck(lambda *values: our_process(call(*values)), leaves)
    return True


def with_leaves(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any],
                leaves: list[Any]) -> Callable[..., Any]:
    """Gives a call as a function of its differentiable tensors, with the same random numbers each time."""

    def call(*values: Any) -> Any:
        def put(tree: Any) -> Any:
            if isinstance(tree, tuple | list):
                return type(tree)(put(part) for part in tree)
            return next((v for v, leaf in zip(values, leaves) if leaf is tree), tree)

        dg.manual_seed(42)
        return function(*put(arguments), **{name: put(value) for name, value in options.items()})

    return call


def check_random(call: Callable[..., Any], first: list[Any], leaves: list[Any]) -> None:
    """Raises Failure unless the same seed gives the same values, and gradients agree with central differences."""
    for a, b in zip(first, flatten(call(*leaves), dg.Tensor)):
        if isinstance(a, dg.Tensor) and not np.array_equal(a.detach().numpy(), b.detach().numpy(), equal_nan=True):
            raise Failure("the same seed gives other values")
    if leaves and any(isinstance(out, dg.Tensor) and out.requires_grad for out in first):
        dg.autograd.gradcheck(call, leaves)


def run_error(function: Callable[..., Any] | None, info: Any, error: Any, place: Callable[[Any], Any]) -> bool:
    """Raises Failure unless an error input raises torch's class at the call, with nothing sent.

    False when it says nothing about us: torch itself raises nothing, or the input cannot be made here.
    """
    sample = error.sample_input
    translate = Translator(place, aliases=True)
    try:
        arguments = translate((sample.input, *sample.args))
        options = translate(sample.kwargs)
    except NotHere:
        return False
    try:
        info.op(sample.input, *sample.args, **sample.kwargs)
    except Exception as raised:
        wanted = type(raised)
    else:
        return False
    if function is None:
        raise Failure("no such name")
    before = dg.stats().control_messages if dg.is_initialized() else 0
    try:
        function(*arguments, **options)
    except Exception as raised:
        if not isinstance(raised, wanted | error.error_type):
            raise Failure(f"{type(raised).__name__}({str(raised)[:120]!r}) where torch has {wanted.__name__}: "
                          f"{str(error.error_regex)[:120]}") from raised
    else:
        raise Failure(f"nothing raised where torch has {wanted.__name__}: {str(error.error_regex)[:120]}")
    sent = (dg.stats().control_messages if dg.is_initialized() else 0) - before
    if sent:
        raise Failure(f"{sent} messages were sent before {wanted.__name__} was raised")
    return True


# The survey -------------------------------------------------------------------------------------------------


class TimeLimit(Exception):
    """One operator took longer than its limit."""


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raises TimeLimit inside the block after some seconds."""

    def ring(number: int, frame: Any) -> None:
        raise TimeLimit(f"took longer than {seconds} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def spread(items: list[Any], count: int) -> list[Any]:
    """Gives `count` of the items, evenly spread (all of them for 0)."""
    if not count or len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)] if count > 1 else items[:1]


def samples_of(info: Any, section: str, count: int) -> Iterator[Any]:
    """Gives the samples of an OpInfo in the dtypes of its section."""
    supported = info.supported_dtypes("cpu")
    kinds = [k for k in KINDS.get(section, (torch.float64,)) if k in supported]
    if section != "complex":
        kinds = kinds[:1]
    for kind in kinds or [sorted(supported, key=str)[0] if supported else torch.float32]:
        smooth = info.supports_autograd and (kind.is_floating_point or kind.is_complex)
        yield from spread(list(info.sample_inputs("cpu", kind, requires_grad=smooth)), count)


def describe(sample: Any) -> str:
    """Gives a sample's arguments in short."""

    def short(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype)[6:]}{list(value.shape)}"
        if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
            return f"({', '.join(short(v) for v in value)})"
        return re.sub(r"\s+", " ", repr(value))[:60]

    parts = [short(v) for v in (sample.input, *sample.args)] + [f"{k}={short(v)}" for k, v in sample.kwargs.items()]
    return ", ".join(parts)[:300]


def survey(info: Any, section: str, options: argparse.Namespace) -> dict[str, Any]:
    """Gives the outcome of one OpInfo: samples run, samples right, the first error."""
    place = (lambda t: t) if options.mode == "local" else sharded
    outcome: dict[str, Any] = {"section": section, "samples": 0, "right": 0, "errors": []}
    began = time.perf_counter()
    sample: Any = None
    try:
        with limit(options.limit):
            found = calls(info, options.call)
            if found is None:
                return {**outcome, "pass": True, "seconds": 0.0}
            reference, function = found
            if options.errors:
                cases = list(info.error_inputs("cpu")) if info.error_inputs_func is not None else []
            else:
                cases = list(samples_of(info, section, options.samples))
            twice = options.gradgrad and info.supports_gradgrad and full_name(info) not in NO_SECOND
            orders = 0 if options.call == "out" else int(info.supports_autograd) * (2 if twice else 1)
            for case in cases:
                sample = case.sample_input if options.errors else case
                outcome["samples"] += 1
                try:
                    if options.errors:
                        counted = run_error(function, info, case, place)
                    else:
                        counted = run_sample(info, reference, function, sample, section, orders, place)
                    outcome["samples"] += counted - 1
                    outcome["right"] += counted
                except TimeLimit:
                    raise
                except Exception as error:
                    text = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
                    outcome["errors"].append(f"{text} | {describe(sample)}")
                    if options.traceback:
                        import traceback

                        traceback.print_exc()
    except TimeLimit as error:
        outcome["errors"].append(f"TimeLimit: {error} | {describe(sample) if sample is not None else 'making samples'}")
    outcome["pass"] = not outcome["errors"]
    outcome["seconds"] = round(time.perf_counter() - began, 3)
    return outcome


def session(mode: str) -> Any:
    """Gives the session of a mode as a context manager."""
    if mode == "simulated":
        return dg.init(local_mode=True, num_workers=3, shard_threshold=0)
    if mode == "ray":
        return dg.init(address="local", num_workers=2, shard_threshold=0)
    return contextlib.nullcontext()


def report(outcomes: dict[str, dict[str, Any]], verbose: int) -> dict[str, Any]:
    """Prints failing names with their first errors, then the pass counts per section; gives the counts."""
    counts: dict[str, Any] = {}
    totals = collections.Counter(o["section"] for o in outcomes.values())
    for name, outcome in outcomes.items():
        if not outcome["pass"]:
            print(f"{name}: {outcome['right']}/{outcome['samples']}")
            for error in outcome["errors"][:verbose]:
                print(f"    {error}")
    for section in totals:
        names = [o for o in outcomes.values() if o["section"] == section]
        names = [o for o in names if o["samples"]] or names  # what was called this way, and had an input for it
        passed, right = sum(o["pass"] for o in names), sum(o["right"] for o in names)
        samples = sum(o["samples"] for o in names)
        counts[section] = {"names": len(names), "pass": passed, "samples": samples, "right": right}
        print(f"{section}: {passed} of {len(names)} names ({passed / len(names):.1%}), {right} of {samples} samples")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scope", help="file of names, in sections")
    parser.add_argument("--mode", choices=("local", "simulated", "ray"), default="local")
    parser.add_argument("--gradgrad", action="store_true", help="compare second derivatives too")
    parser.add_argument("--errors", action="store_true", help="run the error inputs instead of the samples")
    parser.add_argument("--call", choices=("function", "method", "inplace", "out"), default="function",
                        help="how the operator is called, where torch has it so")
    parser.add_argument("--only", nargs="+", help="these names (a trailing * matches a prefix)")
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--samples", type=int, default=40, help="samples per dtype, evenly spread; 0: all")
    parser.add_argument("--limit", type=int, default=60, help="seconds per name")
    parser.add_argument("--out", help="JSON file of outcomes, written as the survey goes")
    parser.add_argument("--resume", action="store_true", help="skip the names that --out has")
    parser.add_argument("--failed", action="store_true", help="run again the names that failed in --out")
    parser.add_argument("--verbose", type=int, default=1, help="errors to print per failing name")
    parser.add_argument("--traceback", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes: dict[str, dict[str, Any]] = {}
    if options.out and (options.resume or options.failed) and Path(options.out).exists():
        outcomes = json.loads(Path(options.out).read_text())["names"]
    scope = {n: s for s, names in read_scope(options.scope).items() if s in options.section for n in names}
    infos = {full_name(i): i for i in op_db}
    unknown = sorted(set(scope) - set(infos))
    if unknown:
        sys.exit(f"not in this torch's operator database: {', '.join(unknown)}")
    chosen = [n for n in scope if not options.only or any(
        n == o or (o.endswith("*") and n.startswith(o[:-1])) for o in options.only)]
    if options.failed:
        chosen = [n for n in chosen if not outcomes.get(n, {"pass": False})["pass"]]
    elif options.resume:
        chosen = [n for n in chosen if n not in outcomes]
    running = session(options.mode)
    with contextlib.ExitStack() as stack:
        stack.callback(dg.shutdown)
        for number, name in enumerate(chosen):
            outcome = outcomes[name] = survey(infos[name], scope[name], options)
            if outcome["errors"] and outcome["errors"][-1].startswith("TimeLimit") and running is not None:
                dg.shutdown()  # interrupted in the middle of something
                running = session(options.mode)
            if options.out and number % 20 == 19:
                Path(options.out).write_text(json.dumps({"names": outcomes}))
    outcomes = {n: outcomes[n] for n in scope if n in outcomes}
    counts = report(outcomes if not options.only else {n: outcomes[n] for n in chosen}, options.verbose)
    write(options.out, {"mode": options.mode, "counts": counts, "names": outcomes})


if __name__ == "__main__":
    main()
