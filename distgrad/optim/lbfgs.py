"""``LBFGS``: a quasi-Newton method, optionally with a line search for the strong Wolfe conditions.

Invariant: all parameters move along one flat direction; a step reads the numbers that its decisions need (losses,
slopes) and nothing else. Sources: torch.optim.LBFGS; Nocedal and Wright, "Numerical Optimization", algorithms 7.4, 3.5
and 3.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import distgrad as dg
from distgrad.optim.optimizer import Optimizer, check_learning_rate
from distgrad.tensor import Tensor

_ARMIJO, _CURVATURE = 1e-4, 0.9  # c1 and c2 of the strong Wolfe conditions
_MAX_TRIALS = 25


class _Trial(NamedTuple):
    """The function along the direction at step `t`: loss, gradient and slope."""

    t: float
    loss: float
    gradient: Tensor
    slope: float


def cubic_minimum(a: _Trial, b: _Trial, bounds: tuple[float, float] | None = None) -> float:
    """Gives where the cubic through two trials and their slopes is least, kept within `bounds` (default: the trials).

    The middle of the bounds where that cubic has no minimum (equation 3.59 of the source).
    """
    low, high = bounds if bounds is not None else (min(a.t, b.t), max(a.t, b.t))
    first = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = first**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    left, right = (a, b) if a.t <= b.t else (b, a)
    root = math.sqrt(square)
    share = (right.slope + root - first) / (right.slope - left.slope + 2 * root)
    return min(max(right.t - (right.t - left.t) * share, low), high)


def strong_wolfe(
    evaluate: Callable[[float], _Trial], start: _Trial, t: float, longest: float, tolerance_change: float
) -> tuple[_Trial, int]:
    """Gives a trial that satisfies the strong Wolfe conditions (or the best found) and the number of evaluations.

    `start` is the trial at 0, `t` the first step to try, `longest` the direction's largest element.
    """
    previous, current, count = start, evaluate(t), 1
    bracket: list[_Trial] | None = None
    found = False
    trials = 0

    def too_high(trial: _Trial) -> bool:
        return trial.loss > start.loss + _ARMIJO * trial.t * start.slope

    def flat(trial: _Trial) -> bool:
        return abs(trial.slope) <= -_CURVATURE * start.slope

    # First find two steps with a point between them that satisfies the conditions.
    while trials < _MAX_TRIALS:
        if too_high(current) or (trials > 1 and current.loss >= previous.loss):
            bracket = [previous, current]
            break
        if flat(current):
            bracket, found = [current], True
            break
        if current.slope >= 0:
            bracket = [previous, current]
            break
        bounds = (current.t + 0.01 * (current.t - previous.t), current.t * 10)
        step = cubic_minimum(previous, current, bounds)
        previous, current = current, evaluate(step)
        count += 1
        trials += 1
    if bracket is None:
        bracket = [start, current]

    # Then shrink the interval between them.
    stalled = False
    low, high = (0, -1) if bracket[0].loss <= bracket[-1].loss else (-1, 0)
    while not found and trials < _MAX_TRIALS:
        ends = bracket[0].t, bracket[1].t
        if abs(ends[1] - ends[0]) * longest < tolerance_change:
            break
        step = cubic_minimum(bracket[0], bracket[1])
        margin = 0.1 * (max(ends) - min(ends))
        if min(max(ends) - step, step - min(ends)) < margin:
            # Too close to an end: once is allowed, then the step moves inside.
            if stalled or step >= max(ends) or step <= min(ends):
                nearer_top = abs(step - max(ends)) < abs(step - min(ends))
                step = max(ends) - margin if nearer_top else min(ends) + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        current = evaluate(step)
        count += 1
        trials += 1
        if too_high(current) or current.loss >= bracket[low].loss:
            bracket[high] = current
            low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
        else:
            if flat(current):
                found = True
            elif current.slope * (bracket[high].t - bracket[low].t) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = current
    return bracket[low], count


def _parts(tensor: Tensor) -> Tensor:
    return dg.view_as_real(tensor) if tensor.is_complex() else tensor


class LBFGS(Optimizer):
    """L-BFGS: steps along ``-H g`` with H built from the last ``history_size`` changes of parameters and gradients.

    ``step`` needs a closure that computes the loss and its gradients. ``line_search_fn`` is None (steps of ``lr``) or
    "strong_wolfe". One parameter group only (ValueError). Source: torch.optim.LBFGS.
    """

    _number_state: tuple[str, ...] = ()

    def __init__(
        self,
        params: Any,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": check_learning_rate(lr),
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params = self.param_groups[0]["params"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._params = self.param_groups[0]["params"]

    def _flat_gradient(self) -> Tensor:
        gradients = [dg.zeros_like(p) if p.grad is None else p.grad.detach() for p in self._params]
        return dg.cat([_parts(gradient).reshape(-1) for gradient in gradients])

    def _reals(self) -> list[Tensor]:
        """Gives the parameters with complex ones as their real and imaginary parts, which are numbers of their own."""
        return [_parts(p) for p in self._params]

    def _move(self, t: float, direction: Tensor) -> None:
        parameters = self._reals()
        for parameter, part in zip(parameters, direction.split([p.numel() for p in parameters])):
            parameter.add_(part.reshape(parameter.shape), alpha=t)

    def _line_search(
        self, closure: Callable[[], Any], start: _Trial, t: float, direction: Tensor, tolerance_change: float
    ) -> tuple[_Trial, int]:
        origin = [p.detach().clone() for p in self._params]

        def evaluate(step: float) -> _Trial:
            self._move(step, direction)
            with dg.enable_grad():
                loss = float(closure())
            gradient = self._flat_gradient()
            for parameter, value in zip(self._params, origin):
                parameter.copy_(value)
            return _Trial(step, loss, gradient, float(gradient.dot(direction)))

        longest = float(direction.abs().max())
        return strong_wolfe(evaluate, start, t, longest, tolerance_change)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes up to ``max_iter`` steps and returns the closure's first loss.

        RuntimeError for a line search other than "strong_wolfe"; TypeError without a closure.
        """
        if closure is None:
            raise TypeError("LBFGS.step: a closure that computes the loss and its gradients is required")
        group = self.param_groups[0]
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise RuntimeError("only 'strong_wolfe' is supported")
        with dg.no_grad():
            return self._steps(closure, group, self.state[self._params[0]])

    def _steps(self, closure: Callable[[], Any], group: dict[str, Any], state: dict[str, Any]) -> Any:
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        with dg.enable_grad():
            first = closure()
        loss = float(first)
        evaluations = 1
        state["func_evals"] += 1
        gradient = self._flat_gradient()
        if float(gradient.abs().max()) <= group["tolerance_grad"]:
            return first
        tolerance_change = group["tolerance_change"]
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, gradient, group["history_size"])
            state["d"], state["prev_flat_grad"], state["prev_loss"] = direction, gradient, loss
            previous = loss
            t = group["lr"]
            if state["n_iter"] == 1:
                t *= min(1.0, 1.0 / float(gradient.abs().sum()))
            state["t"] = t
            slope = float(gradient.dot(direction))
            if slope > -tolerance_change:
                break
            count = 0
            if group["line_search_fn"] is not None:
                start = _Trial(0.0, loss, gradient, slope)
                (t, loss, gradient, _), count = self._line_search(closure, start, t, direction, tolerance_change)
                self._move(t, direction)
            else:
                self._move(t, direction)
                if iteration != group["max_iter"]:
                    # After the last step nobody needs the gradient.
                    with dg.enable_grad():
                        loss = float(closure())
                    gradient = self._flat_gradient()
                    count = 1
            state["t"] = t
            evaluations += count
            state["func_evals"] += count
            if (
                evaluations >= group["max_eval"]
                or float(gradient.abs().max()) <= group["tolerance_grad"]
                or float(direction.abs().max()) * abs(t) <= tolerance_change
                or abs(loss - previous) < tolerance_change
            ):
                break
        return first

    def _direction(self, state: dict[str, Any], gradient: Tensor, history_size: int) -> Tensor:
        """Gives the next direction after taking the last change into the history (two-loop recursion)."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return gradient.neg()
        change, moved = gradient - state["prev_flat_grad"], state["d"] * state["t"]
        agreement = change.dot(moved)
        if float(agreement) > 1e-10:
            if len(state["old_dirs"]) == history_size:
                for name in ("old_dirs", "old_stps", "ro"):
                    state[name].pop(0)
            state["old_dirs"].append(change)
            state["old_stps"].append(moved)
            state["ro"].append(1.0 / agreement)
            state["H_diag"] = agreement / change.dot(change)
        shares = state.setdefault("al", [None] * history_size)
        found = gradient.neg()
        pairs = list(zip(state["old_dirs"], state["old_stps"], state["ro"]))
        for place in reversed(range(len(pairs))):
            change, moved, inverse = pairs[place]
            shares[place] = moved.dot(found) * inverse
            found = found - change * shares[place]
        found = found * state["H_diag"]
        for place, (change, moved, inverse) in enumerate(pairs):
            found = found + moved * (shares[place] - change.dot(found) * inverse)
        return found
