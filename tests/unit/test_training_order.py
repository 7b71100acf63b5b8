"""What is trained on at which step."""

from __future__ import annotations

import numpy as np

from derivatives.training.order import TokenStream, epoch_order, items_between


def test_each_epoch_has_every_item_once_in_an_order_of_its_own() -> None:
    first, second = items_between(0, 50, 50, seed=1), items_between(50, 100, 50, seed=1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != items_between(0, 50, 50, seed=2)


def test_the_stream_does_not_depend_on_how_it_is_cut() -> None:
    whole = items_between(0, 23, 10, seed=0)
    assert whole == items_between(0, 7, 10, 0) + items_between(7, 19, 10, 0) + items_between(19, 23, 10, 0)
    assert whole[10:20] == epoch_order(10, 0, 1).tolist()


def test_a_step_takes_the_documents_that_begin_in_it() -> None:
    lengths = np.array([4, 1, 3, 2])
    stream = TokenStream(lengths, seed=0)
    order = epoch_order(4, 0, 0)
    starts = np.cumsum([0, *lengths[order][:-1]])
    expected = [int(document) for document, start in zip(order, starts, strict=True) if 3 <= start < 8]
    assert stream.documents_between(3, 8) == expected


def test_two_epochs_of_tokens_hold_every_document_twice() -> None:
    stream = TokenStream(np.array([4, 1, 3, 2]), seed=5)
    steps = [stream.documents_between(first, first + 4) for first in range(0, 20, 4)]
    assert sorted(document for step in steps for document in step) == [0, 0, 1, 1, 2, 2, 3, 3]
    one_by_one = [stream.documents_between(first, first + 1) for first in range(20)]
    assert stream.documents_between(0, 20) == [document for found in one_by_one for document in found]
