"""Packing loses no token and holds its limit, whatever the rows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from derivatives.training.attention import plan
from derivatives.training.batch import Row, pack

ROWS = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=12), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(12, 40))
def test_every_row_is_in_one_batch_in_full_and_no_batch_is_too_large(ids: list[list[int]], max_tokens: int) -> None:
    found = {}
    for batch in pack([Row(row) for row in ids], max_tokens):
        assert batch.num_tokens <= max_tokens
        pieces = batch.input_ids_T.split(list(batch.lengths))
        found.update({index: piece.tolist() for index, piece in zip(batch.row_indices, pieces, strict=True)})
    assert found == dict(enumerate(ids))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_padded_groups_hold_every_document_once_with_bounded_padding(lengths: list[int]) -> None:
    (batch,) = pack([Row([1] * length) for length in lengths], sum(lengths))
    packing = plan(batch.lengths, batch.cu_seqlens, "documents")
    num_places = sum(group.number * group.length for group in packing.groups)
    assert sum(group.number for group in packing.groups) == len(lengths)
    assert num_places * 0.8 <= sum(lengths) <= num_places
    if packing.slots_T is not None:
        slots = packing.slots_T.tolist()
        assert len(set(slots)) == len(slots) == sum(lengths) and max(slots) < num_places
