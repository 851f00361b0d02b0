"""Derivatives as functions of functions: `grad`, `vjp`, `jvp`, `jacrev`, `jacfwd`, `hessian`; `functional_call`, `vmap`.

Invariant: a transform differentiates by its own copies of the arguments, so transforms nest, and what it gives is
differentiable by whatever else the function used. Source: torch.func.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import distgrad as dg
from distgrad.autograd import grad as _gradients
from distgrad.tensor import Tensor

__all__ = ["functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp",
           "stack_module_state", "vjp", "vmap"]


# Nested containers of tensors -------------------------------------------------------------------------------


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    if isinstance(tree, (tuple, list)):
        return [leaf for value in tree for leaf in _leaves(value)]
    return [tree]


def _like(tree: Any, leaves: Any) -> Any:
    """Gives a tree of the same form with other leaves, taken from an iterator."""
    if isinstance(tree, dict):
        return type(tree)((key, _like(value, leaves)) for key, value in tree.items())
    if isinstance(tree, (tuple, list)):
        items = [_like(value, leaves) for value in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return next(leaves)


def _rebuilt(tree: Any, leaves: Sequence[Any]) -> Any:
    return _like(tree, iter(leaves))


def _tensors(name: str, what: str, tree: Any) -> list[Tensor]:
    leaves = _leaves(tree)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(f"{name}: Expected {what} to contain only tensors, but got {type(leaf)}")
    return leaves


def _own(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gives copies to differentiate by, connected to those of an outer transform."""
    return [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in leaves]


