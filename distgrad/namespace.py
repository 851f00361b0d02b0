"""The public names, and nothing else: what `distgrad.X` is. Loaded when the first of them is used."""

# ruff: noqa: I001  (names are wrapped; one to a line would make ten pages of this one)

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

from distgrad import __version__ as __version__
from distgrad import errors, random
from distgrad import inplace as inplace
from distgrad import methods as methods
from distgrad import operators as operators
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
from distgrad.functions.complexes import (
    is_conj, is_neg, resolve_conj, resolve_neg, view_as_complex, view_as_real,
)  # fmt: skip
from distgrad.functions.contraction import (
    einsum, trace,
)  # fmt: skip
from distgrad.functions.conversion import (
    allclose, can_cast, equal, finfo, get_default_dtype, iinfo, is_complex, is_floating_point, is_nonzero,
    is_same_size, is_signed, numel, promote_types, result_type,
)  # fmt: skip
from distgrad.functions.data import (
    BFloat16Tensor, BoolTensor, ByteTensor, CharTensor, DoubleTensor, FloatTensor, HalfTensor, IntTensor, LongTensor,
    ShortTensor, as_tensor, asarray, from_dlpack, from_numpy, set_default_tensor_type, tensor,
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
from distgrad.functions.movement import (
    atleast_1d, atleast_2d, atleast_3d, block_diag, cartesian_prod, chunk, diag_embed, diagonal, diagonal_scatter,
    dsplit, flip, fliplr, flipud, hsplit, meshgrid, narrow, roll, rot90, select, select_scatter, split,
    split_with_sizes, tensor_split, unbind, vsplit,
)  # fmt: skip
from distgrad.functions.out import (
    abs, absolute, acos, acosh, add, addbmm, addcdiv, addcmul, addmm, addmv, addr, all, amax, amin, aminmax, angle,
    any, arange, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, argmax, argmin, argsort, asin, asinh,
    atan, atan2, atanh, baddbmm, bernoulli, bitwise_and, bitwise_left_shift, bitwise_not, bitwise_or,
    bitwise_right_shift, bitwise_xor, bmm, bucketize, cat, ceil, chain_matmul, clamp, clamp_max, clamp_min, clip,
    column_stack, complex, concat, concatenate, conj_physical, copysign, cos, cosh, cummax, cummin, cumprod, cumsum,
    deg2rad, diag, diff, digamma, div, divide, dot, dstack, empty, empty_like, empty_strided, eq, erf, erfc, erfinv,
    exp, exp2, expm1, eye, fix, float_power, floor, floor_divide, fmax, fmin, fmod, frac, frexp, full, full_like,
    gather, gcd, ge, ger, greater, greater_equal, gt, hardshrink, heaviside, histc, hstack, hypot, i0, igamma, igammac,
    index_add, index_copy, index_reduce, index_select, inner, isneginf, isposinf, kron, kthvalue, lcm, ldexp, le, lerp,
    less, less_equal, lgamma, linspace, log, log10, log1p, log2, log_softmax, logaddexp, logaddexp2, logcumsumexp,
    logical_and, logical_not, logical_or, logical_xor, logit, logspace, logsumexp, lt, masked_select, matmul, max,
    maximum, mean, median, min, minimum, mm, mode, msort, mul, multinomial, multiply, mv, mvlgamma, nan_to_num,
    nanmean, nanmedian, nansum, ne, neg, negative, nextafter, nonzero, norm, normal, not_equal, ones, ones_like, outer,
    polar, polygamma, pow, prod, rad2deg, rand, rand_like, randint, randint_like, randn, randn_like, randperm, range,
    reciprocal, remainder, round, row_stack, rsqrt, scalar_tensor, scatter, scatter_add, scatter_reduce, searchsorted,
    sgn, sigmoid, sign, signbit, sin, sinc, sinh, slice_scatter, softmax, sort, sqrt, square, stack, std, sub,
    subtract, sum, take, take_along_dim, tan, tanh, tensordot, threshold, topk, tril, tril_indices, triu, triu_indices,
    true_divide, trunc, var, vdot, vstack, where, xlogy, zeros, zeros_like,
)  # fmt: skip
from distgrad.functions.legacy import (
    adjoint, detach, embedding, frombuffer, get_device, is_inference_mode_enabled,
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
from distgrad.in_place_functions import (
    abs_, acos_, acosh_, addmv_, arccos_, arccosh_, arcsin_, arcsinh_, arctan_, arctanh_, as_strided_, asin_, asinh_,
    atan_, atanh_, ceil_, clamp_, clamp_max_, clamp_min_, clip_, conj_physical_, cos_, cosh_, deg2rad_, detach_, erf_,
    erfc_, exp2_, exp_, expm1_, fill_, fix_, floor_, frac_, gcd_, i0_, index_put_, lcm_, ldexp_, log10_, log1p_, log2_,
    log_, logit_, nan_to_num_, neg_, negative_, rad2deg_, reciprocal_, relu_, resize_as_, round_, rsqrt_, sigmoid_,
    sin_, sinc_, sinh_, sqrt_, square_, tan_, tanh_, trunc_, xlogy_, zero_,
)  # fmt: skip
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
    compile,
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
    are_fused_kernels_enabled,
    channels_last,
    channels_last_3d,
    contiguous_format,
    get_default_device,
    get_float32_matmul_precision,
    get_num_interop_threads,
    get_num_threads,
    is_autocast_enabled,
    layout,
    memory_format,
    preserve_format,
    set_default_device,
    set_float32_matmul_precision,
    set_flush_denormal,
    set_num_interop_threads,
    set_fused_kernels,
    set_num_threads,
    set_warn_always,
    sparse_coo,
    strided,
    typename,
    use_deterministic_algorithms,
)
from distgrad.tensor import Size, Tensor

if TYPE_CHECKING:
    from distgrad import (
        accelerator,
        amp,
        autograd,
        backends,
        compiler,
        cuda,
        data,
        datasets,
        distributed,
        distributions,
        fft,
        func,
        hub,
        jit,
        linalg,
        masked,
        mps,
        multiprocessing,
        nn,
        optim,
        signal,
        special,
        testing,
        types,
        utils,
        version,
        xpu,
    )
    from distgrad.amp import GradScaler, autocast
    from distgrad.cuda import OutOfMemoryError
    from distgrad.func import vmap
    from distgrad.functions.classification_loss import (
        binary_cross_entropy_with_logits,
    )  # fmt: skip
    from distgrad.functions.convolution import (
        conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d,
    )  # fmt: skip
    from distgrad.functions.copies import (
        unsafe_chunk, unsafe_split, unsafe_split_with_sizes,
    )  # fmt: skip
    from distgrad.functions.dropout import (
        alpha_dropout, dropout, feature_alpha_dropout, rrelu,
    )  # fmt: skip
    from distgrad.functions.filling import (
        constant_pad_nd, diagflat, fill,
    )  # fmt: skip
    from distgrad.functions.histogram import (
        histogramdd,
    )  # fmt: skip
    from distgrad.functions.integration import (
        cumulative_trapezoid, gradient, trapezoid, trapz,
    )  # fmt: skip
    from distgrad.functions.interpolation import (
        grid_sampler, grid_sampler_2d, grid_sampler_3d,
    )  # fmt: skip
    from distgrad.functions.linalg_distance import (
        cdist, corrcoef, cov, dist, pdist,
    )  # fmt: skip
    from distgrad.functions.linalg_matrix import (
        det, logdet, lu, matrix_exp, pca_lowrank, pinverse, svd_lowrank, vander,
    )  # fmt: skip
    from distgrad.functions.loss import (
        cosine_embedding_loss, hinge_embedding_loss, kl_div, margin_ranking_loss, poisson_nll_loss,
        triplet_margin_loss,
    )  # fmt: skip
    from distgrad.functions.native_normalization import (
        native_group_norm, native_layer_norm,
    )  # fmt: skip
    from distgrad.functions.normalization import (
        batch_norm, cosine_similarity, group_norm, instance_norm, layer_norm, pairwise_distance, rms_norm,
    )  # fmt: skip
    from distgrad.functions.out_late import (
        alias_copy, as_strided_copy, bartlett_window, blackman_window, cholesky, cholesky_inverse, cholesky_solve,
        cross, detach_copy, diagonal_copy, empty_permuted, expand_copy, frobenius_norm, geqrf, hamming_window,
        hann_window, hash_tensor, histogram, inverse, isin, kaiser_window, lu_solve, lu_unpack, matrix_power,
        nanquantile, narrow_copy, native_batch_norm, nonzero_static, nuclear_norm, orgqr, ormqr, permute_copy, qr,
        quantile, renorm, select_copy, slogdet, split_copy, split_with_sizes_copy, squeeze_copy, svd, t_copy,
        transpose_copy, triangular_solve, unbind_copy, unfold_copy, unsqueeze_copy, view_as_complex_copy,
        view_as_real_copy, view_copy,
    )  # fmt: skip
    from distgrad.functions.pooling import (
        adaptive_avg_pool1d, adaptive_max_pool1d, avg_pool1d, max_pool1d, max_pool1d_with_indices, max_pool2d,
        max_pool3d,
    )  # fmt: skip
    from distgrad.functions.selection import (
        broadcast_shapes, combinations, unravel_index,
    )  # fmt: skip
    from distgrad.functions.sequence_loss import (
        ctc_loss,
    )  # fmt: skip
    from distgrad.functions.signal import (
        istft, stft,
    )  # fmt: skip
    from distgrad.functions.strided import (
        as_strided, as_strided_scatter,
    )  # fmt: skip
    from distgrad.functions.vision import (
        affine_grid_generator, channel_shuffle, native_channel_shuffle, pixel_shuffle, pixel_unshuffle,
    )  # fmt: skip


e, inf, nan, pi = math.e, math.inf, math.nan, math.pi
newaxis = None

half, float, double = float16, float32, float64
short, int, long = int16, int32, int64
cfloat, cdouble = complex64, complex128

# Where names come from that are imported when first used.
_WHEN_USED: dict[str, str] = {
    "accelerator": "accelerator", "amp": "amp", "compiler": "compiler", "distributed": "distributed", "hub": "hub",
    "mps": "mps", "multiprocessing": "multiprocessing", "types": "types", "version": "version", "xpu": "xpu",
    "GradScaler": "amp", "OutOfMemoryError": "cuda", "autocast": "amp", "vmap": "func",
    "autograd": "autograd", "backends": "backends", "cuda": "cuda", "data": "data", "datasets": "datasets",
    "distributions": "distributions", "fft": "fft", "func": "func", "jit": "jit", "linalg": "linalg",
    "masked": "masked", "nn": "nn", "optim": "optim", "signal": "signal", "special": "special", "testing": "testing",
    "utils": "utils",
    "binary_cross_entropy_with_logits": "functions.classification_loss",
    "conv1d": "functions.convolution", "conv2d": "functions.convolution", "conv3d": "functions.convolution",
    "conv_transpose1d": "functions.convolution", "conv_transpose2d": "functions.convolution",
    "conv_transpose3d": "functions.convolution",
    "unsafe_chunk": "functions.copies", "unsafe_split": "functions.copies",
    "unsafe_split_with_sizes": "functions.copies",
    "alpha_dropout": "functions.dropout", "dropout": "functions.dropout", "feature_alpha_dropout": "functions.dropout",
    "rrelu": "functions.dropout",
    "constant_pad_nd": "functions.filling", "diagflat": "functions.filling", "fill": "functions.filling",
    "histogramdd": "functions.histogram",
    "cumulative_trapezoid": "functions.integration", "gradient": "functions.integration",
    "trapezoid": "functions.integration", "trapz": "functions.integration",
    "grid_sampler": "functions.interpolation", "grid_sampler_2d": "functions.interpolation",
    "grid_sampler_3d": "functions.interpolation",
    "cdist": "functions.linalg_distance", "corrcoef": "functions.linalg_distance", "cov": "functions.linalg_distance",
    "dist": "functions.linalg_distance", "pdist": "functions.linalg_distance",
    "det": "functions.linalg_matrix", "logdet": "functions.linalg_matrix", "lu": "functions.linalg_matrix",
    "matrix_exp": "functions.linalg_matrix", "pca_lowrank": "functions.linalg_matrix",
    "pinverse": "functions.linalg_matrix", "svd_lowrank": "functions.linalg_matrix",
    "vander": "functions.linalg_matrix",
    "cosine_embedding_loss": "functions.loss", "hinge_embedding_loss": "functions.loss", "kl_div": "functions.loss",
    "margin_ranking_loss": "functions.loss", "poisson_nll_loss": "functions.loss",
    "triplet_margin_loss": "functions.loss",
    "native_group_norm": "functions.native_normalization", "native_layer_norm": "functions.native_normalization",
    "batch_norm": "functions.normalization", "cosine_similarity": "functions.normalization",
    "group_norm": "functions.normalization", "instance_norm": "functions.normalization",
    "layer_norm": "functions.normalization", "pairwise_distance": "functions.normalization",
    "rms_norm": "functions.normalization",
    "alias_copy": "functions.out_late", "as_strided_copy": "functions.out_late",
    "bartlett_window": "functions.out_late", "blackman_window": "functions.out_late", "cholesky": "functions.out_late",
    "cholesky_inverse": "functions.out_late", "cholesky_solve": "functions.out_late", "cross": "functions.out_late",
    "detach_copy": "functions.out_late", "diagonal_copy": "functions.out_late", "empty_permuted": "functions.out_late",
    "expand_copy": "functions.out_late", "frobenius_norm": "functions.out_late", "geqrf": "functions.out_late",
    "hamming_window": "functions.out_late", "hann_window": "functions.out_late", "hash_tensor": "functions.out_late",
    "histogram": "functions.out_late", "inverse": "functions.out_late", "isin": "functions.out_late",
    "kaiser_window": "functions.out_late", "lu_solve": "functions.out_late", "lu_unpack": "functions.out_late",
    "matrix_power": "functions.out_late", "nanquantile": "functions.out_late", "narrow_copy": "functions.out_late",
    "native_batch_norm": "functions.out_late", "nonzero_static": "functions.out_late",
    "nuclear_norm": "functions.out_late", "orgqr": "functions.out_late", "ormqr": "functions.out_late",
    "permute_copy": "functions.out_late", "qr": "functions.out_late", "quantile": "functions.out_late",
    "renorm": "functions.out_late", "select_copy": "functions.out_late", "slogdet": "functions.out_late",
    "split_copy": "functions.out_late", "split_with_sizes_copy": "functions.out_late",
    "squeeze_copy": "functions.out_late", "svd": "functions.out_late", "t_copy": "functions.out_late",
    "transpose_copy": "functions.out_late", "triangular_solve": "functions.out_late",
    "unbind_copy": "functions.out_late", "unfold_copy": "functions.out_late", "unsqueeze_copy": "functions.out_late",
    "view_as_complex_copy": "functions.out_late", "view_as_real_copy": "functions.out_late",
    "view_copy": "functions.out_late",
    "adaptive_avg_pool1d": "functions.pooling", "adaptive_max_pool1d": "functions.pooling",
    "avg_pool1d": "functions.pooling", "max_pool1d": "functions.pooling",
    "max_pool1d_with_indices": "functions.pooling", "max_pool2d": "functions.pooling",
    "max_pool3d": "functions.pooling",
    "broadcast_shapes": "functions.selection", "combinations": "functions.selection",
    "unravel_index": "functions.selection",
    "ctc_loss": "functions.sequence_loss",
    "istft": "functions.signal", "stft": "functions.signal",
    "as_strided": "functions.strided", "as_strided_scatter": "functions.strided",
    "affine_grid_generator": "functions.vision", "channel_shuffle": "functions.vision",
    "native_channel_shuffle": "functions.vision", "pixel_shuffle": "functions.vision", "pixel_unshuffle": "functions.vision",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _WHEN_USED.get(name)
    if module is None:
        raise AttributeError(f"module 'distgrad' has no attribute {name!r}")
    found = import_module(f"distgrad.{module}")
    return found if module == name else getattr(found, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHEN_USED})


__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "ClusterError", "CollectiveTimeout", "DistgradError",
    "DoubleTensor", "FloatTensor", "Generator", "GradScaler", "GroupAborted", "HalfTensor", "InfrastructureError",
    "IntTensor", "LongTensor", "OutOfMemoryError", "Partial", "PlacementError", "RemoteOpError", "Replicate",
    "SessionError", "Shard", "ShortTensor", "Size", "Tensor", "WireError", "WorkerLostError", "__version__", "abs",
    "abs_", "absolute", "accelerator", "acos", "acos_", "acosh", "acosh_", "adaptive_avg_pool1d", "adaptive_max_pool1d",
    "add", "addbmm", "addcdiv", "addcmul", "addmm", "addmv", "addmv_", "addr", "adjoint", "affine_grid_generator",
    "alias_copy", "all", "allclose", "alpha_dropout", "amax", "amin", "aminmax", "amp", "angle", "any", "arange",
    "arccos", "arccos_", "arccosh", "arccosh_", "arcsin", "arcsin_", "arcsinh", "arcsinh_", "arctan", "arctan2",
    "arctan_", "arctanh", "arctanh_", "are_deterministic_algorithms_enabled", "are_fused_kernels_enabled",
    "argmax", "argmin", "argsort", "argwhere",
    "as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter", "as_tensor", "asarray", "asin", "asin_",
    "asinh", "asinh_", "atan", "atan2", "atan_", "atanh", "atanh_", "atleast_1d", "atleast_2d", "atleast_3d",
    "autocast", "autograd", "avg_pool1d", "backends", "baddbmm", "bartlett_window", "batch_norm", "bernoulli",
    "bfloat16", "binary_cross_entropy_with_logits", "bincount", "bitwise_and", "bitwise_left_shift", "bitwise_not",
    "bitwise_or", "bitwise_right_shift", "bitwise_xor", "blackman_window", "block_diag", "bmm", "bool",
    "broadcast_shapes", "broadcast_tensors", "broadcast_to", "bucketize", "can_cast", "cartesian_prod", "cat", "cdist",
    "cdouble", "ceil", "ceil_", "celu", "cfloat", "chain_matmul", "channel_shuffle", "channels_last",
    "channels_last_3d", "cholesky", "cholesky_inverse", "cholesky_solve", "chunk", "clamp", "clamp_", "clamp_max",
    "clamp_max_", "clamp_min", "clamp_min_", "clip", "clip_", "clone", "column_stack", "combinations", "compile",
    "compiler", "complex", "complex64", "complex128", "concat", "concatenate", "conj", "conj_physical",
    "conj_physical_", "constant_pad_nd", "contiguous_format", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "copysign", "corrcoef", "cos", "cos_", "cosh", "cosh_",
    "cosine_embedding_loss", "cosine_similarity", "count_nonzero", "cov", "cross", "ctc_loss", "cuda", "cummax",
    "cummin", "cumprod", "cumsum", "cumulative_trapezoid", "data", "datasets", "default_generator", "deg2rad",
    "deg2rad_", "det", "detach", "detach_", "detach_copy", "device", "diag", "diag_embed", "diagflat", "diagonal",
    "diagonal_copy", "diagonal_scatter", "diff", "digamma", "dist", "distributed", "distributions", "div", "divide",
    "dot", "double", "dropout", "dsplit", "dstack", "dtype", "e", "einsum", "embedding", "empty", "empty_like",
    "empty_permuted", "empty_strided", "enable_grad", "eq", "equal", "erf", "erf_", "erfc", "erfc_", "erfinv", "errors",
    "exp", "exp2", "exp2_", "exp_", "expand_copy", "explain", "expm1", "expm1_", "eye", "feature_alpha_dropout", "fft",
    "fill", "fill_", "finfo", "fix", "fix_", "flatten", "flip", "fliplr", "flipud", "float", "float16", "float32",
    "float64", "float_power", "floor", "floor_", "floor_divide", "fmax", "fmin", "fmod", "fork_rng", "frac", "frac_",
    "frexp", "frobenius_norm", "from_dlpack", "from_numpy", "frombuffer", "full", "full_like", "func", "gather", "gcd",
    "gcd_", "ge", "geqrf", "ger", "get_default_device", "get_default_dtype", "get_device",
    "get_float32_matmul_precision", "get_num_interop_threads", "get_num_threads", "get_printoptions", "get_rng_state",
    "gradient", "greater", "greater_equal", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "group_norm", "gt",
    "half", "hamming_window", "hann_window", "hardshrink", "hash_tensor", "heaviside", "hinge_embedding_loss", "histc",
    "histogram", "histogramdd", "hsplit", "hstack", "hub", "hypot", "i0", "i0_", "igamma", "igammac", "iinfo", "imag",
    "index_add", "index_copy", "index_fill", "index_put", "index_put_", "index_reduce", "index_select", "inf",
    "inference_mode", "init", "initial_seed", "inner", "instance_norm", "int", "int8", "int16", "int32", "int64",
    "inverse", "is_autocast_enabled", "is_complex", "is_conj", "is_floating_point", "is_grad_enabled",
    "is_inference_mode_enabled", "is_initialized", "is_neg", "is_nonzero", "is_same_size", "is_signed", "is_tensor",
    "isclose", "isfinite", "isin", "isinf", "isnan", "isneginf", "isposinf", "isreal", "istft", "jit", "kaiser_window",
    "kl_div", "kron", "kthvalue", "layer_norm", "layout", "lcm", "lcm_", "ldexp", "ldexp_", "le", "lerp", "less",
    "less_equal", "lgamma", "linalg", "linspace", "load", "log", "log1p", "log1p_", "log2", "log2_", "log10", "log10_",
    "log_", "log_softmax", "logaddexp", "logaddexp2", "logcumsumexp", "logdet", "logical_and", "logical_not",
    "logical_or", "logical_xor", "logit", "logit_", "logspace", "logsumexp", "long", "lt", "lu", "lu_solve",
    "lu_unpack", "manual_seed", "map_shards", "margin_ranking_loss", "masked", "masked_fill", "masked_scatter",
    "masked_select", "matmul", "matrix_exp", "matrix_power", "max", "max_pool1d", "max_pool1d_with_indices",
    "max_pool2d", "max_pool3d", "maximum", "mean", "median", "memory_format", "meshgrid", "min", "minimum", "mm",
    "mode", "moveaxis", "movedim", "mps", "msort", "mul", "multinomial", "multiply", "multiprocessing", "mv",
    "mvlgamma", "nan", "nan_to_num", "nan_to_num_", "nanmean", "nanmedian", "nanquantile", "nansum", "narrow",
    "narrow_copy", "native_batch_norm", "native_channel_shuffle", "native_group_norm", "native_layer_norm", "ne", "neg",
    "neg_", "negative", "negative_", "newaxis", "nextafter", "nn", "no_grad", "nonzero", "nonzero_static", "norm",
    "normal", "not_equal", "nuclear_norm", "numel", "ones", "ones_like", "optim", "orgqr", "ormqr", "outer",
    "pairwise_distance", "pca_lowrank", "pdist", "permute", "permute_copy", "pi", "pinverse", "pixel_shuffle",
    "pixel_unshuffle", "poisson", "poisson_nll_loss", "polar", "polygamma", "positive", "pow", "prelu",
    "preserve_format", "printoptions", "prod", "promote_types", "put", "qr", "quantile", "rad2deg", "rad2deg_", "rand",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "random", "randperm", "range", "ravel", "real",
    "reciprocal", "reciprocal_", "relu", "relu_", "remainder", "renorm", "repeat_interleave", "replicate", "reshape",
    "resize_as_", "resolve_conj", "resolve_neg", "result_type", "rms_norm", "roll", "rot90", "round", "round_",
    "row_stack", "rrelu", "rsqrt", "rsqrt_", "rsub", "save", "scalar_tensor", "scatter", "scatter_add",
    "scatter_reduce", "searchsorted", "seed", "select", "select_copy", "select_scatter", "selu", "set_default_device",
    "set_default_dtype", "set_default_tensor_type", "set_float32_matmul_precision", "set_flush_denormal",
    "set_fused_kernels",
    "set_grad_enabled", "set_num_interop_threads", "set_num_threads", "set_printoptions", "set_rng_state",
    "set_warn_always", "sgn", "shard", "short", "shutdown", "sigmoid", "sigmoid_", "sign", "signal", "signbit", "sin",
    "sin_", "sinc", "sinc_", "sinh", "sinh_", "slice_scatter", "slogdet", "softmax", "sort", "sparse_coo", "special",
    "split", "split_copy", "split_with_sizes", "split_with_sizes_copy", "sqrt", "sqrt_", "square", "square_", "squeeze",
    "squeeze_copy", "stack", "stats", "std", "std_mean", "stft", "strided", "sub", "subtract", "sum", "svd",
    "svd_lowrank", "swapaxes", "swapdims", "synchronize", "t", "t_copy", "take", "take_along_dim", "tan", "tan_",
    "tanh", "tanh_", "tensor", "tensor_split", "tensordot", "testing", "threshold", "tile", "topk", "trace",
    "transpose", "transpose_copy", "trapezoid", "trapz", "triangular_solve", "tril", "tril_indices",
    "triplet_margin_loss", "triu", "triu_indices", "true_divide", "trunc", "trunc_", "typename", "types", "uint8",
    "uint16", "uint32", "uint64", "unbind", "unbind_copy", "unflatten", "unfold_copy", "unique", "unique_consecutive",
    "unravel_index", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "unsqueeze", "unsqueeze_copy",
    "use_deterministic_algorithms", "utils", "vander", "var", "var_mean", "vdot", "version", "view_as_complex",
    "view_as_complex_copy", "view_as_real", "view_as_real_copy", "view_copy", "vmap", "vsplit", "vstack", "where",
    "xlogy", "xlogy_", "xpu", "zero_", "zeros", "zeros_like",
]  # fmt: skip
