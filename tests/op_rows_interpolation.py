"""Rows of resizing, sampling at positions, and moving channels to pixels."""

from __future__ import annotations

from op_db import normal, row, uniform

ROWS = [
    row("interpolate_nearest", lambda T, x: T.nn.functional.interpolate(x, scale_factor=1.7), [normal(3, 2, 5)],
        [normal(2, 3, 4, 3)], [normal(2, 1, 2, 3, 2)]),
    row("interpolate_nearest_exact", lambda T, x: T.nn.functional.interpolate(x, (3, 7), mode="nearest-exact"),
        [normal(3, 2, 5, 4)]),
    row("interpolate_linear", lambda T, x: T.nn.functional.interpolate(x, 7, mode="linear"), [normal(3, 2, 4)]),
    row("interpolate_bilinear", lambda T, x: T.nn.functional.interpolate(
        x, scale_factor=(2, 0.6), mode="bilinear", align_corners=False), [normal(2, 3, 3, 5)]),
    row("interpolate_bilinear_aligned", lambda T, x: T.nn.functional.interpolate(
        x, (5, 3), mode="bilinear", align_corners=True), [normal(2, 3, 3, 4)]),
    row("interpolate_bicubic", lambda T, x: T.nn.functional.interpolate(
        x, scale_factor=1.6, mode="bicubic", recompute_scale_factor=True), [normal(2, 2, 4, 3)]),
    row("interpolate_trilinear", lambda T, x: T.nn.functional.interpolate(x, (3, 2, 5), mode="trilinear"),
        [normal(2, 2, 2, 3, 3)]),
    row("interpolate_area", lambda T, x: T.nn.functional.interpolate(x, (2, 3), mode="area"), [normal(2, 3, 5, 4)]),
    row("interpolate_antialias", lambda T, x: [
        T.nn.functional.interpolate(x, (3, 5), mode=mode, antialias=True, align_corners=aligned)
        for mode in ("bilinear", "bicubic") for aligned in (False, True)], [normal(2, 2, 7, 4)]),
    row("grid_sample", lambda T, x, g: T.nn.functional.grid_sample(x, g, align_corners=False),
        [normal(3, 2, 4, 5), uniform(-1.2, 1.2, 3, 3, 2, 2)]),
    row("grid_sample_volume", lambda T, x, g: T.nn.functional.grid_sample(
        x, g, padding_mode="border", align_corners=True),
        [normal(2, 2, 2, 3, 2), uniform(-1.2, 1.2, 2, 1, 2, 2, 3)], gradgrad=False),
    row("grid_sample_reflection", lambda T, x, g: T.nn.functional.grid_sample(x, g, "bilinear", "reflection", False),
        [normal(2, 2, 4, 3), uniform(-2.5, 2.5, 2, 3, 3, 2)], gradgrad=False),
    row("grid_sample_nearest", lambda T, x, g: T.nn.functional.grid_sample(
        x, g.detach(), "nearest", align_corners=True), [normal(3, 2, 4, 5), uniform(-1.2, 1.2, 3, 3, 2, 2)]),
    row("grid_sample_bicubic", lambda T, x, g: T.nn.functional.grid_sample(x, g, "bicubic", "border", False),
        [normal(2, 2, 4, 5), uniform(-1.2, 1.2, 2, 2, 3, 2)], gradgrad=False),
    row("affine_grid", lambda T, m: T.nn.functional.affine_grid(m, (3, 1, 4, 5), align_corners=False),
        [normal(3, 2, 3)]),
    row("affine_grid_3d", lambda T, m: T.nn.functional.affine_grid(m, (2, 1, 2, 3, 4), align_corners=True),
        [normal(2, 3, 4)]),
    row("pixel_shuffle", lambda T, x: T.nn.functional.pixel_shuffle(x, 2), [normal(3, 8, 2, 3)], [normal(4, 3, 2)]),
    row("pixel_unshuffle", lambda T, x: T.nn.functional.pixel_unshuffle(x, 2), [normal(3, 2, 4, 6)], [normal(3, 2, 4)]),
    row("channel_shuffle", lambda T, x: T.nn.functional.channel_shuffle(x, 3), [normal(2, 6, 2, 2)]),
]
