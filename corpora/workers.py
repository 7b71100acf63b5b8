"""Processes that work for this one and end with it, also when it is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def pool(
    num_workers: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """A pool of fresh interpreters; `start` is called in each with the arguments.

    A worker of the library's own pools waits for work for ever once its parent was killed: it holds both ends of the
    pipe from which the work comes.
    """
    return ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), _begin, (start, arguments))


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    if start is not None:
        start(*arguments)
