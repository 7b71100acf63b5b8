"""Which problems a step of reinforcement learning draws, and what was learnt about each so far.

A problem that is always or never solved gives a group without spread, hence no gradient. Such problems are drawn less
often, and after `retire_after` such visits in a row no more: they are retired. The policy moves, though, and what was
impossible becomes a frontier: problems that were never solved come back when completions may grow longer, and any come
back when too few others are left. A problem that has not been tried counts as one that is solved half the time, unless
a sample stage measured it before (`pass_rates.py`).

Related: difficulty filters of DAPO (arXiv:2503.14476, section 3.2), which draw again within a step instead
(`judged.roll_out_step`), and the growing lengths of DeepScaleR and ProRL (arXiv:2505.24864).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from derivatives.training.order import items_between

RARE = 0.1
"""Weight of a problem that was always or never solved when last tried; an even one has weight 1."""
MEMORY = 0.5
"""Share of the earlier estimate that stays when a problem is tried again."""


class Curriculum:
    """Solve rates by problem. The draw of a step depends on the seed, the step and these rates alone.

    Args:
        num_problems: All problems of the stage.
        seed: Of the draws.
        adaptive: Draw by solve rate; else in epochs.
        retire_after: Visits in a row, all or none solved, after which a problem is retired; None for never.
        rates: Solve rates known beforehand, NaN for unknown; None where all are. They count as no visit.
    """

    def __init__(
        self,
        num_problems: int,
        seed: int,
        adaptive: bool,
        retire_after: int | None = None,
        rates: Sequence[float] | None = None,
    ) -> None:
        self.num_problems, self.seed, self.adaptive, self.retire_after = num_problems, seed, adaptive, retire_after
        self.rates = np.full(num_problems, np.nan) if rates is None else np.array(rates, np.float64)
        if self.rates.shape != (num_problems,):
            raise ValueError(f"rates: {self.rates.shape} for {num_problems} problems; give one for each")
        self.streaks = np.zeros(num_problems, np.int64)
        """Visits in a row in which all (above 0) or none (below 0) of the completions were right."""
        self.num_extra = 0
        """Problems that were drawn beyond the steps' own, in place of others; only epochs need it."""

    def draw(self, step: int, count: int) -> list[int]:
        """Distinct problems for this step (counted from 1); without adaptation, epochs in random order.

        Adaptive draws are weighted sampling without replacement by exponential races (Efraimidis and Spirakis 2006).
        """
        if not self.adaptive:
            first = (step - 1) * count + self.num_extra
            return items_between(first, first + count, self.num_problems, self.seed)
        return [int(problem) for problem in self._ranking(step)[:count]]

    def more(self, step: int, count: int, wanted: int, already: int) -> list[int]:
        """Problems to put in the place of others of this step: those that the draw would have taken next.

        Args:
            step: The step.
            count: Problems of the step's own draw.
            wanted: Problems asked for now; fewer come where there are no more.
            already: Problems that were given before at this step.
        """
        first = count + already
        if self.adaptive:
            return [int(problem) for problem in self._ranking(step)[first : first + wanted]]
        wanted = min(wanted, self.num_problems - first)  # no problem twice in a step
        first += (step - 1) * count + self.num_extra
        return items_between(first, first + wanted, self.num_problems, self.seed) if wanted > 0 else []

    def weights(self) -> np.ndarray:
        """Relative chance of each problem: its solve rate's variance, 1 where that is even or unknown."""
        rates = np.where(np.isnan(self.rates), 0.5, self.rates)
        return np.maximum(RARE, 4.0 * rates * (1.0 - rates))

    def retired(self) -> np.ndarray:
        """Which problems are drawn only when too few others are left, bool by problem."""
        if self.retire_after is None:
            return np.zeros(self.num_problems, bool)
        return np.abs(self.streaks) >= self.retire_after

    def note(self, problem: int, solved_fraction: float) -> None:
        """Take in what a group showed."""
        old = self.rates[problem]
        self.rates[problem] = solved_fraction if np.isnan(old) else MEMORY * old + (1.0 - MEMORY) * solved_fraction
        streak = int(self.streaks[problem])
        if solved_fraction == 1.0:
            self.streaks[problem] = max(streak, 0) + 1
        elif solved_fraction == 0.0:
            self.streaks[problem] = min(streak, 0) - 1
        else:
            self.streaks[problem] = 0

    def note_longer(self) -> None:
        """Completions may be longer from now on, so that what was never solved deserves another look."""
        self.streaks = np.maximum(self.streaks, 0)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: rates (NaN where a problem was not tried), streaks, extra draws."""
        return {
            "rates": torch.from_numpy(self.rates.copy()),
            "streaks": torch.from_numpy(self.streaks.copy()),
            "num_extra": self.num_extra,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state. Raises UserError if it is of other problems."""
        if len(state["rates"]) != self.num_problems:
            raise UserError(
                f"stage.data: {self.num_problems} problems, but the state to go on from knows {len(state['rates'])}; "
                "allowed: the same data; leave data as it was"
            )
        self.rates, self.streaks = state["rates"].numpy().copy(), state["streaks"].numpy().copy()
        self.num_extra = int(state["num_extra"])

    def _ranking(self, step: int) -> np.ndarray:
        """All problems in the order in which they would be drawn; retired ones last."""
        clocks = np.random.default_rng((self.seed, step)).exponential(size=self.num_problems) / self.weights()
        return np.lexsort((clocks, self.retired()))


def limit_at(step: int, num_steps: int, limits: Sequence[int]) -> int:
    """max_new_tokens of a step (counted from 1): the limits in turn, each for an equal share of the steps.

    >>> [limit_at(step, 6, [10, 20, 40]) for step in range(1, 7)]
    [10, 10, 20, 20, 40, 40]
    """
    return limits[(step - 1) * len(limits) // num_steps]
