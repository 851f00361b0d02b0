"""Runs one sample of PyTorch's operator database on torch and on distgrad, and says what differs.

Invariant: torch is called as the database says, distgrad by the same public name with the same arguments converted.
Read by `op_coverage.py`; needs torch and expecttest.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_device_type import precisionOverride

import distgrad as dg

NUMBER = (bool, int, float, complex)
# Vectors are given up to a factor of size 1: what the database makes of them is compared.
FREE_SIGNS = ("linalg.svd", "svd", "linalg.eigh", "linalg.eig", "svd_lowrank", "pca_lowrank")
NO_SECOND = ("linalg.norm.subgradients_at_zero",)  # infinite, which the database expects to fail
# torch's own gradient is marked as wrong in the database: central differences decide.
WRONG_IN_TORCH = ("as_strided_scatter",)


class Failure(Exception):
    """A sample whose result is not torch's."""


class NotHere(Exception):
    """An input that cannot be made here: on another device, sparse, or of more dims than numpy's 64."""


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
    leaves = [o for t, o in translate.leaves] if orders else []
    call = with_leaves(function, arguments, options, leaves)
    try:
        compare_values(info, sample, call, (ours, ours_flat), (theirs, theirs_flat), translate.leaves, orders)
    except Failure:
        if section != "random" and not draws(info, sample):
            raise
        check_random(call, ours_flat, leaves)  # other random numbers than torch's may be as good
    return True


def compare_values(info: Any, sample: Any, call: Callable[..., Any], ours: tuple[Any, list[Any]],
                   theirs: tuple[Any, list[Any]], pairs: list[tuple[torch.Tensor, Any]], orders: int) -> None:
    """Compares results (whole and flat), then gradients up to the order given."""
    leaves = [o for t, o in pairs]
    process = sample.output_process_fn_grad
    theirs_part = flatten(process(theirs[0]), torch.Tensor)
    same = [id(t) for t in theirs_part] == [id(t) for t in theirs[1]]
    our_process = (lambda value: value) if same else rebound(process, dg)
    allowed = next((tolerances(info, t.dtype) for t in theirs[1] if isinstance(t, torch.Tensor)), {})
    ours_part = flatten(our_process(ours[0]), dg.Tensor)
    try:
        compare("value", ours[1], theirs[1], allowed)
    except Failure:
        if same or info.name not in FREE_SIGNS:
            raise
        compare("processed value", ours_part, theirs_part, allowed)
    if not orders:
        return
    if info.name in WRONG_IN_TORCH:
        dg.autograd.gradcheck(call, leaves)
        return
    try:
        compare_gradients("gradient", ours_part, theirs_part, pairs, allowed, orders)
    except Failure as failure:
        if not str(failure).startswith("second gradient"):
            raise
        # torch gives NaN or drops a term at a few points: then central differences decide
        dg.autograd.gradgradcheck(lambda *values: our_process(call(*values)), leaves)


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
