"""Verdicts as they come: over futures that a pool's `submit` gives, for a loop and for an event loop."""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from verifiers.api import Task, Verdict

Pair = tuple[Task, str]
Submit = Callable[[Task, str], Future[Verdict]]


def stream(submit: Submit, pairs: Iterable[Pair], max_pending: int) -> Iterator[tuple[int, Verdict]]:
    """Position and verdict of each pair in the order of completion; see `VerifierPool.stream`."""
    finished: queue.SimpleQueue[tuple[int, Future[Verdict]]] = queue.SimpleQueue()
    pending: dict[int, Future[Verdict]] = {}
    source = enumerate(pairs)
    drained = False
    try:
        while pending or not drained:
            if not drained and len(pending) < max_pending:
                drawn = next(source, None)
                if drawn is None:
                    drained = True
                    continue
                index, (task, completion) = drawn
                pending[index] = submit(task, completion)
                pending[index].add_done_callback(functools.partial(_hand_in, finished.put, index))
            else:
                index, future = finished.get()
                del pending[index]
                yield index, future.result()
            while not finished.empty():
                index, future = finished.get()
                del pending[index]
                yield index, future.result()
    finally:  # whoever stops listening wants no more verdicts
        for future in pending.values():
            future.cancel()


async def stream_async(
    submit: Submit, pairs: Iterable[Pair] | AsyncIterable[Pair], max_pending: int
) -> AsyncIterator[tuple[int, Verdict]]:
    """`stream` for an event loop: pairs are drawn by a task of its own, so that a slow source delays no verdict."""
    finished: asyncio.Queue[tuple[int, asyncio.Future[Verdict]] | None] = asyncio.Queue()
    pending: dict[int, asyncio.Future[Verdict]] = {}
    room = asyncio.Semaphore(max_pending)

    async def feed() -> None:
        index = 0
        async for task, completion in _as_async(pairs):
            await room.acquire()
            pending[index] = asyncio.wrap_future(submit(task, completion))
            pending[index].add_done_callback(functools.partial(_hand_in, finished.put_nowait, index))
            index += 1

    feeder = asyncio.create_task(feed())
    feeder.add_done_callback(lambda _: finished.put_nowait(None))
    drained = False
    try:
        while pending or not drained:
            item = await finished.get()
            if item is None:
                feeder.result()  # raises what the source or `submit` raised
                drained = True
                continue
            index, future = item
            del pending[index]
            room.release()
            yield index, future.result()
    finally:
        feeder.cancel()
        for waiting in pending.values():
            waiting.cancel()


def _hand_in(put: Callable[[Any], None], index: int, future: Any) -> None:
    put((index, future))


async def _as_async(pairs: Iterable[Pair] | AsyncIterable[Pair]) -> AsyncIterator[Pair]:
    if isinstance(pairs, AsyncIterable):
        async for pair in pairs:
            yield pair
    else:
        for pair in pairs:
            yield pair
            await asyncio.sleep(0)  # others have their turn between two draws
