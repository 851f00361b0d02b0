"""Rows of pooling: maxima, means, p-norms, adaptive windows and unpooling."""

from __future__ import annotations

from op_db import distinct, normal, positive, row, uniform

ROWS = [
    row("max_pool1d", lambda T, x: T.nn.functional.max_pool1d(x, 3, 2, 1, ceil_mode=True), [distinct(4, 3, 8)],
        [distinct(3, 7)]),
    row("max_pool2d", lambda T, x: T.nn.functional.max_pool2d(x, 2), [distinct(3, 2, 4, 6)], [distinct(2, 5, 4)]),
    row("max_pool2d_indices", lambda T, x: T.nn.functional.max_pool2d(
        x, (3, 2), 2, (1, 0), (1, 2), return_indices=True), [distinct(2, 3, 6, 5)]),
    row("max_pool3d", lambda T, x: T.nn.functional.max_pool3d(x, 2, (1, 2, 1)), [distinct(2, 2, 3, 4, 3)]),
    row("adaptive_max_pool1d", lambda T, x: T.nn.functional.adaptive_max_pool1d(x, 3), [distinct(3, 2, 7)]),
    row("adaptive_max_pool2d", lambda T, x: T.nn.functional.adaptive_max_pool2d(x, (3, None), return_indices=True),
        [distinct(2, 3, 5, 4)], [distinct(2, 6, 4)]),
    row("adaptive_max_pool3d", lambda T, x: T.nn.functional.adaptive_max_pool3d(x, 2), [distinct(2, 2, 3, 4, 5)]),
    row("fractional_max_pool2d", lambda T, x, u: T.nn.functional.fractional_max_pool2d(
        x, 2, (3, 2), return_indices=True, _random_samples=u.detach()), [distinct(3, 2, 6, 5), uniform(0, 1, 3, 2, 2)]),
    row("fractional_max_pool3d", lambda T, x, u: T.nn.functional.fractional_max_pool3d(
        x, (2, 1, 2), (2, 3, 1), _random_samples=u.detach()), [distinct(2, 2, 4, 5, 3), uniform(0, 1, 2, 2, 3)]),
    row("max_unpool1d", lambda T, x: T.nn.functional.max_unpool1d(
        x * 2, T.nn.functional.max_pool1d(x.repeat_interleave(2, -1), 2, return_indices=True)[1], 2),
        [distinct(3, 2, 4)]),
    row("max_unpool2d", lambda T, x: T.nn.functional.max_unpool2d(
        *T.nn.functional.max_pool2d(x, 2, return_indices=True), 2, output_size=(5, 7)), [distinct(3, 2, 5, 7)]),
    row("max_unpool3d", lambda T, x: T.nn.functional.max_unpool3d(
        *T.nn.functional.max_pool3d(x, 2, return_indices=True), 2), [distinct(2, 2, 2, 4, 4)]),
    row("avg_pool1d", lambda T, x: T.nn.functional.avg_pool1d(x, 3, 2, 1, True), [normal(4, 3, 8)], [normal(3, 7)]),
    row("avg_pool2d", lambda T, x: T.nn.functional.avg_pool2d(x, (3, 2), 2, (1, 0), True, False), [normal(3, 2, 6, 5)]),
    row("avg_pool2d_divisor", lambda T, x: T.nn.functional.avg_pool2d(x, 2, 1, 1, divisor_override=3),
        [normal(2, 3, 3, 4)]),
    row("avg_pool3d", lambda T, x: T.nn.functional.avg_pool3d(x, 2, 1, 1, False, True), [normal(2, 2, 3, 2, 3)]),
    row("adaptive_avg_pool1d", lambda T, x: T.nn.functional.adaptive_avg_pool1d(x, 3), [normal(3, 2, 7)],
        [normal(2, 6)]),
    row("adaptive_avg_pool2d", lambda T, x: T.nn.functional.adaptive_avg_pool2d(x, (3, None)), [normal(2, 3, 5, 4)]),
    row("adaptive_avg_pool2d_one", lambda T, x: T.nn.functional.adaptive_avg_pool2d(x, 1), [normal(2, 3, 5, 4)]),
    row("adaptive_avg_pool3d", lambda T, x: T.nn.functional.adaptive_avg_pool3d(x, (2, 3, 2)), [normal(2, 2, 3, 4, 4)]),
    row("lp_pool1d", lambda T, x: T.nn.functional.lp_pool1d(x, 3.0, 3, 2), [positive(3, 2, 7)]),
    row("lp_pool2d", lambda T, x: T.nn.functional.lp_pool2d(x, 2, (2, 3), 1, True), [normal(2, 3, 4, 5)]),
    row("lp_pool3d", lambda T, x: T.nn.functional.lp_pool3d(x, 2, 2), [positive(2, 2, 4, 2, 3)]),
]
