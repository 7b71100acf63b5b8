"""Packed batches: many documents in one row of tokens that never see one another.

A `Row` is one document with the weight of each of its tokens in the loss. `pack` lays rows end to end into
`PackedBatch`es of bounded size; position ids restart with every row, and `cu_seqlens` says where rows begin, as
variable-length attention wants it. Nothing is padded, cut or lost. Rows lie in order of falling length, so that
neighbours are of similar length, which the CPU attention uses. `pack_shared` lays rows that begin alike, the
completions of one prompt, say, behind one copy of what they share (prefix trees of one level).

Shape letters: T tokens in the packed row, N rows in it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NO_TARGET = -100
"""Target of a token that predicts nothing: the last of each row."""


@dataclass(frozen=True)
class Row:
    """One document.

    Attributes:
        ids: Its token ids.
        trained_from: The first token that is predicted with weight 1; all before it have weight 0. Token 0 of a
            row is never predicted, since nothing stands before it.
        loss_weights: One weight per token instead, the weight of predicting that token; overrides `trained_from`.
        extras: More numbers per token, by name (`advantages`, `old_log_probs`, ...), each aligned with `ids`.
        key: What messages call this row.
    """

    ids: Sequence[int]
    trained_from: int = 1
    loss_weights: Sequence[float] | None = None
    extras: Mapping[str, Sequence[float]] = field(default_factory=dict)
    key: str = ""

    def weights(self) -> Sequence[float]:
        """The weight of predicting each token; what it says of the first one is not read."""
        if self.loss_weights is not None:
            return self.loss_weights
        num_context = min(max(self.trained_from, 0), len(self.ids))
        return [0.0] * num_context + [1.0] * (len(self.ids) - num_context)


def answer_row(ids: Sequence[int], trained: Sequence[bool], key: str = "") -> Row:
    """A document of which only some tokens are trained on; where that is all from one on, it needs no weights.

    >>> answer_row([7, 8, 9], [False, True, True]).trained_from
    1
    """
    first = trained.index(True) if True in trained else len(ids)
    if all(trained[first:]):
        return Row(ids, trained_from=first, key=key)
    return Row(ids, loss_weights=[1.0 if flag else 0.0 for flag in trained], key=key)


@dataclass(frozen=True)
class PackedBatch:
    """One packed row, with everything shifted to the token that predicts: `targets_T[t]` is the token after t.

    Attributes:
        input_ids_T: int64 token ids.
        position_ids_T: int64, restarting at 0 with every row.
        cu_seqlens: int32 [N + 1]; row i is tokens `cu_seqlens[i]` to `cu_seqlens[i + 1]`.
        targets_T: int64, `NO_TARGET` at the end of each row.
        weights_T: float32 weight of each target in the loss; 0 at the end of each row.
        extras: float32 [T] by name, shifted like the targets.
        row_indices: Which of the packed rows lies where, as positions in the list that was given to `pack`.
        lengths: Tokens of each row, in the same order (plain numbers, so that no device is asked).
        parents: For each row the number in this batch of the one that it continues, or -1; empty where none does.
            Attention gives a row its parent's keys before its own, and its positions go on from its parent's.
    """

    input_ids_T: Tensor
    position_ids_T: Tensor
    cu_seqlens: Tensor
    targets_T: Tensor
    weights_T: Tensor
    extras: Mapping[str, Tensor]
    row_indices: tuple[int, ...]
    lengths: tuple[int, ...]
    parents: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids_T)

    @property
    def rows_T(self) -> Tensor:
        """Number of the row that each token lies in, int64."""
        device = self.input_ids_T.device
        numbers_N = torch.arange(len(self.lengths), device=device)
        lengths_N = torch.tensor(self.lengths, device=device)
        return numbers_N.repeat_interleave(lengths_N, output_size=self.num_tokens)

    @property
    def advantages_T(self) -> Tensor:
        return self.extras["advantages"]

    @property
    def old_log_probs_T(self) -> Tensor:
        return self.extras["old_log_probs"]

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on a device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("input_ids_T", "position_ids_T", "cu_seqlens", "targets_T", "weights_T")
        }
        extras = {name: value.to(device, non_blocking=True) for name, value in self.extras.items()}
        return replace(self, **moved, extras=extras)


def pack(rows: Sequence[Row], max_tokens: int) -> list[PackedBatch]:
    """Rows into packed batches of at most `max_tokens`: first fit, longest row first, ties in the given order.

    A row that is longer than `max_tokens` gets a batch of its own. All rows must have the same extras.
    """
    bins = _first_fit([len(row.ids) for row in rows], max_tokens)
    return [_assemble([rows[index] for index in chosen], tuple(chosen)) for chosen in bins]


def pack_share(rows: Sequence[Row], max_tokens: int, rank: int, num_ranks: int) -> list[PackedBatch]:
    """The packed batches of one of several ranks, which together hold every row once.

    All ranks get the same number of batches, as few as there can be, with about as many tokens in each: the longest
    row goes first, to the batch with the fewest tokens. A batch without rows has one token and no weight.
    """
    return pack_groups([[row] for row in rows], max_tokens, rank, num_ranks)


def pack_groups(
    groups: Sequence[Sequence[Row]], max_tokens: int, rank: int = 0, num_ranks: int = 1
) -> list[PackedBatch]:
    """As `pack_share`, of rows that must lie in one batch, side by side and in their order: the two of a pair, say.

    `row_indices` count through all rows of all groups.
    """
    lengths = [sum(len(row.ids) for row in group) for group in groups]
    starts = list(itertools.accumulate((len(group) for group in groups), initial=0))
    num_each = -(-len(_first_fit(lengths, max_tokens)) // num_ranks)
    while (bins := _spread(lengths, max_tokens, num_each * num_ranks)) is None:
        num_each += 1
    batches = []
    for chosen in bins[rank::num_ranks]:
        rows = [row for index in chosen for row in groups[index]]
        places = tuple(place for index in chosen for place in range(starts[index], starts[index + 1]))
        batches.append(_assemble(rows, places) if rows else _nothing_like(groups[0][0]))
    return batches


def pack_shared(families: Sequence[Sequence[Row]], num_shared: Sequence[int], max_tokens: int) -> list[PackedBatch]:
    """As `pack`, of families of rows that begin with the same tokens, which are computed once for all of a family.

    What is shared is a row of its own, without its last token, from which each of its branches goes on with that token
    again (so that it may predict another one in each); the last token of a branch, which predicts nothing, is left out.
    A family that is longer than `max_tokens` is cut into several.

    Args:
        families: Rows, of which none of the shared tokens but the last is trained on or followed by one that is.
        num_shared: How many tokens the rows of each family begin with alike, at least 1.
        max_tokens: As in `pack`.

    Returns:
        Batches whose `row_indices` count through all rows of all families; a shared row has that of its first branch.
    """
    places = itertools.count()
    trees: list[_Tree] = []
    for family, shared in zip(families, num_shared, strict=True):
        numbered = [(row, next(places)) for row in family]
        for branches in _first_fit([len(row.ids) - shared for row, _ in numbered], max_tokens - (shared - 1)):
            trees.append(_tree([numbered[branch] for branch in branches], shared - 1))
    bins = _first_fit([tree.num_tokens for tree in trees], max_tokens)
    return [_assemble_trees([trees[index] for index in chosen]) for chosen in bins]


def num_trained(rows: Sequence[Row]) -> float:
    """Sum of the weights of all predicted tokens."""
    total = 0.0
    for row in rows:
        if row.loss_weights is not None:
            total += sum(row.loss_weights[1:])
        else:
            total += max(0, len(row.ids) - max(row.trained_from, 1))
    return total


def _nothing_like(row: Row) -> PackedBatch:
    extras = {name: [0.0] for name in row.extras}
    return _assemble([Row([row.ids[0]], loss_weights=[0.0], extras=extras)], ())


def _spread(lengths: Sequence[int], max_tokens: int, num_bins: int) -> list[list[int]] | None:
    """Things of these lengths over so many bins, evenly; None where a bin would get more than it holds."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [(0, number) for number in range(num_bins)]  # a heap: the least loaded first, ties in order
    for index in _longest_first(lengths):
        load, number = loads[0]
        length = lengths[index]
        if load > 0 and load + length > max_tokens:
            return None
        bins[number].append(index)
        heapq.heapreplace(loads, (load + length, number))
    return bins


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])


