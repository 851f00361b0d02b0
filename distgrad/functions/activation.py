"""Public activation functions with the signatures of torch.nn.functional; `softmax`, `logsumexp` and the like too.

Invariant: with `inplace=True` the input tensor takes the result and is returned; otherwise inputs are left alone.
Definitions: the PyTorch pages of torch.nn.functional.
"""

from __future__ import annotations

from typing import Any

from distgrad import dtypes
from distgrad.meta import normalize_dim, normalize_dims
from distgrad.ops import activation as ops
from distgrad.ops import elementwise
from distgrad.ops.elementwise import sigmoid, tanh

__all__ = [
    "celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_softmax",
    "logsigmoid", "logsumexp", "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softmin",
    "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold",
]

_SELU_ALPHA = 1.6732632423543772848170429916717  # Klambauer et al., Self-Normalizing Neural Networks (2017)
_SELU_SCALE = 1.0507009873554804934193349852946


def _given(input: Any, result: Any, inplace: bool) -> Any:
    return input._assign(result) if inplace else result


def relu(input: Any, inplace: bool = False) -> Any:
    """Gives max(x, 0); RuntimeError for bool."""
    return _given(input, ops.relu(input), inplace)


def relu6(input: Any, inplace: bool = False) -> Any:
    """Gives min(max(x, 0), 6)."""
    return hardtanh(input, 0, 6, inplace)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """Limits x to [min_val, max_val]; no gradient at the bounds. ValueError when min_val > max_val."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val cannot be greater than max_val, got {min_val} > {max_val}")
    if input.dtype.category < 2:
        min_val, max_val = int(min_val), int(max_val)
        if min_val < 0 and not input.dtype.is_signed:
            raise RuntimeError(f"hardtanh: cannot do hardtanh on an unsigned type with negative limits, got {min_val}")
    return _given(input, ops.hardtanh(input, min_val, max_val), inplace)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """Gives x for x > 0, else negative_slope * x."""
    elementwise.takes("leaky_relu", 2)(input.dtype, {})
    return _given(input, ops.leaky_relu(input, negative_slope), inplace)


def prelu(input: Any, weight: Any) -> Any:
    """Gives x for x > 0, else weight * x, with one weight or one per channel, (C,) for input (N, C, ...).

    RuntimeError when the number of weights is neither 1 nor C.
    """
    if weight.ndim > 1:
        raise RuntimeError(f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}")
    count = weight.shape[0] if weight.ndim else 1
    channels = input.shape[1] if input.ndim > 1 else 1
    if count not in (1, channels):
        raise RuntimeError(
            "prelu: Mismatch of parameter numbers and input channel size. Found parameter numbers = "
            f"{count} and channel size = {channels}."
        )
    if weight.dtype is not input.dtype:
        raise RuntimeError(
            f"prelu: Type promoting not supported. Got {input.dtype.name} and {weight.dtype.name}; convert one "
            "with .to(dtype)"
        )
    if count > 1:
        weight = weight.reshape(1, count, *(1 for _ in range(input.ndim - 2)))
    elif weight.ndim:
        weight = weight.reshape(())
    return ops.leaky_relu(input, weight)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """Gives x for x > 0, else alpha * (exp(x) - 1)."""
    elementwise.takes("elu", 2)(input.dtype, {})
    if alpha >= 0:
        return _given(input, ops.elu(input, float(alpha), 1.0, 1.0), inplace)
    # The slope follows from the output only when y > 0 means x > 0.
    below = elementwise.mul(elementwise.expm1(elementwise.clamp_max(input, 0)), float(alpha))
    return _given(input, elementwise.where(elementwise.gt(input, 0), input, below), inplace)


def selu(input: Any, inplace: bool = False) -> Any:
    """Gives the self-normalising exponential linear unit, scale * elu(x, alpha) with the paper's two constants."""
    return _given(input, ops.elu(input, _SELU_ALPHA, _SELU_SCALE, 1.0), inplace)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """Gives x for x > 0, else alpha * (exp(x / alpha) - 1); RuntimeError for alpha 0."""
    if alpha == 0:
        raise RuntimeError("celu: ZeroDivisionError: alpha cannot be 0 for CELU")
    elementwise.takes("celu", 2)(input.dtype, {})
    return _given(input, ops.elu(input, float(alpha), 1.0, 1.0 / alpha), inplace)


def gelu(input: Any, approximate: str = "none") -> Any:
    """Gives x * Phi(x), Phi the normal distribution function; `approximate="tanh"` takes the tanh formula.

    RuntimeError for another `approximate`.
    """
    if approximate == "none":
        return ops.gelu(input)
    if approximate == "tanh":
        return ops.gelu_tanh(input)
    raise RuntimeError(f"gelu: approximate argument must be either 'none' or 'tanh', got {approximate!r}")


