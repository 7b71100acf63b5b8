"""Which block of a whole tensor a rank keeps, and how blocks of one run become those of another.

A tensor may be cut along its rows over the data axis and along one dimension over the tensor axis (`ranks.Ranks`).
Whatever the cuts, a rank's block is a range of each dimension. Checkpoints say the ranges of every block that they
hold, so that a run of any other mesh finds in them what it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Range = tuple[int, int]
"""First index of a dimension, and one past the last."""


@dataclass(frozen=True)
class Piece:
    """A block of a tensor.

    Attributes:
        whole: Shape of the tensor.
        ranges: What the block has of each dimension.
    """

    whole: tuple[int, ...]
    ranges: tuple[Range, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(end - begin for begin, end in self.ranges)

    def slices(self) -> tuple[slice, ...]:
        """An index of the whole tensor."""
        return tuple(slice(begin, end) for begin, end in self.ranges)


def whole_piece(tensor: Tensor) -> Piece:
    """All of a tensor."""
    return Piece(tuple(tensor.shape), tuple((0, size) for size in tensor.shape))


def rows_of(total: int, place: int, number: int) -> Range:
    """First of a tensor's rows in one of several parts, and the one past its last: as torch.chunk cuts.

    All parts have alike many but the last, or the last few.

    >>> [rows_of(5, place, 4) for place in range(4)]
    [(0, 2), (2, 4), (4, 5), (5, 5)]
    """
    per_part = -(-total // number)
    begin = min(total, place * per_part)
    return begin, min(total, begin + per_part)


def put_together(wanted: Piece, parts: Sequence[tuple[Sequence[Range], Tensor]]) -> Tensor:
    """One block of a tensor out of blocks that together hold all of it, some of them more than once; a copy.

    Args:
        wanted: The block.
        parts: Ranges of each block that there is, and its content.

    Raises:
        ValueError: They are blocks of a tensor of another shape, or not all of it is there.
    """
    held = {tuple(map(tuple, ranges)): tensor for ranges, tensor in parts}  # copies of one block count once
    ends = tuple(max(end for _, end in ranges) for ranges in zip(*held, strict=True))
    if ends != wanted.whole or sum(tensor.numel() for tensor in held.values()) != math.prod(wanted.whole):
        raise ValueError("the saved masters have other shapes than this model's parameters")
    found = torch.empty(wanted.shape, dtype=parts[0][1].dtype)
    for ranges, tensor in held.items():
        both = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(ranges, wanted.ranges, strict=True)]
        if all(begin < end for begin, end in both):
            there = tuple(slice(b - own, e - own) for (b, e), (own, _) in zip(both, wanted.ranges, strict=True))
            here = tuple(slice(b - own, e - own) for (b, e), (own, _) in zip(both, ranges, strict=True))
            found[there] = tensor[here]
    return found
