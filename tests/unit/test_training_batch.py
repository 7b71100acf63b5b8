"""Packing rows into batches."""

from __future__ import annotations

import pytest
import torch

from derivatives.training.batch import NO_TARGET, Row, num_trained, pack, pack_share


def test_rows_lie_longest_first_and_targets_stay_inside_their_row() -> None:
    (batch,) = pack([Row([7, 8]), Row([1, 2, 3])], max_tokens=8)
    assert batch.input_ids_T.tolist() == [1, 2, 3, 7, 8]
    assert batch.position_ids_T.tolist() == [0, 1, 2, 0, 1]
    assert batch.targets_T.tolist() == [2, 3, NO_TARGET, 8, NO_TARGET]
    assert batch.weights_T.tolist() == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert batch.cu_seqlens.tolist() == [0, 3, 5] and batch.cu_seqlens.dtype == torch.int32
    assert batch.row_indices == (1, 0) and batch.lengths == (3, 2)


def test_the_weight_of_a_token_stands_at_the_token_that_predicts_it() -> None:
    (batch,) = pack([Row([1, 2, 3, 4], trained_from=2)], max_tokens=8)
    assert batch.weights_T.tolist() == [0.0, 1.0, 1.0, 0.0]  # predicting 3 and 4
    (batch,) = pack([Row([1, 2, 3], loss_weights=[9.0, 0.25, 0.5])], max_tokens=8)
    assert batch.weights_T.tolist() == [0.25, 0.5, 0.0]


def test_extras_are_shifted_like_the_targets() -> None:
    rows = [Row([1, 2, 3], extras={"advantages": [0, 5, 6]}), Row([4, 5], extras={"advantages": [0, 7]})]
    (batch,) = pack(rows, max_tokens=8)
    assert batch.advantages_T.tolist() == [5.0, 6.0, 0.0, 7.0, 0.0]


def test_rows_go_into_the_first_batch_with_room() -> None:
    rows = [Row([0] * length) for length in (3, 5, 2, 4)]
    # 5 opens a batch with 1 free, 4 one with 2 free, 3 one with 3 free, and 2 fits beside the 4
    assert [batch.row_indices for batch in pack(rows, max_tokens=6)] == [(1,), (3, 2), (0,)]


def test_a_row_longer_than_the_limit_has_a_batch_of_its_own() -> None:
    assert [batch.lengths for batch in pack([Row([1] * 3), Row([2] * 9)], max_tokens=4)] == [(9,), (3,)]


def test_a_row_without_tokens_or_with_too_few_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows\[1\] is empty"):
        pack([Row([1]), Row([])], max_tokens=4)
    with pytest.raises(ValueError, match="1 numbers were given for a row of 2 tokens"):
        pack([Row([1, 2], loss_weights=[1.0])], max_tokens=4)


def test_ranks_get_as_many_batches_each_with_about_as_many_tokens() -> None:
    rows = [Row([1] * length) for length in (9, 4, 3, 3, 2, 1)]
    # 22 tokens into batches of 10 take 3, so each of 2 ranks gets 2. Longest first, each to the emptiest: 9; 4; 3; 3;
    # the 2 to the first of the 3s, the 1 to the other.
    found = [[batch.row_indices for batch in pack_share(rows, 10, rank, 2)] for rank in range(2)]
    assert found == [[(0,), (2, 4)], [(1,), (3, 5)]]


def test_where_even_shares_do_not_fit_there_is_one_batch_more_for_each() -> None:
    rows = [Row([1] * length) for length in (3, 3, 2, 2, 2)]
    # First fit needs two batches of 6: 3 + 3 and 2 + 2 + 2. Spread evenly, 3 + 2 and 3 + 2 have no room for the last.
    found = [[batch.lengths for batch in pack_share(rows, 6, rank, 2)] for rank in range(2)]
    assert found == [[(3,), (2, 2)], [(3,), (2,)]]


def test_a_rank_without_rows_gets_a_token_without_weight() -> None:
    rows = [Row([5, 6], extras={"advantages": [0.0, 1.0]})]
    (only,), (nothing,) = (pack_share(rows, 8, rank, 2) for rank in range(2))
    assert only.row_indices == (0,)
    assert nothing.input_ids_T.tolist() == [5] and nothing.weights_T.tolist() == [0.0]
    assert nothing.row_indices == () and nothing.advantages_T.tolist() == [0.0]


def test_trained_tokens_are_those_with_a_weight_in_the_batches() -> None:
    rows = [Row([1] * 5), Row([1] * 4, trained_from=3), Row([1, 2, 3], loss_weights=[9.0, 0.5, 1.0]), Row([7])]
    assert num_trained(rows) == 4 + 1 + 1.5 + 0
    assert num_trained(rows) == sum(float(batch.weights_T.sum()) for batch in pack(rows, 8))
