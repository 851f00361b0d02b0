"""Rows of torch.masked's functions."""

from op_db import booleans, constant, distinct, normal, row

_MASK = constant([[True, False, True], [False, False, False], [True, True, True], [False, True, False]], "bool")
_SOME = constant([[True, False, True], [False, True, True], [True, True, True], [True, True, False]], "bool")


def _reduction(name, sample, **options):
    return row(
        f"masked.{name}",
        lambda T, x, m: (
            getattr(T.masked, name)(x, 1, mask=m), getattr(T.masked, name)(x, (0, 1), keepdim=True, mask=m)
        ),
        [sample(4, 3), options.pop("mask", _MASK)], **options,
    )  # fmt: skip


def _along(name, **options):
    call = lambda T, x, m: getattr(T.masked, name)(x, 1, mask=m)  # noqa: E731  # as in every row
    return row(f"masked.{name}", call, [normal(4, 3), _SOME], **options)


ROWS = [
    _reduction("sum", normal),
    _reduction("prod", normal),
    _reduction("amax", distinct, mask=_SOME),
    _reduction("amin", distinct, mask=_SOME),
    _reduction("mean", normal, mask=_SOME),
    _reduction("var", normal, mask=_SOME),
    _reduction("std", normal, mask=_SOME),
    _reduction("logsumexp", normal, mask=_SOME),
    row("masked.norm", lambda T, x, m: (T.masked.norm(x, 2, 1, mask=m), T.masked.norm(x, 3, (0, 1), mask=m)),
        [distinct(4, 3), _SOME]),
    row("masked.argmax", lambda T, x, m: T.masked.argmax(x, 1, mask=m), [distinct(4, 3), _SOME], grad=False),
    row("masked.argmin", lambda T, x, m: T.masked.argmin(x, 0, mask=m), [distinct(4, 3), _SOME], grad=False),
    row("masked.median", lambda T, x, m: T.masked.median(x, 1, mask=m), [distinct(4, 3), _SOME]),
    _along("cumsum"),
    _along("cumprod"),
    _along("softmax"),
    _along("log_softmax"),
    _along("softmin"),
    row("masked.normalize", lambda T, x, m: T.masked.normalize(x, 2.0, 1, mask=m), [normal(4, 3), _SOME]),
    # torch's second derivative is NaN where an operand is masked out
    row("masked.logaddexp", lambda T, x, y, m: T.masked.logaddexp(x, y, input_mask=m),
        [normal(4, 3), normal(4, 3), _SOME], gradgrad=False),
    row("masked.sum_broadcast", lambda T, x, m: T.masked.sum(x, mask=m), [normal(4, 3), booleans(3)],
        [normal(4, 3), None]),
]
