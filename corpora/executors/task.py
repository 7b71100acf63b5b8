"""A task, and what its end looks like from the process that does it."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from configs.errors import RetryableError

MOST_DEATHS = 3
"""Workers that may die over one task."""


class Task(NamedTuple):
    """A function of a module, its arguments, and how a message calls it (`code.jsonl, shard 3: first pass`)."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Outcome(NamedTuple):
    """What came of a task: its result, or what it raised; and the processor time that it took, in seconds."""

    result: Any
    error: BaseException | None
    processor_seconds: float


def do(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """Call a function; what it raises is a part of the outcome, in a form that can be sent."""
    start = time.process_time()
    try:
        return Outcome(function(*arguments), None, time.process_time() - start)
    except Exception as error:
        return Outcome(None, _sendable(error), time.process_time() - start)


def died(task: Task, num_deaths: int, remedy: str) -> RetryableError:
    """What to say of a task over which too many workers died."""
    return RetryableError(f"{task.name}: its worker died {num_deaths} times (look for the out-of-memory killer of the "
                          f"machine); {remedy} and start again: what is done is kept")


def _sendable(error: Exception) -> BaseException:
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # classes of libraries whose arguments are not what they were made of
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
