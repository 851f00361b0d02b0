"""Collecting a module tree's tensors into a state dict, and copying them back.

Invariant: loading looks at every key and every shape before it reports, so one error names everything that is wrong.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import distgrad as dg
from distgrad.nn.modules.tree import ModuleTree
from distgrad.nn.parameter import Parameter
from distgrad.tensor import Tensor

EXTRA_STATE_SUFFIX = "_extra_state"


class IncompatibleKeys(NamedTuple("IncompatibleKeys", [("missing_keys", list), ("unexpected_keys", list)])):
    """The keys a state dict lacked and the keys no module took."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys!r}, unexpected_keys={self.unexpected_keys!r})"

    __str__ = __repr__


def _overrides(module: Any, method: str) -> bool:
    """Says whether the module's class defines ``method`` itself instead of inheriting Module's."""
    return getattr(type(module), method) is not getattr(dg.nn.Module, method)


def save(module: Any, destination: Any, prefix: str, keep_vars: bool) -> Any:
    """Adds the tensors of ``module`` and everything below it to ``destination`` and returns it."""
    if not hasattr(destination, "_metadata") and isinstance(destination, OrderedDict):
        destination._metadata = OrderedDict()  # type: ignore[attr-defined]  # torch keeps it on the dictionary too
    local_metadata = {"version": module._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = local_metadata
    for hook in list(module._state_dict_pre_hooks.values()):
        hook(module, prefix, keep_vars)
    module._save_to_state_dict(destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    for hook in list(module._state_dict_hooks.values()):
        hook(module, destination, prefix, local_metadata)
    return destination


def save_own(module: Any, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Adds the module's own parameters, persistent buffers and extra state, not those of its children."""
    for name, tensor in _persistent(module).items():
        destination[prefix + name] = tensor if keep_vars else tensor.detach()
    if _overrides(module, "get_extra_state"):
        destination[prefix + EXTRA_STATE_SUFFIX] = module.get_extra_state()


def _persistent(module: ModuleTree) -> dict[str, Tensor]:
    """Returns the module's own tensors that a state dict contains."""
    tensors: dict[str, Tensor] = {name: tensor for name, tensor in module._parameters.items() if tensor is not None}
    for name, tensor in module._buffers.items():
        if tensor is not None and name not in module._non_persistent_buffers_set:
            tensors[name] = tensor
    return tensors


def load(module: Any, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Copies ``state_dict`` into the tree below ``module``; raises RuntimeError as ``Module.load_state_dict`` says."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    metadata = getattr(state_dict, "_metadata", None) or {}
    keys = IncompatibleKeys([], [])
    errors: list[str] = []
    # Loading hooks may edit the dictionary they are given; the caller's stays as it is.
    _load_tree(module, OrderedDict(state_dict), "", metadata, strict, assign, keys, errors)
    if strict:
        for text, names in (("Unexpected", keys.unexpected_keys), ("Missing", keys.missing_keys)):
            if names:
                quoted = ", ".join(f'"{name}"' for name in names)
                errors.insert(0, f"{text} key(s) in state_dict: {quoted}. ")
    if errors:
        raise RuntimeError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t" + "\n\t".join(errors))
    return keys


def _load_tree(
    module: Any,
    state_dict: Any,
    prefix: str,
    metadata: Mapping,
    strict: bool,
    assign: bool,
    keys: IncompatibleKeys,
    errors: list[str],
) -> None:
    local_metadata = dict(metadata.get(prefix[:-1], {}))
    if assign:
        local_metadata["assign_to_params_buffers"] = True
    module._load_from_state_dict(
        state_dict, prefix, local_metadata, True, keys.missing_keys, keys.unexpected_keys, errors
    )
    for name, child in module._modules.items():
        if child is not None:
            child_prefix = f"{prefix}{name}."
            part = OrderedDict((key, value) for key, value in state_dict.items() if key.startswith(child_prefix))
            _load_tree(child, part, child_prefix, metadata, strict, assign, keys, errors)
    for hook in list(module._load_state_dict_post_hooks.values()):
        if hook(module, keys) is not None:
            raise AssertionError(
                "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new values, "
                "if incompatible_keys need to be modified, it should be done inplace."
            )


def load_own(
    module: Any,
    state_dict: Any,
    prefix: str,
    local_metadata: dict,
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Copies into the module's own tensors and appends what does not fit to the three lists."""
    for hook in list(module._load_state_dict_pre_hooks.values()):
        hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
    assign = local_metadata.get("assign_to_params_buffers", False)
    own = _persistent(module)
    for name, target in own.items():
        key = prefix + name
        if key in state_dict:
            error = _load_tensor(module, name, key, target, state_dict[key], assign)
            if error:
                error_msgs.append(error)
        elif strict:
            missing_keys.append(key)
    extra_key = prefix + EXTRA_STATE_SUFFIX
    takes_extra = _overrides(module, "set_extra_state")
    if takes_extra and extra_key in state_dict:
        module.set_extra_state(state_dict[extra_key])
    elif takes_extra and strict:
        missing_keys.append(extra_key)
    if strict:
        for key in state_dict:
            if not key.startswith(prefix) or (key == extra_key and takes_extra):
                continue
            name, _, rest = key[len(prefix) :].partition(".")
            if name not in (module._modules if rest else own):
                unexpected_keys.append(key)


def _load_tensor(module: Any, name: str, key: str, target: Tensor, given: Any, assign: bool) -> str | None:
    """Copies ``given`` into ``target``, or puts it in its place; returns the text of what is wrong."""
    if not isinstance(given, Tensor):
        return (
            f'While copying the parameter named "{key}", expected distgrad.Tensor or Tensor-like object from '
            f"checkpoint but received {type(given)}"
        )
    if target.dim() == 0 and given.dim() == 1 and given.shape[0] == 1:
        # Scalars were once saved with shape (1,).
        given = given[0]
    if tuple(given.shape) != tuple(target.shape):
        return (
            f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, "
            f"the shape in current model is {target.shape}."
        )
    if assign:
        if isinstance(target, Parameter) and not isinstance(given, Parameter):
            given = Parameter(given, requires_grad=target.requires_grad)
        elif isinstance(target, Parameter):
            given.requires_grad_(target.requires_grad)
        setattr(module, name, given)
        return None
    with dg.no_grad():
        target.copy_(given)
    return None
