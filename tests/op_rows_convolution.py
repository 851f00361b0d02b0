"""Rows of convolutions, transposed convolutions and patches."""

from __future__ import annotations

from op_db import normal, row

ROWS = [
    row("conv1d", lambda T, x, w, b: T.nn.functional.conv1d(x, w, b, stride=2, padding=1),
        [normal(4, 3, 8), normal(5, 3, 3), normal(5)]),
    row("conv1d_same", lambda T, x, w: T.nn.functional.conv1d(x, w, padding="same", dilation=2),
        [normal(3, 2, 7), normal(4, 2, 2)]),
    row("conv2d", lambda T, x, w, b: T.nn.functional.conv2d(x, w, b, padding=1),
        [normal(3, 2, 5, 4), normal(4, 2, 3, 3), normal(4)]),
    row("conv2d_strided", lambda T, x, w: T.nn.functional.conv2d(x, w, None, (2, 1), (0, 2), (1, 2)),
        [normal(2, 3, 6, 5), normal(2, 3, 2, 3)], [normal(0, 3, 6, 5), normal(2, 3, 2, 3)]),
    row("conv2d_pointwise", lambda T, x, w: T.nn.functional.conv2d(x, w), [normal(3, 4, 2, 3), normal(2, 4, 1, 1)]),
    row("conv2d_groups", lambda T, x, w, b: T.nn.functional.conv2d(x, w, b, padding="same", groups=3),
        [normal(2, 6, 4, 4), normal(9, 2, 3, 1), normal(9)]),
    row("conv2d_depthwise", lambda T, x, w: T.nn.functional.conv2d(x, w, stride=2, groups=4),
        [normal(2, 4, 5, 5), normal(4, 1, 3, 3)]),
    row("conv2d_unbatched", lambda T, x, w: T.nn.functional.conv2d(x, w), [normal(3, 5, 4), normal(2, 3, 2, 2)]),
    row("conv3d", lambda T, x, w: T.nn.functional.conv3d(x, w, padding=1),
        [normal(2, 2, 3, 4, 3), normal(3, 2, 2, 3, 2)]),
    row("conv_transpose1d", lambda T, x, w, b: T.nn.functional.conv_transpose1d(x, w, b, 2, 1, 1),
        [normal(4, 3, 5), normal(3, 2, 3), normal(2)]),
    row("conv_transpose2d", lambda T, x, w, b: T.nn.functional.conv_transpose2d(x, w, b, stride=2, padding=1),
        [normal(3, 2, 3, 4), normal(2, 3, 4, 3), normal(3)]),
    row("conv_transpose2d_groups", lambda T, x, w: T.nn.functional.conv_transpose2d(
        x, w, None, (1, 2), (1, 0), (1, 0), 2, (3, 1)), [normal(2, 4, 4, 3), normal(4, 3, 2, 2)]),
    row("conv_transpose3d", lambda T, x, w: T.nn.functional.conv_transpose3d(x, w, stride=(1, 2, 1)),
        [normal(2, 2, 2, 3, 2), normal(2, 3, 2, 2, 3)]),
    row("nn_unfold", lambda T, x: T.nn.functional.unfold(x, (2, 3), padding=1, stride=(1, 2)), [normal(3, 2, 4, 5)],
        [normal(2, 4, 3)]),
    row("nn_unfold_dilated", lambda T, x: T.nn.functional.unfold(x, 2, dilation=2), [normal(2, 3, 5, 4)]),
    row("nn_fold", lambda T, x: T.nn.functional.fold(x, (4, 5), (2, 3), padding=1, stride=(1, 2)),
        [normal(3, 12, 15)], [normal(6, 15)]),
]
