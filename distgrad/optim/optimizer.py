"""``Optimizer``: parameter groups, per-parameter state, state dicts and hooks; and the loop all optimizers share.

Invariant: a step reads no tensor's value. Step counters, learning rates and everything derived from them are Python
numbers, so the driver records a step without waiting and the recorded program stays the same from step to step.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any

import distgrad as dg
from distgrad import graph
from distgrad.changes import structure
from distgrad.op import Op
from distgrad.placement import REPLICATE, SUM, Shard
from distgrad.tensor import Tensor
from distgrad.utils.hooks import RemovableHandle
from distgrad.warn import warn_user


class _RequiredParameter:
    """Marks an option that every parameter group has to give itself."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _RequiredParameter()


def _with_hooks(step: Callable) -> Callable:
    """Wraps a ``step`` method: hooks before and after, and a hint that the pending work may be sent."""

    @functools.wraps(step)
    def wrapped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        # A subclass that wraps another optimizer may leave out super().__init__(), and has no hooks then.
        for hook in list(getattr(self, "_optimizer_step_pre_hooks", {}).values()):
            replacement = hook(self, args, kwargs)
            if replacement is not None:
                if not (isinstance(replacement, tuple) and len(replacement) == 2):
                    raise RuntimeError(
                        f"{hook} must return None or a tuple of (new_args, new_kwargs), but got {replacement}."
                    )
                args, kwargs = replacement
        self._opt_called = True
        if graph.recorder[0] is not None:
            for group in getattr(self, "param_groups", ()):
                graph.recorder[0].watches(group)
        result = step(self, *args, **kwargs)
        graph.flush_hint()
        for hook in list(getattr(self, "_optimizer_step_post_hooks", {}).values()):
            hook(self, args, kwargs)
        return result

    return wrapped


