"""Rows of the functions that rearrange tensors."""

from __future__ import annotations

import numpy as np
from op_db import booleans, constant, integers, normal, row

EMPTY = normal(0, 3)
FLOAT32 = constant(np.linspace(-3, 3, 6).reshape(2, 3), "float32")
HALF = constant(np.linspace(-3, 3, 6).reshape(2, 3), "float16")
COMPLEX = constant([[1 + 2j, -0.5j], [3.0, -1 - 1j], [0.5 + 0.1j, 2j]], "complex128", differentiable=True)

SHAPES = [
    row("reshape", lambda T, x, shape: T.reshape(x, shape), [normal(6, 4), (2, 3, 4)], [normal(6, 4), (4, 6)],
        [normal(4, 3), (-1,)], [normal(12), (3, 4)], [normal(6, 1, 4, 5), (1, 24, -1)], [normal(1), ()],
        [EMPTY, (3, 0, 2)],
        [EMPTY, (0, 3, 1)], [integers(0, 9, 4, 3), (2, 2, 3)], [normal(), (1, 1)]),
    row("reshape_of_permuted", lambda T, x: x.permute(1, 0, 2).reshape(-1, 2) * 2.0, [normal(4, 3, 2)]),
    row("view", lambda T, x: x.view(3, -1), [normal(4, 3)]),
    row("view_dtype", lambda T, x, n: x.view(T.int64 if n else T.int32), [normal(4, 3), 1], [normal(4, 2), 0],
        grad=False,
        float32=False),
    row("view_as", lambda T, x, y: x.view_as(y) + x.reshape_as(y), [normal(4, 3), normal(6, 2)]),
    row("flatten", lambda T, x, a, b: T.flatten(x, a, b), [normal(4, 3, 2), 0, -1], [normal(4, 3, 2), 1, 2],
        [normal(), 0, -1]),
    row("unflatten", lambda T, x: T.unflatten(x, 1, (3, -1)), [normal(4, 6)]),
    row("ravel", lambda T, x: T.ravel(x), [normal(4, 3)], [normal()]),
    row("squeeze", lambda T, x, dim: T.squeeze(x) if dim is None else T.squeeze(x, dim), [normal(4, 1, 3, 1), None],
        [normal(4, 1, 3), 1], [normal(4, 1, 3, 1), (1, 3)], [normal(4, 3), 0], [normal(), 0]),
    row("unsqueeze", lambda T, x, dim: T.unsqueeze(x, dim), [normal(4, 3), 0], [normal(4, 3), -1], [normal(4, 3), 1],
        [normal(), 0]),
    row("permute", lambda T, x, dims: T.permute(x, dims), [normal(4, 3, 2), (2, 0, 1)], [normal(4, 3, 2), (-1, 1, 0)],
        [normal(), ()]),
    row("transpose", lambda T, x: T.transpose(x, 0, -1), [normal(4, 3, 2)], [normal(5)]),
    row("swapaxes", lambda T, x: T.swapaxes(x, 0, 1) + T.swapdims(x, 0, 1), [normal(4, 3)]),
    row("t", lambda T, x: T.t(x), [normal(4, 3)], [normal(4)]),
    row("T_mT", lambda T, x: x.T @ x.mT.mT, [normal(4, 3)]),
    row("movedim", lambda T, x: T.movedim(x, (0, 1), (-1, 0)), [normal(4, 3, 2)]),
    row("moveaxis", lambda T, x: T.moveaxis(x, 0, 1), [normal(4, 3, 2)]),
    row("expand", lambda T, x, sizes: x.expand(*sizes) * 3.0, [normal(4, 1), (4, 3)], [normal(3), (4, -1)],
        [normal(1, 3), (2, 5, 3)], [normal(), (4,)], [normal(4, 3), (-1, -1)], [normal(1), (0,)]),
    row("expand_as", lambda T, x, y: x.expand_as(y) + 1.0, [normal(4, 1), normal(4, 3)]),
    row("broadcast_to", lambda T, x: T.broadcast_to(x, (4, 3)) + 1.0, [normal(3)]),
    row("broadcast_tensors", lambda T, a, b: T.broadcast_tensors(a, b), [normal(4, 1), normal(3)]),
    row("repeat", lambda T, x, n: x.repeat(n), [normal(4, 3), (2, 1)], [normal(4, 3), (2, 1, 3)], [normal(3), (0, 2)]),
    row("tile", lambda T, x: T.tile(x, (2,)), [normal(4, 3)]),
    row("repeat_interleave", lambda T, x, dim: T.repeat_interleave(x, 2, dim=dim), [normal(4, 3), None],
        [normal(4, 3), 0], [normal(4, 3), -1]),
    row("repeat_interleave_counts", lambda T, x, n: T.repeat_interleave(x, n, dim=0),
        [normal(3, 2), constant([2, 0, 1], "int64")]),
    row("complex_movement", lambda T, x: T.roll(T.conj(x.mT).reshape(-1).flip(0), 1) * x.reshape(-1), [COMPLEX]),
    row("clone", lambda T, x: T.clone(x), [normal(4, 3)], [normal()], [booleans(4)]),
    row("contiguous", lambda T, x: x.t().contiguous().view(-1), [normal(4, 3)]),
    row("stride", lambda T, x: (x.stride(), x.t().stride(), x[1:, ::2].stride(), x.expand(2, 4, 6).stride(),
                                x.t().reshape(2, 3, 4).stride(), x.unsqueeze(1).stride(), x.diagonal().stride()),
        [normal(4, 6)], grad=False),
]

