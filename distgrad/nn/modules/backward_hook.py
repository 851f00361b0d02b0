"""Full backward hooks: what brackets a module's call so that its gradients can be seen and replaced.

Invariant: all gradients of one call's outputs are seen together, before any gradient of its inputs, because each side
passes through one identity function with one backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import distgrad as dg
from distgrad.tensor import Tensor

_Gradients = tuple  # of Tensor or None, one entry for each position


@functools.cache
def _boundary_function() -> Any:
    """Returns the identity whose backward passes its gradients through a function (made late: it needs autograd)."""

    class Boundary(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, on_gradients: Callable, *tensors: Tensor) -> tuple[Tensor, ...]:
            ctx.on_gradients = on_gradients
            return tuple(tensor.view_as(tensor) for tensor in tensors)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
            return (None, *ctx.on_gradients(gradients))

    return Boundary


class BackwardHook:
    """Brackets one call of ``module`` and runs its hooks when gradients come through."""

    def __init__(self, module: Any, hooks: Iterable[Callable], pre_hooks: Iterable[Callable]) -> None:
        self.module = module
        self.hooks = list(hooks)
        self.pre_hooks = list(pre_hooks)
        self.grad_outputs: _Gradients | None = None
        self.input_count = 0
        self.inputs_have_gradients = False

    def enter(self, args: tuple) -> tuple:
        """Returns the positional arguments, those that require a gradient passed through the boundary."""
        self.input_count = len(args)
        args, self.inputs_have_gradients = self._through_boundary(args, self._on_grad_inputs)
        return args

    def leave(self, result: Any) -> Any:
        """Returns the module's output (a tensor, or a tuple or list with tensors), passed through the boundary."""
        if isinstance(result, Tensor):
            return self._through_boundary((result,), self._on_grad_outputs)[0][0]
        if not isinstance(result, (tuple, list)):
            return result
        values, _ = self._through_boundary(tuple(result), self._on_grad_outputs)
        if isinstance(result, tuple) and hasattr(result, "_fields"):
            return type(result)(*values)
        return type(result)(values)

    def _through_boundary(self, values: tuple, on_gradients: Callable) -> tuple[tuple, bool]:
        places = [i for i, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad]
        if not places or not dg.is_grad_enabled():
            return values, False

        def receive(gradients: _Gradients) -> _Gradients:
            spread: list[Any] = [None] * len(values)
            for place, gradient in zip(places, gradients, strict=True):
                spread[place] = gradient
            answer = on_gradients(tuple(spread))
            return tuple(answer[place] for place in places)

        outputs = _boundary_function().apply(receive, *(values[place] for place in places))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        spread = list(values)
        for place, output in zip(places, outputs, strict=True):
            spread[place] = output
        return tuple(spread), True

    def _on_grad_outputs(self, gradients: _Gradients) -> _Gradients:
        for hook in self.pre_hooks:
            gradients = self._replaced(hook(self.module, gradients), gradients, "pre hook", "grad_output")
        self.grad_outputs = gradients
        if not self.inputs_have_gradients:
            # No input will report, so this is the last moment for the hooks.
            for hook in self.hooks:
                if hook(self.module, (None,) * self.input_count, gradients) is not None:
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires gradient should always return None or None "
                        "for all gradients."
                    )
        return gradients

    def _on_grad_inputs(self, gradients: _Gradients) -> _Gradients:
        for hook in self.hooks:
            answer = hook(self.module, gradients, self.grad_outputs)
            gradients = self._replaced(answer, gradients, "hook", "grad_input")
        return gradients

    def _replaced(self, answer: Any, gradients: _Gradients, kind: str, name: str) -> _Gradients:
        if answer is None:
            return gradients
        answer = answer if isinstance(answer, tuple) else (answer,)
        if len(answer) != len(gradients):
            raise RuntimeError(
                f"Backward {kind} returned an invalid number of {name}, got {len(answer)}, but expected "
                f"{len(gradients)}"
            )
        return answer
