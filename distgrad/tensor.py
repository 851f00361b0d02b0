"""The Tensor: PyTorch's eager face over immutable nodes.

Invariant: nodes never change, so a saved value is never corrupted. An in-place operation makes a new node and rebinds
the tensor; views remember their parent and how they read it, and follow it when its version moves on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad import autodiff, dispatch, dtypes, graph, leaves, reverse, views
from distgrad.device import CPU, device
from distgrad.dispatch import edge_of
from distgrad.dtypes import dtype
from distgrad.grad_mode import mode, no_grad, set_grad_enabled
from distgrad.graph import Node
from distgrad.handles import RemovableHandle
from distgrad.meta import TensorMeta
from distgrad.op import OPS, Op, set_tensor_type
from distgrad.ops.collective import redistribute as _redistribute
from distgrad.placement import REPLICATE, Placement, Shard, Spec, public, resolve
from distgrad.size import Size
from distgrad.views import View

if TYPE_CHECKING:
    from distgrad.tensor_types import TensorTypes as _Base
else:
    _Base = object


class Tensor(_Base):
    """A multi-dimensional array of one dtype that can record gradients, here or sharded over workers.

    Made by `tensor`, `zeros`, `randn`, ...; methods are PyTorch's (page "torch.Tensor").
    """

    _node: Node
    _fn: autodiff.GradFn | None = None
    _index = 0
    _needs_grad = False
    _view: View | None = None
    _version = 0
    _clock: list[int] | None = None
    _hooks: dict[int, Callable[[Any], Any]] | None = None
    _post_hooks: dict[int, Callable[[Any], Any]] | None = None
    _shares_numpy = False
    _retains = False
    _grad: Tensor | None = None
    grad = property(leaves.read, leaves.write, leaves.forget)

    __array_priority__ = 1000

    def __new__(cls, data: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        """Builds from nested sequences or sizes, as `torch.Tensor(...)` does; prefer `tensor(...)`."""
        instance = object.__new__(cls)
        from distgrad.functions.data import legacy_node  # a layer above this one

        instance._node = legacy_node(data, args)
        return instance

    # What a tensor is -----------------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The size of each dim."""
        return Size(self._now().spec.meta.shape)

    @property
    def dtype(self) -> dtype:
        """The element type."""
        return self._node.spec.meta.dtype

    @property
    def ndim(self) -> int:
        """The number of dims."""
        return self._node.spec.meta.ndim

    @property
    def device(self) -> device:
        """Always the CPU."""
        return CPU

    @property
    def placement(self) -> Placement | None:
        """Where the rows live: Shard, Replicate or Partial; None for a tensor local to this process."""
        return public(self._now().spec.placement)

    @property
    def is_leaf(self) -> bool:
        """True when no recorded operation made this tensor."""
        return self.grad_fn is None

    @property
    def grad_fn(self) -> Any:
        """The function that made this tensor, or None for a leaf."""
        if self._view is not None:
            self._synced()
        return self._fn

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor record gradients."""
        if self._view is not None:
            self._synced()
        return self._needs_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets whether gradients are recorded; RuntimeError for integers and for switching off a non-leaf."""
        if requires_grad and self.dtype.category < 2:
            raise RuntimeError(
                f"only Tensors of floating point and complex dtype can require gradients, got {self.dtype}"
            )
        if not requires_grad and self._fn is not None:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in "
                "a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        self._needs_grad = bool(requires_grad)
        return self

    @property
    def data(self) -> Tensor:
        """The same values without history; writing to it writes to this tensor."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if value.dtype is not self.dtype:
            raise RuntimeError(f"data: dtype {value.dtype} given, {self.dtype} expected")
        placement, given = self._now().spec.placement, value._now().spec.placement
        version = self._version
        with no_grad():
            if placement is given or isinstance(placement, Shard):
                source = value.detach()
            else:
                source = _redistribute(value.detach(), placement=placement or REPLICATE)
            if views.reads_through(source, self):
                if source._view is not None and source._view.parent is self and source._view.op is None:
                    return  # `p.data -= g` gives back what has written to p already
                source = source.clone()  # type: ignore[attr-defined]  # attached in methods.py
        self._leave_memory()
        self._node, self._view, self._version = source._node, source._view, version + 1

    # Nodes, views, in-place -----------------------------------------------------------------------------------

    @staticmethod
    def _from_node(node: Node) -> Tensor:
        tensor = object.__new__(Tensor)
        tensor._node = node
        return tensor

    @staticmethod
    def _from_stray(op: Op, position: int, value: Any) -> Any:
        """Takes numpy scalars where tensors are expected; TypeError for anything else."""
        if isinstance(value, np.generic):
            return value.item()
        name = op.input_names[position] if position < len(op.input_names) else f"input {position}"
        hint = "; convert it with from_numpy() or tensor()" if isinstance(value, (np.ndarray, list, tuple)) else ""
        raise TypeError(f"{op.name}(): argument '{name}' must be Tensor or number, not {type(value).__name__}{hint}")

    @staticmethod
    def _make_subclass(cls: type, data: Tensor, require_grad: bool = False) -> Any:
        """Gives a leaf of a subclass with a tensor's values. A parameter of a session is replicated."""
        instance: Any = object.__new__(cls)
        node = data._now()
        if graph.session() is not None and node.spec.placement is None:
            node = Node(Spec.of(node.spec.meta, REPLICATE), node.data.copy())  # type: ignore[union-attr]  # local
        elif node.spec.placement not in (None, REPLICATE):
            with no_grad():
                node = _redistribute(data.detach(), placement=REPLICATE)._node
        instance._node = node
        instance._needs_grad = bool(require_grad)
        instance._shares_numpy = data._shares_numpy and node is data._node
        return instance

    def _now(self) -> Node:
        return self._node if self._view is None else self._synced()

    _synced = views.synced
    _mark_saved = views.mark_saved
    _rebind = views.rebind

    def _resize(self, value: Any) -> Tensor:
        """Takes another value of any shape; RuntimeError for a view, whose memory is another tensor's."""
        if self._view is not None and self._view.op is not None:
            raise RuntimeError(
                f"a view of shape {list(self.shape)} cannot be resized to {list(value.shape)}; resize the tensor it "
                "was taken from, or a clone()"
            )
        value = self._as_own_dtype(value)
        self._leave_memory()
        self._rebind(value)
        return self

    def _leave_memory(self) -> None:
        self._now()
        self._view, self._clock, self._shares_numpy = None, None, False

    def _as_own_dtype(self, value: Any) -> Any:
        kind = self.dtype
        if value.dtype is kind:
            return value
        if value.dtype.category > kind.category:
            raise RuntimeError(f"result type {value.dtype!r} can't be cast to the desired output type {kind!r}")
        return OPS["cast"](value, dtype=kind.name)

    def _assign(self, value: Any) -> Tensor:
        """Writes a value into this tensor, as every in-place method does; shapes must be equal."""
        if mode.enabled:
            root: Tensor = self
            while root._view is not None and root._view.op is not None:
                root = root._view.parent
            if root._needs_grad and root._fn is None:
                what = "a view of a leaf" if root is not self else "a leaf"
                raise RuntimeError(f"{what} Variable that requires grad is being used in an in-place operation.")
        node = self._now()
        target = node.spec.meta
        if value.shape != target.shape:
            raise RuntimeError(
                f"output with shape {list(target.shape)} doesn't match the broadcast shape {list(value.shape)}"
            )
        value = self._as_own_dtype(value)
        placement, given = node.spec.placement, value._now().spec.placement
        if node.home is not None and node.home is not graph.session():  # its session has ended: written anew in this one
            placement = None if graph.session() is None or isinstance(placement, Shard) else placement
        if placement is None and given is not None and self._needs_grad:
            placement = REPLICATE  # a parameter made before init joins the workers as one
        if placement is not None and given is not placement:
            value = _redistribute(value, placement=placement)
        if mode.enabled and self._needs_grad and not value._needs_grad:
            value = OPS["overwrite"](self, value)  # stays in the graph, with no gradient for what is gone
        self._rebind(value)
        return self

    def detach(self) -> Tensor:
        """Gives the same values without history, sharing this tensor's memory."""
        return views.detached(self)

    def detach_(self) -> Tensor:
        """Makes this tensor a leaf that requires no gradient; RuntimeError for a view."""
        self._now()
        if self._view is not None and self._view.op is not None:
            raise RuntimeError("Can't detach views in-place. Use detach() instead.")
        self._fn, self._needs_grad = None, False
        return self

    # Gradients ------------------------------------------------------------------------------------------------

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False,
                 inputs: Any = None) -> None:
        """Adds the gradient of this tensor with respect to the leaves into their `.grad`.

        `gradient` has this tensor's shape; without it the tensor must have one element. RuntimeError otherwise.
        """
        backward([self], None if gradient is None else [gradient], retain_graph, create_graph, inputs=inputs)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Calls `hook(grad)` when this tensor's gradient is known; what it returns replaces the gradient."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self._fn is None:
            if self._hooks is None:
                self._hooks = {}
            hooks = self._hooks
        else:
            if self._fn.hooks is None:
                self._fn.hooks = {}
            hooks = self._fn.hooks.setdefault(self._index, {})
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Calls `hook(tensor)` after a leaf's gradient was accumulated; RuntimeError for a non-leaf."""
        if self._fn is not None:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        if self._post_hooks is None:
            self._post_hooks = {}
        handle = RemovableHandle(self._post_hooks)
        self._post_hooks[handle.id] = hook
        return handle

    def retain_grad(self) -> None:
        """Makes a non-leaf keep its gradient in `.grad`."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self._fn is not None:
            if self._fn.retained is None:
                self._fn.retained = {}
            self._fn.retained[self._index] = autodiff.weak(self)
            self._retains = True

    @property
    def retains_grad(self) -> bool:
        """Whether a non-leaf keeps its gradient."""
        return self._retains

    def _accumulate(self, g: Tensor) -> None:
        placement = (self if self.grad is None else self.grad)._now().spec.placement
        if not isinstance(placement, Shard):
            placement = self._now().spec.placement
        current = g._now().spec.placement
        if current is not None and current is not placement:
            g = _redistribute(g, placement=placement if placement is not None else REPLICATE)
        leaves.accumulate(self, g, Tensor._from_node)

    # Values ---------------------------------------------------------------------------------------------------

    def _value(self) -> np.ndarray:
        """Gives the array, fetched from the workers when it is there; not to be written to."""
        node = self._now()
        if node.data is not None:
            return node.data if node.spec.placement is None else node.data.copy()
        return graph.require_home(node).fetch(node)

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """Gives the values as a numpy array; RuntimeError when gradients are recorded, unless `force`.

        Without a session the array shares the memory of a tensor that is no view and has none; in other cases it does not
        follow later in-place changes.
        """
        if self.requires_grad and not force:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        value = self._value()
        if self._view is None and graph.session() is None:
            value = views.whole(self, value)
            self._shares_numpy = self._shares_numpy or views.alone(self, value)
        return value

    def item(self) -> Any:
        """Gives the only element as a Python number; RuntimeError when there are more."""
        if self._now().spec.meta.size != 1:
            raise RuntimeError(f"a Tensor with {self.shape.numel()} elements cannot be converted to Scalar")
        return self._value().item()

    def tolist(self) -> Any:
        """Gives the values as nested lists of Python numbers."""
        return self._value().tolist()

    def cpu(self) -> Tensor:
        """Gives a tensor local to this process; itself when it is local already."""
        node = self._now()
        return self if node.spec.placement is None else Tensor._from_node(Node(Spec.of(node.spec.meta), self._value()))

    def redistribute(self, placement: Placement) -> Tensor:
        """Gives the same tensor with another placement; gradients flow. Without a session it is the tensor itself.

        PlacementError or IndexError when the placement does not fit the shape.
        """
        session = graph.session()
        if session is None:
            if not isinstance(placement, Placement):
                raise TypeError(f"redistribute: placement must be a Placement, got {type(placement).__name__}")
            return self
        node = self._now()
        return _redistribute(self, placement=resolve(placement, node.spec.meta, session.world_size))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.numpy()
        return value if dtype is None else value.astype(dtype, copy=False)

    def __bool__(self) -> bool:
        if self._now().spec.meta.size != 1:
            raise RuntimeError(
                "Boolean value of Tensor with no values is ambiguous" if self.shape.numel() == 0
                else "Boolean value of Tensor with more than one value is ambiguous"
            )
        return bool(self._value().item())

    def _number(self) -> Any:
        if self._now().spec.meta.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self._value().item()

    def __float__(self) -> float:
        return float(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __complex__(self) -> complex:
        return complex(self._number())

    def __index__(self) -> int:
        if self.dtype.category > 1 or self._now().spec.meta.size != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d tensor")
        return self._now().spec.meta.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))  # type: ignore[attr-defined]  # attached in methods.py

    def __contains__(self, element: Any) -> bool:
        return bool((self == element).any())  # type: ignore[attr-defined]  # attached in methods.py

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        from distgrad.functions.display import represent

        return represent(self)

    def __format__(self, spec: str) -> str:
        return object.__format__(self, spec) if self.ndim else format(self.item(), spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) in memo:
            return memo[id(self)]
        if self._fn is not None:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the "
                "moment."
            )
        out = object.__new__(type(self))
        out._node = self._now()
        out._needs_grad = self._needs_grad
        if out._node.data is not None:
            out._node = Node(out._node.spec, out._node.data.copy())
        memo[id(self)] = out
        if self._grad is not None:
            out._grad = self._grad.__deepcopy__(memo)
        for name, value in self.__dict__.items():
            if not name.startswith("_"):
                setattr(out, name, value)
        return out

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.detach().numpy(), self.dtype.name, self.requires_grad))


def _rebuild(cls: type, array: np.ndarray, kind: str, requires_grad: bool) -> Tensor:
    import distgrad.namespace  # attaches the methods  # noqa: F401

    out: Any = object.__new__(cls)
    out._node = Node(Spec.of(TensorMeta.of(array.shape, dtypes.named(kind))), array)
    out._needs_grad = requires_grad
    return out


def make_saved(node: Node, edge: Any) -> Tensor:
    """Builds the tensor a gradient rule sees: a saved value with its history (None: without)."""
    tensor = object.__new__(Tensor)
    tensor._node = node
    if edge is not None:
        tensor._needs_grad = True
        if isinstance(edge, tuple):
            tensor._fn, tensor._index = edge
        else:
            return edge if edge._now() is node else _as_leaf(tensor, edge)
    return tensor


def _as_leaf(tensor: Tensor, leaf: Tensor) -> Tensor:
    """A leaf that was rebound since: the old value, with gradients going to the leaf."""
    from distgrad.graph import Plan

    plan = Plan(OPS["redistribute"], (tensor._node.spec,), (tensor._node.spec,), {}, None)
    tensor._fn, tensor._index = autodiff.GradFn(plan, (leaf,)), 0
    return tensor


def _cotangents(outputs: Sequence[Tensor], gradients: Sequence[Any] | None, create: bool) -> list[tuple[Any, Tensor]]:
    roots = []
    for position, out in enumerate(outputs):
        if not out.requires_grad:
            raise RuntimeError(
                f"element {position} of tensors does not require grad and does not have a grad_fn"
            )
        g = None if gradients is None else gradients[position]
        if g is None:
            if out._now().spec.meta.size != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            g = _ones_like(out)
        elif g.shape != out.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{position}] has a shape of {g.shape} and output[{position}] has a "
                f"shape of {out.shape}."
            )
        roots.append((edge_of(out), g))
    return roots


def _ones_like(out: Tensor) -> Tensor:
    spec = out._now().spec
    if spec.placement is None:
        one = np.array(1, spec.meta.dtype.numpy)
        return Tensor._from_node(Node(spec, one.reshape(spec.meta.shape) if spec.meta.ndim else one))
    return OPS["full"](1.0, shape=spec.meta.shape, dtype=spec.meta.dtype.name)


def _leaf_hooks(leaf: Tensor, g: Tensor) -> Tensor:
    if leaf._hooks:
        for hook in list(leaf._hooks.values()):
            changed = hook(g)
            if changed is not None:
                g = changed
    return g


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
             grad_variables: Any = None, inputs: Any = None) -> None:
    """Adds the gradients of `tensors` with respect to the leaves (or `inputs`) into their `.grad`."""
    outputs = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if grad_tensors is not None:
        grad_tensors = [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors)
    retain = create_graph if retain_graph is None else retain_graph
    wanted: list[Tensor] | None = None
    if inputs is not None:
        wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if not wanted:
            raise RuntimeError("'inputs' argument to backward() cannot be empty.")
        if not all(t.requires_grad for t in wanted):
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False; inputs must require grad")
    roots = _cotangents(outputs, grad_tensors, create_graph)
    edges = None if wanted is None else [edge_of(t) for t in wanted]
    results, leaves = reverse.run_backward(
        roots, make=make_saved, retain=retain, create=create_graph, wanted=edges
    )
    before, mode.enabled = mode.enabled, create_graph
    try:
        if wanted is None:
            arrived = leaves
        else:
            arrived = [
                (t, results[reverse.key_of(e)]) for t, e in zip(wanted, edges or ()) if reverse.key_of(e) in results
            ]
        for leaf, g in arrived:
            if leaf._hooks and leaf._fn is None:
                g = _leaf_hooks(leaf, g)
            leaf._accumulate(g)
            if leaf._post_hooks:
                for post in list(leaf._post_hooks.values()):
                    post(leaf)
    finally:
        mode.enabled = before


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Tensor | None, ...]:
    """Gives the gradients of `outputs` with respect to `inputs` (PyTorch: torch.autograd.grad).

    RuntimeError when an input was not used and neither `allow_unused` nor `materialize_grads` is set.
    """
    if is_grads_batched:
        raise RuntimeError("grad: is_grads_batched is not supported; call grad once per row")
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False."
        )
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is not None:
        grad_outputs = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    retain = create_graph if retain_graph is None else retain_graph
    for tensor in wanted:
        if not tensor.requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad")
    edges = [edge_of(t) for t in wanted]
    results, _ = reverse.run_backward(
        _cotangents(outs, grad_outputs, create_graph), make=make_saved, retain=retain, create=create_graph, wanted=edges
    )
    gradients: list[Tensor | None] = []
    with set_grad_enabled(create_graph):
        for tensor, edge in zip(wanted, edges):
            g = results.get(reverse.key_of(edge))
            if g is None:
                if materialize_grads:
                    g = tensor.detach() * 0
                elif not allow_unused:
                    raise RuntimeError(
                        "One of the differentiated Tensors appears to not have been used in the graph. Set "
                        "allow_unused=True if this is the desired behavior."
                    )
            elif tensor._fn is None:
                g = _leaf_hooks(tensor, g)
            if g is not None:
                placement, current = tensor._now().spec.placement, g._now().spec.placement
                if placement is not None and current is not placement and current is not None:
                    g = _redistribute(g, placement=placement)
            gradients.append(g)
    return tuple(gradients)


set_tensor_type(Tensor)
dispatch.install(Tensor)
