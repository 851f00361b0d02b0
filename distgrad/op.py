"""The `Op` record: one object holds an op's kernel, metadata rule, placement rows and gradient rules.

Invariant: an op's rules only ever use other ops, so the same rule differentiates arrays at once and nodes later,
and derivatives of any order exist wherever each rule does.

**Kernel**: `kernel(*arrays, **attrs) -> array or tuple`, numpy only, pure, never writes to its inputs.
**Meta rule**: `meta(*inputs, **attrs) -> (metas, casts)`, where an input is a `TensorMeta` or a Python number's
type; it raises the user's errors. `casts` gives the dtype each input is converted to before the kernel (None: as is).
**Rows**: `rows(ins, outs, attrs)` gives the acceptable tuples of input and output placements (see `Row`).
**Gradient rules**: one function per input, and what a rule names as parameters is what is saved for it:

    g                 the cotangent of the output (a tuple of them where the op has several outputs)
    y                 the output (or an output's own name where there are several)
    x, a, b, ...      an input, by the op's own names          x_shape, x_dtype   its metadata, nothing saved
    x_sharded         the dim it was sharded along, or None: an op whose output is x's gradient takes that as attribute
                      `sharded`, and is then run so that its output is sharded likewise, if that can be
    axis, ...         an attribute of the call                 inputs, shapes     for ops with any number of inputs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MethodType
from typing import Any, NamedTuple

from distgrad.meta import TensorMeta

SUM, MAX, MIN, PROD = "sum", "max", "min", "prod"  # entries of a row that stand for Partial(...)
Entry = int | str | None


class Row(NamedTuple):
    """One acceptable tuple of placements: an int is Shard(dim), None is Replicate, a string is Partial(string).

    `scales` (inputs, then outputs) says how many rows of each sharded tensor make one common block; offsets of all
    sharded tensors of a row are the same number of blocks. None: 1 for all. `through` is a kernel that exchanges rows
    between workers and takes the op's place: a module-level generator function `through(context, *arrays, **attrs)`
    that yields exchange rounds, where `context` has `rank`, `world_size`, `ins` and `outs` (specs). Its sharded inputs
    share offsets where they have equally many rows; a sharded output has those of the inputs with as many rows as it,
    or is balanced. `exchanging` says of a kernel what it moves.
    """

    ins: tuple[Entry, ...]
    outs: tuple[Entry, ...]
    scales: tuple[int, ...] | None = None
    through: Callable[..., Any] | None = None


def exchanging(
    *, moves: float = 1.0, stays: int | None = None, in_turn: int | None = None, gathers: bool = False, reuses: bool = False
) -> Callable[[Any], Any]:
    """Marks a kernel that exchanges rows: `moves`, about which part of its rows; `stays`, the input of which none move;
    `in_turn`, the input whose blocks every worker gets one after the other, never all at once; `gathers`, that the rows
    of whole outputs move, and nothing else. `reuses`: it takes `reuse`, as a kernel of an op that reuses memory does."""

    def mark(kernel: Any) -> Any:
        kernel.moves, kernel.stays, kernel.in_turn = moves, stays, in_turn
        kernel.gathers, kernel.reuses = gathers, reuses
        return kernel

    return mark


def exchange_bytes(through: Any, ins: Sequence[Any], outs: Sequence[Any], world_size: int) -> float:
    """Gives about how many bytes a worker receives in a kernel that exchanges rows.

    Inputs and outputs are pairs (meta, dim it is sharded along or None); numbers are left out.
    """
    turning = getattr(through, "in_turn", None)
    if turning is not None:
        return float(ins[turning][0].nbytes * (1 - 1 / world_size))
    if getattr(through, "gathers", False):
        return sum(m.nbytes for m, dim in outs if dim is None) * (1 - 1 / world_size)
    stays = getattr(through, "stays", None)
    given = sum(m.nbytes for i, (m, dim) in enumerate(ins) if dim is not None and i != stays) / world_size
    made = sum(m.nbytes / world_size if dim is not None else m.nbytes * (world_size - 1.0) for m, dim in outs)
    return min(given * getattr(through, "moves", 1.0), made)


MetaResult = tuple[tuple[TensorMeta, ...], tuple[Any, ...] | None]
OPS: dict[str, Op] = {}


def set_dispatcher(function: Callable[..., Any]) -> None:
    """Sets what calling an op does: `function(op, *inputs, **attributes)`, which thus costs one call, not two."""
    Op.__call__ = function  # type: ignore[method-assign]  # takes the place of the one below


def no_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    """Rows of an op that only works on whole tensors."""
    return ()


class Op:
    """An operator; see the module's docstring for its parts. Calling it runs or records it.

    `localize(attrs, ins, outs, rank)` gives a rank's own attributes from specs where attributes name global
    shapes or offsets. `collective` marks a kernel that is a generator of exchange rounds (see runtime.collectives).
    `reuses` marks a kernel that takes `reuse`, which says of each input whether nobody else needs its memory any more.
    `put(base, new, *numbers, **attrs)` makes the op a view: it gives the base tensor with `new` written where the op reads.
    `adds(out, g, *numbers, **attrs)` adds what the rule of the first input gives to an array of that input's shape, in
    place, without making the rest of it, which is zeros. `twice(g, x)` gives both rules' cotangents together where both
    inputs are the same x, and no graph is asked for. `spends(g, *saved)` changes a cotangent's own array into what the
    rule of an elementwise op of one input gives, from the arrays of the inputs and outputs that are saved.
    `takes_none`: the rule is given None, not zeros, for cotangents of outputs that nobody used.
    """

    __slots__ = ("__weakref__", "adds", "collective", "input_names", "kernel", "localize", "meta", "name", "needs", "outputs",
                 "plans", "put", "reuses", "rows", "rules", "spends", "takes_none", "twice", "variadic")

    def __init__(
        self,
        name: str,
        kernel: Callable[..., Any],
        *,
        meta: Callable[..., MetaResult],
        inputs: str,
        rows: Callable[..., Iterable[Row]] = no_rows,
        vjps: Sequence[Callable[..., Any] | None] = (),
        joint_vjp: Callable[..., Any] | None = None,
        outputs: str = "y",
        localize: Callable[..., dict[str, Any]] | None = None,
        collective: bool = False,
        put: Callable[..., Any] | None = None,
        takes_none: bool = False,
        reuses: bool = False,
        adds: Callable[..., None] | None = None,
    ) -> None:
        if name in OPS:
            raise ValueError(f"op {name!r} is defined twice")
        if not set(inputs.lstrip("*").split()).isdisjoint(outputs.split()):
            raise ValueError(f"op {name!r}: an input and an output have the same name; rules could not tell them apart")
        self.name, self.kernel, self.meta, self.rows = name, kernel, meta, rows
        self.variadic = inputs.startswith("*")
        self.input_names = tuple(inputs.lstrip("*").split())
        self.outputs = tuple(outputs.split())
        self.localize, self.collective, self.put = localize, collective, put
        self.reuses, self.takes_none, self.adds = reuses, takes_none, adds
        self.twice: Callable[[Any, Any], Any] | None = None
        self.spends: Callable[..., Any] | None = None
        self.plans: dict[Any, Any] = {}
        self.needs: dict[Any, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        if joint_vjp is not None:
            self.rules: tuple[Rule | None, ...] | Rule = Rule(self, joint_vjp)
        else:
            self.rules = tuple(None if f is None else Rule(self, f) for f in vjps)
            if vjps and len(vjps) != len(self.input_names):
                raise ValueError(f"op {name!r}: {len(vjps)} gradient rules for {len(self.input_names)} inputs")
        OPS[name] = self

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        raise RuntimeError(f"op {self.name!r}: nothing is there to run it; import distgrad first")

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> tuple[Any, ...]:
        return (op_named, (self.name,))

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    @property
    def __name__(self) -> str:
        return self.name

    def saved_for(self, mask: tuple[bool, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Gives the positions of inputs and outputs to save when the inputs marked in `mask` need gradients."""
        found = self.needs.get(mask)
        if found is None:
            rules = [self.rules] if isinstance(self.rules, Rule) else [r for r, m in zip(self.rules, mask) if m and r]
            ins: set[int] = set()
            outs: set[int] = set()
            for rule in rules:
                ins.update(range(len(mask)) if rule.all_inputs else rule.inputs)
                outs.update(rule.outs)
            found = self.needs[mask] = (tuple(sorted(ins)), tuple(sorted(outs)))
        return found


