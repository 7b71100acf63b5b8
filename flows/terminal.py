"""What a person sees of a run in a terminal: one line per stage while it runs, the result table at the end.

On a terminal the lines live in place; in a pipe or a log they are plain, one when a stage starts, now and then
one while it runs, one when it ends. All of it goes to stderr, so that stdout stays clean for `--json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.plan import Plan, PlannedStage
from flows.stages import Listener

PLAIN_EVERY_S = 15.0
NUM_METRICS = 3
TOLD_FIRST = (
    "loss", "reward", "pass@1", "solved_fraction", "margin", "accuracy", "length", "entropy", "tokens_per_s", "mfu",
)  # fmt: skip
BAR_WIDTH = 24
MARKS = {"waiting": "·", "running": "▶", "completed": "✔", "reused": "↺", "failed": "✖", "cancelled": "■"}
MARKS["paused"] = "‖"
STYLES = {
    "waiting": "dim",
    "running": "bold",
    "completed": "green",
    "reused": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
}


class PlainLines:
    """A listener for pipes and logs: whatever is handed in says its lines."""

    def __init__(self, say: Callable[[str], None], every_s: float = PLAIN_EVERY_S) -> None:
        self._say = say
        self._every_s = every_s
        self._last_line = 0.0

    def stage_started(self, planned: PlannedStage, folder: Path) -> None:
        """One line with the log's path."""
        self._last_line = time.monotonic()
        self._say(f"{planned.stage.id}: started; log {folder / 'stage.log'}")

    def stage_progress(self, planned: PlannedStage, line: Mapping[str, Any]) -> None:
        """One line, at most every `every_s` seconds."""
        if time.monotonic() - self._last_line >= self._every_s:
            self._last_line = time.monotonic()
            done = f"{line.get('step')}/{line.get('total')}"
            self._say(f"{planned.stage.id}: {done}  {metrics_text(line)}{time_left(line)}")

    def stage_ended(self, planned: PlannedStage, entry: Mapping[str, Any]) -> None:
        """One line with state and time."""
        state = "reused" if entry["reused"] else entry["status"]
        self._say(f"{planned.stage.id}: {state} in {duration(entry['seconds'])}  {entry['digest'][:12]}")

    def note(self, text: str) -> None:
        """As it is."""
        self._say(text)


