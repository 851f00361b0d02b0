"""The Tensor's methods and properties, attached to the class one by one.

Invariant: a method is the public function of that name, whose first parameter is the tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad import dtypes
from distgrad.functions import (
    activation,
    complexes,
    contraction,
    conversion,
    creation,
    cumulative,
    data,
    elementwise,
    indexing,
    layout,
    legacy,
    movement,
    random,
    reduction,
    sorting,
    special,
)
from distgrad.functions.late import late
from distgrad.settings import strided
from distgrad.tensor import Tensor

# mypy: disable-error-code="attr-defined,index,method-assign,misc,operator"
# The attributes are not declared in the class body: this module is where they are.

Method = Callable[..., Any]


# Methods that are no functions ------------------------------------------------------------------------------


def converting(kind: dtypes.dtype) -> Method:
    """Gives a conversion to one dtype: `float()`, `long()`, ..."""

    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return conversion.to_dtype(self, kind)

    return method


def _size(self: Tensor, dim: int | None = None) -> Any:
    """Gives the shape, or the size of one dim; IndexError outside the dims."""
    if dim is None:
        return self.shape
    if not -self.ndim <= dim < self.ndim:
        if not self.ndim:
            raise IndexError("Dimension specified as 0 but tensor has no dimensions")
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-self.ndim}, {self.ndim - 1}], but got {dim})"
        )
    return self.shape[dim]


def _dim(self: Tensor) -> int:
    """Gives the number of dims."""
    return self.ndim


def _cuda(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
    """Raises RuntimeError: there is no GPU."""
    raise RuntimeError("cuda(): no GPU is available: distgrad computes on CPUs; leave .cuda() out, or use .to('cpu')")


def _where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """Gives the tensor's elements where the condition holds, else `other`: `where(condition, self, other)`."""
    return elementwise.where(condition, self, other)


def _itself(self: Tensor, *args: Any, **options: Any) -> Tensor:
    """Gives the tensor itself: what is asked for is so already."""
    return self


def _no(self: Tensor) -> bool:
    return False


def _yes(self: Tensor) -> bool:
    return True


def _get_device(self: Tensor) -> int:
    """Gives -1, the number of the CPU."""
    return -1