def _first_fit(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    bins: list[list[int]] = []
    free: list[int] = []
    for index in _longest_first(lengths):
        length = lengths[index]
        if length == 0:
            raise ValueError(f"rows[{index}] is empty; a row has at least one token")
        fit = next((number for number, space in enumerate(free) if space >= length), None)
        if fit is None:
            bins.append([index])
            free.append(max_tokens - length)
        else:
            bins[fit].append(index)
            free[fit] -= length
    return bins


def _assemble(rows: Sequence[Row], row_indices: tuple[int, ...]) -> PackedBatch:
    lengths = tuple(len(row.ids) for row in rows)
    names = sorted({name for row in rows for name in row.extras})
    extras = {name: _shifted([row.extras[name] for row in rows], lengths) for name in names}
    ids_T = np.concatenate([np.asarray(row.ids, dtype=np.int64) for row in rows])
    ends = np.cumsum(lengths)
    targets_T = np.roll(ids_T, -1)
    targets_T[ends - 1] = NO_TARGET
    return PackedBatch(
        input_ids_T=torch.from_numpy(ids_T),
        position_ids_T=torch.cat([torch.arange(length) for length in lengths]),
        cu_seqlens=torch.from_numpy(np.concatenate(([0], ends)).astype(np.int32)),
        targets_T=torch.from_numpy(targets_T),
        weights_T=_shifted([row.weights() for row in rows], lengths),
        extras=extras,
        row_indices=row_indices,
        lengths=lengths,
    )


class _Tree(NamedTuple):
    """Rows that begin alike, from the last token that is shared; what is before that, if computed once; places."""

    shared: Row | None
    branches: list[Row]
    row_indices: list[int]

    @property
    def num_tokens(self) -> int:
        own = sum(len(row.ids) for row in self.branches)
        return own if self.shared is None else own - len(self.branches) + len(self.shared.ids)


def _tree(numbered: list[tuple[Row, int]], num_before: int) -> _Tree:
    rows, places = [row for row, _ in numbered], [place for _, place in numbered]
    if len(rows) == 1 or num_before == 0:
        return _Tree(None, rows, places)
    return _Tree(_piece(rows[0], slice(num_before)), [_piece(row, slice(num_before, None)) for row in rows], places)


def _piece(row: Row, part: slice) -> Row:
    extras = {name: values[part] for name, values in row.extras.items()}
    return Row(row.ids[part], loss_weights=row.weights()[part], extras=extras, key=row.key)


def _assemble_trees(trees: Sequence[_Tree]) -> PackedBatch:
    """What is shared first, then all branches."""
    number_of = {index: number for number, index in enumerate(i for i, tree in enumerate(trees) if tree.shared)}
    rows = [trees[index].shared for index in number_of]
    row_indices = [trees[index].row_indices[0] for index in number_of]
    parents = [-1] * len(rows)
    for index, tree in enumerate(trees):
        rows += tree.branches
        row_indices += tree.row_indices
        parents += [number_of.get(index, -1)] * len(tree.branches)
    batch = _assemble([row for row in rows if row is not None], tuple(row_indices))
    return _continued(batch, tuple(parents)) if number_of else batch


def _continued(batch: PackedBatch, parents: tuple[int, ...]) -> PackedBatch:
    """The batch with rows that go on from others: at their positions, and without their last token."""
    has_parent = [parent >= 0 for parent in parents]
    kept_T = torch.ones(batch.num_tokens, dtype=torch.bool)
    kept_T[batch.cu_seqlens[1:][torch.tensor(has_parent)] - 1] = False
    lengths = tuple(length - cut for length, cut in zip(batch.lengths, has_parent, strict=True))
    starts = [lengths[parent] if parent >= 0 else 0 for parent in parents]
    positions = [torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    return PackedBatch(
        input_ids_T=batch.input_ids_T[kept_T],
        position_ids_T=torch.cat(positions),
        cu_seqlens=torch.tensor((0, *itertools.accumulate(lengths)), dtype=torch.int32),
        targets_T=batch.targets_T[kept_T],
        weights_T=batch.weights_T[kept_T],
        extras={name: values[kept_T] for name, values in batch.extras.items()},
        row_indices=batch.row_indices,
        lengths=lengths,
        parents=parents,
    )


def _shifted(values: Sequence[Sequence[float]], lengths: Sequence[int]) -> Tensor:
    """Per-token numbers of all rows, each moved to the token before the one it belongs to; 0 at the ends of rows."""
    for value, length in zip(values, lengths, strict=True):
        if len(value) != length:
            raise ValueError(f"{len(value)} numbers were given for a row of {length} tokens; give one per token")
    moved_T = np.roll(np.concatenate([np.asarray(value, dtype=np.float32) for value in values]), -1)
    moved_T[np.cumsum(lengths) - 1] = 0.0
    return torch.from_numpy(moved_T)
