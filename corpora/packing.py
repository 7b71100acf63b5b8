"""Documents into sequences of one length by best fit, so that none is cut to fill one up.

    order, bounds = best_fit(lengths, 32_768)       # sequence s holds the records order[bounds[s]:bounds[s + 1]]

Published: best-fit packing (Ding et al. 2024, arXiv 2404.10830): a document longer than a sequence is split into pieces
(here at ends of lines, `corpora/encode.py`), then every piece goes, from the longest to the shortest, into the sequence
with the least room that still holds it. Concatenating all and cutting every so many tokens, as is usual, cuts about
one document a sequence, whose rest then lacks what it refers to.

Departures: records are packed in windows of `WINDOW`, in the order of the mixture, so that each source stays spread
from the beginning to the end and the time does not grow faster than the corpus; within a window the sequences come in a
drawn order, as best fit would put the longest documents first. What is left free is padding to a trainer of fixed rows,
and nothing to ours, which lays documents end to end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from corpora.order import shuffled

WINDOW = 1 << 16
"""Records that are packed together: at 32,768 tokens and 2,000 a document 4,000 sequences, of which the last few are
not full."""


def best_fit(lengths: np.ndarray, capacity: int, seed: int = 0, window: int = WINDOW) -> tuple[np.ndarray, np.ndarray]:
    """Records packed into sequences.

    Args:
        lengths: Tokens in each record, at most `capacity`.
        capacity: Tokens in a sequence.
        seed: Draws the order of the sequences within a window.
        window: Records packed together.

    Returns:
        The records in their new order, and the places in it where sequences begin, with its end (int64).
    """
    assert not len(lengths) or int(lengths.min()) >= 0 and int(lengths.max()) <= capacity
    orders, sizes = [np.zeros(0, dtype=np.int64)], [0]
    for first in range(0, len(lengths), window):
        sequences = _packed(np.asarray(lengths[first:first + window], dtype=np.int64), capacity)
        for s in shuffled(len(sequences), seed, "sequences", first).tolist():
            orders.append(np.array(sorted(sequences[s]), dtype=np.int64) + first)
            sizes.append(len(sequences[s]))
    return np.concatenate(orders), np.cumsum(sizes, dtype=np.int64)


def _packed(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Best fit decreasing; of sequences with equally much room the one that was opened last."""
    sequences: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    is_open = 0  # bit r: some sequence has r tokens of room
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        fitting = is_open >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            s = with_room[room].pop()
            if not with_room[room]:
                is_open ^= 1 << room
            sequences[s].append(i)
        else:
            room, s = capacity, len(sequences)
            sequences.append([i])
        left = room - length
        with_room[left].append(s)  # also a full one: an empty record fits there
        is_open |= 1 << left
    return sequences


def described(lengths: np.ndarray, bounds: np.ndarray, capacity: int) -> dict[str, Any]:
    """What the packing is worth, beside concatenating the same records and cutting every `capacity` tokens.

    Args:
        lengths: Tokens in each record in their new order.
        bounds: As `best_fit` gives them.
        capacity: Tokens in a sequence.
    """
    total, num = int(lengths.sum(dtype=np.int64)), len(bounds) - 1
    room = num * capacity
    return {"sequence_length": capacity, "sequences": num, "tokens": total, "padding": room - total,
            "padding_share": round((room - total) / max(room, 1), 6), "cut": 0,
            "concatenated_and_cut": concatenated_and_cut(lengths, capacity)}


def concatenated_and_cut(lengths: np.ndarray, capacity: int) -> dict[str, Any]:
    """Sequences, padding in the last one, and how many records would be cut at least once.

    >>> concatenated_and_cut(np.array([3, 3, 2]), 4)
    {'sequences': 2, 'padding': 0, 'cut': 1}
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    begins = ends - lengths
    crossed = (lengths > 0) & (begins // capacity != (np.maximum(ends, 1) - 1) // capacity)
    num = -(-total // capacity)
    return {"sequences": num, "padding": num * capacity - total, "cut": int(crossed.sum())}