def silu(input: Any, inplace: bool = False) -> Any:
    """Gives x * sigmoid(x), also called swish."""
    return _given(input, ops.silu(input), inplace)


def mish(input: Any, inplace: bool = False) -> Any:
    """Gives x * tanh(softplus(x))."""
    return _given(input, ops.mish(input), inplace)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """Gives log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold."""
    elementwise.takes("softplus", 2)(input.dtype, {})
    return ops.softplus(input, float(beta), float(threshold))


def softsign(input: Any) -> Any:
    """Gives x / (1 + |x|)."""
    return elementwise.div(input, elementwise.add(elementwise.abs(input), 1))


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """Gives min(max(x + 3, 0), 6) / 6."""
    return _given(input, ops.hardsigmoid(input), inplace)


def hardswish(input: Any, inplace: bool = False) -> Any:
    """Gives x * min(max(x + 3, 0), 6) / 6."""
    return _given(input, ops.hardswish(input), inplace)


def logsigmoid(input: Any) -> Any:
    """Gives log(sigmoid(x)), exact for x far from 0 on either side."""
    return ops.log_sigmoid(input)


def tanhshrink(input: Any) -> Any:
    """Gives x - tanh(x)."""
    return elementwise.sub(input, elementwise.tanh(input))


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """Moves x towards 0 by lambd, and to 0 where |x| <= lambd; RuntimeError for a negative lambd."""
    if lambd < 0:
        raise RuntimeError(f"softshrink: lambda must be greater or equal to 0, but found to be {lambd}")
    elementwise.takes("softshrink", 2)(input.dtype, {})
    return ops.softshrink(input, float(lambd))


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """Gives x where |x| > lambd, else 0."""
    elementwise.takes("hardshrink", 2)(input.dtype, {})
    return ops.hardshrink(input, float(lambd))


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """Gives x where x > threshold, else `value`."""
    if input.dtype.category < 2:
        threshold, value = int(threshold), int(value)
    return _given(input, ops.threshold(input, threshold, value), inplace)


def glu(input: Any, dim: int = -1) -> Any:
    """Gives a * sigmoid(b) for the two halves a, b of the input along `dim`; RuntimeError for an odd size."""
    if input.ndim == 0:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    axis = normalize_dim("glu", dim, input.ndim)
    size = input.shape[axis]
    if size % 2:
        raise RuntimeError(f"glu: Halving dimension must be even, but dimension {axis} is size {size}")
    value, gate = input.split([size // 2] * 2, axis)
    return elementwise.mul(value, elementwise.sigmoid(gate))


def _prepared(name: str, input: Any, dim: int | None, third: Any, dtype: Any) -> tuple[Any, int]:
    """Converts to `dtype` and finds the dim; None means 0 for 0, 1 and 3 dims, else 1, as PyTorch still has it.

    The third positional argument is a stack level in torch.nn.functional and the dtype in torch.
    """
    if not isinstance(third, int):
        dtype = third
    if dtype is not None:
        kind = dtypes.as_dtype(dtype)
        if kind is not input.dtype:
            input = elementwise.cast(input, dtype=kind.name)
    elementwise.takes(name, 2)(input.dtype, {})
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
    return input, normalize_dim(name, dim, input.ndim)


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """Gives exp(x) / sum(exp(x)) along `dim`; `dtype` converts the input first. RuntimeError for integers."""
    input, axis = _prepared("softmax", input, dim, _stacklevel, dtype)
    return ops.softmax(input, axis=axis)


def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """Gives log(softmax(x)) along `dim`, without the rounding of the two steps. RuntimeError for integers."""
    input, axis = _prepared("log_softmax", input, dim, _stacklevel, dtype)
    return ops.log_softmax(input, axis=axis)


def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """Gives softmax(-x) along `dim`. RuntimeError for integers."""
    input, axis = _prepared("softmin", elementwise.neg(input), dim, _stacklevel, dtype)
    return ops.softmax(input, axis=axis)


def logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    """Gives log(sum(exp(x))) over `dim` (one or several); all -inf gives -inf. Integers give the default float."""
    if input.dtype.category < 2:
        input = elementwise.cast(input, dtype=dtypes.default().name)
    elementwise.takes("logsumexp", 2, 3)(input.dtype, {})
    return ops.logsumexp(input, axis=normalize_dims("logsumexp", dim, input.ndim), keepdims=bool(keepdim))
