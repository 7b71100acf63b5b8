"""What Prefect's UI shows of a run: a progress artifact per stage, then the result table and the report.

All calls to Prefect are made by one thread that nobody waits for: a slow or lost server costs artifacts,
never a training. Artifact keys are [a-z0-9-].
"""

from __future__ import annotations

import base64
import contextvars
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.stage import read_progress
from flows import leaderboard
from flows.charts import line_chart, standalone
from flows.plan import PlannedStage
from flows.terminal import PlainLines, duration, interval, metrics_text, number, time_left

UPDATE_EVERY_S = 2.0
LOG_EVERY_S = 30.0
CLOSE_LIMIT_S = 5.0
CURVE_METRICS = ("rl/reward", "sft/loss", "pretrain/loss")


def artifact_key(*parts: str) -> str:
    """A key that Prefect accepts."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class Board:
    """A listener that keeps a run's artifacts in Prefect."""

    def __init__(self, recipe: str) -> None:
        self._recipe = recipe
        self._lines = PlainLines(self.note, LOG_EVERY_S)
        self._latest: dict[str, tuple[float, str]] = {}
        self._metrics: dict[str, str] = {}
        self._contexts: dict[str, contextvars.Context] = {}
        self._ids: dict[str, Any] = {}
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._changed = threading.Event()
        self._closing = threading.Event()
        # What is published at the end belongs to the flow run that is current here.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), daemon=True, name="prefect-artifacts")
        self._thread.start()

    def stage_started(self, planned: PlannedStage, folder: Path) -> None:
        """A progress artifact at 0%."""
        self._contexts[planned.stage.id] = contextvars.copy_context()
        self._latest[planned.stage.id] = (0.0, "started")
        self._lines.stage_started(planned, folder)

    def stage_progress(self, planned: PlannedStage, line: Mapping[str, Any]) -> None:
        """The artifact moves."""
        share = 100.0 * line.get("step", 0) / max(1, line.get("total") or 1)
        self._metrics[planned.stage.id] = metrics = metrics_text(line, ", ")
        self._latest[planned.stage.id] = (
            min(100.0, share),
            ", ".join(filter(None, (f"{line.get('step')}/{line.get('total')}{time_left(line)}", metrics))),
        )
        self._lines.stage_progress(planned, line)

    def stage_ended(self, planned: PlannedStage, entry: Mapping[str, Any]) -> None:
        """The artifact says how it ended."""
        self._contexts.setdefault(planned.stage.id, contextvars.copy_context())
        share = 100.0 if entry["status"] == "completed" else self._latest.get(planned.stage.id, (0.0, ""))[0]
        state = "reused" if entry["reused"] else f"{entry['status']} in {duration(entry['seconds'])}"
        told = ", ".join(filter(None, (state, self._metrics.get(planned.stage.id))))
        self._latest[planned.stage.id] = (share, told)
        self._lines.stage_ended(planned, entry)

    def note(self, text: str) -> None:
        """Goes to the log of the task, or else of the flow, that is current where this is called."""
        context = contextvars.copy_context()
        self._calls.put(lambda: context.run(_log, text))

    def conclude(
        self,
        record: Mapping[str, Any],
        results: Mapping[str, Any] | None,
        standing: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Table, summary, and the standing of all runs (`flows/leaderboard.py`), once the run is over."""
        self._calls.put(lambda: _publish_summary(record, results))
        if standing:
            self._calls.put(lambda: _publish_standing(standing))

    def close(self) -> None:
        """Flush for a few seconds at most."""
        self._closing.set()
        self._calls.put(None)
        self._thread.join(CLOSE_LIMIT_S)

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=UPDATE_EVERY_S)
            except queue.Empty:
                self._quietly(self._update)
                continue
            if call is None:
                self._quietly(self._update)
                return
            self._quietly(call)

    def _update(self) -> None:
        from prefect.artifacts import update_progress_artifact

        for stage_id, (share, text) in list(self._latest.items()):
            known = self._ids.get(stage_id)
            if known is None:
                # In the task's context, so that the task's page and its bar in the timeline show it too.
                key = artifact_key(self._recipe, stage_id)
                made = self._contexts[stage_id].run(_create_progress, share, key, text)
                self._ids[stage_id] = (made, share, text)
            elif known[1:] != (share, text):
                update_progress_artifact(artifact_id=known[0], progress=share, description=text)
                self._ids[stage_id] = (known[0], share, text)

    @staticmethod
    def _quietly(call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            return  # the server is away; the store has everything


def _log(text: str) -> None:
    from prefect import get_run_logger

    get_run_logger().info(text)


def _create_progress(share: float, key: str, text: str) -> Any:
    from prefect.artifacts import create_progress_artifact

    return create_progress_artifact(progress=share, key=key, description=text)


def summary_markdown(record: Mapping[str, Any], results: Mapping[str, Any] | None) -> str:
    """The run on one page: result, curves, stages, paths."""
    lines = [
        f"# {record['recipe']}: {record['status']}",
        "",
        f"Base `{record['base']}`, {duration(record['seconds'])}.",
    ]
    if record.get("command"):
        lines += ["", f"The same in a terminal: `{record['command']}`"]
    if record.get("error"):
        lines += ["", "```", str(record["error"]), "```"]
    if results:
        rows = result_rows(results)
        lines += ["", f"Held-out problems, {results.get('confidence', 0.95):.0%} intervals:", ""]
        lines += [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"] if rows else []
        lines += [f"| {' | '.join(row.values())} |" for row in rows]
    for entry in record["stages"]:
        curve = curve_svg(Path(entry["folder"])) if entry.get("folder") else None
        if curve is not None:
            title, svg = curve
            image = f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"
            lines += ["", f"**{entry['id']}**: {title}", "", image]
    lines += ["", "| stage | kind | state | time | digest |", "|---|---|---|---|---|"]
    for entry in record["stages"]:
        state = "reused" if entry["reused"] else entry["status"]
        lines.append(
            f"| {entry['id']} | {entry['kind']} | {state} | {duration(entry['seconds'])} | `{entry['digest'][:12]}` |"
        )
    lines += [
        "",
        f"Release: `{record['release']}`" if record.get("release") else "Nothing was released.",
        "",
        f"Report: `{record['report']}`" if record.get("report") else "",
    ]
    return "\n".join(lines)


def result_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of the result table as plain text."""
    gains, rows = results.get("gains", {}), []
    for name, facts in results.get("models", {}).items():
        once, many = facts.get("pass@1") or {}, facts.get("pass@k")
        rows.append(
            {
                "model": name,
                "pass@1": interval(once),
                "gain over the first": interval((gains.get(name) or {}).get("pass@1"), sign=True),
                "pass@k": interval(many) + (f" (k = {many['k']})" if many else ""),
                "no verdict": f"{once.get('no_verdict', 0)} of {once.get('total', 0)}",
            }
        )
    return rows


def curve_svg(folder: Path) -> tuple[str, str] | None:
    """The stage's reward or loss over its steps, as (title, SVG); None when it has neither."""
    lines = read_progress(folder)
    for name in CURVE_METRICS:
        points = [(line["step"], line[name]) for line in lines if isinstance(line.get(name), (int, float))]
        if chart := line_chart(name, points):
            first, last = (number(points[index][1]) for index in (0, -1))
            return f"{name} from {first} to {last} over {points[-1][0]} steps", standalone(chart)
    return None


def _publish_standing(standing: Sequence[Mapping[str, str]]) -> None:
    from prefect.artifacts import create_table_artifact

    table = [dict(row) for row in standing]
    create_table_artifact(table=table, key=leaderboard.KEY, description="Completed runs of this store, best first")


def _publish_summary(record: Mapping[str, Any], results: Mapping[str, Any] | None) -> None:
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    if results:
        create_table_artifact(
            table=result_rows(results), key=artifact_key(record["recipe"], "results"), description=record["id"]
        )
    create_markdown_artifact(
        markdown=summary_markdown(record, results),
        key=artifact_key("summary", record["id"]),
        description=f"{record['recipe']}: {record['status']}",
    )
