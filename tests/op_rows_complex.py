"""Rows of ops between real and complex tensors."""

from op_db import normal, positive, row

ROWS = [
    row("complex", lambda T, a, b: T.view_as_real(T.complex(a, b) * T.complex(b, a)), [normal(4, 3), normal(4, 3)]),
    row("complex_broadcast", lambda T, a, b: T.view_as_real(T.complex(a, b)), [normal(4, 3), normal(3)]),
    row("polar", lambda T, r, t: T.view_as_real(T.polar(r, t)), [positive(4, 3), normal(4, 3)]),
    row("view_as_complex", lambda T, x: T.view_as_real(T.view_as_complex(x) ** 2), [normal(4, 3, 2)]),
    row("view_as_real", lambda T, x: T.view_as_real(T.view_as_complex(x).sin()), [normal(4, 2)]),
    row("angle", lambda T, x: T.angle(T.view_as_complex(x)), [normal(4, 3, 2)]),
    row("angle_of_real", lambda T, x: T.angle(x), [normal(4, 3)]),
    row("imag_of_product", lambda T, x: (T.view_as_complex(x) * (1 - 2j)).imag, [normal(4, 3, 2)]),
    row("abs_of_complex", lambda T, x: T.view_as_complex(x).abs(), [normal(4, 3, 2)]),
    row("conj_physical", lambda T, x: T.view_as_real(T.conj_physical(T.view_as_complex(x))), [normal(4, 3, 2)]),
    row("cdouble", lambda T, x: T.view_as_real(x.cdouble() * 2j), [normal(4, 3)], float32=False),
]
