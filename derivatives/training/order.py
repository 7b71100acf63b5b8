"""What is trained on at which step, as a function of the seed and the step alone.

The data is an endless stream: epoch after epoch, each in its own random order. A resumed run therefore needs no
position to be saved but its step.
"""

from __future__ import annotations

import functools

import numpy as np


@functools.lru_cache(maxsize=4)
def epoch_order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """The items of an epoch in its own order (PCG64, seeded by both numbers)."""
    return np.random.default_rng((seed, epoch)).permutation(num_items)


def items_between(first: int, last: int, num_items: int, seed: int) -> list[int]:
    """Items at positions `first` to `last` (left out) of the stream, over the ends of epochs."""
    places = (divmod(position, num_items) for position in range(first, last))
    return [int(epoch_order(num_items, seed, epoch)[place]) for epoch, place in places]


class TokenStream:
    """Documents of given lengths as an endless stream of tokens, from which steps take whole documents."""

    def __init__(self, lengths: np.ndarray, seed: int) -> None:
        self.lengths = lengths.astype(np.int64)
        self.seed = seed
        self.epoch_tokens = int(self.lengths.sum())

    def documents_between(self, first: int, last: int) -> list[int]:
        """Documents whose first token lies at positions `first` to `last` (left out) of the stream."""
        found: list[int] = []
        for epoch in range(first // self.epoch_tokens, (last - 1) // self.epoch_tokens + 1):
            order, starts = self._epoch(epoch)
            offset = epoch * self.epoch_tokens
            begin, end = np.searchsorted(starts, (first - offset, last - offset))
            found += order[begin:end].tolist()
        return found

    @functools.lru_cache(maxsize=2)  # noqa: B019 (one stream lives as long as its run)
    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = epoch_order(len(self.lengths), self.seed, epoch)
        ends = np.cumsum(self.lengths[order])
        return order, ends - self.lengths[order]
