"""Steps that go wrong: when a loss or a gradient stands out from those before it, and which rows did it.

A loss is a spike if it is above the mean of the last `WINDOW` good steps by more than `deviations` standard deviations
and by more than `nats`; a gradient norm, if it is above `grad_ratio` times their median and above
`NORMS_ABOVE_CLIP` times `max_grad_norm`. The deviation is that of one step from the next, so that a curve which falls
does not hide what stands out. Nothing is judged before `MIN_STEPS` steps. Two conditions each, because the loss of a
learnt task varies so little that deviations alone would stop healthy runs, and because a norm that clipping takes care
of is no reason to stop. In 28 healthy runs of the seedling (pretrain and sft, 24 to 352 steps) the largest rise was
0.38 nats, or 4.1 deviations, and the largest norm 12 times the median; in 9 of rl, 4 times.

Sources: leaving out steps that leave a running window is OLMo-core's idea (`SkipStepOptimizer`); half the mean square
of successive differences as a variance, von Neumann et al. 1941. Departures: the median for norms; the rows are named.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.settings.training import Spikes
from configs.stage import write_json_atomic
from derivatives.training.batch import PackedBatch

ANOMALY_FILE = "anomaly.json"
"""Where the rows of the last micro-batch are kept whose loss or gradient stood out."""
WINDOW = 64
MIN_STEPS = 20
"""Steps before anything is judged: the first ones fall fast, and a deviation of few numbers says little."""
NORMS_ABOVE_CLIP = 10.0
NUM_NAMED = 3

Blame = Callable[[Tensor, PackedBatch], Tensor]
"""Hidden states of a packed batch, and the batch -> the loss [N] of each of its documents, per token or pair."""


@dataclass(frozen=True)
class Wrong:
    """What a step measured, and what it was allowed."""

    loss: float
    grad_norm: float
    loss_limit: float
    norm_limit: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    def told(self) -> dict[str, float]:
        """For the file that keeps the rows."""
        return {
            "step_loss": self.loss, "grad_norm": self.grad_norm,
            "loss_limit": self.loss_limit, "grad_norm_limit": self.norm_limit,
        }  # fmt: skip

    def __str__(self) -> str:
        if not self.finite:
            return f"loss {self.loss} and gradient norm {self.grad_norm}"
        if self.loss > self.loss_limit:
            return f"the loss {self.loss:.4g} is a spike (allowed after the last steps: {self.loss_limit:.4g})"
        return (
            f"the gradient norm {self.grad_norm:.4g} is a spike (allowed after the last steps: {self.norm_limit:.4g})"
        )


class Watch:
    """The last good steps of a run, and the limits that follow from them."""

    def __init__(self, spikes: Spikes, max_grad_norm: float, has_level: bool) -> None:
        """`has_level` is whether the loss has one: a policy's loss hovers about 0 and is not judged."""
        self.spikes, self.max_grad_norm, self.has_level = spikes, max_grad_norm, has_level
        self.losses: list[float] = []
        self.norms: list[float] = []

    @property
    def _asleep(self) -> bool:
        return self.spikes.action == "ignore" or len(self.losses) < MIN_STEPS

    def loss_limit(self) -> float:
        """Above this a loss is a spike; infinity while none can be told."""
        if self._asleep or not self.has_level:
            return math.inf
        steps = [(later - earlier) ** 2 for earlier, later in itertools.pairwise(self.losses)]
        deviation = math.sqrt(statistics.fmean(steps) / 2)
        return statistics.fmean(self.losses) + max(self.spikes.deviations * deviation, self.spikes.nats)

    def norm_limit(self) -> float:
        """Above this a gradient norm is a spike."""
        if self._asleep:
            return math.inf
        return max(self.spikes.grad_ratio * statistics.median(self.norms), NORMS_ABOVE_CLIP * self.max_grad_norm)

    def note(self, loss: float, norm: float) -> None:
        """Take in a good step."""
        self.losses = [*self.losses, loss][-WINDOW:]
        self.norms = [*self.norms, norm][-WINDOW:]

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint needs, so that a resumed run judges as an uninterrupted one."""
        return {"losses": self.losses, "norms": self.norms}

    def restore(self, state: dict[str, list[float]]) -> None:
        """Go on from `state`."""
        self.losses, self.norms = list(state["losses"]), list(state["norms"])


def blame_each(loss: Callable[[Tensor, PackedBatch], Tensor]) -> Blame:
    """The mean loss per weighted token of each document, of a loss that is a sum over weighted tokens."""

    def by_document(hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
        values, start = [], 0
        for length in batch.lengths:
            weights_T = torch.zeros_like(batch.weights_T)
            weights_T[start : start + length] = batch.weights_T[start : start + length]
            total = weights_T.sum().clamp(min=torch.finfo(torch.float32).tiny)
            values.append(loss(hidden_TE, replace(batch, weights_T=weights_T)).detach() / total)
            start += length
        return torch.stack(values)

    return by_document


def worst(values: Sequence[float]) -> list[int]:
    """Places from the worst value to the best; what is not finite is worse than any number.

    >>> worst([1.0, float("nan"), 3.0])
    [1, 2, 0]
    """
    return sorted(range(len(values)), key=lambda place: -values[place] if math.isfinite(values[place]) else -math.inf)


def worst_rows(names: Sequence[str], losses: Sequence[float] | None) -> str:
    """Names of a micro-batch's documents, the worst few with their losses where those are known."""
    if losses is None:
        return ", ".join(filter(None, names))
    places = worst(losses[: len(names)])[:NUM_NAMED]
    more = f" and {len(names) - len(places)} more" if len(names) > len(places) else ""
    return ", ".join(f"{names[place]} with loss {losses[place]:.4g}" for place in places) + more


def keep_batch(
    out: Path, batch: PackedBatch, names: Sequence[str], losses: Sequence[float] | None = None, **why: float | str
) -> None:
    """Write the rows of a micro-batch that went wrong, by name and token ids, with what was wrong.

    Args:
        out: The stage's folder.
        batch: The micro-batch.
        names: What messages call each of its documents.
        losses: The loss of each, where it is known.
        why: What was measured.
    """
    ends = batch.cu_seqlens.tolist()
    ids, weights = batch.input_ids_T.tolist(), batch.weights_T.tolist()
    rows: list[dict[str, Any]] = [
        {"key": name, "ids": ids[start:end], "weights": weights[start:end]}
        for name, start, end in zip(names, ends, ends[1:], strict=False)
    ]
    if losses is not None:
        rows = [{**row, "loss": str(loss)} for row, loss in zip(rows, losses, strict=False)]
    # A text each, as JSON has no word for NaN.
    write_json_atomic(out / ANOMALY_FILE, {**{name: str(value) for name, value in why.items()}, "rows": rows})
