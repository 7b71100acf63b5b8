"""The mixture: exact parts, repeats, shortfalls, and orders that depend on the seed alone."""

from __future__ import annotations

import hashlib

import numpy as np

from corpora.mix import MAX_PASSES, interleave, parts_of_budget, select
from corpora.order import in_split, shuffled


def test_parts_sum_to_the_budget_exactly() -> None:
    assert parts_of_budget(100, [3.0, 1.0]) == [75, 25]
    assert parts_of_budget(10, [1.0, 1.0, 1.0]) == [4, 3, 3]  # 3.33 each; the one left goes to the first
    assert parts_of_budget(1, [0.2, 0.8]) == [0, 1]


def test_records_are_taken_whole_until_the_next_would_exceed_the_budget() -> None:
    selection = select(np.array([10] * 7), 35, seed=1, name="a")
    assert (len(selection.records), selection.num_tokens, selection.num_passes, selection.shortfall) == (3, 30, 1, 0)
    assert len(set(selection.records.tolist())) == 3


def test_a_source_that_runs_out_is_repeated_in_a_new_order() -> None:
    selection = select(np.array([10] * 20), 600, seed=1, name="a")
    passes = selection.records.reshape(3, 20)
    assert (selection.num_tokens, selection.num_passes, selection.shortfall) == (600, 3, 0)
    assert all(sorted(one) == list(range(20)) for one in passes.tolist())
    assert passes[0].tolist() != passes[1].tolist() != passes[2].tolist()


def test_after_the_last_pass_the_rest_is_a_shortfall() -> None:
    selection = select(np.array([10, 20]), 1000, seed=1, name="a")
    assert selection.num_tokens == MAX_PASSES * 30
    assert selection.shortfall == 1000 - MAX_PASSES * 30


def test_an_empty_source_falls_short_of_its_whole_part() -> None:
    selection = select(np.zeros(0, dtype=np.int64), 50, seed=1, name="a")
    assert (len(selection.records), selection.num_tokens, selection.shortfall) == (0, 0, 50)


def test_without_a_budget_everything_is_taken_once() -> None:
    selection = select(np.array([5, 6, 7]), None, seed=1, name="a")
    assert sorted(selection.records.tolist()) == [0, 1, 2] and selection.num_tokens == 18


def test_sources_are_spread_evenly_over_the_corpus() -> None:
    owners, positions = interleave([np.array([10] * 4), np.array([10] * 2)])
    # middles: 1/8 3/8 5/8 7/8 and 1/4 3/4
    assert owners.tolist() == [0, 1, 0, 0, 1, 0]
    assert positions.tolist() == [0, 0, 1, 2, 1, 3]
    same, _ = interleave([np.zeros(4), np.zeros(2)])  # problems are not tokenised, and spread all the same
    assert same.tolist() == owners.tolist()


def test_orders_depend_on_seed_and_name_and_stay_the_same_forever() -> None:
    assert shuffled(8, 0, "a").tolist() == shuffled(8, 0, "a").tolist()
    assert shuffled(100, 0, "a").tolist() != shuffled(100, 1, "a").tolist()
    assert shuffled(100, 0, "a").tolist() != shuffled(100, 0, "b").tolist()
    assert shuffled(8, 0, "a").tolist() == [5, 6, 7, 2, 1, 0, 4, 3]


def test_orders_are_those_of_splitmix64() -> None:
    def key(state: int) -> int:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        return state ^ (state >> 31)

    start = int.from_bytes(hashlib.blake2b(repr((3, "a", 1)).encode(), digest_size=8).digest(), "little")
    keys = [key((start + (i + 1) * 0x9E3779B97F4A7C15) % 2**64) for i in range(50)]
    assert shuffled(50, 3, "a", 1).tolist() == sorted(range(50), key=lambda i: keys[i])


def test_held_out_and_training_parts_of_a_text_source_share_nothing() -> None:
    names = [f"folder/module_{i}.py" for i in range(2000)]
    held = [name for name in names if in_split(name, "heldout")]
    train = [name for name in names if in_split(name, "train")]
    assert not set(held) & set(train) and sorted(held + train) == sorted(names)
    assert 60 < len(held) < 140  # one in twenty of 2000 is 100