class Optimizer:
    """Base class of all optimizers.

    ``params`` is an iterable of tensors, of ``(name, tensor)`` pairs, or of dicts with "params" and their own options;
    ``defaults`` holds the options for groups that do not give theirs. Source: torch.optim.Optimizer.
    """

    # Entries of a parameter's state that are Python numbers while stepping and tensors in a state dict, as in torch.
    _number_state: tuple[str, ...] = ("step",)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                + params.type()
            )
        self.defaults = defaults
        self._make_hook_tables()
        self.state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def _make_hook_tables(self) -> None:
        structure[0] += 1
        self._opt_called = False
        self._optimizer_step_pre_hooks: OrderedDict = OrderedDict()
        self._optimizer_step_post_hooks: OrderedDict = OrderedDict()
        self._optimizer_state_dict_pre_hooks: OrderedDict = OrderedDict()
        self._optimizer_state_dict_post_hooks: OrderedDict = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks: OrderedDict = OrderedDict()
        self._optimizer_load_state_dict_post_hooks: OrderedDict = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        structure[0] += 1
        if not hasattr(self, "_optimizer_step_pre_hooks"):
            self._make_hook_tables()
        for group in self.param_groups:
            for name, value in getattr(self, "defaults", {}).items():
                group.setdefault(name, value)

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for place, group in enumerate(self.param_groups):
            lines.append(("\n" if place else "") + f"Parameter Group {place}")
            lines.extend(f"    {key}: {group[key]}" for key in sorted(group) if key != "params")
        return "\n".join(lines) + "\n)"

    # -- parameter groups ----------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group: a dict with "params" (a tensor or several) and options that differ from the defaults.

        Raises TypeError for what is no dict, set or tensor of the right kind; ValueError for non-leaf tensors, missing
        options and parameters that are in another group already.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
                "will change between runs. Please use a list instead."
            )
        entries = list(params)
        named = [entry for entry in entries if isinstance(entry, tuple)]
        if named and len(named) != len(entries):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        if named:
            param_group["param_names"] = [name for name, _ in named]
            entries = [parameter for _, parameter in named]
        param_group["params"] = entries

        for parameter in entries:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {_type_name(parameter)}"
                )
            if not self.defaults.get("differentiable") and not (parameter.is_leaf or parameter.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            param_group.setdefault(name, default)

        ids = {id(parameter) for parameter in entries}
        if len(ids) != len(entries):
            warn_user(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause an error; "
                "see github.com/pytorch/pytorch/issues/40967 for more information",
            )
        taken = {id(parameter) for group in self.param_groups for parameter in group["params"]}
        if ids & taken:
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups and bool(named) != ("param_names" in self.param_groups[0]):
            raise ValueError(
                "all optimizer param groups should be with/without names. "
                f"cannot add param group with{'' if named else 'out'} names to the optimizer"
            )
        self.param_groups.append(param_group)
        structure[0] += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients, or fills them with zeros when ``set_to_none`` is False."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.detach_().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters once; ``closure`` computes the loss and its gradients anew and returns the loss."""
        raise NotImplementedError

    # -- state dicts ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Returns "state" (by position of the parameter) and "param_groups" (parameters replaced by positions)."""
        for hook in list(self._optimizer_state_dict_pre_hooks.values()):
            hook(self)
        positions: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for parameter in group["params"]:
                positions.setdefault(id(parameter), len(positions))
            packed = {name: value for name, value in group.items() if name != "params"}
            packed["params"] = [positions[id(parameter)] for parameter in group["params"]]
            groups.append(packed)
        state = {
            (positions[id(key)] if isinstance(key, Tensor) else key): self._number_tensors(value)
            for key, value in self.state.items()
        }
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in list(self._optimizer_state_dict_post_hooks.values()):
            replacement = hook(self, result)
            result = result if replacement is None else replacement
        return result

    def _number_tensors(self, state: Any) -> Any:
        """Returns one parameter's state with its numbers as 0-d tensors."""
        if not isinstance(state, dict):
            return state
        packed = dict(state)
        for name in self._number_state:
            if isinstance(packed.get(name), (int, float)):
                # Counters are exact in the default dtype; running products keep all their digits.
                packed[name] = dg.tensor(float(packed[name]), dtype=None if name == "step" else dg.float64)
        return packed

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` returned, matching parameters by position.

        State tensors are copied in the dtype of their parameter. Raises ValueError when the groups differ in size.
        """
        state_dict = dict(state_dict)
        for hook in list(self._optimizer_load_state_dict_pre_hooks.values()):
            replacement = hook(self, state_dict)
            state_dict = state_dict if replacement is None else replacement
        saved = copy.deepcopy(state_dict["param_groups"])
        if len(saved) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(old["params"]) != len(new["params"]) for old, new in zip(self.param_groups, saved, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        parameters = dict(
            zip(
                chain.from_iterable(group["params"] for group in saved),
                chain.from_iterable(group["params"] for group in self.param_groups),
                strict=True,
            )
        )
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in parameters:
                state[parameters[key]] = self._adopt(parameters[key], value, None)
            else:
                state[key] = value
        for old, new in zip(self.param_groups, saved, strict=True):
            new["params"] = old["params"]
            if "param_names" in old and "param_names" not in new:
                new["param_names"] = old["param_names"]
        self.__setstate__({"state": state, "param_groups": saved})
        for hook in list(self._optimizer_load_state_dict_post_hooks.values()):
            hook(self)

    def _adopt(self, parameter: Tensor, value: Any, name: str | None) -> Any:
        """Returns a copy of saved state that belongs to ``parameter`` and the entry ``name``."""
        if isinstance(value, Tensor):
            if name in self._number_state:
                return float(value.item())
            # A copy, so that two optimizers that load the same state do not update each other's.
            value = value.detach().clone()
            return value.to(parameter.dtype) if parameter.is_floating_point() and name != "step" else value
        if isinstance(value, Mapping):
            return {entry: self._adopt(parameter, item, entry) for entry, item in value.items()}
        if isinstance(value, Iterable) and not isinstance(value, str):
            return type(value)(self._adopt(parameter, item, name) for item in value)  # type: ignore[call-arg]
        return value

    # -- hooks ---------------------------------------------------------------------------------------------------

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Registers ``hook(optimizer, args, kwargs)``, run before a step; it may return new arguments."""
        return _file_hook(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Registers ``hook(optimizer, args, kwargs)``, run after a step."""
        return _file_hook(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Registers ``hook(optimizer)``, run before a state dict is made."""
        return _file_hook(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Registers ``hook(optimizer, state_dict)``; what it returns replaces the state dict."""
        return _file_hook(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Registers ``hook(optimizer, state_dict)``; what it returns is loaded instead."""
        return _file_hook(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Registers ``hook(optimizer)``, run after a state dict is loaded."""
        return _file_hook(self._optimizer_load_state_dict_post_hooks, hook, prepend)


def _file_hook(hooks: OrderedDict, hook: Callable, prepend: bool = False) -> RemovableHandle:
    """Files ``hook``, before the others when ``prepend``, and returns the handle that removes it."""
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class GradientOptimizer(Optimizer):
    """An optimizer that updates each parameter from its own gradient; a subclass says how in ``_update``."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; ``closure`` recomputes the loss first and its value returns."""
        loss = None
        if closure is not None:
            with dg.enable_grad():
                loss = closure()
        with dg.set_grad_enabled(bool(self.defaults.get("differentiable", False))):
            for group in self.param_groups:
                pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
                if group["maximize"]:
                    pairs = [(p, -g) for p, g in pairs]
                self._update_group(pairs, group)
        return loss

    def _update_group(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """Changes the parameters of a group and their states in place, by their gradients."""
        for parameter, gradient in pairs:
            if parameter.is_complex():
                self._update_parts(parameter, gradient, group)
            else:
                self._update(parameter, gradient, group)

    def _update_parts(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Updates a complex parameter: its real and imaginary parts are numbers of their own, as in torch."""
        parts = dg.view_as_real(parameter)
        state = self.state[parameter]
        self.state[parts] = {k: dg.view_as_real(v) if _is_complex(v) else v for k, v in state.items()}
        self._update(parts, dg.view_as_real(gradient), group)
        for name, value in self.state.pop(parts).items():
            paired = isinstance(value, Tensor) and value.shape == parts.shape
            state[name] = dg.view_as_complex(value) if paired else value

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Changes ``parameter`` and its state in place."""
        raise NotImplementedError


def _is_complex(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_complex()


SLICED_ELEMENTS = 1 << 18  # a step of fewer parameters is over sooner than one more exchange

_SURPLUS_ELEMENTS = 1 << 14


class StepNumbers:
    """The numbers of an optimizer op, asked for again at every replay of a compiled step."""

    def __init__(self, optimizer: Optimizer, batch: Sequence[Sequence[Tensor]], names: Sequence[str], counted: bool,
                 numbers: Callable[[float], tuple[float, ...]]) -> None:
        self._optimizer, self._numbers, self._counted = optimizer, numbers, counted
        self._parameters = [tensors[0] for tensors in batch] if names or counted else []
        self._states = [optimizer.state[parameter] for parameter in self._parameters]
        self._columns = [(name, [tensors[2 + i] for tensors in batch]) for i, name in enumerate(names)]

    def ready(self) -> bool:
        """Says whether the states are those that were recorded, and all parameters have taken as many steps."""
        if not all(map(is_, map(self._optimizer.state.get, self._parameters), self._states)):
            return False
        for name, tensors in self._columns:
            if not all(map(is_, [state[name] for state in self._states], tensors)):
                return False
        return not self._counted or len({state["step"] for state in self._states}) == 1

    def next(self) -> tuple[float, ...]:
        """Counts a step of every parameter and gives the numbers of that step."""
        step = 0.0
        for state in self._states if self._counted else ():
            step = state["step"] = state["step"] + 1
        return self._numbers(step)


def steps_together(
    op: Op, optimizer: Optimizer, group: dict[str, Any], members: Sequence[Sequence[Tensor]], names: Sequence[str],
    numbers: Callable[[float], tuple[float, ...]], counted: bool = False, **attrs: Any,
) -> None:
    """Carries out an optimizer op on parameters with equal numbers at once, and on sharded ones each by itself.

    `members`: (parameter, gradient, *states), all of one shape, which are changed in place; the optimizer has the states
    under `names`. `numbers` gives the op's numbers for a step count, which is 0 unless steps are `counted` in the state;
    a compiled step asks it again at every replay.

    Where it pays, each worker makes the step of its own rows only: gradients are reduced to these rows, states are kept as
    these rows, and what is sent is what reducing whole gradients sends. `grad` and states are `Shard(0)` then.
    """
    batches: dict[Any, list[Sequence[Tensor]]] = {}
    known: dict[float, tuple[float, ...]] = {}
    slices = _in_slices(members)
    for position, tensors in enumerate(members):
        step = 0.0
        if counted:
            state = optimizer.state[tensors[0]]
            step = state["step"] = state["step"] + 1
        if step not in known:
            known[step] = numbers(step)
        alone = position not in slices and any(
            t._now().spec.placement not in (None, REPLICATE) for t in (tensors[0], *tensors[2:])
        )
        key = (step, tensors[0].dtype, position if alone else None, position in slices)
        batches.setdefault(key, []).append(tensors)
    for (step, _, _, sliced), batch in batches.items():
        count = len(batch)
        parameters, gradients, *states = zip(*batch)
        if sliced:
            parts = [_unreduced(gradient) for gradient in gradients]
            given = [g if part is None else Tensor._from_node(part) for g, part in zip(gradients, parts)]
            results = op(*parameters, *given, *chain(*states), *known[step], count=count, sliced=True, **attrs)
        else:
            results = op(*parameters, *gradients, *chain(*states), *known[step], count=count, **attrs)
        if graph.recorder[0] is not None:
            graph.recorder[0].live(StepNumbers(optimizer, batch, names, counted, numbers), group, _LIVE)
        if type(results) is not tuple:
            results = (results,)
        if sliced:
            _keep_slices(gradients, parts, results[0]._node.call)
            for state, value in zip(chain(*states), results[count:]):
                state._rebind(value)
            results = results[:count]
        for target, value in zip(chain(parameters, *states), results):
            target._assign(value)


_LIVE = frozenset(("lr", "betas", "eps", "weight_decay", "momentum", "dampening"))  # what `numbers` above takes in


def _in_slices(members: Sequence[Sequence[Tensor]]) -> set[int]:
    """Gives the positions of the members whose rows are to be shared out among the workers.

    These are parameters that every worker holds whole, whose gradient nobody has asked for as a whole yet, so that all it
    takes is to reduce it to rows; and those whose states are rows already. Where all-reduces go by nodes, they send less
    between nodes than the reduction to rows would; then only what is asked for is shared out.
    """
    session = graph.session()
    if session is None or session.world_size == 1 or session.shard_optimizer is False:
        return set()
    found: dict[int, bool] = {}
    size = 0
    for position, (parameter, gradient, *states) in enumerate(members):
        meta = parameter._now().spec.meta
        held = [state._now().spec.placement for state in states]
        if (
            parameter._now().spec.placement not in (None, REPLICATE) or not meta.shape
            or meta.shape[0] < session.world_size or not all(p in (None, REPLICATE) or _by_rows(p) for p in held)
        ):
            continue
        already = any(map(_by_rows, held))
        if already or session.shard_optimizer:
            found[position] = True
        elif not session.by_nodes and _even(meta, session.world_size) and (
            _by_rows(gradient._now().spec.placement) or _unreduced(gradient) is not None
        ):
            found[position] = False
            size += meta.size
    return {position for position, must in found.items() if must or size >= SLICED_ELEMENTS}


def _even(meta: Any, world_size: int) -> bool:
    """Says whether the largest share of the rows is about as large as the others."""
    rows = meta.shape[0]
    surplus = (-rows % world_size) * meta.size / rows
    return surplus <= max(_SURPLUS_ELEMENTS, meta.size / 32)


def _by_rows(placement: Any) -> bool:
    return isinstance(placement, Shard) and placement.dim == 0


def _references(gradient: Any) -> int:
    return sys.getrefcount(gradient._node)


class _Lone:
    """Stands for a gradient that is held by its tensor and its call alone, to measure what `_references` gives."""

    def __init__(self) -> None:
        self._node = object()
        self.outputs = (self._node,)


_ALONE = _references(_Lone())


def _unreduced(gradient: Tensor) -> Any:
    """Gives the sum over workers that a gradient is about to be reduced from, when nobody but `grad` holds the whole."""
    call = gradient._node.call
    if call is None or call.plan.op.name != "redistribute" or gradient._view is not None or gradient._fn is not None:
        return None
    source = call.inputs[0]
    return source if source.spec.placement is SUM and _references(gradient) <= _ALONE else None


def _keep_slices(gradients: Sequence[Tensor], parts: Sequence[Any], call: Any) -> None:
    """Makes gradients the rows that were reduced for the step of `call`: the same values, gathered when they are read."""
    if call is None:  # it was sent at once, and they with it
        return
    inputs = call.inputs[len(gradients) : 2 * len(gradients)]
    for gradient, part, node in zip(gradients, parts, inputs):
        if part is not None:
            gradient._node = node


def compiled_step(group: dict[str, Any], pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Says whether an optimizer op can make this step: one that is not differentiated, in float32 or float64."""
    return not group.get("differentiable") and all(
        p.dtype in (dg.float32, dg.float64) and g.dtype is p.dtype for p, g in pairs
    )


def check_range(name: str, value: float, allowed: bool) -> None:
    """Raises ValueError for an option that is out of its range."""
    if not allowed:
        raise ValueError(f"Invalid {name}: {value}")


def check_learning_rate(lr: Any) -> float:
    """Returns the learning rate as a number; one of a tensor is read here, once.

    Raises ValueError when it is negative or a tensor with more than one element.
    """
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        lr = lr.item()
    check_range("learning rate", lr, lr >= 0.0)
    return lr


def check_betas(betas: tuple[float, float]) -> None:
    """Raises ValueError unless both decay rates are in [0, 1)."""
    for place, beta in enumerate(betas):
        check_range(f"beta parameter at index {place}", beta, 0.0 <= beta < 1.0)


def check_implementation(foreach: bool | None, fused: bool | None, differentiable: bool) -> None:
    """Checks torch's choice of implementation, which is accepted and changes nothing here: steps are always fused."""
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
