"""What Prefect's UI shows of a run: the board, a ring for each stage, and at the end its tables and its model card.

The board is one artifact of Markdown (`flows/board_page.py`) that is changed in place while the run goes on and is its
summary afterwards. All of it is drawn and sent by the thread of `flows/reporter.py`; what runs in the flow's own thread
only notes what happened.
"""

from __future__ import annotations

import contextvars
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import leaderboard
from flows.board_end import result_rows
from flows.board_facts import Curves, Rollouts
from flows.board_page import Expected, Row, Run, page, status_line
from flows.board_times import Expectations, earlier_times
from flows.plan import PlannedStage
from flows.reporter import CLOSE_LIMIT_S, PAUSE_S, TICK_S, Api, Place, PrefectApi, Reporter, quietly
from flows.stages import Session
from flows.terminal import PlainLines, duration, metrics_text, time_left

__all__ = ["Board", "artifact_key", "result_rows"]

LOG_EVERY_S = 30.0
MAX_LOOKS = 8
"""At a log, each a megabyte, in one update."""
MAX_CARD = 100_000
"""Characters of a model card."""
WAITS = re.compile(r"wait(?:s|ing)\b|stops for a pause|paused")
ALARMS = re.compile(r"drift alarm|no progress for|forgetting|another machine took over|stalled")