JOINS = [
    row("cat", lambda T, a, b, dim: T.cat([a, b], dim), [normal(4, 3), normal(2, 3), 0],
        [normal(4, 3), normal(4, 1), 1],
        [EMPTY, normal(4, 3), 0], [normal(0), normal(4, 3), -1], [integers(0, 5, 2, 3), FLOAT32, 0], [HALF, FLOAT32, 1],
        [normal(4, 3), normal(4, 3), 0]),
    row("cat_of_three", lambda T, a, b, c: T.concat((a, b, c), axis=0), [normal(1, 2), normal(5, 2), normal(3, 2)]),
    row("stack", lambda T, a, b, dim: T.stack([a, b], dim), [normal(4, 3), normal(4, 3), 0],
        [normal(4, 3), normal(4, 3), -1], [normal(), normal(), 0]),
    row("hstack", lambda T, a, b: T.hstack([a, b]), [normal(4, 3), normal(4, 2)], [normal(4), normal()]),
    row("vstack", lambda T, a, b: T.vstack([a, b]), [normal(4, 3), normal(3)]),
    row("dstack", lambda T, a, b: T.dstack([a, b]), [normal(4, 3), normal(4, 3)], [normal(4), normal(4)]),
    row("column_stack", lambda T, a, b: T.column_stack([a, b]), [normal(4), normal(4, 3)]),
    row("block_diag", lambda T, a, b, c: T.block_diag(a, b, c), [normal(4, 3), normal(2), normal()]),
    row("meshgrid", lambda T, a, b, way: T.meshgrid(a, b, indexing=way), [normal(4), normal(3), "ij"],
        [normal(4), normal(3), "xy"]),
    row("cartesian_prod", lambda T, a, b: T.cartesian_prod(a, b), [normal(4), normal(3)]),
    row("atleast", lambda T, x: (T.atleast_1d(x), T.atleast_2d(x), T.atleast_3d(x)), [normal(4, 3)], [normal(4)],
        [normal()]),
]

