"""Rows of indexing: functions by position, and every kind of key of x[key] and x[key] = value."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_db import booleans, constant, distinct, integers, normal, positive, row


def _set(T: Any, x: Any, key: Any, value: Any) -> Any:
    """Assigns into a copy, so that gradients of the base and of the value are seen."""
    y = x.clone()
    y[key] = value
    return y


def _long(*values: Any) -> Any:
    return constant(values[0] if len(values) == 1 else values, "int64")


ROWS = [
    # Functions by position
    row(
        "index_select",
        lambda T, x, i: T.index_select(x, 1, i),
        [normal(4, 6, 2), _long([5, 0, 5])],
        [normal(4, 6), constant([], "int64")],
    ),
    row("index_select_rows", lambda T, x, i: T.index_select(x, 0, i), [normal(7, 3), _long([5, 0, 5, 6, 1])]),
    row(
        "index_add",
        lambda T, x, i, s: T.index_add(x, 0, i, s, alpha=0.5),
        [normal(6, 3), _long([5, 0, 5]), normal(3, 3)],
    ),
    row("index_copy", lambda T, x, i, s: T.index_copy(x, 1, i, s), [normal(4, 6), _long([5, 0, 2]), normal(4, 3)]),
    row("index_fill", lambda T, x, i: T.index_fill(x, 0, i, -1.5), [normal(6, 3), _long([5, 0, 5])]),
    row(
        "index_reduce",
        lambda T, x, i, s: T.index_reduce(x, 0, i, s, "mean"),
        [normal(6, 3), _long([5, 0, 5]), normal(3, 3)],
        grad=False,
    ),
    row("embedding", lambda T, i, w: T.nn.functional.embedding(i, w), [integers(0, 9, 5, 3), normal(9, 4)]),
    row(
        "embedding_padding",
        lambda T, i, w: T.nn.functional.embedding(i, w, padding_idx=1),
        [_long([[1, 2], [0, 1], [2, 2]]), normal(4, 3)],
    ),
    row(
        "embedding_bag",
        lambda T, i, w: tuple(
            T.nn.functional.embedding_bag(i, w, mode=mode, padding_idx=1) for mode in ("sum", "mean", "max")
        ),
        [integers(0, 9, 5, 3), normal(9, 4)],
        [constant([[1, 1], [1, 4], [0, 8]], "int64"), normal(9, 4)],
    ),
    row(
        "embedding_bag_offsets",
        lambda T, i, w, o: tuple(T.nn.functional.embedding_bag(i, w, o, mode=mode) for mode in ("sum", "mean", "max")),
        [integers(0, 9, 7), normal(9, 4), constant([0, 3, 3], "int64")],
    ),
    row(
        "embedding_bag_weights",
        lambda T, i, w, s: T.nn.functional.embedding_bag(i, w, per_sample_weights=s, mode="sum"),
        [integers(0, 9, 5, 3), normal(9, 4), normal(5, 3)],
        gradgrad=False,
    ),
    row(
        "embedding_by_frequency",
        lambda T, i, w: T.nn.functional.embedding(i, w, scale_grad_by_freq=True),
        [_long([[1, 2], [0, 1], [2, 2]]), normal(4, 3)],
        gradgrad=False,
    ),
    row("one_hot", lambda T, i: T.nn.functional.one_hot(i, 5), [integers(0, 5, 4, 3)]),
    row("one_hot_inferred", lambda T, i: T.nn.functional.one_hot(i), [integers(0, 5, 7)]),
    row(
        "gather",
        lambda T, x, i: T.gather(x, 1, i),
        [normal(4, 6), integers(0, 6, 4, 3)],
        [normal(4, 6), integers(0, 6, 3, 8)],
    ),
    row(
        "gather_first",
        lambda T, x, i: T.gather(x, 0, i),
        [normal(5, 4, 2), integers(0, 5, 7, 4, 2)],
        [normal(5, 4, 2), integers(0, 5, 2, 2, 1)],
    ),
    row("gather_0d", lambda T, x, i: T.gather(x, 0, i), [normal(), constant(0, "int64")]),
    row(
        "take_along_dim",
        lambda T, x, i: T.take_along_dim(x, i, dim=1),
        [normal(4, 6), integers(0, 6, 4, 3)],
        [normal(4, 6), integers(0, 6, 1, 3)],
    ),
    row("take_along_dim_flat", lambda T, x, i: T.take_along_dim(x, i), [normal(4, 6), integers(0, 24, 5)]),
    row(
        "scatter",
        lambda T, x, i, s: T.scatter(x, 1, i, s),
        [normal(4, 6), _long([[0, 2], [1, 3], [5, 0], [2, 4]]), normal(4, 2)],
    ),
    row(
        "scatter_part_of_src",
        lambda T, x, i, s: T.scatter(x, 1, i, s),
        [normal(4, 6), _long([[0, 2], [1, 3], [5, 0]]), normal(4, 3)],
        grad=False,
    ),
    row("scatter_number", lambda T, x, i: T.scatter(x, 0, i, 2.5), [normal(4, 6), integers(0, 4, 2, 6)]),
    row(
        "scatter_add",
        lambda T, x, i, s: T.scatter_add(x, 0, i, s),
        [normal(5, 4), integers(0, 5, 7, 4), normal(7, 4)],
        [normal(5, 4), integers(0, 5, 3, 2), normal(3, 2)],
        [integers(0, 9, 5), integers(0, 5, 7), integers(0, 9, 7)],
    ),
    row(
        "scatter_multiply",
        lambda T, x, i, s: T.scatter(x, 0, i, s, reduce="multiply"),
        [normal(5, 4), integers(0, 5, 7, 4), normal(7, 4)],
        grad=False,
    ),
    *(
        row(
            f"scatter_{how}_{own}",
            lambda T, x, i, s, how=how, own=own: T.scatter_reduce(x, 1, i, s, how, include_self=own),
            [distinct(4, 5), integers(0, 5, 4, 7), positive(4, 7)],
            gradgrad=how in ("sum", "mean"),
        )
        for how in ("sum", "prod", "mean", "amax", "amin")
        for own in (True, False)
    ),
    row(
        "scatter_prod_of_zeros",
        lambda T, x, i, s: T.scatter_reduce(x, 0, i, s * (s > 0), "prod"),
        [
            constant([1.5, 0.0, 2.0, 3.0], "float64", True),
            _long([0, 0, 1, 2, 2]),
            constant([0.0, 2, 3, -1, -2], "float64", True),
        ],
        gradgrad=False,
    ),
    row("take", lambda T, x, i: T.take(x, i), [normal(4, 6), integers(-24, 24, 3, 2)]),
    row("put", lambda T, x, i, s: x.put(i, s), [normal(4, 6), _long([3, 20, 7]), normal(3)]),
    row(
        "put_accumulate", lambda T, x, i, s: x.put(i, s, accumulate=True), [normal(4, 6), _long([3, 20, 3]), normal(3)]
    ),
    row(
        "index_put",
        lambda T, x, i, j, v: T.index_put(x, (i, j), v),
        [normal(4, 6), _long([3, 1]), _long([0, 5]), normal(2)],
    ),
    row(
        "index_put_accumulate",
        lambda T, x, i, v: T.index_put(x, (i,), v, accumulate=True),
        [normal(4, 6), _long([3, 1, 3]), normal(3, 6)],
        [normal(4, 6), _long([3, 1, 3]), normal(6)],
    ),
    row(
        "masked_fill",
        lambda T, x, m: T.masked_fill(x, m, -2.0),
        [normal(4, 6), booleans(4, 6)],
        [normal(4, 6), booleans(6)],
        [integers(0, 9, 4), booleans(3, 4)],
    ),
    row("masked_fill_tensor", lambda T, x, m, v: T.masked_fill(x, m, v), [normal(4, 6), booleans(4, 6), normal()]),
    row(
        "masked_select",
        lambda T, x, m: T.masked_select(x, m),
        [normal(4, 6), booleans(4, 6)],
        [normal(4, 6), booleans(6)],
    ),
    row("masked_scatter", lambda T, x, m, s: T.masked_scatter(x, m, s), [normal(4, 6), booleans(4, 6), normal(30)]),
    row(
        "nonzero", lambda T, m: T.nonzero(m), [booleans(4, 6)], [integers(0, 2, 5)], [constant(3.0)], [booleans(3, 1, 5)],
        [integers(0, 2, 2, 3, 4)], [booleans(0, 3)], [booleans(2, 0, 3)],
    ),
    row("nonzero_tuple", lambda T, m: T.nonzero(m, as_tuple=True), [booleans(4, 6)], [constant(3.0)], [booleans(2, 3, 4)]),
    row("argwhere", lambda T, m: T.argwhere(m), [booleans(4, 6)]),
    row("where_alone", lambda T, m: T.where(m), [booleans(4, 6)]),
    # Keys that give views
    row("getitem_int", lambda T, x: x[2], [normal(5, 3)], [normal(4)]),
    row("getitem_negative", lambda T, x: x[-1, -2], [normal(5, 3)], [normal(5, 3, 2)]),
    row("getitem_slice", lambda T, x: x[1:4], [normal(5, 3)], [normal(2)]),
    row("getitem_slices", lambda T, x: x[-3:, ::2, None], [normal(5, 6)], [normal(5, 6, 2)]),
    row("getitem_empty", lambda T, x: x[3:1], [normal(5, 3)]),
    row("getitem_ellipsis", lambda T, x: x[..., 1], [normal(5, 3)], [normal(4, 5, 3)]),
    row("getitem_none", lambda T, x: x[None, :, None, 1, None], [normal(5, 3)]),
    row("getitem_whole", lambda T, x: x[:], [normal(5, 3)]),
    row("getitem_all", lambda T, x: x[...], [normal(5, 3)], [normal()]),
    row("getitem_numpy_int", lambda T, x: x[np.int64(1)], [normal(5, 3)]),
    # Keys with index tensors
    row("getitem_list", lambda T, x: x[[4, 0, -1]], [normal(5, 3)]),
    row(
        "getitem_tensor",
        lambda T, x, i: x[i],
        [normal(5, 3), _long([4, 0, -1, 4])],
        [normal(5, 3), _long([[1, 2], [0, -5]])],
    ),
    row("getitem_numpy", lambda T, x: x[np.array([4, 0, -1])], [normal(5, 3)]),
    row("getitem_0d", lambda T, x, i: x[i], [normal(5, 3), constant(-2, "int64")], [normal(5), constant(1, "int64")]),
    row(
        "getitem_0d_and_tensor",
        lambda T, x, i, j: x[i, :, j],
        [normal(5, 3, 4), constant(-2, "int64"), _long([0, 3, 3])],
    ),
    row(
        "getitem_pair",
        lambda T, x, i, j: x[i, j],
        [normal(5, 3), _long([4, 0, -1]), _long([0, 1, -1])],
        [normal(5, 3, 2), _long([[4], [0]]), _long([0, 1, 2])],
    ),
    row("getitem_neighbours", lambda T, x, i, j: x[:, i, j], [normal(2, 5, 3), _long([4, 0, -1]), _long([0, 1, -1])]),
    row("getitem_apart", lambda T, x, i, j: x[i, :, j], [normal(5, 2, 3), _long([4, 0, -1]), _long([0, 1, -1])]),
    row(
        "getitem_apart_by_none", lambda T, x, i, j: x[i, None, j], [normal(5, 3), _long([4, 0, -1]), _long([0, 1, -1])]
    ),
    row("getitem_int_and_tensor", lambda T, x, i: x[1, :, i], [normal(3, 4, 5), _long([0, 1, 1])]),
    row("getitem_tensor_int_tensor", lambda T, x, i: x[i, 0, i], [normal(3, 4, 5), _long([0, 1, 1])]),
    row("getitem_slice_and_tensor", lambda T, x, i: x[1:3, i], [normal(4, 5, 2), _long([0, 1, 1])]),
    row("getitem_list_and_tensor", lambda T, x, i: x[[0, 1, 2], i], [normal(4, 5), _long([0, 1, 1])]),
    row("getitem_empty_list", lambda T, x: x[[]], [normal(4, 5)]),
    row("getitem_rows_of_targets", lambda T, x, i: x[T.arange(6), i], [normal(6, 4), integers(0, 4, 6)]),
    # Masks
    row("getitem_mask", lambda T, x, m: x[m], [normal(4, 5), booleans(4)], [normal(4, 5), booleans(4, 5)]),
    row(
        "getitem_second_mask",
        lambda T, x, m: x[:, m],
        [normal(4, 5, 2), booleans(5)],
        [normal(3, 4, 5), booleans(4, 5)],
    ),
    row("getitem_mask_list", lambda T, x: x[[True, False, True]], [normal(3, 5)]),
    row("getitem_mask_and_int", lambda T, x, m: x[m, 1], [normal(4, 5), booleans(4)]),
    row("getitem_true", lambda T, x: x[True], [normal(4, 5)], [normal()]),
    row("getitem_false", lambda T, x: x[False], [normal(4, 5)]),
    row("getitem_true_and_tensor", lambda T, x, i: x[:, True, i], [normal(4, 5), _long([0, 1, 1])]),
    row("getitem_bytes", lambda T, x: x[T.tensor([1, 0, 1], dtype=T.uint8)], [normal(3, 5)]),
    # Assignment
    row(
        "setitem_int",
        lambda T, x, v: _set(T, x, 2, v),
        [normal(5, 3), normal(3)],
        [normal(5, 3), normal(1, 1, 3)],
        [normal(5, 3), 2.5],
        [normal(5, 3), normal()],
        [integers(0, 9, 5), 2],
    ),
    row(
        "setitem_slices",
        lambda T, x, v: _set(T, x, (slice(1, 4), slice(None, None, 2)), v),
        [normal(5, 4), normal(3, 2)],
        [normal(5, 4), normal(2)],
        [normal(5, 4), -1.0],
    ),
    row("setitem_none", lambda T, x, v: _set(T, x, (None, slice(1, 3), Ellipsis), v), [normal(5, 4), normal(1, 2, 4)]),
    row("setitem_whole", lambda T, x, v: _set(T, x, slice(None), v), [normal(5, 4), normal(4)], [normal(5, 4), 1.0]),
    row("setitem_element", lambda T, x, v: _set(T, x, (1, -1), v), [normal(5, 4), normal(1)], [normal(5, 4), 3.0]),
    row(
        "setitem_tensor",
        lambda T, x, i, v: _set(T, x, i, v),
        [normal(5, 3), _long([4, 0, -2]), normal(3, 3)],
        [normal(5, 3), _long([4, 0]), normal(3)],
        [normal(5, 3), _long([4, 0]), normal(1, 1, 2, 3)],
        [normal(5, 3), _long([4, 0, 4]), 7.0],
        [normal(5, 3), constant(2, "int64"), normal(3)],
    ),
    row(
        "setitem_pair",
        lambda T, x, i, j, v: _set(T, x, (i, j), v),
        [normal(5, 3), _long([4, 0]), _long([0, -1]), normal(2)],
    ),
    row(
        "setitem_apart",
        lambda T, x, i, j, v: _set(T, x, (i, slice(None), j), v),
        [normal(5, 2, 3), _long([4, 0]), _long([0, -1]), normal(2, 2)],
    ),
    row(
        "setitem_slice_and_tensor",
        lambda T, x, i, v: _set(T, x, (slice(1, 3), i), v),
        [normal(5, 4), _long([3, 0]), normal(2, 2)],
    ),
    row(
        "setitem_0d_and_tensor",
        lambda T, x, i, j, v: _set(T, x, (i, slice(None), j), v),
        [normal(5, 3, 4), constant(-2, "int64"), _long([0, 3]), normal(3, 2)],
    ),
    row(
        "setitem_mask",
        lambda T, x, m, v: _set(T, x, m, v),
        [normal(4, 5), booleans(4, 5), 0.5],
        [normal(4, 5), booleans(4), 0.5],
        [normal(4, 5), booleans(4, 5), normal()],
        [normal(4, 5), booleans(4), normal(5)],
        [integers(0, 5, 6), booleans(6), 2.7],
    ),
    row(
        "setitem_second_mask",
        lambda T, x, m, v: _set(T, x, (slice(None), m), v),
        [normal(4, 5), booleans(5), 0.5],
        [normal(4, 5, 2), booleans(5), normal(2)],
        [normal(3, 4, 5), booleans(4, 5), 2.0],
    ),
    row("setitem_true", lambda T, x: _set(T, x, True, 4.0), [normal(4, 5)]),
    row("setitem_false", lambda T, x: _set(T, x, False, 4.0), [normal(4, 5)]),
    row("setitem_casts", lambda T, x, v: _set(T, x, 1, v), [integers(0, 9, 4, 3), normal(3)], grad=False),
]
