"""Compiled kernels that take exponentials: smooth activations, softmax and log_softmax along the last dim.

Numba calls the C library for exp, one element at a time; the functions here are polynomials the compiler turns into
vectors, right within 2 units in the last place over the whole range, denormal results, infinities and NaN included;
of what is made of them, gelu has the largest error, 10 units.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types

from distgrad.kernels.compiling import kernel, scalar

_numba: Any = extending  # its own annotations know nothing of what the decorators give
_F = np.float32
_OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}, "forceinline": True}


# Bits of floats ---------------------------------------------------------------------------------------------


def _word(kind: Any) -> tuple[Any, Any, int, int]:
    """Gives the integer and floating type of LLVM, bits of the mantissa, and the exponent's bias."""
    if kind == types.float32:
        return ir.IntType(32), ir.FloatType(), 23, 127
    return ir.IntType(64), ir.DoubleType(), 52, 1023


@_numba.intrinsic
def _power_of_two(typing: Any, n: Any) -> Any:
    """Gives 2 ** n for a float n that is a whole number between the least and greatest exponent of normal numbers."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, real, mantissa, bias = _word(signature.args[0])
        shifted = builder.fadd(arguments[0], ir.Constant(real, 1.5 * 2.0**mantissa))  # n in the lowest bits
        bits = builder.add(builder.bitcast(shifted, word), ir.Constant(word, bias))
        return builder.bitcast(builder.shl(bits, ir.Constant(word, mantissa)), real)
    return n(n), code


@_numba.intrinsic
def _times_power_of_two(typing: Any, p: Any, n: Any) -> Any:
    """Gives p * 2 ** n for a float n that is a whole number, in two factors: n may exceed the exponents of normal numbers."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, real, mantissa, bias = _word(signature.args[0])
        shifted = builder.bitcast(builder.fadd(arguments[1], ir.Constant(real, 1.5 * 2.0**mantissa)), word)
        whole = builder.sub(shifted, ir.Constant(word, bias + mantissa << mantissa | 1 << mantissa - 1))  # 1.5 * 2 ** mantissa
        half = builder.ashr(whole, ir.Constant(word, 1))
        product = arguments[0]
        for part in (half, builder.sub(whole, half)):
            bits = builder.shl(builder.add(part, ir.Constant(word, bias)), ir.Constant(word, mantissa))
            product = builder.fmul(product, builder.bitcast(bits, real))
        return product
    return p(p, n), code


@_numba.intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Gives a * b + c, rounded once."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)
    return a(a, b, c), code