def artifact_key(*parts: str) -> str:
    """A key that Prefect accepts: [a-z0-9-]."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class Board:
    """A listener that keeps a run's artifacts in Prefect.

    Args:
        session: The run.
        api: The server; Prefect's own by default.
        pause_s: Seconds between two updates at least.
    """

    def __init__(self, session: Session, api: Api | None = None, pause_s: float = PAUSE_S) -> None:
        self.run = run_of(session)
        self._session, self._api = session, api or PrefectApi()
        self._rows = {row.id: row for row in self.run.rows}
        self._place = Place.here()
        self._places: dict[str, Place] = {}
        self._rings: dict[str, tuple[float, str]] = {}
        self._sent: dict[str, tuple[str, Any, str]] = {}
        self._asked: set[str] = set()
        self._expectations = Expectations(session)
        self._looked_back = self._told_address = False
        self._lines = PlainLines(self.note, LOG_EVERY_S)
        self._reporter = Reporter(self._update, _missed, pause_s, min(pause_s, TICK_S))

    def stage_started(self, planned: PlannedStage, folder: Path) -> None:
        """Its ring at 0%, its row running."""
        row = self._rows[planned.stage.id]
        self._places[row.id] = Place.here()
        row.curves, row.rollouts = Curves(folder / "progress.jsonl"), Rollouts(folder / "rollouts.jsonl")
        row.began, row.waits, row.state = time.time(), "", "running"
        self._rings[row.id] = (0.0, "started")
        self._lines.stage_started(planned, folder)

    def stage_progress(self, planned: PlannedStage, line: Mapping[str, Any]) -> None:
        """Its ring and its row move."""
        row = self._rows[planned.stage.id]
        row.line, row.seen, row.waits = line, time.time(), ""
        done = f"{line.get('step')}/{line.get('total')}{time_left(line)}"
        self._rings[row.id] = (100.0 * row.share, ", ".join(filter(None, (done, metrics_text(line, ", ")))))
        self._lines.stage_progress(planned, line)

    def stage_ended(self, planned: PlannedStage, entry: Mapping[str, Any]) -> None:
        """How it ended."""
        row = self._rows[planned.stage.id]
        self._places.setdefault(row.id, Place.here())
        row.state = "reused" if entry["reused"] else str(entry["status"])
        row.seconds = entry.get("built_in_s") if entry["reused"] else entry["seconds"]
        row.digest, row.waits = str(entry["digest"]), ""
        if entry.get("folder"):  # a published folder has another name than the one it was built under
            if row.curves is None:
                row.curves = Curves(Path(entry["folder"]) / "progress.jsonl")
                row.rollouts = Rollouts(Path(entry["folder"]) / "rollouts.jsonl")
            row.curves.path = Path(entry["folder"]) / "progress.jsonl"
        if entry["reused"] and planned.artifact is not None:
            row.built_by = str(planned.artifact.manifest.get("run", ""))
        state = "reused" if entry["reused"] else f"{entry['status']} in {duration(entry['seconds'])}"
        share = 100.0 if entry["status"] == "completed" else 100.0 * row.share
        metrics = metrics_text(row.line, ", ")
        self._rings[row.id] = (share, ", ".join(filter(None, (state, metrics))))
        self._lines.stage_ended(planned, entry)

    def note(self, text: str) -> None:
        """Goes to the log of the task, or else of the flow, that is current where this is called; and to its row."""
        stage_id, _, rest = text.partition(": ")
        row = self._rows.get(stage_id)
        if row is not None and WAITS.match(rest):
            row.waits = rest
        elif row is not None and ALARMS.match(rest):
            row.alarms.append(f"{time.strftime('%H:%M UTC', time.gmtime())}: {rest}")
        context = contextvars.copy_context()
        self._reporter.say(lambda: context.run(_log, text))

    def conclude(
        self,
        record: Mapping[str, Any],
        results: Mapping[str, Any] | None,
        standing: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """The board becomes the summary; the table, the card and the standing of all runs follow."""
        self.run.record, self.run.results = record, results
        self.run.status = str(record["status"])
        if results:
            self._at_end("table", artifact_key(record["recipe"], "results"), result_rows(results), record["id"])
        if record.get("release"):
            self._reporter.last(lambda: self._publish_card(Path(record["release"]), str(record["recipe"])))
        if standing:
            told = "Completed runs of this store, best first"
            self._at_end("table", leaderboard.KEY, [dict(row) for row in standing], told)

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> None:
        """Flush for a few seconds at most."""
        self._expectations.close()
        self._reporter.close(limit_s)

    def _update(self) -> None:
        """Draw the page and bring it and the rings up to date. In the reporter's thread."""
        self._look()
        now = time.time()
        if "board" not in self._sent:
            known = self._api.find("board-", self._place)  # a run that goes on after a pause or a retry has one
            self._sent["board"] = (known or "", None, "")
        key, told = artifact_key("board", self.run.id), status_line(self.run, now)
        self._send("board", "markdown", key, page(self.run, now), told, self._place, as_of(self.run, now))
        if not self._told_address:
            self._told_address = True
            address = f"{_server()}{self._api.address(self._sent['board'][0])}"
            quietly(lambda: _log(f"this run's page: {address}"))
        for stage_id, (share, text) in list(self._rings.items()):
            # At the task, so that the task's page and its bar in the timeline show it too.
            key = artifact_key(self.run.recipe, stage_id)
            self._send(f"ring {stage_id}", "progress", key, share, text, self._places[stage_id])

    def _send(
        self, name: str, kind: str, key: str, data: Any, description: str, place: Place, more: str = ""
    ) -> None:
        """Make an artifact, or change it where it has changed; a change of `more` alone, put after it, is none."""
        known, sent, told = self._sent.get(name, ("", None, ""))
        if (sent, told) == (data, description):
            return
        content = f"{data}{more}" if more else data
        try:
            if known:
                self._api.update(known, content, description)
            else:
                known = self._api.create(kind, key, content, description, place)
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", None) == 404:  # somebody deleted it
                self._sent.pop(name, None)
            raise
        self._sent[name] = (known, data, description)

    def _look(self) -> None:
        """Read what has changed on the disk."""
        if not self._looked_back:
            self._looked_back = True
            quietly(lambda: self._expect(earlier_times(self._session)))
        quietly(lambda: self._expect(self._expectations.look()))
        over = self.run.status != "running"
        for row in self.run.rows:
            if row.state == "running" or over:
                _read(row)
        self.run.waits = self._waits()
        self.run.memory = None if over else host_memory()
        quietly(self._find_links)

    def _find_links(self) -> None:
        """The boards of the runs that built what is reused, where this server has them."""
        wanted = {row.built_by for row in self.run.rows if row.built_by} - self._asked
        if wanted:
            keys = {artifact_key("board", name): name for name in sorted(wanted)}
            found = self._api.boards(list(keys))
            self._asked |= wanted
            self.run.links = {**self.run.links, **{keys[key]: url for key, url in found.items() if key in keys}}

    def _waits(self) -> str:
        """What the run as a whole waits for: its resumption, or its devices."""
        paused = self._session.record.get("paused")
        if not paused:
            return self._session.waiting
        at = "" if paused.get("step") is None else f", with a checkpoint of step {paused['step']}"
        return f"paused in {paused.get('stage')}{at}; nothing holds the device, and Resume goes on"

    def _expect(self, found: Mapping[str, Expected]) -> None:
        for stage_id, expected in found.items():
            self._rows[stage_id].expected = expected

    def _at_end(self, kind: str, key: str, data: Any, description: str) -> None:
        self._reporter.last(lambda: self._send(key, kind, key, data, description, self._place))

    def _publish_card(self, release: Path, recipe: str) -> None:
        """The model card, and its address on the board."""
        text = (release / "README.md").read_text(encoding="utf-8")[:MAX_CARD]
        card = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        key = artifact_key("model-card", recipe)
        self._send(key, "markdown", key, card, f"Model card of {self.run.id}", self._place)
        self.run.card = self._api.address(self._sent[key][0])
        self._update()


