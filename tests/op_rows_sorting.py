"""Rows of sorting, selection and counting."""

from __future__ import annotations

from op_db import booleans, constant, distinct, integers, normal, row

NAN = float("nan")

ROWS = [
    row("sort", lambda T, x: T.sort(x, dim=1), [distinct(4, 6)], [distinct(3, 5, 2)], [integers(0, 4, 5, 9)]),
    row(
        "sort_first",
        lambda T, x: T.sort(x, dim=0, descending=True),
        [distinct(6, 3)],
        [distinct(5)],
        [integers(0, 3, 12)],
        [booleans(9)],
        [constant([1.0, NAN, 3.0, NAN, -1.0])],
    ),
    row("sort_nan", lambda T, x: T.sort(x), [constant([1.0, NAN, 3.0, NAN, -1.0])], [constant(2.0)], [normal(0, 3)]),
    row("argsort", lambda T, x: T.argsort(x, dim=0), [distinct(6, 3)], [integers(0, 4, 9)]),
    row("argsort_stable", lambda T, x: T.argsort(x, dim=-1, descending=True, stable=True), [integers(0, 4, 3, 9)]),
    row("msort", lambda T, x: T.msort(x), [distinct(6, 3)]),
    row("topk", lambda T, x: T.topk(x, 3), [distinct(4, 7)], [distinct(8)]),
    row("topk_smallest", lambda T, x: T.topk(x, 2, dim=0, largest=False), [distinct(7, 3)]),
    row("topk_long_rows", lambda T, x: T.topk(x, 5), [distinct(3, 400)], gradgrad=False, float32=False),
    row("topk_nan", lambda T, x: T.topk(x, 2), [constant([1.0, NAN, 5.0])]),
    row("kthvalue", lambda T, x: T.kthvalue(x, 2, dim=1), [distinct(4, 6)]),
    row("kthvalue_keepdim", lambda T, x: T.kthvalue(x, 3, dim=0, keepdim=True), [distinct(6, 4)]),
    row(
        "mode",
        lambda T, x: T.mode(x, dim=1),
        [integers(0, 3, 6, 7)],
        [constant([[1.0, 2, 2, 1, 3], [5, 5, 1, 1, 0]], "float64", True)],
    ),
    row("unique", lambda T, x: T.unique(x, return_inverse=True, return_counts=True), [integers(0, 5, 4, 6)]),
    row("unique_dim", lambda T, x: T.unique(x, return_inverse=True, return_counts=True, dim=0), [integers(0, 2, 8, 2)]),
    row(
        "unique_consecutive",
        lambda T, x: T.unique_consecutive(x, return_inverse=True, return_counts=True),
        [integers(0, 2, 12)],
        [integers(0, 2, 4, 5)],
        [integers(0, 2, 0)],
    ),
    row(
        "unique_consecutive_dim",
        lambda T, x: T.unique_consecutive(x, return_counts=True, dim=1),
        [integers(0, 2, 1, 9)],
    ),
    row(
        "searchsorted",
        lambda T, s, v: T.searchsorted(s, v),
        [constant([1.0, 2, 2, 5]), constant([[0.0, 2, 3], [6, 1, 2]])],
        [constant([[1.0, 2, 3], [4, 5, 6]]), constant([[2.0, 0], [5, 9]])],
        [constant([1.0, 2]), 1.5],
    ),
    row(
        "searchsorted_right",
        lambda T, s, v: T.searchsorted(s, v, right=True, out_int32=True),
        [constant([1, 2, 2, 5], "int64"), integers(0, 7, 9)],
    ),
    row(
        "searchsorted_sorter",
        lambda T, s, v, o: T.searchsorted(s, v, sorter=o),
        [constant([5.0, 1, 2]), constant([0.0, 2, 3]), constant([1, 2, 0], "int64")],
    ),
    row("bucketize", lambda T, v, b: T.bucketize(v, b), [normal(5, 3), constant([-1.0, 0, 0.5])], grad=False),
    row("bincount", lambda T, x: T.bincount(x, minlength=4), [integers(0, 7, 20)], [constant([], "int64")]),
    row(
        "bincount_weights",
        lambda T, x, w: T.bincount(x, w),
        [integers(0, 7, 20), normal(20)],
        [integers(0, 7, 9), integers(0, 5, 9)],
        grad=False,
    ),
    row("histc", lambda T, x: T.histc(x, bins=5, min=-1, max=1), [normal(40)], grad=False),
    row("histc_range", lambda T, x: T.histc(x, bins=4), [normal(6, 5)], grad=False),
]
