"""``AdaptiveLogSoftmaxWithLoss``: log probabilities of many classes, of which few are frequent.

Invariant: only the clusters that a batch's targets are in are computed by ``forward``; ``log_prob`` computes all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import distgrad as dg
from distgrad.nn.modules.containers import ModuleList, Sequential
from distgrad.nn.modules.linear import Linear
from distgrad.nn.modules.module import Module
from distgrad.tensor import Tensor


class _ASMoutput(NamedTuple):
    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """The log probability ``(N,)`` of each target class given ``(N, in_features)``, and their mean negative.

    ``cutoffs`` divide the classes, the most frequent first, into a head and clusters whose features are fewer by
    ``div_value``. Source: torch.nn.AdaptiveLogSoftmaxWithLoss; Grave et al. 2016.
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if cutoffs != sorted(set(cutoffs)) or min(cutoffs) <= 0 or max(cutoffs) > n_classes - 1 or any(
            int(c) != c for c in cutoffs
        ):
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing order, where each "
                "value is between 1 and n_classes-1"
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, device=device, dtype=dtype)
        self.tail = ModuleList()
        for number in range(self.n_clusters):
            hidden = int(in_features // div_value ** (number + 1))
            size = self.cutoffs[number + 1] - self.cutoffs[number]
            self.tail.append(Sequential(
                Linear(in_features, hidden, bias=False, device=device, dtype=dtype),
                Linear(hidden, size, bias=False, device=device, dtype=dtype),
            ))  # fmt: skip

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.head.reset_parameters()
        for first, second in self.tail:  # type: ignore[misc]  # a Sequential of two
            first.reset_parameters()
            second.reset_parameters()

    def forward(self, input: Tensor, target: Tensor) -> _ASMoutput:
        single = target.dim() == 0
        if single:
            input, target = input.unsqueeze(0), target.unsqueeze(0)
        if input.dim() != 2 or target.dim() != 1 or input.shape[0] != target.shape[0]:
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= self.n_classes:
            raise RuntimeError(f"Target values should be in [0, {self.n_classes - 1}], but values in range [{low}, {high}] "
                               "were found. ")  # fmt: skip
        head = dg.log_softmax(self.head(input), dim=1)
        column = target
        output = dg.zeros_like(input[:, 0])
        for number, (start, end) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            inside = (target >= start) & (target < end)
            rows = inside.nonzero().squeeze(1)
            if rows.numel() == 0:
                continue
            cluster = dg.log_softmax(self.tail[number](input.index_select(0, rows)), dim=1)
            own = cluster.gather(1, (target.index_select(0, rows) - start).unsqueeze(1)).squeeze(1)
            output = output.index_add(0, rows, own)
            column = dg.where(inside, self.shortlist_size + number, column)
        output = output + head.gather(1, column.unsqueeze(1)).squeeze(1)
        loss = (-output).mean()
        return _ASMoutput(output.squeeze(0) if single else output, loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """Gives the log probabilities ``(N, n_classes)`` of all classes."""
        head = dg.log_softmax(self.head(input), dim=1)
        parts = [head[:, : self.shortlist_size]]
        for number in range(self.n_clusters):
            cluster = dg.log_softmax(self.tail[number](input), dim=1)
            parts.append(cluster + head[:, self.shortlist_size + number].unsqueeze(1))
        return dg.cat(parts, dim=1)

    def predict(self, input: Tensor) -> Tensor:
        """Gives the most probable class ``(N,)``."""
        return self.log_prob(input).argmax(dim=1)