PARTS = [
    row("narrow", lambda T, x, dim, start, n: T.narrow(x, dim, start, n), [normal(6, 3), 0, 1, 4],
        [normal(4, 5), 1, 2, 3],
        [normal(4, 3), 0, -2, 1], [normal(4, 3), 0, 4, 0]),
    row("select", lambda T, x, dim, i: T.select(x, dim, i), [normal(4, 3), 0, 2], [normal(4, 3), 1, -1],
        [normal(4), 0, 1]),
    row("unbind", lambda T, x, dim: T.unbind(x, dim), [normal(3, 4), 0], [normal(4, 3), 1]),
    row("split", lambda T, x, n, dim: T.split(x, n, dim), [normal(5, 3), 2, 0], [normal(4, 5), [1, 4], 1],
        [normal(4, 3), 9, 0]),
    row("chunk", lambda T, x, n, dim: T.chunk(x, n, dim), [normal(5, 3), 3, 0], [normal(4, 7), 3, -1], [EMPTY, 2, 0]),
    row("tensor_split", lambda T, x, n: T.tensor_split(x, n), [normal(5, 3), 3], [normal(5, 3), (1, 7)],
        [normal(5), (-1,)]),
    row("hvdsplit", lambda T, x: (*T.hsplit(x, 2), *T.vsplit(x, 2), *T.dsplit(x, [1])), [normal(4, 2, 3)]),
    row("slice_scatter", lambda T, x, y: T.slice_scatter(x, y, 0, 1, 6, 2), [normal(7, 3), normal(3, 3)]),
    row("slice_scatter_dim", lambda T, x, y: T.slice_scatter(x, y, 1, 1), [normal(4, 3), normal(4, 2)]),
    row("select_scatter", lambda T, x, y: T.select_scatter(x, y, 0, -1), [normal(4, 3), normal(3)]),
    row("diagonal", lambda T, x, k: T.diagonal(x, k), [normal(4, 3), 0], [normal(4, 5), 2], [normal(4, 5), -1],
        [normal(3, 3), 7]),
    row("diagonal_dims", lambda T, x: T.diagonal(x, 1, 2, 0), [normal(4, 2, 3)]),
    row("diagonal_scatter", lambda T, x, y: T.diagonal_scatter(x, y, 1, 1, 2), [normal(2, 3, 4), normal(2, 3)]),
    row("diag", lambda T, x, k: T.diag(x, k), [normal(4, 3), 1], [normal(4), 0], [normal(4), -2]),
    row("diag_embed", lambda T, x, k: T.diag_embed(x, k, 0, 2), [normal(4, 3), 0], [normal(4, 3), -1]),
    row("tril", lambda T, x, k: T.tril(x, k), [normal(5, 4), 0], [normal(3, 5, 4), 1], [normal(4, 4), -2],
        [booleans(4, 3), 0]),
    row("triu", lambda T, x, k: T.triu(x, k), [normal(5, 4), 0], [normal(3, 5, 4), 1], [normal(4, 4), -2],
        [integers(0, 9, 4, 3), 0]),
]

TURNS = [
    row("flip", lambda T, x, dims: T.flip(x, dims), [normal(4, 3), (0,)], [normal(4, 3), (0, -1)], [normal(4, 3), (1,)],
        [normal(4), ()]),
    row("flip_by_keyword", lambda T, x: T.flip(x, dims=(0, 1)) + x.flip(dims=[1]), [normal(4, 3)]),
    row("flipud_fliplr", lambda T, x: (T.flipud(x), T.fliplr(x)), [normal(4, 3)]),
    row("rot90", lambda T, x, k: T.rot90(x, k, (0, 1)), [normal(4, 3), 1], [normal(4, 3), 2], [normal(4, 3), -1],
        [normal(4, 3), 4]),
    row("roll", lambda T, x, n, dims: T.roll(x, n, dims), [normal(4, 3), 1, 0], [normal(4, 3), (2, -1), (0, 1)],
        [normal(4, 3), 5, None], [normal(5), -2, 0], [EMPTY, 1, 0]),
    row("unfold", lambda T, x, dim, size, step: x.unfold(dim, size, step) * 1.0, [normal(6, 3), 0, 3, 2],
        [normal(4, 5), 1, 2, 1],
        [normal(4, 5), 1, 2, 3]),
]

PADS = [
    row("pad_constant", lambda T, x, widths, value: T.nn.functional.pad(x, widths, value=value),
        [normal(4, 3), (1, 2), 0.5], [normal(4, 3), (1, 2, 0, 1), 2.0], [normal(4, 3), (-1, 2), 7.0],
        [integers(0, 9, 4, 3), (1, 1, 1, 1), 3], [normal(4, 3), (0, 0), 0.0]),
    row("pad_edges", lambda T, x, widths, mode: T.nn.functional.pad(x, widths, mode),
        [normal(2, 4, 3), (1, 2), "reflect"], [normal(2, 4, 3), (3, 1), "circular"],
        [normal(2, 4, 3), (-1, 1), "circular"], [normal(2, 4, 3), (2, -1), "circular"],
        [normal(2, 4, 3), (5, 1), "replicate"],
        [normal(2, 4, 3), (1, 2, 2, 1), "reflect"], [normal(2, 4, 3), (-1, 1), "replicate"]),
]

ROWS = [*SHAPES, *JOINS, *PARTS, *TURNS, *PADS]
