"""``Module``: how a tree of parameters and submodules is called, converted, saved, loaded and printed.

Invariant: a call without hooks is a call of ``forward`` and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import distgrad as dg
from distgrad.graph import recorder
from distgrad.nn.modules import state
from distgrad.nn.modules.backward_hook import BackwardHook
from distgrad.nn.modules.tree import ModuleTree
from distgrad.tensor import Tensor
from distgrad.utils.hooks import RemovableHandle


def indent(text: str, spaces: int) -> str:
    """Indents every line of ``text`` but the first."""
    return text.replace("\n", "\n" + " " * spaces)


class Module(ModuleTree):
    """Base class of all layers and models: assigned parameters, buffers and modules register themselves.

    A subclass calls ``super().__init__()``, assigns its parts and defines ``forward``. Source: torch.nn.Module.

    >>> import distgrad as dg
    >>> class Affine(dg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scale = dg.nn.Parameter(dg.ones(2))
    ...     def forward(self, x):
    ...         return x * self.scale
    >>> [name for name, _ in Affine().named_parameters()]
    ['scale']
    """

    _modules: dict[str, Module | None]  # type: ignore[assignment]
    dump_patches = False
    _version = 1
    training: bool

    def __init__(self) -> None:
        # Written past __setattr__, which itself needs these dictionaries.
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _non_persistent_buffers_set=set(),
            _modules={},
            _backward_pre_hooks=OrderedDict(),
            _backward_hooks=OrderedDict(),
            _forward_hooks=OrderedDict(),
            _forward_hooks_with_kwargs=OrderedDict(),
            _forward_hooks_always_called=OrderedDict(),
            _forward_pre_hooks=OrderedDict(),
            _forward_pre_hooks_with_kwargs=OrderedDict(),
            _state_dict_hooks=OrderedDict(),
            _state_dict_pre_hooks=OrderedDict(),
            _load_state_dict_pre_hooks=OrderedDict(),
            _load_state_dict_post_hooks=OrderedDict(),
        )

    def forward(self, *input: Any) -> Any:
        """Computes the module's output; every subclass that is called defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    # -- calling and hooks ---------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if recorder[0] is not None:
            recorder[0].called(self)
        if not (self._backward_hooks or self._backward_pre_hooks or self._forward_hooks or self._forward_pre_hooks):
            return self.forward(*args, **kwargs)
        return self._call_with_hooks(args, kwargs)

    def _call_with_hooks(self, args: tuple, kwargs: dict) -> Any:
        called: set[int] = set()
        result = None
        try:
            for handle_id, hook in list(self._forward_pre_hooks.items()):
                if handle_id in self._forward_pre_hooks_with_kwargs:
                    replacement = hook(self, args, kwargs)
                    if replacement is not None:
                        if not (isinstance(replacement, tuple) and len(replacement) == 2):
                            raise RuntimeError(
                                f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                                f"but got {replacement}."
                            )
                        args, kwargs = replacement
                else:
                    replacement = hook(self, args)
                    if replacement is not None:
                        args = replacement if isinstance(replacement, tuple) else (replacement,)
            boundary = None
            if self._backward_hooks or self._backward_pre_hooks:
                boundary = BackwardHook(self, self._backward_hooks.values(), self._backward_pre_hooks.values())
                args = boundary.enter(args)
            result = self.forward(*args, **kwargs)
            for handle_id, hook in list(self._forward_hooks.items()):
                called.add(handle_id)
                result = self._run_forward_hook(handle_id, hook, args, kwargs, result)
            return result if boundary is None else boundary.leave(result)
        except Exception:
            # Hooks registered with always_call run although the call failed; its own error is the one to report.
            for handle_id, hook in list(self._forward_hooks.items()):
                if handle_id in self._forward_hooks_always_called and handle_id not in called:
                    result = self._run_forward_hook(handle_id, hook, args, kwargs, result)
            raise

    def _run_forward_hook(self, handle_id: int, hook: Callable, args: tuple, kwargs: dict, result: Any) -> Any:
        if handle_id in self._forward_hooks_with_kwargs:
            replacement = hook(self, args, kwargs, result)
        else:
            replacement = hook(self, args, result)
        return result if replacement is None else replacement

    def register_forward_pre_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Registers ``hook(module, args)``, run before ``forward``; what it returns replaces the arguments."""
        handle = RemovableHandle(self._forward_pre_hooks, extra_dict=self._forward_pre_hooks_with_kwargs)
        if with_kwargs:
            self._forward_pre_hooks_with_kwargs[handle.id] = True
        return _file_hook(self._forward_pre_hooks, handle, hook, prepend)

    def register_forward_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Registers ``hook(module, args, output)``, run after ``forward``; what it returns replaces the output."""
        options = [self._forward_hooks_with_kwargs, self._forward_hooks_always_called]
        handle = RemovableHandle(self._forward_hooks, extra_dict=options)
        if with_kwargs:
            self._forward_hooks_with_kwargs[handle.id] = True
        if always_call:
            self._forward_hooks_always_called[handle.id] = True
        return _file_hook(self._forward_hooks, handle, hook, prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Registers ``hook(module, grad_input, grad_output)``; what it returns replaces the input gradients."""
        return _file_hook(self._backward_hooks, RemovableHandle(self._backward_hooks), hook, prepend)

    register_backward_hook = register_full_backward_hook

    def register_full_backward_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Registers ``hook(module, grad_output)``; what it returns replaces the output gradients."""
        return _file_hook(self._backward_pre_hooks, RemovableHandle(self._backward_pre_hooks), hook, prepend)

    # -- changing the whole tree ---------------------------------------------------------------------------------

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Calls ``fn`` on every module, children before their parent."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Module:
        if recurse:
            for module in self.children():
                module._apply(fn)
        with dg.no_grad():
            for parameter in self._parameters.values():
                if parameter is not None:
                    # The same object gets the new values: optimizers and ties keep referring to it.
                    parameter._rebind(fn(parameter.detach()).detach())
                    if parameter.grad is not None:
                        parameter.grad = fn(parameter.grad)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Module:
        """Changes parameters and buffers in place: ``to(dtype)``, ``to(device, dtype)`` or ``to(other_tensor)``.

        Only floating point and complex tensors change their dtype, and only such a dtype is allowed (TypeError).
        """
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        for argument in args:
            if isinstance(argument, dg.dtype):
                dtype = argument
            elif isinstance(argument, Tensor):
                dtype = argument.dtype
            elif argument is not None and not isinstance(argument, bool):
                device = argument
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype}"
            )

        def convert(tensor: Tensor) -> Tensor:
            if device is not None:
                tensor = tensor.to(device)
            changes = dtype is not None and (tensor.is_floating_point() or tensor.is_complex())
            return tensor.to(dtype) if changes else tensor

        return self._apply(convert)

    def _to_floating(self, dtype: Any) -> Module:
        return self._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)

    def float(self) -> Module:
        """Casts floating point parameters and buffers to float32."""
        return self._to_floating(dg.float32)

    def double(self) -> Module:
        """Casts floating point parameters and buffers to float64."""
        return self._to_floating(dg.float64)

    def half(self) -> Module:
        """Casts floating point parameters and buffers to float16."""
        return self._to_floating(dg.float16)

    def bfloat16(self) -> Module:
        """Casts floating point parameters and buffers to bfloat16."""
        return self._to_floating(dg.bfloat16)

    def type(self, dst_type: Any) -> Module:
        """Casts all parameters and buffers to ``dst_type``."""
        return self._apply(lambda tensor: tensor.type(dst_type))

    def cpu(self) -> Module:
        """Returns the module itself: distgrad computes on CPUs only."""
        return self

    def cuda(self, device: Any = None) -> Module:
        """Raises RuntimeError: there is no GPU."""
        return self.to("cuda" if device is None else f"cuda:{getattr(device, 'index', device)}")

    def to_empty(self, *, device: Any = None, recurse: bool = True) -> Module:
        """Gives parameters and buffers new memory whose values nobody has set."""
        return self._apply(dg.empty_like, recurse)

    def share_memory(self) -> Module:
        """Returns the module itself: other processes are sent copies."""
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Leaves the module as it is: sharded programs are recorded and cached without being asked to."""

    def train(self, mode: bool = True) -> Module:
        """Sets training mode in this module and all below it."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Module:
        """Sets evaluation mode; the same as ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Switches gradients of all parameters on or off."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients, or fills them with zeros when ``set_to_none`` is False."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.detach_().zero_()

    # -- state dicts ---------------------------------------------------------------------------------------------

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:
        """Returns dotted names and tensors of parameters and persistent buffers, detached unless ``keep_vars``."""
        return state.save(self, OrderedDict() if destination is None else destination, prefix, keep_vars)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> state.IncompatibleKeys:
        """Copies the values of ``state_dict`` into parameters and buffers.

        ``strict`` turns missing and unexpected keys into a RuntimeError; without it they are only returned.
        ``assign`` puts the given tensors in place of the module's own. A wrong shape always raises RuntimeError.
        """
        return state.load(self, state_dict, strict, assign)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        state.save_own(self, destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        state.load_own(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def get_extra_state(self) -> Any:
        """Returns what ``state_dict`` stores besides tensors; a subclass that needs it overrides this method."""
        raise RuntimeError("Reached a code path in Module.get_extra_state() that should never be called: override it.")

    def set_extra_state(self, state: Any) -> None:
        """Takes back what ``get_extra_state`` returned; a subclass that has it overrides this method."""
        raise RuntimeError("Reached a code path in Module.set_extra_state() that should never be called: override it.")

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Registers ``hook(module, prefix, keep_vars)``, run before ``state_dict`` collects this module."""
        return _file_hook(self._state_dict_pre_hooks, RemovableHandle(self._state_dict_pre_hooks), hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Registers ``hook(module, state_dict, prefix, local_metadata)``, run after this module is collected."""
        return _file_hook(self._state_dict_hooks, RemovableHandle(self._state_dict_hooks), hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Registers ``hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors)``."""
        return _file_hook(self._load_state_dict_pre_hooks, RemovableHandle(self._load_state_dict_pre_hooks), hook)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Registers ``hook(module, incompatible_keys)``, run after loading; it may edit the lists of keys."""
        return _file_hook(self._load_state_dict_post_hooks, RemovableHandle(self._load_state_dict_post_hooks), hook)

    # -- copying and printing ------------------------------------------------------------------------------------

    def __getstate__(self) -> dict:
        return self.__dict__.copy()

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)

    def extra_repr(self) -> str:
        """Returns the arguments to print; every layer with arguments overrides it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {indent(repr(module), 2)}" for name, module in self._modules.items()]
        if not children and len(lines) <= 1:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines + children) + "\n)"


def _file_hook(hooks: OrderedDict, handle: RemovableHandle, hook: Callable, prepend: bool = False) -> RemovableHandle:
    """Files ``hook`` under the handle's id, before the others when ``prepend``."""
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle
