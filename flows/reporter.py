"""The one way in which a run's calls to Prefect leave: a thread that nobody waits for.

A training must not notice its observer. So whoever reports leaves a note and goes on; the thread calls, one call at a
time, and takes every failure of whatever kind for what it is, a missing picture:

- a slow server is asked less often: the pause after an update is `PATIENCE` times what it took;
- one that does not answer is asked ever more seldom, up to `LONGEST_PAUSE_S`, until it is back;
- lines of the log wait in a queue that forgets its oldest ones, and go a few at a time;
- at the end there are `CLOSE_LIMIT_S` seconds for the last words; after that the run is over without them.

Everything that is told here also lies in the store.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

TICK_S = 0.5
PAUSE_S = 3.0
"""Between updates."""
PATIENCE = 4.0
"""Seconds of pause for each second that an update took: at most a fifth of the time is spent in them."""
LONGEST_PAUSE_S = 60.0
CLOSE_LIMIT_S = 5.0
REQUEST_LIMIT_S = 10.0
MAX_LINES = 200
LINES_A_TICK = 10


@dataclass(frozen=True)
class Place:
    """To which flow run and task run of Prefect's something belongs."""

    flow_run: str | None = None
    task_run: str | None = None

    @classmethod
    def here(cls) -> Place:
        """Where this is called; asks no server."""
        from prefect.context import FlowRunContext, TaskRunContext

        flow, task = FlowRunContext.get(), TaskRunContext.get()
        flow_run = getattr(flow, "flow_run", None)
        task_run = getattr(task, "task_run", None)
        flow_id = getattr(flow_run, "id", None) or getattr(task_run, "flow_run_id", None)
        return cls(str(flow_id) if flow_id else None, str(task_run.id) if task_run is not None else None)


class Api(Protocol):
    """What is asked of a server; every call may raise anything."""

    def create(self, kind: str, key: str, data: Any, description: str, place: Place) -> str:
        """Make an artifact; its id."""

    def update(self, artifact: str, data: Any, description: str) -> None:
        """Change one in place."""

    def find(self, prefix: str, place: Place) -> str | None:
        """The id of the flow run's newest artifact whose key begins so."""

    def boards(self, keys: list[str]) -> dict[str, str]:
        """Of these keys those that exist, with the addresses of their pages."""

    def address(self, artifact: str) -> str:
        """Of an artifact's page."""


class PrefectApi:
    """The server of the settings, for one thread.

    Prefect's own functions for artifacts also send an event with the whole content at each update, which the server
    keeps for a week: at a page every few seconds that is a gigabyte a day. And they open a client for each call, which
    costs more than the call. So one client is kept, and asked for the bare request.
    """

    def __init__(self) -> None:
        self._client: Any = None

    def create(self, kind: str, key: str, data: Any, description: str, place: Place) -> str:
        """POST /artifacts/. A table goes as JSON in a string, which is what the page reads."""
        if kind == "table":
            data = json.dumps(data)
        body = {"type": kind, "key": key, "data": data, "description": description}
        body |= {"flow_run_id": place.flow_run, "task_run_id": place.task_run}
        made = self._request("POST", "/artifacts/", {name: value for name, value in body.items() if value is not None})
        return str(made["id"])

    def update(self, artifact: str, data: Any, description: str) -> None:
        """PATCH /artifacts/ID."""
        self._request("PATCH", f"/artifacts/{artifact}", {"data": data, "description": description})

    def find(self, prefix: str, place: Place) -> str | None:
        """POST /artifacts/filter."""
        if place.flow_run is None:
            return None
        wanted = {"flow_run_id": {"any_": [place.flow_run]}, "key": {"like_": prefix}}
        found = self._request("POST", "/artifacts/filter", {"artifacts": wanted, "sort": "CREATED_DESC", "limit": 5})
        return next((str(one["id"]) for one in found if str(one.get("key") or "").startswith(prefix)), None)

    def boards(self, keys: list[str]) -> dict[str, str]:
        """POST /artifacts/latest/filter."""
        found = self._request("POST", "/artifacts/latest/filter", {"artifacts": {"key": {"any_": keys}}, "limit": 100})
        return {str(one["key"]): self.address(str(one["latest_id"])) for one in found}

    def address(self, artifact: str) -> str:
        """A path on the server's own page, wherever that was opened from."""
        return f"/v2/artifacts/artifact/{artifact}"

    def _request(self, method: str, path: str, body: Any) -> Any:
        if self._client is None:
            self._client = self._open()
        answer = self._client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    @staticmethod
    def _open() -> Any:
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

        # One attempt: the reporter has its own way to wait, and Prefect's could hold the end of the run up for minutes.
        # Both contexts are those of the reporter's thread, and end with it.
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}).__enter__()
        return get_client(httpx_settings={"timeout": REQUEST_LIMIT_S}, sync_client=True).__enter__()


class Reporter:
    """The thread.

    Args:
        update: Brings the server up to date; called again and again, and at the end once more.
        missed: Says in the log that so many lines of it gave way.
        pause_s: Seconds between two updates at least.
        tick_s: How often lines of the log go.
    """

    def __init__(
        self,
        update: Callable[[], None],
        missed: Callable[[int], None],
        pause_s: float = PAUSE_S,
        tick_s: float = TICK_S,
    ) -> None:
        self._update, self._missed, self._pause_s, self._tick_s = update, missed, pause_s, tick_s
        self._lines: deque[Callable[[], None]] = deque(maxlen=MAX_LINES)
        self._num_said = self._num_handled = 0
        self._last_words: list[Callable[[], None]] = []
        self._closing = threading.Event()
        self._failures = 0
        self.pauses: deque[float] = deque(maxlen=100)
        """The latest pauses, seconds each; for whoever wants to know how the server does."""
        context = contextvars.copy_context()  # what is said at the end belongs to the flow run that is current here
        self._thread = threading.Thread(target=context.run, args=(self._work,), daemon=True, name="reporter")
        self._thread.start()

    def say(self, line: Callable[[], None]) -> None:
        """A line of the log, as a call that says it. Returns at once; the oldest lines give way."""
        self._num_said += 1
        self._lines.append(line)

    def last(self, call: Callable[[], None]) -> None:
        """Something to be told after the last update, in order."""
        self._last_words.append(call)

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> bool:
        """End it, waiting so long at most; whether everything was told."""
        self._closing.set()
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        due = 0.0
        while not self._closing.wait(self._tick_s):
            if time.monotonic() >= due:
                due = time.monotonic() + self._timed_update()
            self._say_some(LINES_A_TICK)
        self._timed_update()
        self._say_some(MAX_LINES)
        for call in self._last_words:
            quietly(call)

    def _timed_update(self) -> float:
        """One update; returns the seconds to wait before the next."""
        began = time.monotonic()
        done = quietly(self._update)
        took = time.monotonic() - began
        self._failures = 0 if done else self._failures + 1
        pause = max(self._pause_s * 2 ** min(self._failures, 10), PATIENCE * took)
        self.pauses.append(min(pause, LONGEST_PAUSE_S))
        return self.pauses[-1]

    def _say_some(self, limit: int) -> None:
        missed = self._num_said - self._num_handled - len(self._lines)
        if missed > 0:
            self._num_handled += missed
            quietly(lambda: self._missed(missed))
        for _ in range(min(limit, len(self._lines))):
            self._num_handled += 1
            quietly(self._lines.popleft())


def quietly(call: Callable[[], None]) -> bool:
    """Call it whatever it raises; whether it raised nothing."""
    try:
        call()
    except BaseException:  # a client's event loop also raises what is no Exception; this thread has nobody to tell
        return False
    return True
