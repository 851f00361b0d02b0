"""Rows of the losses: every reduction, weights, ignored targets, extra dims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from op_db import Array, constant, integers, normal, positive, row, uniform


def every(name: str, *args: Any, **options: Any) -> Callable[..., Any]:
    """Calls a loss with every reduction."""
    return lambda T, *inputs: [
        getattr(T.nn.functional, name)(*inputs, *args, reduction=reduction, **options)
        for reduction in ("none", "mean", "sum")
    ]


def signs(*shape: int) -> Array:
    """Random 1.0 and -1.0."""
    return Array(lambda r: r.choice([-1.0, 1.0], shape))


def zeros_and_ones(*shape: int) -> Array:
    """Random 0.0 and 1.0."""
    return Array(lambda r: r.choice([0.0, 1.0], shape))


def probabilities(*shape: int) -> Array:
    """Random distributions along dim 1 (dim 0 for one dim)."""

    def make(r: Any) -> Any:
        x = r.uniform(0.1, 1.0, shape)
        return x / x.sum(1 if len(shape) > 1 else 0, keepdims=True)

    return Array(make, True)


def weighted(name: str, **options: Any) -> Callable[..., Any]:
    """Calls a loss of (input, target, weight) with every reduction."""
    return lambda T, x, t, w: [
        getattr(T.nn.functional, name)(x, t, weight=w.detach(), reduction=reduction, **options)
        for reduction in ("none", "mean", "sum")
    ]


LABELS = constant([[3, 0, -1, 1], [0, 1, 2, 3], [-1, 1, 2, 3], [2, -1, 2, 0]], "int64")

LABEL_ROWS = constant([[1, 1, 2], [4, 3, 0], [0, 0, 0], [2, 2, 2]], "int64")


def ctc(T: Any, x: Any, targets: Any, frames: Any, lengths: Any) -> Any:
    """CTC losses without a reduction (impossible targets count 0), and their mean per label."""
    x = x.log_softmax(-1)
    losses = T.nn.functional.ctc_loss(x, targets, frames, lengths, reduction="none", zero_infinity=True)
    return losses, T.nn.functional.ctc_loss(x, targets, frames, lengths, zero_infinity=True)

ROWS = [
    row("mse_loss", every("mse_loss"), [normal(4, 3), normal(4, 3)]),
    row("mse_loss_weight", weighted("mse_loss"), [normal(4, 3), normal(4, 3), positive(4, 3)]),
    row("l1_loss", every("l1_loss"), [normal(4, 3), normal(4, 3)], gradgrad=False),
    row("smooth_l1_loss", every("smooth_l1_loss"), [normal(4, 3), normal(4, 3)]),
    row("smooth_l1_loss_beta", every("smooth_l1_loss", beta=0.3), [normal(4, 3), normal(4, 3)]),
    row("huber_loss", every("huber_loss", delta=0.7), [normal(4, 3), normal(4, 3)]),
    row("huber_loss_weight", weighted("huber_loss"), [normal(4, 3), normal(4, 3), positive(4, 3)]),
    row("nll_loss", every("nll_loss"), [normal(4, 5), integers(0, 5, 4)], [normal(4, 5, 3), integers(0, 5, 4, 3)],
        [normal(2, 5, 3, 2), integers(0, 5, 2, 3, 2)], [normal(5), integers(0, 5)]),
    row("nll_loss_ignore", every("nll_loss", ignore_index=2), [normal(4, 5), integers(0, 4, 4)],
        [normal(4, 5, 3), integers(0, 5, 4, 3)]),
    row("nll_loss_weight", weighted("nll_loss", ignore_index=1), [normal(4, 5), integers(0, 5, 4), positive(5)],
        [normal(4, 5, 3), integers(0, 5, 4, 3), positive(5)]),
    row("cross_entropy", every("cross_entropy"), [normal(4, 5), integers(0, 5, 4)],
        [normal(4, 5, 3), integers(0, 5, 4, 3)], [normal(5), integers(0, 5)]),
    row("cross_entropy_weight", weighted("cross_entropy", ignore_index=1, label_smoothing=0.2),
        [normal(4, 5), integers(0, 5, 4), positive(5)], [normal(4, 5, 3), integers(0, 5, 4, 3), positive(5)]),
    row("cross_entropy_smoothing", every("cross_entropy", label_smoothing=0.3, ignore_index=0),
        [normal(4, 5), integers(0, 5, 4)], [normal(4, 5, 3), integers(0, 5, 4, 3)]),
    row("cross_entropy_soft", every("cross_entropy"), [normal(4, 5), probabilities(4, 5)],
        [normal(4, 5, 3), probabilities(4, 5, 3)], [normal(5), probabilities(5)]),
    row("cross_entropy_soft_weight", weighted("cross_entropy", label_smoothing=0.1),
        [normal(4, 5), probabilities(4, 5), positive(5)], [normal(4, 5, 3), probabilities(4, 5, 3), positive(5)]),
    row("binary_cross_entropy", every("binary_cross_entropy"), [uniform(0.05, 0.95, 4, 3), uniform(0.1, 0.9, 4, 3)]),
    row("binary_cross_entropy_edges", lambda T, x, t: T.nn.functional.binary_cross_entropy(x, t, reduction="none"),
        [constant([0.0, 1.0, 0.0, 1.0]), constant([0.0, 1.0, 1.0, 0.0])], grad=False),
    row("binary_cross_entropy_weight", weighted("binary_cross_entropy"),
        [uniform(0.05, 0.95, 4, 3), uniform(0.1, 0.9, 4, 3), positive(3)]),
    row("binary_cross_entropy_with_logits", every("binary_cross_entropy_with_logits"),
        [normal(4, 3), uniform(0.1, 0.9, 4, 3)]),
    row("binary_cross_entropy_with_logits_number", every("binary_cross_entropy_with_logits"),
        [normal(), uniform(0.1, 0.9)]),
    row("binary_cross_entropy_with_logits_large",
        lambda T, x, t: T.nn.functional.binary_cross_entropy_with_logits(x * 100, t, reduction="none"),
        [normal(4, 3), zeros_and_ones(4, 3)]),
    row("binary_cross_entropy_with_logits_pos",
        lambda T, x, t, w, p: T.nn.functional.binary_cross_entropy_with_logits(x, t, w.detach(), pos_weight=p.detach()),
        [normal(4, 3), uniform(0.1, 0.9, 4, 3), positive(4, 3), positive(3)]),
    row("kl_div", lambda T, x, t: [T.nn.functional.kl_div(x, t, reduction=r) for r in ("none", "batchmean", "sum")],
        [normal(4, 3), positive(4, 3)]),
    row("kl_div_log",
        lambda T, x, t: [T.nn.functional.kl_div(x, t, reduction=r, log_target=True) for r in ("batchmean", "sum")],
        [normal(4, 3), normal(4, 3)]),
    row("poisson_nll_loss", every("poisson_nll_loss"), [normal(4, 3), positive(4, 3)]),
    row("poisson_nll_loss_full", every("poisson_nll_loss", log_input=False, full=True),
        [positive(4, 3), positive(4, 3)]),
    row("gaussian_nll_loss", every("gaussian_nll_loss", full=True), [normal(4, 3), normal(4, 3), positive(4, 3)],
        [normal(4, 3), normal(4, 3), positive(4)], [normal(4, 3), normal(4, 3), positive(4, 1)]),
    row("gaussian_nll_loss_number", lambda T, x, t: T.nn.functional.gaussian_nll_loss(x, t, 0.5),
        [normal(4, 3), normal(4, 3)]),
    row("hinge_embedding_loss", every("hinge_embedding_loss", margin=0.5), [normal(4, 3), signs(4, 3)]),
    row("soft_margin_loss", every("soft_margin_loss"), [normal(4, 3), signs(4, 3)]),
    row("margin_ranking_loss", every("margin_ranking_loss", margin=0.2), [normal(4), normal(4), signs(4)]),
    row("multi_margin_loss", every("multi_margin_loss"), [normal(4, 5), integers(0, 5, 4)], [normal(5), integers(0, 5)],
        [normal(), constant(0, "int64")], [normal(5), constant([2], "int64")], gradgrad=False),
    row("multi_margin_loss_weight",
        lambda T, x, t, w: T.nn.functional.multi_margin_loss(x, t, p=2, margin=0.7, weight=w.detach()),
        [normal(4, 5), integers(0, 5, 4), positive(5)], gradgrad=False),
    row("multilabel_margin_loss", every("multilabel_margin_loss"), [normal(4, 4), LABELS],
        [normal(4), constant([3, 0, -1, 1], "int64")], gradgrad=False),
    row("multilabel_soft_margin_loss", every("multilabel_soft_margin_loss"), [normal(4, 3), zeros_and_ones(4, 3)]),
    row("multilabel_soft_margin_loss_weight", weighted("multilabel_soft_margin_loss"),
        [normal(4, 3), zeros_and_ones(4, 3), positive(3)]),
    row("triplet_margin_loss", every("triplet_margin_loss"), [normal(4, 3), normal(4, 3), normal(4, 3)]),
    row("triplet_margin_loss_swap", every("triplet_margin_loss", swap=True, p=3.0, margin=0.5),
        [normal(4, 3), normal(4, 3), normal(4, 3)]),
    row("triplet_margin_with_distance_loss",
        lambda T, a, p, n: T.nn.functional.triplet_margin_with_distance_loss(
            a, p, n, distance_function=lambda u, v: (u - v).abs().sum(-1), reduction="sum"),
        [normal(4, 3), normal(4, 3), normal(4, 3)], gradgrad=False),
    row("cosine_embedding_loss", every("cosine_embedding_loss", margin=0.1), [normal(4, 3), normal(4, 3), signs(4)]),
    row("ctc_loss", ctc, [normal(6, 4, 5), LABEL_ROWS, constant([6, 5, 6, 4], "int64"), constant([3, 2, 0, 1], "int64")],
        [normal(6, 4, 5), constant([1, 2, 2, 4, 1, 3], "int64"), constant([6, 5, 6, 1], "int64"),
         constant([3, 2, 0, 1], "int64")], gradgrad=False),
    row("linear_cross_entropy", lambda T, x, w, t, b: T.nn.functional.linear_cross_entropy(x, w, t, linear_bias=b),
        [normal(4, 3), normal(5, 3), integers(0, 5, 4), normal(5)],
        [normal(4, 3), normal(5, 2, 3), integers(0, 5, 4, 2), normal(5, 2)]),
]