def _pulled(name: str, outs: Sequence[Tensor], xs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    """Gives differentiable gradients, zeros where an argument does not matter."""
    pairs = [(out, g) for out, g in zip(outs, cotangents) if out.requires_grad]
    if not pairs:
        return [dg.zeros_like(x) for x in xs]
    found = _gradients(
        [out for out, _ in pairs], xs, [g for _, g in pairs], create_graph=True, allow_unused=True
    )
    return [dg.zeros_like(x) if g is None else g for g, x in zip(found, xs)]


def _released(tree: Any, xs: Sequence[Tensor]) -> Any:
    """Detaches results whose history leads to nothing but the transform's own leaves."""
    own = {id(x) for x in xs if x._fn is None}
    leaves = _leaves(tree)
    kept = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    if any(x._fn is not None for x in xs) or _reaches_others(kept, own):
        return tree
    return _rebuilt(tree, [x.detach() if isinstance(x, Tensor) else x for x in leaves])


def _reaches_others(tensors: Sequence[Tensor], own: set[int]) -> bool:
    seen: set[Any] = set()
    stack: list[Any] = [t if t._fn is None else (t._fn, 0) for t in tensors]
    while stack:
        edge = stack.pop()
        if edge is None:
            continue
        if not isinstance(edge, tuple):
            if id(edge) not in own:
                return True
        elif edge[0] not in seen:
            seen.add(edge[0])
            stack.extend(edge[0].edges)
    return False


# First derivatives ------------------------------------------------------------------------------------------


def _positions(name: str, argnums: Any, count: int) -> tuple[int, ...]:
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for number in chosen:
        if not -count <= number < count:
            raise RuntimeError(f"{name}: Got argnum={number}, but only {count} positional inputs")
    return tuple(number % count for number in chosen)


def grad_and_value(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """Gives a function that returns (gradient, value) of `func` by the arguments at `argnums`.

    `func` gives a 0-d tensor (RuntimeError otherwise), or (tensor, aux) with `has_aux`, which makes the value (value,
    aux). Arguments may be nested containers of tensors. PyTorch: torch.func.grad_and_value.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with dg.enable_grad():
            positions = _positions("grad", argnums, len(args))
            trees = [args[p] for p in positions]
            xs = [_own(_tensors("grad", "the inputs", tree)) for tree in trees]
            given = list(args)
            for position, tree, own in zip(positions, trees, xs):
                given[position] = _rebuilt(tree, own)
            output = func(*given, **kwargs)
            aux = None
            if has_aux:
                if not (isinstance(output, tuple) and len(output) == 2):
                    raise RuntimeError(
                        "grad_and_value(f)(*args): output of function f should be a tuple: (output, aux) if has_aux is "
                        "True"
                    )
                output, aux = output
            if not isinstance(output, Tensor):
                raise RuntimeError(
                    f"grad_and_value(f)(*args): Expected f(*args) to return a Tensor, got {type(output)}"
                )
            if output.ndim:
                raise RuntimeError(
                    "grad_and_value(f)(*args): Expected f(*args) to return a scalar tensor, got tensor with "
                    f"{output.ndim} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
                )
            flat = [x for own in xs for x in own]
            gradients = iter(_pulled("grad", [output], flat, [dg.ones_like(output)]))
            found = tuple(_like(tree, gradients) for tree in trees)
            result = found[0] if isinstance(argnums, int) else found
            return _released((result, (output, aux) if has_aux else output), flat)

    return wrapped


def grad(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """Gives a function that returns the gradient of `func`, or (gradient, aux) with `has_aux`.

    See `grad_and_value`. PyTorch: torch.func.grad.
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        found, value = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return wrapped


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """Gives (outputs, function): the function takes cotangents of the outputs to those of the arguments.

    With `has_aux` (outputs, function, aux). RuntimeError for arguments or outputs that are not tensors.
    PyTorch: torch.func.vjp.
    """
    with dg.enable_grad():
        xs = _own(_tensors("vjp", "primals", primals))
        outputs = func(*_rebuilt(primals, xs))
        aux = None
        if has_aux:
            outputs, aux = outputs
        outs = _tensors("vjp", "the outputs", outputs)

    def pull(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        gs = _tensors("vjp", "cotangents", cotangents)
        if len(gs) != len(outs) or any(g.shape != out.shape for g, out in zip(gs, outs)):
            raise RuntimeError(
                f"vjp: Expected cotangents of the shapes of the outputs, {[tuple(o.shape) for o in outs]}, got "
                f"{[tuple(g.shape) for g in gs]}"
            )
        with dg.enable_grad():
            found = _rebuilt(primals, _pulled("vjp", outs, xs, gs))
        found = _released(found, xs)
        return found[0] if len(primals) == 1 else found

    shown = _released(outputs, xs)
    return (shown, pull, aux) if has_aux else (shown, pull)


def jvp(func: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...], *, strict: bool = False,
        has_aux: bool = False) -> tuple[Any, ...]:
    """Gives (outputs, their directional derivatives) at `primals` along `tangents`; with `has_aux` also aux.

    Computed by differentiating the vector-Jacobian product, which is linear in its vector, by that vector.
    PyTorch: torch.func.jvp.
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise RuntimeError("jvp: Expected primals and tangents to be tuples")
    directions = _tensors("jvp", "tangents", tangents)
    with dg.enable_grad():
        xs = _own(_tensors("jvp", "primals", primals))
        if len(directions) != len(xs) or any(v.shape != x.shape for v, x in zip(directions, xs)):
            raise RuntimeError("jvp: Expected tangents of the structure and shapes of the primals")
        outputs = func(*_rebuilt(primals, xs))
        aux = None
        if has_aux:
            outputs, aux = outputs
        outs = _tensors("jvp", "the outputs", outputs)
        dummies = [dg.zeros_like(out).requires_grad_() for out in outs]
        pulled = _pulled("jvp", outs, xs, dummies)
        products = _rebuilt(outputs, _pulled("jvp", pulled, dummies, directions))
    own = [*xs, *dummies]
    result = (_released(outputs, own), _released(products, own))
    return (*result, aux) if has_aux else result


# Matrices of derivatives ------------------------------------------------------------------------------------


def _basis(like: Tensor, position: int) -> Tensor:
    """Gives a tensor with a single one, at a flat position."""
    flat = dg.zeros(like.numel(), dtype=like.dtype)
    flat[position] = 1.0
    return flat.reshape(like.shape)


def jacrev(func: Callable[..., Any], argnums: Any = 0, *, has_aux: bool = False, chunk_size: int | None = None,
           _preallocate_and_copy: bool = False) -> Callable[..., Any]:
    """Gives a function that returns the Jacobian of `func` by the arguments at `argnums`, shape (*output, *input).

    Nested containers, outputs outside, where there are several. One reverse pass per output element; `chunk_size`
    changes nothing. PyTorch: torch.func.jacrev.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        positions = _positions("jacrev", argnums, len(args))

        def of_chosen(*chosen: Any) -> Any:
            given = list(args)
            for position, value in zip(positions, chosen):
                given[position] = value
            return func(*given, **kwargs)

        trees = tuple(args[p] for p in positions)
        outputs, pull, *rest = vjp(of_chosen, *trees, has_aux=has_aux)
        outs, xs = _leaves(outputs), _leaves(trees)
        tables = []
        for number, out in enumerate(outs):
            rows: list[list[Tensor]] = [[] for _ in xs]
            for element in range(out.numel()):
                gs = [_basis(o, element) if i == number else dg.zeros_like(o) for i, o in enumerate(outs)]
                for row, g in zip(rows, _leaves(pull(_rebuilt(outputs, gs)))):
                    row.append(g)
            parts = [
                (dg.stack(row) if row else dg.zeros(0, *x.shape, dtype=x.dtype)).reshape(*out.shape, *x.shape)
                for row, x in zip(rows, xs)
            ]
            whole = _rebuilt(trees, parts)
            tables.append(whole[0] if isinstance(argnums, int) else whole)
        found = _rebuilt(outputs, tables)
        return (found, rest[0]) if has_aux else found

    return wrapped


def jacfwd(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *,
           randomness: str = "error") -> Callable[..., Any]:
    """Gives a function that returns the Jacobian of `func`, one directional derivative per input element.

    As `jacrev` otherwise; cheaper where there are fewer inputs than outputs. PyTorch: torch.func.jacfwd.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        positions = _positions("jacfwd", argnums, len(args))

        def of_chosen(*chosen: Any) -> Any:
            given = list(args)
            for position, value in zip(positions, chosen):
                given[position] = value
            return func(*given, **kwargs)

        trees = tuple(args[p] for p in positions)
        xs = _tensors("jacfwd", "the inputs", trees)
        columns: list[list[list[Tensor]]] = []
        outputs: Any = None
        aux: list[Any] = []
        for number, x in enumerate(xs):
            column = []
            for element in range(x.numel()):
                vs = [_basis(v, element) if i == number else dg.zeros_like(v) for i, v in enumerate(xs)]
                outputs, products, *aux = jvp(of_chosen, trees, _rebuilt(trees, vs), has_aux=has_aux)
                column.append(_leaves(products))
            columns.append(column)
        if outputs is None:
            outputs = of_chosen(*trees)
            if has_aux:
                outputs, *aux = outputs
        tables = []
        for place, out in enumerate(_leaves(outputs)):
            parts = [
                (dg.stack([c[place] for c in column], -1) if column else dg.zeros(*out.shape, 0, dtype=out.dtype))
                .reshape(*out.shape, *x.shape)
                for column, x in zip(columns, xs)
            ]
            whole = _rebuilt(trees, parts)
            tables.append(whole[0] if isinstance(argnums, int) else whole)
        found = _rebuilt(outputs, tables)
        return (found, aux[0]) if has_aux else found

    return wrapped


def hessian(func: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """Gives a function that returns the second derivatives of `func`: the Jacobian of its Jacobian.

    PyTorch: torch.func.hessian.
    """
    return jacrev(jacrev(func, argnums), argnums)


def functional_call(module: Any, parameter_and_buffer_dicts: Any, args: Any = None, kwargs: Any = None, *,
                    tie_weights: bool = True, strict: bool = False) -> Any:
    """Gives `module(*args, **kwargs)` with other tensors in place of its parameters and buffers, by dotted name.

    One dict or several that are merged (ValueError for a name given twice). `tie_weights` replaces a shared parameter
    under all its names; `strict` raises RuntimeError for unexpected and missing names.
    PyTorch: torch.func.functional_call.
    """
    if isinstance(parameter_and_buffer_dicts, dict):
        tensors = dict(parameter_and_buffer_dicts)
    else:
        tensors = {}
        for part in parameter_and_buffer_dicts:
            repeated = set(part) & set(tensors)
            if repeated:
                raise ValueError(f"{sorted(repeated)[0]} appears in multiple dictionaries; behavior of functional call "
                                 "is ambiguous")
            tensors.update(part)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, tensors, tie_weights, strict):
        return module(*args, **(kwargs or {}))


def _places(module: Any) -> dict[str, tuple[dict[str, Any], str]]:
    """Gives, per dotted name of a parameter or buffer, the dict that holds it and its key there."""
    found = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for held in (part._parameters, part._buffers):
            for key, value in held.items():
                if value is not None:
                    found[f"{prefix}.{key}" if prefix else key] = (held, key)
    return found


@contextlib.contextmanager
def _replaced(module: Any, tensors: dict[str, Tensor], tie_weights: bool, strict: bool) -> Iterator[None]:
    places = _places(module)
    unexpected = [name for name in tensors if name not in places]
    missing = [name for name in places if name not in tensors]
    chosen = {name: value for name, value in tensors.items() if name in places}
    if tie_weights:
        shared = {id(places[name][0][places[name][1]]): value for name, value in chosen.items()}
        for name in list(missing):
            held, key = places[name]
            if id(held[key]) in shared:
                chosen[name] = shared[id(held[key])]
                missing.remove(name)
    if strict and (unexpected or missing):
        problems = [f"Unexpected key(s): {', '.join(unexpected)}."] if unexpected else []
        if missing:
            problems.append(f"Missing key(s): {', '.join(missing)}.")
        raise RuntimeError(f"Error(s) in loading tensors for {type(module).__name__}:\n\t" + "\n\t".join(problems))
    before = [(*places[name], places[name][0][places[name][1]]) for name in chosen]
    try:
        for name, value in chosen.items():
            held, key = places[name]
            held[key] = value
        yield
    finally:
        for held, key, value in before:
            held[key] = value


# The same function for every slice --------------------------------------------------------------------------


def vmap(func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
         chunk_size: int | None = None) -> Callable[..., Any]:
    """Gives a function that calls `func` for every slice of its arguments along `in_dims` and stacks what it gives.

    `in_dims` is an int, None for what is given whole, or containers of these in the arguments' form; keyword arguments
    are sliced along dim 0; `out_dims` says where results are stacked. Slices are computed one after the other, so
    write batched operations where speed matters. `randomness` "same" draws the same numbers for every slice; otherwise
    each draws its own. ValueError for sizes, dims and results that do not fit. PyTorch: torch.func.vmap.
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")

    @functools.wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves = [*_leaves(args), *_leaves(kwargs)]
        dims = [*_spread_dims(in_dims, args), *_spread_dims(0, kwargs)]
        sizes = [leaf.shape[dim] for leaf, dim in zip(leaves, dims) if dim is not None]
        if not sizes:
            raise ValueError("vmap: at least one input must be sliced; all in_dims are None, or there are no inputs")
        if len(set(sizes)) > 1:
            raise ValueError(
                f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the "
                "mapped dimension"
            )
        parts = [leaf if dim is None else leaf.unbind(dim) for leaf, dim in zip(leaves, dims)]
        state = dg.get_rng_state() if randomness == "same" else None
        results = []
        for number in range(sizes[0]):
            if state is not None:
                dg.set_rng_state(state)
            own = iter([part if dim is None else part[number] for part, dim in zip(parts, dims)])
            results.append(func(*_like(args, own), **_like(kwargs, own)))
        if not results:
            raise ValueError("vmap: the mapped dim is empty, so there is no slice to compute the results' form from")
        return _stacked(results, out_dims)

    return mapped


def _spread_dims(dims: Any, tree: Any) -> list[int | None]:
    """Gives a dim for every leaf of a tree."""
    if isinstance(dims, (tuple, list, dict)):
        if not isinstance(tree, (tuple, list, dict)) or len(dims) != len(tree):
            raise ValueError(f"vmap: in_dims is not compatible with the structure of inputs: {dims} given")
        pairs = ((dims[k], tree[k]) for k in tree) if isinstance(tree, dict) else zip(dims, tree)
        return [dim for own, part in pairs for dim in _spread_dims(own, part)]
    found: list[int | None] = []
    for leaf in _leaves(tree):
        if dims is not None and not isinstance(leaf, Tensor):
            raise ValueError(f"vmap: Got in_dim={dims} for an input but the input is of type {type(leaf)}; use None")
        if dims is not None and not -leaf.dim() <= dims < leaf.dim():
            raise ValueError(f"vmap: Got in_dim={dims} for an input of {leaf.dim()} dims; it must be one of them")
        found.append(dims)
    return found


def _stacked(results: list[Any], out_dims: Any) -> Any:
    columns = list(zip(*(_tensors("vmap", "the results", result) for result in results)))
    dims = list(out_dims) if isinstance(out_dims, (tuple, list)) else [out_dims] * len(columns)
    if len(dims) != len(columns):
        raise ValueError(f"vmap: out_dims {out_dims} does not fit {len(columns)} results")
    return _rebuilt(results[0], [column[0] if dim is None else dg.stack(column, dim)
                                 for column, dim in zip(columns, dims)])  # fmt: skip


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gives the parameters and the buffers of modules of one form, each stacked along a new first dim, as leaves.

    RuntimeError when there are none, or they are not of one class. PyTorch: torch.func.stack_module_state.
    """
    if len(models) == 0:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({type(model) for model in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")

    def stacked(named: str) -> dict[str, Tensor]:
        own = [dict(getattr(model, named)()) for model in models]
        return {name: dg.stack([tensors[name].detach() for tensors in own]) for name in own[0]}

    parameters = {name: value.requires_grad_() for name, value in stacked("named_parameters").items()}
    return parameters, stacked("named_buffers")