@_numba.intrinsic
def _ordered(typing: Any, x: Any) -> Any:
    """Gives an integer that is greater for greater x and greatest for NaN: maxima of integers become vectors."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, _, _, _ = _word(signature.args[0])
        bits = builder.bitcast(arguments[0], word)
        sign = builder.ashr(bits, ir.Constant(word, word.width - 1))
        return builder.xor(bits, builder.and_(sign, ir.Constant(word, (1 << (word.width - 1)) - 1)))
    return (types.int32 if x == types.float32 else types.int64)(x), code


@_numba.intrinsic
def _from_ordered(typing: Any, key: Any) -> Any:
    """Takes `_ordered` back."""
    kind = types.float32 if key == types.int32 else types.float64

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, real, _, _ = _word(kind)
        sign = builder.ashr(arguments[0], ir.Constant(word, word.width - 1))
        bits = builder.xor(arguments[0], builder.and_(sign, ir.Constant(word, (1 << (word.width - 1)) - 1)))
        return builder.bitcast(bits, real)
    return kind(key), code


# Exponential and logarithm ----------------------------------------------------------------------------------
# exp(x) = 2 ** n * exp(r) with n the whole number next to x / ln 2 and r = x - n ln 2, ln 2 in two parts (Cody and
# Waite). 2 ** n is applied in two factors, as n itself may exceed the exponents of normal numbers.
# The float32 polynomial is Cephes' expf (Moshier, 1989); the float64 one is Taylor's, whose rest is below 1e-17.


@scalar
def _reduced_single(x: Any) -> Any:
    """Gives n, r and the factor q in exp(r) = 1 + r + q r ** 2."""
    n = np.rint(x * _F(1.4426950408889634))
    r = x - n * _F(0.693359375) - n * _F(-2.12194440e-4)
    return n, r, _rest_single(r)


@scalar
def _rest_single(r: Any) -> Any:
    """Gives q for that r."""
    q = _F(1.9875691500e-4) * r + _F(1.3981999507e-3)
    q = q * r + _F(8.3334519073e-3)
    q = q * r + _F(4.1665795894e-2)
    q = q * r + _F(1.6666665459e-1)
    return q * r + _F(5.0000001201e-1)


@scalar
def _reduced_double(x: Any) -> Any:
    """Gives the same."""
    n = np.rint(x * 1.4426950408889634)
    r = x - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10
    q = r * (1 / 6227020800.0) + 1 / 479001600.0
    q = q * r + 1 / 39916800.0
    q = q * r + 1 / 3628800.0
    q = q * r + 1 / 362880.0
    q = q * r + 1 / 40320.0
    q = q * r + 1 / 5040.0
    q = q * r + 1 / 720.0
    q = q * r + 1 / 120.0
    q = q * r + 1 / 24.0
    q = q * r + 1 / 6.0
    return n, r, q * r + 0.5


@scalar
def _exp_single(x: Any) -> Any:
    x = x if not x < _F(-104) else _F(-104)
    x = x if not x > _F(89) else _F(89)
    n, r, q = _reduced_single(x)
    return _times_power_of_two(q * (r * r) + r + _F(1), n)


@scalar
def _exp_double(x: Any) -> Any:
    x = x if not x < -746.0 else -746.0
    x = x if not x > 710.0 else 710.0
    n, r, q = _reduced_double(x)
    return _times_power_of_two(q * (r * r) + r + 1.0, n)


# For 0 <= u <= 1: log(1 + u) = 2 artanh(s) with s = u / (2 + u) <= 1 / 3, a series in s * s.


@scalar
def _log1p_single(u: Any) -> Any:
    s = u / (_F(2) + u)
    z = s * s
    p = _F(0.122064985) * z + _F(0.106966352)
    p = p * z + _F(0.143103601)
    p = p * z + _F(0.199993455)
    p = p * z + _F(0.333333397)
    return _F(2) * (p * (z * s) + s)


@scalar
def _log1p_double(u: Any) -> Any:
    s = u / (2.0 + u)
    z = s * s
    p = z * (1 / 35.0) + 1 / 33.0
    p = p * z + 1 / 31.0
    p = p * z + 1 / 29.0
    p = p * z + 1 / 27.0
    p = p * z + 1 / 25.0
    p = p * z + 1 / 23.0
    p = p * z + 1 / 21.0
    p = p * z + 1 / 19.0
    p = p * z + 1 / 17.0
    p = p * z + 1 / 15.0
    p = p * z + 1 / 13.0
    p = p * z + 1 / 11.0
    p = p * z + 1 / 9.0
    p = p * z + 1 / 7.0
    p = p * z + 0.2
    p = p * z + 1 / 3.0
    return 2.0 * (p * (z * s) + s)


# For x <= 0: exp(x) - 1 = 2 ** n * (exp(r) - 1) + (2 ** n - 1), by the same polynomials; below the bounds it is -1.


@scalar
def _expm1_single(x: Any) -> Any:
    n, r, q = _reduced_single(x if not x < _F(-18) else _F(-18))
    two = _power_of_two(n)
    return (q * (r * r) + r) * two + (two - _F(1))


@scalar
def _expm1_double(x: Any) -> Any:
    n, r, q = _reduced_double(x if not x < -38.0 else -38.0)
    two = _power_of_two(n)
    return (q * (r * r) + r) * two + (two - 1.0)


def _exp(x: Any) -> Any:
    raise NotImplementedError("only within compiled kernels")


def _log1p(u: Any) -> Any:
    raise NotImplementedError("only within compiled kernels")


def _expm1(x: Any) -> Any:
    raise NotImplementedError("only within compiled kernels")


@_numba.overload(_expm1, jit_options=_OPTIONS)
def _expm1_of(x):  # type: ignore[no-untyped-def]  # must have the signature of what it gives
    return (lambda x: _expm1_single(x)) if x == types.float32 else (lambda x: _expm1_double(x))


@_numba.overload(_exp, jit_options=_OPTIONS)
def _exp_of(x):  # type: ignore[no-untyped-def]  # must have the signature of what it gives
    return (lambda x: _exp_single(x)) if x == types.float32 else (lambda x: _exp_double(x))


@_numba.overload(_log1p, jit_options=_OPTIONS)
def _log1p_of(u):  # type: ignore[no-untyped-def]  # the same
    return (lambda u: _log1p_single(u)) if u == types.float32 else (lambda u: _log1p_double(u))


# Gaussian error linear units --------------------------------------------------------------------------------


@scalar
def _normal_tail(x: Any) -> Any:
    """Gives the normal distribution function at -|x| and exp(-x * x / 2), both relatively exact.

    The quotient of the two, a Mills ratio, is t times a polynomial in t = 1 / (1 + 0.26 |x|), fitted here to 4e-8.
    What the rounding of x * x leaves out is taken into the reduced argument: the exponential would magnify it.
    """
    a = abs(x)
    a = a if not a > _F(14.5) else _F(14.5)
    minus = _F(-0.5) * a
    high = minus * a
    n = np.rint(high * _F(1.4426950408889634))
    r = high - n * _F(0.693359375) - n * _F(-2.12194440e-4) + _fma(minus, a, -high)
    bell = _times_power_of_two(_rest_single(r) * (r * r) + r + _F(1), n)
    t = _F(1) / (_F(1) + _F(0.26) * a)
    p = _F(0.02975585258) * t - _F(0.1492023199)
    p = p * t + _F(0.2440276811)
    p = p * t - _F(0.1424410693)
    p = p * t + _F(0.1550870186)
    p = p * t + _F(0.0535200761)
    p = p * t + _F(0.1023926754)
    p = p * t + _F(0.1031062866)
    p = p * t + _F(0.1037537816)
    return p * t * bell, bell


@kernel("1 1", kinds=(types.float32,))
def _gelu(x: Any, y: Any) -> None:
    for i in range(x.size):
        v = x[i]
        tail, _ = _normal_tail(v)
        y[i] = v * (tail if v < _F(0) else _F(1) - tail)


@kernel("1 1 1", kinds=(types.float32,))
def _gelu_backward(h: Any, x: Any, y: Any) -> None:
    for i in range(x.size):
        v = x[i]
        tail, bell = _normal_tail(v)
        y[i] = h[i] * ((tail if v < _F(0) else _F(1) - tail) + v * bell * _F(0.3989422804014327))


# (1 + tanh u) / 2 = sigmoid(2 u), without cancellation; these are the coefficients of -2 u.

_TANH_LINEAR = -2 * math.sqrt(2 / math.pi)
_TANH_CUBIC = _TANH_LINEAR * 0.044715


@kernel("1 1")
def _gelu_tanh(x: Any, y: Any) -> None:
    one, linear, cubic = x.dtype.type(1), x.dtype.type(_TANH_LINEAR), x.dtype.type(_TANH_CUBIC)
    for i in range(x.size):
        v = x[i]
        y[i] = v / (one + _exp(v * (linear + cubic * (v * v))))


@kernel("1 1 1")
def _gelu_tanh_backward(h: Any, x: Any, y: Any) -> None:
    one, linear, cubic = x.dtype.type(1), x.dtype.type(_TANH_LINEAR), x.dtype.type(_TANH_CUBIC)
    three = x.dtype.type(3)
    for i in range(x.size):
        v = x[i]
        square = v * v
        s = one / (one + _exp(v * (linear + cubic * square)))
        y[i] = h[i] * (s - v * (linear + three * cubic * square) * (s * (one - s)))


@kernel("1 float float 1")
def _softplus(x: Any, beta: Any, limit: Any, y: Any) -> None:
    zero, b, most = x.dtype.type(0), x.dtype.type(beta), x.dtype.type(limit)
    share = x.dtype.type(1 / beta)
    for i in range(x.size):
        v = x[i] * b
        soft = ((v if v > zero else zero) + _log1p(_exp(-abs(v)))) * share
        y[i] = x[i] if v > most else soft


@kernel("1 1 float float 1")
def _softplus_backward(h: Any, x: Any, beta: Any, limit: Any, y: Any) -> None:
    one, b, most = x.dtype.type(1), x.dtype.type(beta), x.dtype.type(limit)
    for i in range(x.size):
        v = x[i] * b
        y[i] = h[i] if v > most else h[i] * (one / (one + _exp(-v)))


@kernel("1 float float float 1")
def _elu(x: Any, alpha: Any, scale: Any, inner: Any, y: Any) -> None:
    kind = x.dtype.type
    zero, a, s, b = kind(0), kind(alpha), kind(scale), kind(inner)
    for i in range(x.size):
        v = x[i]
        below = _expm1((zero if v > zero else v) * b) * a
        y[i] = (v if v >= zero else below) * s


# Logistic function ------------------------------------------------------------------------------------------


@kernel("1 1")
def _sigmoid(x: Any, y: Any) -> None:
    one = x.dtype.type(1)
    for i in range(x.size):
        y[i] = one / (one + _exp(-x[i]))


@kernel("1 1")
def _silu(x: Any, y: Any) -> None:
    one = x.dtype.type(1)
    for i in range(x.size):
        y[i] = x[i] * (one / (one + _exp(-x[i])))


@kernel("1 1 1")
def _silu_backward(h: Any, x: Any, y: Any) -> None:
    one = x.dtype.type(1)
    for i in range(x.size):
        s = one / (one + _exp(-x[i]))
        y[i] = h[i] * (s * (one + x[i] * (one - s)))


@kernel("1 1 1")
def _logit_loss(a: Any, b: Any, y: Any) -> None:
    zero = a.dtype.type(0)
    for i in range(a.size):
        v = a[i]
        y[i] = (zero if v < zero else v) - v * b[i] + _log1p(_exp(-abs(v)))


@kernel("1 1 1")
def _logit_slope(a: Any, b: Any, y: Any) -> None:
    one = a.dtype.type(1)
    for i in range(a.size):
        y[i] = one / (one + _exp(-a[i])) - b[i]


@kernel("1 1 1")
def _logit_loss_sum(a: Any, b: Any, y: Any) -> None:
    zero, total = a.dtype.type(0), 0.0
    for start in range(0, a.size, 1024):
        x, t = a[start : start + 1024], b[start : start + 1024]
        part = zero
        for i in range(x.size):
            v = x[i]
            part += (zero if v < zero else v) - v * t[i] + _log1p(_exp(-abs(v)))
        total += part  # long sums in float64
    y[0] = total


@kernel("1 1 1 1")
def _logit_gradient(a: Any, b: Any, s: Any, y: Any) -> None:
    one, factor = a.dtype.type(1), s[0]
    for i in range(a.size):
        y[i] = (one / (one + _exp(-a[i])) - b[i]) * factor


# Along the last dim -----------------------------------------------------------------------------------------


@kernel("2 2")
def _softmax(x: Any, y: Any) -> None:
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(x.shape[0]):
        top = _ordered(x[i, 0])
        for j in range(x.shape[1]):
            key = _ordered(x[i, j])
            top = key if key > top else top
        greatest = _from_ordered(top)
        total = zero
        for j in range(x.shape[1]):
            power = _exp(x[i, j] - greatest)
            y[i, j] = power
            total += power
        share = one / total
        for j in range(x.shape[1]):
            y[i, j] *= share


@kernel("2 2")
def _log_softmax(x: Any, y: Any) -> None:
    kind = x.dtype.type
    for i in range(x.shape[0]):
        top = _ordered(x[i, 0])
        for j in range(x.shape[1]):
            key = _ordered(x[i, j])
            top = key if key > top else top
        greatest = _from_ordered(top)
        total = kind(0)
        for j in range(x.shape[1]):
            total += _exp(x[i, j] - greatest)
        shift = kind(math.log(total))
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - greatest) - shift


@kernel("3 float bool 3")
def _attention_weights(x: Any, scale: Any, causal: Any, y: Any) -> None:
    factor, one, zero, lowest = x.dtype.type(scale), x.dtype.type(1), x.dtype.type(0), x.dtype.type(-np.inf)
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            scores, row = x[n, i], y[n, i]
            count = min(i + 1, x.shape[2]) if causal else x.shape[2]
            # Whole vectors: their rest, element by element, would take longer than what is left out.
            padded = min((count + 63) // 64 * 64, x.shape[2])
            for j in range(padded):
                v = scores[j] * factor
                row[j] = v if j < count else lowest
            top = _ordered(row[0])
            for j in range(padded):
                key = _ordered(row[j])
                top = key if key > top else top
            greatest = _from_ordered(top)
            total = zero
            for j in range(padded):
                power = _exp(row[j] - greatest)
                row[j] = power
                total += power
            share = one / total
            for j in range(padded):
                row[j] *= share
            for j in range(padded, x.shape[2]):
                row[j] = zero


@kernel("2 2 float 2")
def _attention_weights_backward(h: Any, out: Any, scale: Any, y: Any) -> None:
    factor = h.dtype.type(scale)
    for i in range(h.shape[0]):
        total = h.dtype.type(0)
        for j in range(h.shape[1]):
            total += h[i, j] * out[i, j]
        for j in range(h.shape[1]):
            y[i, j] = (h[i, j] - total) * out[i, j] * factor


@kernel("2 2 2")
def _softmax_backward(h: Any, out: Any, y: Any) -> None:
    for i in range(h.shape[0]):
        total = h.dtype.type(0)
        for j in range(h.shape[1]):
            total += h[i, j] * out[i, j]
        for j in range(h.shape[1]):
            y[i, j] = (h[i, j] - total) * out[i, j]


@kernel("2 2 2")
def _log_softmax_backward(h: Any, out: Any, y: Any) -> None:
    for i in range(h.shape[0]):
        total = h.dtype.type(0)
        for j in range(h.shape[1]):
            total += h[i, j]
        for j in range(h.shape[1]):
            y[i, j] = h[i, j] - _exp(out[i, j]) * total


# What ops call ----------------------------------------------------------------------------------------------


def _each(run: Any, *arrays: np.ndarray) -> np.ndarray:
    y = np.empty(arrays[0].shape, arrays[0].dtype)
    run(*(a.reshape(-1) for a in arrays), y.reshape(-1))
    return y


def _each_row(run: Any, *arrays: np.ndarray) -> np.ndarray:
    y = np.empty(arrays[0].shape, arrays[0].dtype)
    run(*(a.reshape(-1, a.shape[-1]) for a in arrays), y.reshape(-1, y.shape[-1]))
    return y


def gelu(x: np.ndarray) -> np.ndarray:
    """Gives x times the normal distribution function; float32."""
    return _each(_gelu, x)


def gelu_backward(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives h times the slope of `gelu`; float32."""
    return _each(_gelu_backward, h, x)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """Gives `gelu` by its approximation with tanh."""
    return _each(_gelu_tanh, x)


