"""Rows of ops between real and complex tensors."""

from __future__ import annotations

from typing import Any

from op_db import normal, positive, row


def _logs_of_sums(T: Any, x: Any) -> Any:
    z = T.view_as_complex(x)
    found = T.logsumexp(z, 1), T.logaddexp(z, z.flip(0)), T.logcumsumexp(z, 1)
    return tuple(T.view_as_real(part) for part in found)


def _cholesky(T: Any, x: Any, upper: bool) -> Any:
    z = T.view_as_complex(x)
    return T.view_as_real(T.linalg.cholesky(z @ z.mH + T.eye(3, dtype=z.dtype), upper=upper))


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
    row("logs_of_complex_sums", _logs_of_sums, [normal(4, 3, 2)]),
    row("cholesky_of_complex", _cholesky, [normal(3, 3, 2), False], [normal(2, 3, 3, 2), True], float32=False),
    row("rms_norm_of_complex", lambda T, x: T.view_as_real(T.nn.functional.rms_norm(T.view_as_complex(x), (3,), eps=0.1)),
        [normal(4, 3, 2)]),
    row("cdouble", lambda T, x: T.view_as_real(x.cdouble() * 2j), [normal(4, 3)], float32=False),
]