class LiveView:
    """A listener for terminals. Use it as a context."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._rows: dict[str, dict[str, Any]] = {
            planned.stage.id: {
                "kind": planned.stage.kind,
                "state": "waiting",
                "line": {},
                "seconds": None,
                "began": 0.0,
            }
            for planned in plan.stages
        }
        self._console = console
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def stage_started(self, planned: PlannedStage, folder: Path) -> None:
        """Its bar begins."""
        self._rows[planned.stage.id].update(state="running", began=time.monotonic())

    def stage_progress(self, planned: PlannedStage, line: Mapping[str, Any]) -> None:
        """Its bar and metrics move."""
        self._rows[planned.stage.id]["line"] = dict(line)

    def stage_ended(self, planned: PlannedStage, entry: Mapping[str, Any]) -> None:
        """Its time stands still."""
        state = "reused" if entry["reused"] else entry["status"]
        self._rows[planned.stage.id].update(state=state, seconds=entry["seconds"])

    def note(self, text: str) -> None:
        """Above the table."""
        self._console.print(Text(text))

    def _table(self) -> Group:
        table = Table(box=None, show_header=False, padding=(0, 1))
        for stage_id, row in self._rows.items():
            state, line = row["state"], row["line"]
            bar: Any = Text("")
            if state == "running" and line.get("total"):
                bar = ProgressBar(total=line["total"], completed=line.get("step", 0), width=BAR_WIDTH)
            elif state == "running":
                bar = ProgressBar(total=None, width=BAR_WIDTH, pulse=True)
            seconds = row["seconds"] if row["seconds"] is not None else time.monotonic() - row["began"]
            table.add_row(
                Text(MARKS[state], style=STYLES[state]),
                Text(stage_id, style=STYLES[state]),
                Text(row["kind"], style="dim"),
                bar,
                Text(
                    f"{duration(seconds)}{time_left(line)}"
                    if state == "running"
                    else ("" if state == "waiting" else f"{state} {duration(seconds)}")
                ),
                Text(metrics_text(line) if state in ("running", "completed") else "", style="dim"),
            )
        return Group(table)


def show(console: Console, plan: Plan) -> tuple[Listener, Any]:
    """The fitting listener, and the context in which it lives."""
    import contextlib

    if console.is_terminal:
        view = LiveView(console, plan)
        return view, view
    return PlainLines(lambda text: console.print(Text(text), soft_wrap=True)), contextlib.nullcontext()


def metrics_text(line: Mapping[str, Any], separator: str = "  ") -> str:
    """The most telling few metrics of a progress line, without the stage's name before the slash."""
    shown = [
        (name.rpartition("/")[2], value)
        for name, value in line.items()
        if name not in ("step", "total", "seconds") and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    shown.sort(key=lambda pair: TOLD_FIRST.index(pair[0]) if pair[0] in TOLD_FIRST else len(TOLD_FIRST))
    return separator.join(f"{name} {number(value)}" for name, value in shown[:NUM_METRICS])


def number(value: float) -> str:
    """A figure for people: three significant digits, thousands without exponents."""
    if value != value:
        return "nan"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(round(seconds))
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def interval(figure: Mapping[str, Any] | None, sign: bool = False, scale: float = 100.0) -> str:
    """`27.5% [25.6, 29.5]`; a dash for what was not measured."""
    if not figure or figure.get("value") is None:
        return "-"
    plus = "+" if sign else ""
    unit = "%" if not sign else " points"
    text = f"{figure['value'] * scale:{plus}.1f}{unit}"
    if figure.get("low") is not None:
        text += f" [{figure['low'] * scale:{plus}.1f}, {figure['high'] * scale:{plus}.1f}]"
    return text


def result_table(results: Mapping[str, Any]) -> Table:
    """Base against derivatives: pass@1, gain, pass@k, with intervals, and the floor of a constant answer."""
    level = f"{results.get('confidence', 0.95):.0%}"
    table = Table(title=f"Held-out problems, {level} intervals", title_justify="left")
    asked = {name for one in results.get("models", {}).values() for name in one}
    more = [heading for name, heading in (("maj@k", "maj@k"), ("kept_all", "kept")) if name in asked]
    for heading in ("model", "pass@1", "gain over the first", "pass@k", *more, "no verdict"):
        table.add_column(heading)
    gains = results.get("gains", {})
    for name, facts in results.get("models", {}).items():
        once, many = facts.get("pass@1") or {}, facts.get("pass@k")
        gain = interval((gains.get(name) or {}).get("pass@1"), sign=True)
        label = interval(many) + (f" (k = {many['k']})" if many else "")
        missing = f"{once.get('no_verdict', 0)} of {once.get('total', 0)}"
        kept = (gains.get(name) or {}).get("kept")
        kept_shown = interval(kept or facts.get("kept_all"), sign=bool(kept))
        cells = {"maj@k": interval(facts.get("maj@k")), "kept": kept_shown}
        table.add_row(escape(name), interval(once), gain, label, *(cells[one] for one in more), missing)
    floor = results.get("floor") or {}
    reasons = [best["reason"] for best in (floor.get("best_constant") or {}).values() if best.get("reason")]
    if floor.get("value") is not None:
        table.add_row("[dim]best constant answer[/dim]", f"{floor['value'] * 100:.1f}%", "", "", "")
    elif reasons:
        table.add_row("[dim]best constant answer[/dim]", "[dim]none[/dim]", f"[dim]{escape(reasons[0])}[/dim]", "", "")
    return table


def time_left(line: Mapping[str, Any]) -> str:
    """`, 3 min 05 s left` by the pace so far; empty where nothing can be said."""
    step, total, seconds = line.get("step"), line.get("total"), line.get("seconds")
    if not step or not total or not seconds or step >= total:
        return ""
    return f", {duration(seconds / step * (total - step))} left"