def _sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Sums over the dims that broadcasting `size` to this shape would stretch; RuntimeError when it would not."""
    shape = creation.as_size("sum_to_size", size)
    extra = self.ndim - len(shape)
    kept = self.shape[max(extra, 0) :]
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, kept)):
        raise RuntimeError(f"size {list(shape)} is not expandable to size {list(self.shape)}.")
    stretched = tuple(d for d in range(self.ndim) if d < extra or (shape[d - extra] == 1 and kept[d - extra] != 1))
    return layout.reshape(reduction.sum(self, stretched), shape) if stretched else self


# What a tensor is -------------------------------------------------------------------------------------------

Tensor.T = property(layout.T)
Tensor.mT = property(layout.mT)
Tensor.H = property(layout.H)
Tensor.mH = property(layout.mH)
Tensor.real = property(elementwise.real)
Tensor.imag = property(elementwise.imag)
Tensor.itemsize = property(conversion.element_size)
Tensor.nbytes = property(lambda self: self.numel() * self.element_size())
Tensor.is_cpu = property(_yes)
Tensor.is_cuda = Tensor.is_mps = Tensor.is_meta = Tensor.is_sparse = Tensor.is_quantized = property(_no)
Tensor.layout = property(lambda self: strided)
Tensor.output_nr = property(lambda self: self._index)
Tensor.size = _size
Tensor.dim = Tensor.ndimension = _dim
Tensor.nelement = conversion.numel
Tensor.get_device = _get_device
Tensor.adjoint = legacy.adjoint
Tensor.apply_ = legacy.apply_
Tensor.as_subclass = legacy.as_subclass
Tensor.data_ptr = legacy.data_ptr
Tensor.fill_diagonal_ = legacy.fill_diagonal_
Tensor.map_ = legacy.map_
Tensor.is_inference = Tensor.is_pinned = Tensor.is_shared = _no
Tensor.cuda = _cuda
Tensor.pin_memory = Tensor.share_memory_ = Tensor.to_dense = _itself
Tensor.sum_to_size = _sum_to_size

# Conversions ------------------------------------------------------------------------------------------------

Tensor.type = conversion.type_name
Tensor.float = converting(dtypes.float32)
Tensor.double = converting(dtypes.float64)
Tensor.half = converting(dtypes.float16)
Tensor.bfloat16 = converting(dtypes.bfloat16)
Tensor.byte = converting(dtypes.uint8)
Tensor.char = converting(dtypes.int8)
Tensor.short = converting(dtypes.int16)
Tensor.int = converting(dtypes.int32)
Tensor.long = converting(dtypes.int64)
Tensor.bool = converting(dtypes.bool_)

# Functions --------------------------------------------------------------------------------------------------

Tensor.abs = elementwise.abs
Tensor.absolute = elementwise.absolute
Tensor.acos = elementwise.acos
Tensor.acosh = elementwise.acosh
Tensor.add = elementwise.add
Tensor.addcdiv = elementwise.addcdiv
Tensor.addcmul = elementwise.addcmul
Tensor.arccos = elementwise.arccos
Tensor.arccosh = elementwise.arccosh
Tensor.arcsin = elementwise.arcsin
Tensor.arcsinh = elementwise.arcsinh
Tensor.arctan = elementwise.arctan
Tensor.arctan2 = elementwise.arctan2
Tensor.arctanh = elementwise.arctanh
Tensor.asin = elementwise.asin
Tensor.asinh = elementwise.asinh
Tensor.atan = elementwise.atan
Tensor.atan2 = elementwise.atan2
Tensor.atanh = elementwise.atanh
Tensor.bitwise_and = elementwise.bitwise_and
Tensor.bitwise_left_shift = elementwise.bitwise_left_shift
Tensor.bitwise_not = elementwise.bitwise_not
Tensor.bitwise_or = elementwise.bitwise_or
Tensor.bitwise_right_shift = elementwise.bitwise_right_shift
Tensor.bitwise_xor = elementwise.bitwise_xor
Tensor.ceil = elementwise.ceil
Tensor.clamp = elementwise.clamp
Tensor.clamp_max = elementwise.clamp_max
Tensor.clamp_min = elementwise.clamp_min
Tensor.clip = elementwise.clip
Tensor.conj = elementwise.conj
Tensor.copysign = elementwise.copysign
Tensor.cos = elementwise.cos
Tensor.cosh = elementwise.cosh
Tensor.deg2rad = elementwise.deg2rad
Tensor.digamma = elementwise.digamma
Tensor.div = elementwise.div
Tensor.divide = elementwise.divide
Tensor.eq = elementwise.eq
Tensor.erf = elementwise.erf
Tensor.erfc = elementwise.erfc
Tensor.erfinv = elementwise.erfinv
Tensor.exp = elementwise.exp
Tensor.exp2 = elementwise.exp2
Tensor.expm1 = elementwise.expm1
Tensor.fix = elementwise.fix
Tensor.float_power = elementwise.float_power
Tensor.floor = elementwise.floor
Tensor.floor_divide = elementwise.floor_divide
Tensor.fmax = elementwise.fmax
Tensor.fmin = elementwise.fmin
Tensor.fmod = elementwise.fmod
Tensor.frac = elementwise.frac
Tensor.gcd = elementwise.gcd
Tensor.ge = elementwise.ge
Tensor.greater = elementwise.greater
Tensor.greater_equal = elementwise.greater_equal
Tensor.gt = elementwise.gt
Tensor.heaviside = elementwise.heaviside
Tensor.hypot = elementwise.hypot
Tensor.isclose = elementwise.isclose
Tensor.isfinite = elementwise.isfinite
Tensor.isinf = elementwise.isinf
Tensor.isnan = elementwise.isnan
Tensor.isneginf = elementwise.isneginf
Tensor.isposinf = elementwise.isposinf
Tensor.isreal = elementwise.isreal
Tensor.lcm = elementwise.lcm
Tensor.ldexp = elementwise.ldexp
Tensor.le = elementwise.le
Tensor.lerp = elementwise.lerp
Tensor.less = elementwise.less
Tensor.less_equal = elementwise.less_equal
Tensor.lgamma = elementwise.lgamma
Tensor.log = elementwise.log
Tensor.log10 = elementwise.log10
Tensor.log1p = elementwise.log1p
Tensor.log2 = elementwise.log2
Tensor.logaddexp = elementwise.logaddexp
Tensor.logaddexp2 = elementwise.logaddexp2
Tensor.logical_and = elementwise.logical_and
Tensor.logical_not = elementwise.logical_not
Tensor.logical_or = elementwise.logical_or
Tensor.logical_xor = elementwise.logical_xor
Tensor.logit = elementwise.logit
Tensor.lt = elementwise.lt
Tensor.maximum = elementwise.maximum
Tensor.minimum = elementwise.minimum
Tensor.mul = elementwise.mul
Tensor.multiply = elementwise.multiply
Tensor.nan_to_num = elementwise.nan_to_num
Tensor.ne = elementwise.ne
Tensor.neg = elementwise.neg
Tensor.negative = elementwise.negative
Tensor.nextafter = elementwise.nextafter
Tensor.not_equal = elementwise.not_equal
Tensor.polygamma = elementwise.polygamma
Tensor.positive = elementwise.positive
Tensor.pow = elementwise.pow
Tensor.rad2deg = elementwise.rad2deg
Tensor.reciprocal = elementwise.reciprocal
Tensor.remainder = elementwise.remainder
Tensor.round = elementwise.round
Tensor.rsqrt = elementwise.rsqrt
Tensor.sgn = elementwise.sgn
Tensor.sigmoid = elementwise.sigmoid
Tensor.sign = elementwise.sign
Tensor.signbit = elementwise.signbit
Tensor.sin = elementwise.sin
Tensor.sinc = elementwise.sinc
Tensor.sinh = elementwise.sinh
Tensor.sqrt = elementwise.sqrt
Tensor.square = elementwise.square
Tensor.sub = elementwise.sub
Tensor.subtract = elementwise.subtract
Tensor.tan = elementwise.tan
Tensor.tanh = elementwise.tanh
Tensor.true_divide = elementwise.true_divide
Tensor.trunc = elementwise.trunc
Tensor.where = _where
Tensor.xlogy = elementwise.xlogy

Tensor.hardshrink = activation.hardshrink
Tensor.log_softmax = activation.log_softmax
Tensor.logsumexp = activation.logsumexp
Tensor.prelu = activation.prelu
Tensor.relu = activation.relu
Tensor.softmax = activation.softmax

Tensor.all = reduction.all
Tensor.amax = reduction.amax
Tensor.amin = reduction.amin
Tensor.aminmax = reduction.aminmax
Tensor.any = reduction.any
Tensor.argmax = reduction.argmax
Tensor.argmin = reduction.argmin
Tensor.count_nonzero = reduction.count_nonzero
Tensor.max = reduction.max
Tensor.mean = reduction.mean
Tensor.median = reduction.median
Tensor.min = reduction.min
Tensor.nanmean = reduction.nanmean
Tensor.nanmedian = reduction.nanmedian
Tensor.nansum = reduction.nansum
Tensor.norm = reduction.norm
Tensor.prod = reduction.prod
Tensor.std = reduction.std
Tensor.sum = reduction.sum
Tensor.var = reduction.var

Tensor.cummax = cumulative.cummax
Tensor.cummin = cumulative.cummin
Tensor.cumprod = cumulative.cumprod
Tensor.cumsum = cumulative.cumsum
Tensor.diff = cumulative.diff
Tensor.logcumsumexp = cumulative.logcumsumexp

Tensor.addbmm = contraction.addbmm
Tensor.addmm = contraction.addmm
Tensor.addmv = contraction.addmv
Tensor.addr = contraction.addr
Tensor.baddbmm = contraction.baddbmm
Tensor.bmm = contraction.bmm
Tensor.dot = contraction.dot
Tensor.ger = contraction.ger
Tensor.inner = contraction.inner
Tensor.kron = contraction.kron
Tensor.matmul = contraction.matmul
Tensor.mm = contraction.mm
Tensor.mv = contraction.mv
Tensor.outer = contraction.outer
Tensor.trace = contraction.trace
Tensor.vdot = contraction.vdot

Tensor.broadcast_to = layout.broadcast_to
Tensor.clone = layout.clone
Tensor.contiguous = layout.contiguous
Tensor.expand = layout.expand
Tensor.expand_as = layout.expand_as
Tensor.flatten = layout.flatten
Tensor.is_contiguous = layout.is_contiguous
Tensor.moveaxis = layout.moveaxis
Tensor.movedim = layout.movedim
Tensor.permute = layout.permute
Tensor.ravel = layout.ravel
Tensor.repeat = layout.repeat
Tensor.repeat_interleave = layout.repeat_interleave
Tensor.reshape = layout.reshape
Tensor.reshape_as = layout.reshape_as
Tensor.squeeze = layout.squeeze
Tensor.stride = layout.stride
Tensor.swapaxes = layout.swapaxes
Tensor.swapdims = layout.swapdims
Tensor.t = layout.t
Tensor.tile = layout.tile
Tensor.transpose = layout.transpose
Tensor.unflatten = layout.unflatten
Tensor.unsqueeze = layout.unsqueeze
Tensor.view = layout.view
Tensor.view_as = layout.view_as

Tensor.chunk = movement.chunk
Tensor.diag = movement.diag
Tensor.diag_embed = movement.diag_embed
Tensor.diagonal = movement.diagonal
Tensor.diagonal_scatter = movement.diagonal_scatter
Tensor.dsplit = movement.dsplit
Tensor.flip = movement.flip
Tensor.fliplr = movement.fliplr
Tensor.flipud = movement.flipud
Tensor.hsplit = movement.hsplit
Tensor.narrow = movement.narrow
Tensor.roll = movement.roll
Tensor.rot90 = movement.rot90
Tensor.select = movement.select
Tensor.select_scatter = movement.select_scatter
Tensor.slice_scatter = movement.slice_scatter
Tensor.split = movement.split
Tensor.split_with_sizes = movement.split_with_sizes
Tensor.tensor_split = movement.tensor_split
Tensor.tril = movement.tril
Tensor.triu = movement.triu
Tensor.unbind = movement.unbind
Tensor.unfold = movement.unfold
Tensor.vsplit = movement.vsplit


Tensor.argwhere = indexing.argwhere
Tensor.gather = indexing.gather
Tensor.index_add = indexing.index_add
Tensor.index_copy = indexing.index_copy
Tensor.index_fill = indexing.index_fill
Tensor.index_put = indexing.index_put
Tensor.index_reduce = indexing.index_reduce
Tensor.index_select = indexing.index_select
Tensor.masked_fill = indexing.masked_fill
Tensor.masked_scatter = indexing.masked_scatter
Tensor.masked_select = indexing.masked_select
Tensor.nonzero = indexing.nonzero
Tensor.put = indexing.put
Tensor.scatter = indexing.scatter
Tensor.scatter_add = indexing.scatter_add
Tensor.scatter_reduce = indexing.scatter_reduce
Tensor.take = indexing.take
Tensor.take_along_dim = indexing.take_along_dim

Tensor.argsort = sorting.argsort
Tensor.bincount = sorting.bincount
Tensor.histc = sorting.histc
Tensor.kthvalue = sorting.kthvalue
Tensor.mode = sorting.mode
Tensor.msort = sorting.msort
Tensor.sort = sorting.sort
Tensor.topk = sorting.topk
Tensor.unique = sorting.unique
Tensor.unique_consecutive = sorting.unique_consecutive

Tensor.new_empty = creation.new_empty
Tensor.new_full = creation.new_full
Tensor.new_ones = creation.new_ones
Tensor.new_zeros = creation.new_zeros

Tensor.bernoulli = random.bernoulli
Tensor.bernoulli_ = random.bernoulli_
Tensor.cauchy_ = random.cauchy_
Tensor.exponential_ = random.exponential_
Tensor.geometric_ = random.geometric_
Tensor.log_normal_ = random.log_normal_
Tensor.multinomial = random.multinomial
Tensor.normal_ = random.normal_
Tensor.random_ = random.random_
Tensor.uniform_ = random.uniform_





Tensor.angle = complexes.angle
Tensor.cdouble = complexes.cdouble
Tensor.cfloat = complexes.cfloat
Tensor.conj_physical = complexes.conj_physical
Tensor.is_conj = complexes.is_conj
Tensor.is_neg = complexes.is_neg
Tensor.resolve_conj = complexes.resolve_conj
Tensor.resolve_neg = complexes.resolve_neg

Tensor.frexp = special.frexp
Tensor.i0 = special.i0
Tensor.igamma = special.igamma
Tensor.igammac = special.igammac
Tensor.mvlgamma = special.mvlgamma






Tensor.allclose = conversion.allclose
Tensor.element_size = conversion.element_size
Tensor.equal = conversion.equal
Tensor.is_complex = conversion.is_complex
Tensor.is_floating_point = conversion.is_floating_point
Tensor.is_nonzero = conversion.is_nonzero
Tensor.is_same_size = conversion.is_same_size
Tensor.is_signed = conversion.is_signed
Tensor.numel = conversion.numel
Tensor.to = conversion.to
Tensor.type_as = conversion.type_as

Tensor.new = data.new
Tensor.new_tensor = data.new_tensor

Tensor.narrow_copy = late("copies", "narrow_copy")
Tensor.unsafe_chunk = late("copies", "unsafe_chunk")
Tensor.unsafe_split = late("copies", "unsafe_split")
Tensor.unsafe_split_with_sizes = late("copies", "unsafe_split_with_sizes")

Tensor.diagflat = late("filling", "diagflat")

Tensor.hash_tensor = late("hashing", "hash_tensor")

Tensor.histogram = late("histogram", "histogram")



Tensor.corrcoef = late("linalg_distance", "corrcoef")
Tensor.cov = late("linalg_distance", "cov")
Tensor.dist = late("linalg_distance", "dist")
Tensor.renorm = late("linalg_distance", "renorm")

Tensor.cholesky = late("linalg_matrix", "cholesky")
Tensor.cholesky_inverse = late("linalg_matrix", "cholesky_inverse")
Tensor.cholesky_solve = late("linalg_matrix", "cholesky_solve")
Tensor.cross = late("linalg_matrix", "cross")
Tensor.det = late("linalg_matrix", "det")
Tensor.geqrf = late("linalg_matrix", "geqrf")
Tensor.inverse = late("linalg_matrix", "inverse")
Tensor.logdet = late("linalg_matrix", "logdet")
Tensor.lu = late("linalg_matrix", "lu")
Tensor.lu_solve = late("linalg_matrix", "lu_solve")
Tensor.matrix_exp = late("linalg_matrix", "matrix_exp")
Tensor.matrix_power = late("linalg_matrix", "matrix_power")
Tensor.orgqr = late("linalg_matrix", "orgqr")
Tensor.ormqr = late("linalg_matrix", "ormqr")
Tensor.pinverse = late("linalg_matrix", "pinverse")
Tensor.qr = late("linalg_matrix", "qr")
Tensor.slogdet = late("linalg_matrix", "slogdet")
Tensor.svd = late("linalg_matrix", "svd")
Tensor.triangular_solve = late("linalg_matrix", "triangular_solve")


Tensor.nanquantile = late("quantile", "nanquantile")
Tensor.quantile = late("quantile", "quantile")

Tensor.nonzero_static = late("selection", "nonzero_static")

Tensor.istft = late("signal", "istft")
Tensor.stft = late("signal", "stft")

Tensor.as_strided = late("strided", "as_strided")
Tensor.as_strided_scatter = late("strided", "as_strided_scatter")
Tensor.new_empty_strided = late("strided", "new_empty_strided")
Tensor.storage_offset = late("strided", "storage_offset")