def run_of(session: Session) -> Run:
    """The page's view of a run that is about to begin."""
    record, plan = session.record, session.plan
    rows = []
    for planned in plan.stages:
        allowed = getattr(planned.stage, "max_forgetting", None)
        rows.append(Row(planned.stage.id, planned.stage.kind, planned.digest, reads=tuple(planned.inputs),
                        max_forgetting=allowed))  # fmt: skip
    return Run(
        str(record["recipe"]), str(record["id"]), str(plan.recipe.base), session.machine.name, str(session.store.root),
        str(record.get("command") or ""), time.time(), rows=rows,
    )  # fmt: skip


def host_memory(path: Path = Path("/proc/meminfo")) -> tuple[float, float] | None:
    """Bytes of the host's memory in use and in all."""
    try:
        facts = dict(re.findall(r"^(\w+):\s+(\d+) kB$", path.read_text(), re.MULTILINE))
        total, available = (1024.0 * int(facts[name]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):
        return None
    return total - available, total


def as_of(run: Run, now: float) -> str:
    """The page's last line: the UI does not look again by itself."""
    if run.status != "running":
        return ""
    when = time.strftime("%H:%M:%S UTC", time.gmtime(now))
    return f"\n*As of {when}. Reload the page, or come back to its tab, for the newest.*\n"


def _read(row: Row) -> None:
    looks = 0
    while row.curves is not None and row.curves.look():
        looks += 1
        if looks == MAX_LOOKS:
            if row.state != "running":  # half of a log would be a curve that ends too early
                row.curves = None
            break
    if row.rollouts is not None:
        row.rollouts.look()
    name = f"{row.kind}/forgetting"
    rise = row.curves.figures.get(name, 0.0) if row.curves is not None else 0.0
    allowed, told = row.max_forgetting, any("forgetting" in alarm for alarm in row.alarms)
    if allowed is not None and rise > allowed and not told:
        row.alarms.append(f"forgetting: the bits per byte of a text rose by {rise:+.1%}; allowed is {allowed:+.1%}")


def _server() -> str:
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value() or "").removesuffix("/").removesuffix("/api")


def _missed(num_lines: int) -> None:
    _log(f"{num_lines} lines are left out here; the stages' own logs have what their commands said")


def _log(text: str) -> None:
    from prefect import get_run_logger

    get_run_logger().info(text)
