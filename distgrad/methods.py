"""Operators and in-place methods of the Tensor."""
from distgrad.tensor import Tensor

def attach(T):
    g = T.get
    def two(name, swap=False):
        f = T[name]
        if swap:
            return lambda a, b: f(b, a) if isinstance(b, Tensor) else T["_r" + name](a, b)
        return lambda a, b: f(a, b)
    names = dict(__add__="add", __sub__="sub", __mul__="mul", __truediv__="div", __pow__="pow", __matmul__="matmul", __mod__="remainder",
        __floordiv__="floor_divide", __eq__="eq", __ne__="ne", __lt__="lt", __le__="le", __gt__="gt", __ge__="ge", __and__="bitwise_and",
        __or__="bitwise_or", __xor__="bitwise_xor", __lshift__="bitwise_left_shift", __rshift__="bitwise_right_shift")
    from distgrad.op import OPS
    for dunder, name in names.items():
        f = T.get(name) or OPS.get({"div": "div"}.get(name, name))
        if f is None: print("no", name); continue
        def m(a, b, f=f):
            if not isinstance(b, (Tensor, float, int, bool, complex)) and not hasattr(b, "dtype"): return NotImplemented
            return f(a, b)
        setattr(Tensor, dunder, m)
        if not dunder.startswith(("__eq", "__ne", "__l", "__g")) or dunder in ("__lshift__",):
            def r(a, b, f=f):
                return f(b, a)
            setattr(Tensor, "__r" + dunder[2:], r)
    for dunder, name in dict(__neg__="neg", __invert__="bitwise_not", __abs__="abs").items():
        f = T.get(name) or OPS.get(name)
        if f is not None: setattr(Tensor, dunder, (lambda f: lambda a: f(a))(f))
    if "getitem" in T:
        Tensor.__getitem__ = lambda s, k: T["getitem"](s, k)
        def si(s, k, v): s._assign(T["setitem"](s, k, v))
        Tensor.__setitem__ = si
    for name in list(T):
        f = T[name]
        if callable(f) and hasattr(Tensor, name) and not hasattr(Tensor, name + "_") and not name.startswith("_"):
            setattr(Tensor, name + "_", (lambda f: lambda s, *a, **k: s._assign(f(s, *a, **k)))(f))
    for d, name in dict(__iadd__="add_", __isub__="sub_", __imul__="mul_", __itruediv__="div_", __ipow__="pow_").items():
        if hasattr(Tensor, name): setattr(Tensor, d, (lambda n: lambda s, o: getattr(s, n)(o))(name))
    Tensor.numel = lambda s: s.shape.numel()
    Tensor.size = lambda s, dim=None: s.shape if dim is None else s.shape[dim]
    Tensor.dim = lambda s: s.ndim
    Tensor.copy_ = lambda s, o, non_blocking=False: s._assign(T["expand"](o.to(s.dtype), *s.shape) if isinstance(o, Tensor) else T["full_like"](s, o))
    def to(self, *args, **kw):
        from distgrad import dtypes
        kind = kw.get("dtype")
        for a in args:
            if isinstance(a, dtypes.dtype) or a in (float, int, bool): kind = a
            elif isinstance(a, Tensor): kind = a.dtype
        if kind is None or dtypes.as_dtype(kind) is self.dtype: return self
        return OPS["cast"](self, dtype=dtypes.as_dtype(kind).name)
    Tensor.to = to
    from distgrad import dtypes
    for n, d in dict(float=dtypes.float32, double=dtypes.float64, half=dtypes.float16, long=dtypes.int64, int=dtypes.int32, bool=dtypes.bool_).items():
        setattr(Tensor, n, (lambda d: lambda s: s.to(d))(d))
    Tensor.is_floating_point = lambda s: s.dtype.is_floating_point
    Tensor.type = lambda s, t=None: s.to(t)
    Tensor.zero_ = lambda s: s._assign(T["zeros_like"](s))
    Tensor.fill_ = lambda s, v: s._assign(T["full_like"](s, v))
    Tensor.element_size = lambda s: s.dtype.itemsize
    Tensor.is_complex = lambda s: s.dtype.is_complex
    Tensor.data_ptr = lambda s: id(s._node)
    Tensor.nelement = Tensor.numel
    Tensor.is_contiguous = lambda s, *a, **k: True
    Tensor.T = property(lambda s: T["permute"](s, tuple(range(s.ndim))[::-1]))
    Tensor.mT = property(lambda s: T["transpose"](s, -2, -1))
