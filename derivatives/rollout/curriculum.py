"""Which problems a step of reinforcement learning draws, and what was learnt about each so far.

A problem that is always or never solved gives a group without spread, hence no gradient. Such problems are drawn less
often, never dropped for good: the policy moves, and what was impossible becomes a frontier. A problem that has not been
tried counts as one that is solved half the time.

Related: difficulty filters of DAPO (arXiv:2503.14476, section 3.2), which draw again within a step instead.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from derivatives.training.order import items_between

RARE = 0.1
"""Weight of a problem that was always or never solved when last tried; an even one has weight 1."""
MEMORY = 0.5
"""Share of the earlier estimate that stays when a problem is tried again."""


class Curriculum:
    """Solve rates by problem. The draw of a step depends on the seed, the step and these rates alone."""

    def __init__(self, num_problems: int, seed: int, adaptive: bool) -> None:
        self.num_problems, self.seed, self.adaptive = num_problems, seed, adaptive
        self.rates = np.full(num_problems, np.nan)

    def draw(self, step: int, count: int) -> list[int]:
        """Distinct problems for this step (counted from 1); without adaptation, epochs in random order.

        Adaptive draws are weighted sampling without replacement by exponential races (Efraimidis and Spirakis 2006).
        """
        if not self.adaptive:
            return items_between((step - 1) * count, step * count, self.num_problems, self.seed)
        clocks = np.random.default_rng((self.seed, step)).exponential(size=self.num_problems) / self.weights()
        return np.argsort(clocks, kind="stable")[:count].tolist()

    def weights(self) -> np.ndarray:
        """Relative chance of each problem: its solve rate's variance, 1 where that is even or unknown."""
        rates = np.where(np.isnan(self.rates), 0.5, self.rates)
        return np.maximum(RARE, 4.0 * rates * (1.0 - rates))

    def note(self, problem: int, solved_fraction: float) -> None:
        """Take in what a group showed."""
        old = self.rates[problem]
        self.rates[problem] = solved_fraction if np.isnan(old) else MEMORY * old + (1.0 - MEMORY) * solved_fraction

    def state(self) -> Tensor:
        """What a checkpoint keeps: rates, NaN where a problem was not tried."""
        return torch.from_numpy(self.rates.copy())

    def restore(self, state: Tensor) -> None:
        """Take over a saved state."""
        self.rates = state.numpy().copy()
