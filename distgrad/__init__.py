"""distgrad (development namespace, rewritten when every family is there)."""
import importlib as _importlib

from distgrad import tensor as _tensor_module
from distgrad.device import device
from distgrad.dtypes import (ALL as _ALL, bfloat16, bool_ as bool, complex64, complex128, float16, float32, float64, int8,
                             int16, int32, int64, uint8, promote_types)
from distgrad.dtypes import dtype
from distgrad.dispatch import set_default_dtype
from distgrad.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from distgrad.tensor import Size, Tensor, backward as _backward, grad as _grad

float, double, half, long, int, short = float32, float64, float16, int64, int32, int16
from distgrad.functions.data import as_tensor, from_numpy, tensor
from distgrad import methods as _methods

for _name in ("elementwise activation reduction movement cumulative contraction indexing sorting creation random "
              "normalization loss linalg").split():
    for _package in ("ops", "functions"):
        try:
            _module = _importlib.import_module(f"distgrad.{_package}.{_name}")
        except ModuleNotFoundError as _e:
            if not _e.name.startswith("distgrad"):
                raise
            print("missing", _e.name)
            continue
        if _package == "functions":
            for _n in getattr(_module, "__all__", ()):
                globals()[_n] = getattr(_module, _n)
                if not hasattr(Tensor, _n):
                    setattr(Tensor, _n, getattr(_module, _n))
_methods.attach(globals())
try:
    from distgrad import random as _random
    for _n in ("manual_seed", "seed", "initial_seed", "Generator", "get_rng_state", "set_rng_state"):
        globals()[_n] = getattr(_random, _n)
    from distgrad import nn, optim, utils
    from distgrad.nn import functional as _F
except ImportError as _e:
    print("missing", _e)
class autograd:
    grad = staticmethod(_grad); backward = staticmethod(_backward)
from distgrad.runtime.session import *
from distgrad.runtime.map_shards import map_shards
from distgrad.runtime.session import init, shutdown, is_initialized, shard, replicate, stats, explain, synchronize
from distgrad.placement import Shard, Replicate, Partial
