"""PyTorch's API on a numpy autograd engine, spread over a Ray cluster.

    import distgrad as torch          # one process, numpy, everything at once
    torch.init(num_workers=4)         # from here on large data and its operations live on Ray workers

This module holds the public names and nothing else. Modules import only downwards:

    errors, dtypes, device, grad_mode, philox, printing, serialization_format < meta < placement < op < families, graph
    < ops < autodiff, propagate, program < lower < engine < dispatch < views < tensor < random < functions
    < settings < operators, methods, inplace < runtime < distgrad < autograd, serialization < nn < optim, utils, data

`ray` and `pyarrow` are imported below `runtime` and `data` only, and when used: importing distgrad needs numpy alone and
takes about as long as importing numpy. What is not needed at once (`nn`, `optim`, ...) is imported when first used.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

from distgrad import errors, random
from distgrad import inplace as _inplace
from distgrad import methods as _methods
from distgrad import operators as _operators
from distgrad.device import device
from distgrad.dispatch import set_default_dtype
from distgrad.dtypes import (
    bfloat16, complex64, complex128, dtype, float16, float32, float64, int8, int16, int32, int64, uint8, uint16,
    uint32, uint64,
)  # fmt: skip
from distgrad.dtypes import bool_ as bool
from distgrad.errors import (
    ClusterError,
    CollectiveTimeout,
    DistgradError,
    GroupAborted,
    InfrastructureError,
    PlacementError,
    RemoteOpError,
    SessionError,
    WireError,
    WorkerLostError,
)
from distgrad.functions.activation import (
    celu, prelu, relu, selu,
)  # fmt: skip
from distgrad.functions.classification_loss import (
    binary_cross_entropy_with_logits,
)  # fmt: skip
from distgrad.functions.contraction import (
    einsum, trace,
)  # fmt: skip
from distgrad.functions.conversion import (
    allclose, can_cast, equal, finfo, get_default_dtype, iinfo, is_complex, is_floating_point, is_nonzero,
    is_same_size, is_signed, numel, promote_types, result_type,
)  # fmt: skip
from distgrad.functions.data import (
    BoolTensor, ByteTensor, CharTensor, DoubleTensor, FloatTensor, HalfTensor, IntTensor, LongTensor, ShortTensor,
    as_tensor, asarray, from_dlpack, from_numpy, tensor,
)  # fmt: skip
from distgrad.functions.dropout import (
    alpha_dropout, dropout, feature_alpha_dropout, rrelu,
)  # fmt: skip
from distgrad.functions.elementwise import (
    conj, imag, isclose, isfinite, isinf, isnan, isreal, positive, real, rsub,
)  # fmt: skip
from distgrad.functions.indexing import (
    argwhere, index_fill, index_put, masked_fill, masked_scatter, put,
)  # fmt: skip
from distgrad.functions.layout import (
    broadcast_tensors, broadcast_to, clone, flatten, moveaxis, movedim, permute, ravel, repeat_interleave, reshape,
    squeeze, swapaxes, swapdims, t, tile, transpose, unflatten, unsqueeze,
)  # fmt: skip
from distgrad.functions.loss import (
    cosine_embedding_loss, hinge_embedding_loss, kl_div, margin_ranking_loss, poisson_nll_loss, triplet_margin_loss,
)  # fmt: skip
from distgrad.functions.movement import (
    atleast_1d, atleast_2d, atleast_3d, block_diag, cartesian_prod, chunk, diag_embed, diagonal, diagonal_scatter,
    dsplit, flip, fliplr, flipud, hsplit, meshgrid, narrow, roll, rot90, select, select_scatter, split,
    split_with_sizes, tensor_split, unbind, vsplit,
)  # fmt: skip
from distgrad.functions.normalization import (
    batch_norm, cosine_similarity, group_norm, instance_norm, layer_norm, pairwise_distance, rms_norm,
)  # fmt: skip
from distgrad.functions.out import (
    abs, absolute, acos, acosh, add, addbmm, addcdiv, addcmul, addmm, addmv, addr, all, amax, amin, aminmax, any,
    arange, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, argmax, argmin, argsort, asin, asinh, atan,
    atan2, atanh, baddbmm, bernoulli, bitwise_and, bitwise_left_shift, bitwise_not, bitwise_or, bitwise_right_shift,
    bitwise_xor, bmm, bucketize, cat, ceil, chain_matmul, clamp, clamp_max, clamp_min, clip, column_stack, concat,
    concatenate, copysign, cos, cosh, cummax, cummin, cumprod, cumsum, deg2rad, diag, diff, digamma, div, divide, dot,
    dstack, empty, empty_like, empty_strided, eq, erf, erfc, erfinv, exp, exp2, expm1, eye, fix, float_power, floor,
    floor_divide, fmax, fmin, fmod, frac, full, full_like, gather, gcd, ge, ger, greater, greater_equal, gt,
    hardshrink, heaviside, histc, hstack, hypot, index_add, index_copy, index_reduce, index_select, inner, isneginf,
    isposinf, kron, kthvalue, lcm, ldexp, le, lerp, less, less_equal, lgamma, linspace, log, log10, log1p, log2,
    log_softmax, logaddexp, logaddexp2, logcumsumexp, logical_and, logical_not, logical_or, logical_xor, logit,
    logspace, logsumexp, lt, masked_select, matmul, max, maximum, mean, median, min, minimum, mm, mode, msort, mul,
    multinomial, multiply, mv, nan_to_num, nanmean, nanmedian, nansum, ne, neg, negative, nextafter, nonzero, norm,
    normal, not_equal, ones, ones_like, outer, polygamma, pow, prod, rad2deg, rand, rand_like, randint, randint_like,
    randn, randn_like, randperm, range, reciprocal, remainder, round, row_stack, rsqrt, scalar_tensor, scatter,
    scatter_add, scatter_reduce, searchsorted, sgn, sigmoid, sign, signbit, sin, sinc, sinh, slice_scatter, softmax,
    sort, sqrt, square, stack, std, sub, subtract, sum, take, take_along_dim, tan, tanh, tensordot, threshold, topk,
    tril, tril_indices, triu, triu_indices, true_divide, trunc, var, vdot, vstack, where, xlogy, zeros, zeros_like,
)  # fmt: skip
from distgrad.functions.random import (
    poisson,
)  # fmt: skip
from distgrad.functions.reduction import (
    count_nonzero, std_mean, var_mean,
)  # fmt: skip
from distgrad.functions.sorting import (
    bincount, unique, unique_consecutive,
)  # fmt: skip
from distgrad.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from distgrad.op import is_tensor
from distgrad.placement import Partial, Replicate, Shard
from distgrad.printing import get_printoptions, printoptions, set_printoptions
from distgrad.random import (
    Generator,
    default_generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from distgrad.runtime.map_shards import map_shards
from distgrad.runtime.session import (
    explain,
    init,
    is_initialized,
    replicate,
    shard,
    shutdown,
    stats,
    synchronize,
)
from distgrad.serialization import load, save
from distgrad.settings import (
    are_deterministic_algorithms_enabled,
    compile,
    contiguous_format,
    get_default_device,
    get_float32_matmul_precision,
    get_num_threads,
    layout,
    memory_format,
    preserve_format,
    set_default_device,
    set_float32_matmul_precision,
    set_num_threads,
    strided,
    use_deterministic_algorithms,
)
from distgrad.tensor import Size, Tensor

if TYPE_CHECKING:
    from distgrad import autograd, backends, cuda, data, datasets, jit, nn, optim, testing, utils

__version__ = "0.1.0"

e, inf, nan, pi = math.e, math.inf, math.nan, math.pi
newaxis = None

half, float, double = float16, float32, float64
short, int, long = int16, int32, int64
cfloat, cdouble = complex64, complex128

_WHEN_USED = frozenset(
    ("autograd", "backends", "cuda", "data", "datasets", "jit", "nn", "optim", "testing", "utils")
)


def __getattr__(name: str) -> Any:
    if name in _WHEN_USED:
        return import_module(f"distgrad.{name}")
    raise AttributeError(f"module 'distgrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHEN_USED})


__all__ = [
    "BoolTensor", "ByteTensor", "CharTensor", "ClusterError", "CollectiveTimeout", "DistgradError", "DoubleTensor",
    "FloatTensor", "Generator", "GroupAborted", "HalfTensor", "InfrastructureError", "IntTensor", "LongTensor",
    "Partial", "PlacementError", "RemoteOpError", "Replicate", "SessionError", "Shard", "ShortTensor", "Size", "Tensor",
    "WireError", "WorkerLostError", "__version__", "abs", "absolute", "acos", "acosh", "add", "addbmm", "addcdiv",
    "addcmul", "addmm", "addmv", "addr", "all", "allclose", "alpha_dropout", "amax", "amin", "aminmax", "any", "arange",
    "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "are_deterministic_algorithms_enabled",
    "argmax", "argmin", "argsort", "argwhere", "as_tensor", "asarray", "asin", "asinh", "atan", "atan2", "atanh",
    "atleast_1d", "atleast_2d", "atleast_3d", "autograd", "backends", "baddbmm", "batch_norm", "bernoulli", "bfloat16",
    "binary_cross_entropy_with_logits", "bincount", "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "block_diag", "bmm", "bool", "broadcast_tensors", "broadcast_to", "bucketize",
    "can_cast", "cartesian_prod", "cat", "cdouble", "ceil", "celu", "cfloat", "chain_matmul", "chunk", "clamp",
    "clamp_max", "clamp_min", "clip", "clone", "column_stack", "compile", "complex128", "complex64", "concat",
    "concatenate", "conj", "contiguous_format", "copysign", "cos", "cosh", "cosine_embedding_loss", "cosine_similarity",
    "count_nonzero", "cuda", "cummax", "cummin", "cumprod", "cumsum", "data", "datasets", "default_generator",
    "deg2rad", "device", "diag", "diag_embed", "diagonal", "diagonal_scatter", "diff", "digamma", "div", "divide",
    "dot", "double", "dropout", "dsplit", "dstack", "dtype", "e", "einsum", "empty", "empty_like", "empty_strided",
    "enable_grad", "eq", "equal", "erf", "erfc", "erfinv", "errors", "exp", "exp2", "explain", "expm1", "eye",
    "feature_alpha_dropout", "finfo", "fix", "flatten", "flip", "fliplr", "flipud", "float", "float16", "float32",
    "float64", "float_power", "floor", "floor_divide", "fmax", "fmin", "fmod", "fork_rng", "frac", "from_dlpack",
    "from_numpy", "full", "full_like", "gather", "gcd", "ge", "ger", "get_default_device", "get_default_dtype",
    "get_float32_matmul_precision", "get_num_threads", "get_printoptions", "get_rng_state", "greater", "greater_equal",
    "group_norm", "gt", "half", "hardshrink", "heaviside", "hinge_embedding_loss", "histc", "hsplit", "hstack", "hypot",
    "iinfo", "imag", "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "index_select", "inf",
    "inference_mode", "init", "initial_seed", "inner", "instance_norm", "int", "int16", "int32", "int64", "int8",
    "is_complex", "is_floating_point", "is_grad_enabled", "is_initialized", "is_nonzero", "is_same_size", "is_signed",
    "is_tensor", "isclose", "isfinite", "isinf", "isnan", "isneginf", "isposinf", "isreal", "jit", "kl_div", "kron",
    "kthvalue", "layer_norm", "layout", "lcm", "ldexp", "le", "lerp", "less", "less_equal", "lgamma", "linspace",
    "load", "log", "log10", "log1p", "log2", "log_softmax", "logaddexp", "logaddexp2", "logcumsumexp", "logical_and",
    "logical_not", "logical_or", "logical_xor", "logit", "logspace", "logsumexp", "long", "lt", "manual_seed",
    "map_shards", "margin_ranking_loss", "masked_fill", "masked_scatter", "masked_select", "matmul", "max", "maximum",
    "mean", "median", "memory_format", "meshgrid", "min", "minimum", "mm", "mode", "moveaxis", "movedim", "msort",
    "mul", "multinomial", "multiply", "mv", "nan", "nan_to_num", "nanmean", "nanmedian", "nansum", "narrow", "ne",
    "neg", "negative", "newaxis", "nextafter", "nn", "no_grad", "nonzero", "norm", "normal", "not_equal", "numel",
    "ones", "ones_like", "optim", "outer", "pairwise_distance", "permute", "pi", "poisson", "poisson_nll_loss",
    "polygamma", "positive", "pow", "prelu", "preserve_format", "printoptions", "prod", "promote_types", "put",
    "rad2deg", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random", "randperm", "range",
    "ravel", "real", "reciprocal", "relu", "remainder", "repeat_interleave", "replicate", "reshape", "result_type",
    "rms_norm", "roll", "rot90", "round", "row_stack", "rrelu", "rsqrt", "rsub", "save", "scalar_tensor", "scatter",
    "scatter_add", "scatter_reduce", "searchsorted", "seed", "select", "select_scatter", "selu", "set_default_device",
    "set_default_dtype", "set_float32_matmul_precision", "set_grad_enabled", "set_num_threads", "set_printoptions",
    "set_rng_state", "sgn", "shard", "short", "shutdown", "sigmoid", "sign", "signbit", "sin", "sinc", "sinh",
    "slice_scatter", "softmax", "sort", "split", "split_with_sizes", "sqrt", "square", "squeeze", "stack", "stats",
    "std", "std_mean", "strided", "sub", "subtract", "sum", "swapaxes", "swapdims", "synchronize", "t", "take",
    "take_along_dim", "tan", "tanh", "tensor", "tensor_split", "tensordot", "testing", "threshold", "tile", "topk",
    "trace", "transpose", "tril", "tril_indices", "triplet_margin_loss", "triu", "triu_indices", "true_divide", "trunc",
    "uint16", "uint32", "uint64", "uint8", "unbind", "unflatten", "unique", "unique_consecutive", "unsqueeze",
    "use_deterministic_algorithms", "utils", "var", "var_mean", "vdot", "vsplit", "vstack", "where", "xlogy", "zeros",
    "zeros_like",
]  # fmt: skip
