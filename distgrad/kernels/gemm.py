"""The call of a BLAS's product of float32 matrices from compiled code, which costs about a microsecond."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types

from distgrad.kernels.compiling import kernel

_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112  # as cblas calls them
intrinsic: Any = extending.intrinsic  # what it decorates takes one argument less


@intrinsic
def _sgemm(typing: Any, address: Any, a: Any, b: Any, out: Any, turn_a: Any, turn_b: Any, inner: Any) -> Any:
    """Calls the cblas_sgemm at an address: out = a @ b of C-ordered arrays, each of the first two turned or not."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        small, size, number = ir.IntType(32), ir.IntType(64), ir.FloatType()
        place = number.as_pointer()
        function = ir.FunctionType(
            ir.VoidType(), [small] * 3 + [size] * 3 + [number, place, size, place, size, number, place, size]
        )
        x, y, z = (context.make_array(kind)(context, builder, value)
                   for kind, value in zip(signature.args[1:4], args[1:4]))

        def columns(array: Any) -> Any:
            return builder.extract_value(array.shape, 1)

        def turned(flag: Any) -> Any:
            return builder.select(flag, small(_TRANSPOSED), small(_AS_IS))

        rows = builder.extract_value(z.shape, 0)
        builder.call(builder.inttoptr(args[0], function.as_pointer()), [
            small(_ROW_MAJOR), turned(args[4]), turned(args[5]), rows, columns(z), args[6],
            number(1.0), x.data, columns(x), y.data, columns(y), number(0.0), z.data, columns(z),
        ])
        return context.get_dummy_value()

    return types.void(types.int64, a, b, out, types.boolean, types.boolean, types.int64), code


@kernel("int 2 2 2 bool bool", (types.float32,))
def multiply(address: Any, a: Any, b: Any, out: Any, turn_a: Any, turn_b: Any) -> Any:
    """Writes the product of two matrices, each turned or not, into `out`; `address` is that of the library's cblas_sgemm.

    Gives False, and does nothing, for a matrix and its transpose: numpy takes half the time for these.
    """
    if turn_a != turn_b and a.ctypes.data == b.ctypes.data and a.shape == b.shape:
        return False
    _sgemm(address, a, b, out, turn_a, turn_b, a.shape[0] if turn_a else a.shape[1])
    return True