def gelu_tanh_backward(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives h times the slope of `gelu_tanh`."""
    return _each(_gelu_tanh_backward, h, x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Gives 1 / (1 + exp(-x))."""
    return _each(_sigmoid, x)


def softplus(x: np.ndarray, beta: float, limit: float) -> np.ndarray:
    """Gives log(1 + exp(beta x)) / beta; x itself where beta x is over the limit."""
    y = np.empty(x.shape, x.dtype)
    _softplus(x.reshape(-1), beta, limit, y.reshape(-1))
    return y


def softplus_backward(h: np.ndarray, x: np.ndarray, beta: float, limit: float) -> np.ndarray:
    """Gives h times the slope of `softplus` at x, sigmoid(beta x); h where beta x is over the limit."""
    y = np.empty(x.shape, x.dtype)
    _softplus_backward(h.reshape(-1), x.reshape(-1), beta, limit, y.reshape(-1))
    return y


def elu(x: np.ndarray, alpha: float, scale: float, inner: float) -> np.ndarray:
    """Gives scale * x where x > 0, else scale * alpha * (exp(inner * x) - 1), for a positive `inner`."""
    y = np.empty(x.shape, x.dtype)
    _elu(x.reshape(-1), alpha, scale, inner, y.reshape(-1))
    return y


def silu(x: np.ndarray) -> np.ndarray:
    """Gives x * sigmoid(x)."""
    return _each(_silu, x)


def silu_backward(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives h times the slope of `silu`."""
    return _each(_silu_backward, h, x)


def logit_loss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gives the binary cross entropy of logits a and targets b."""
    return _each(_logit_loss, a, b)


def logit_slope(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gives sigmoid(a) - b, the slope of `logit_loss` by a."""
    return _each(_logit_slope, a, b)


def logit_loss_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gives the sum of `logit_loss`, a 0-d array."""
    y = np.empty(1, a.dtype)
    _logit_loss_sum(a.reshape(-1), b.reshape(-1), y)
    return y.reshape(())


def logit_gradient(a: np.ndarray, b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Gives `logit_slope` times the one element of s."""
    y = np.empty(a.shape, a.dtype)
    _logit_gradient(a.reshape(-1), b.reshape(-1), s.reshape(-1), y.reshape(-1))
    return y


def softmax(x: np.ndarray) -> np.ndarray:
    """Gives exp(x) / sum(exp(x)) along the last dim, which has elements."""
    return _each_row(_softmax, x)


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Gives log(softmax(x)) along the last dim, which has elements."""
    return _each_row(_log_softmax, x)


def attention_weights(x: np.ndarray, scale: float, causal: bool) -> np.ndarray:
    """Gives the softmax of x (..., L, S) times `scale` along the last dim, up to position i in row i when causal."""
    y = np.empty(x.shape, x.dtype)
    _attention_weights(x.reshape(-1, *x.shape[-2:]), float(scale), causal, y.reshape(-1, *x.shape[-2:]))
    return y


def attention_weights_backward(h: np.ndarray, out: np.ndarray, scale: float) -> np.ndarray:
    """Gives the gradient of `attention_weights` by its input from that of its output h."""
    y = np.empty(h.shape, h.dtype)
    rows = (-1, h.shape[-1])
    _attention_weights_backward(h.reshape(rows), out.reshape(rows), float(scale), y.reshape(rows))
    return y


def softmax_backward(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives the gradient of `softmax` by its input from that of its output h."""
    return _each_row(_softmax_backward, h, out)


def log_softmax_backward(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives the gradient of `log_softmax` by its input from that of its output h."""
    return _each_row(_log_softmax_backward, h, out)