def op_named(name: str) -> Op:
    """Gives the op of that name, which is how ops pickle; LookupError when this process does not know it."""
    if name not in OPS:
        from distgrad.ops import load

        load()
    if name not in OPS:
        raise LookupError(f"op {name!r} is not known in this process; do driver and workers run the same distgrad?")
    return OPS[name]


class Rule:
    """A gradient rule and where each of its parameters comes from."""

    __slots__ = ("all_inputs", "function", "inputs", "outs", "sources")

    def __init__(self, op: Op, function: Callable[..., Any]) -> None:
        self.function = function
        self.sources: list[tuple[str, Any]] = []
        self.inputs: list[int] = []
        self.outs: list[int] = []
        self.all_inputs = False
        code = function.__code__  # its first names are the parameters; inspect.signature would slow the import down
        for name in code.co_varnames[: code.co_argcount]:
            stem, _, suffix = name.rpartition("_")
            if name in ("g", "shapes", "needs", "dtypes"):
                self.sources.append((name, None))
            elif name == "inputs":
                self.all_inputs = True
                self.sources.append((name, None))
            elif name in op.outputs:
                self.outs.append(op.outputs.index(name))
                self.sources.append(("out", op.outputs.index(name)))
            elif name in op.input_names and not op.variadic:
                self.inputs.append(op.input_names.index(name))
                self.sources.append(("in", op.input_names.index(name)))
            elif suffix in ("shape", "dtype", "sharded") and stem in op.input_names:
                self.sources.append((suffix, op.input_names.index(stem)))
            elif suffix in ("shape", "dtype") and stem in op.outputs:
                self.sources.append((f"out_{suffix}", op.outputs.index(stem)))
            else:
                self.sources.append(("attr", name))


_tensor_type: list[type] = []


def set_tensor_type(kind: type) -> None:
    """Tells the lower layers which class is the Tensor."""
    _tensor_type[:] = [kind]


def is_tensor(value: Any) -> bool:
    """Says whether a value is a Tensor."""
    return isinstance(value, _tensor_type[0])
