"""The reporter: whoever reports never waits, whatever the server does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from flows.reporter import LONGEST_PAUSE_S, MAX_LINES, PATIENCE, Reporter, quietly


def nothing(_: int) -> None:
    return


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_slow_server_is_asked_less_often() -> None:
    took: list[float] = []

    def slow() -> None:
        began = time.monotonic()
        time.sleep(0.05)
        took.append(time.monotonic() - began)

    reporter = Reporter(slow, nothing, pause_s=0.001, tick_s=0.001)
    until(lambda: len(reporter.pauses) >= 2)
    assert reporter.close(60.0)
    # At most a fifth of the time goes into updates: after one that took t the pause is at least 4 t.
    assert all(pause >= PATIENCE * seconds for pause, seconds in zip(reporter.pauses, took, strict=True))
    assert reporter.pauses[0] >= 4 * 0.05


@pytest.mark.parametrize("kind", [OSError, asyncio.CancelledError, SystemExit, KeyboardInterrupt])
def test_one_that_does_not_answer_is_asked_ever_more_seldom_and_what_it_raises_ends_nothing(
    kind: type[BaseException],
) -> None:
    calls: list[int] = []

    def dead() -> None:
        calls.append(1)
        if len(calls) <= 3:
            raise kind

    reporter = Reporter(dead, nothing, pause_s=0.001, tick_s=0.001)
    until(lambda: len(calls) >= 4)
    said: list[str] = []
    reporter.say(lambda: said.append("line"))
    reporter.last(lambda: said.append("last"))
    assert reporter.close(60.0) and said == ["line", "last"]
    first, second, third, fourth = list(reporter.pauses)[:4]
    assert 0.002 <= first <= second <= third and third >= 0.008 and fourth < LONGEST_PAUSE_S
    assert quietly(dead) and not quietly(lambda: 1 / 0)  # type: ignore[arg-type, return-value]


def test_pauses_grow_to_a_bound() -> None:
    reporter = Reporter(lambda: 1 / 0, nothing, pause_s=50.0, tick_s=0.001)  # type: ignore[arg-type, return-value]
    until(lambda: len(reporter.pauses) == 1)
    assert list(reporter.pauses) == [LONGEST_PAUSE_S] and reporter.close(60.0)


def test_lines_never_wait_and_the_oldest_give_way_with_a_word() -> None:
    entered, free = threading.Event(), threading.Event()
    said: list[int] = []
    missed: list[int] = []

    def stuck() -> None:
        entered.set()
        free.wait(60.0)

    reporter = Reporter(stuck, missed.append, pause_s=60.0, tick_s=0.001)
    assert entered.wait(60.0)
    for number in range(MAX_LINES + 50):  # returns although the thread stands
        reporter.say(lambda number=number: said.append(number))  # type: ignore[misc]
    assert said == []
    free.set()
    assert reporter.close(60.0)
    assert said == list(range(50, MAX_LINES + 50)) and missed == [50]


def test_the_end_is_not_held_up_by_a_call_that_hangs() -> None:
    entered, free = threading.Event(), threading.Event()

    def stuck() -> None:
        entered.set()
        free.wait(60.0)

    reporter = Reporter(stuck, nothing, pause_s=60.0, tick_s=0.001)
    assert entered.wait(60.0)
    assert not reporter.close(0.01)  # given up: the thread is a daemon and goes with the process
    free.set()


def test_the_last_update_comes_before_the_last_words_and_one_that_fails_stops_none() -> None:
    order: list[str] = []
    reporter = Reporter(lambda: order.append("update"), nothing, pause_s=60.0, tick_s=60.0)
    reporter.last(lambda: order.append("table"))
    reporter.last(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    reporter.last(lambda: order.append("card"))
    assert reporter.close(60.0) and order == ["update", "table", "card"]
