"""The run board: one page of Markdown that says how a run stands, and at its end what came of it.

    page(run, now) -> Markdown of at most MAX_BYTES

It is drawn anew from a `Run` each time and holds no state. Parts stand in the order of their importance; one that no
longer fits is left out and named. All that a model, a data set or a library wrote goes through `flows/markdown.py`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.schema import MODEL_KINDS
from flows import board_end
from flows.board_facts import Curves, Rollout, Rollouts, is_number, short_name
from flows.charts import panels
from flows.markdown import cell, escaped, fenced, inline, name_of, table
from flows.terminal import MARKS, duration, number

MAX_BYTES = 60_000
MAX_CURVES = 6
MAX_CURVES_AT_END = 3
MAX_ALARMS = 5
MAX_PROMPT = 240
BAR = 20
OUTCOMES = {"correct": "✔ correct", "incorrect": "✖ incorrect", "no_verdict": "? no verdict"}
SPEEDS = {
    "tokens_per_s": "tokens/s", "rollout_tokens_per_s": "rollout tokens/s", "mfu": "MFU",
    "peak_memory_gb": "peak memory", "lr": "learning rate", "no_verdict": "no verdict", "truncated": "truncated",
}  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """How long a stage will take, and who says so."""

    seconds: float
    source: str


@dataclass
class Row:
    """A stage of the run.

    Attributes:
        id, kind, digest: As planned.
        state: waiting, running, completed, reused, failed or cancelled.
        began: When it was started, seconds since the epoch; 0 before.
        seconds: How long it took, once it is over; of a reused one, how long it took to build.
        built_by: The run that built a reused one.
        line: The latest line of its progress.
        seen: When that line was seen, seconds since the epoch.
        expected: How long it will take.
        waits: What it waits for, until it goes on.
        alarms: What a person should know, oldest first.
        reads: Ids of the stages whose products it reads.
        max_forgetting: Rise of a held-out text's bits per byte that its stage allows, as a fraction.
        curves, rollouts: What its folder shows.
    """

    id: str
    kind: str
    digest: str = ""
    state: str = "waiting"
    began: float = 0.0
    seconds: float | None = None
    built_by: str = ""
    line: Mapping[str, Any] = field(default_factory=dict)
    seen: float = 0.0
    expected: Expected | None = None
    waits: str = ""
    alarms: list[str] = field(default_factory=list)
    reads: tuple[str, ...] = ()
    max_forgetting: float | None = None
    curves: Curves | None = None
    rollouts: Rollouts | None = None

    @property
    def share(self) -> float:
        """Of its steps that are done, in [0, 1]."""
        if self.state in ("completed", "reused"):
            return 1.0
        step, total = self.line.get("step"), self.line.get("total")
        return min(1.0, step / total) if is_number(step) and is_number(total) and step and total else 0.0

    def left(self, now: float) -> float | None:
        """Seconds until it is over; None where nothing can be said."""
        if self.state not in ("waiting", "running"):
            return 0.0
        step, total, seconds = (self.line.get(name) for name in ("step", "total", "seconds"))
        told = next((value for name, value in self.line.items() if name.endswith("/eta_s")), None)
        if self.state == "running" and is_number(told):
            return max(0.0, float(told or 0.0) - (now - self.seen))
        if self.state == "running" and is_number(seconds) and self.share > 0.0:
            assert is_number(step) and is_number(total)
            return max(0.0, seconds / step * (total - step) - (now - self.seen))
        if self.expected is not None:
            return max(0.0, self.expected.seconds - (now - self.began if self.state == "running" else 0.0))
        return None


@dataclass
class Run:
    """All that the page shows.

    Attributes:
        recipe, id, base, machine, store, command: As in the run's record.
        began: Seconds since the epoch.
        status: running, completed, failed or cancelled.
        rows: Its stages in order.
        links: Run id -> address of its board, of those that have one.
        record, results: The run's record and evaluation, once it is over.
        card: Address of the model card's artifact.
        memory: Used and all memory of the host, in bytes.
        waits: What the run as a whole waits for, while it does.
    """

    recipe: str
    id: str
    base: str = ""
    machine: str = ""
    store: str = ""
    command: str = ""
    began: float = 0.0
    status: str = "running"
    rows: list[Row] = field(default_factory=list)
    links: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] | None = None
    card: str = ""
    memory: tuple[float, float] | None = None
    waits: str = ""


def page(run: Run, now: float | None = None) -> str:
    """The page. `now` is seconds since the epoch."""
    now = time.time() if now is None else now
    over = run.status != "running"
    parts = [("", headline(run, now)), ("", strip(run)), ("", told(run))]
    if over:
        parts += [("the error", board_end.error(run)), ("the result", board_end.result(run)),
                  ("the gates", board_end.gates(run)), ("the release", board_end.released(run))]  # fmt: skip
    shown = [row for row in run.rows if over or row.state == "running"]
    for row in shown:
        parts.append((f"the curves of {row.id}", curves(row, MAX_CURVES_AT_END if over else MAX_CURVES, over)))
        if not over:
            parts.append((f"the figures of {row.id}", figures(row, run.memory)))
    texts = [(f"the completions of {row.id}", completions(row)) for row in shown]
    parts += [] if over else texts
    parts.append(("the stages", stages(run, now)))
    before = [row for row in run.rows if row.state == "completed" and not over]
    parts += [(f"the curves of {row.id}", curves(row, MAX_CURVES_AT_END, True)) for row in before]
    parts += [("the lineage", board_end.lineage(run)), *texts] if over else []
    parts.append(("", facts(run)))
    return _within(MAX_BYTES, parts)


def status_line(run: Run, now: float) -> str:
    """The run in a few words, for lists of artifacts."""
    running = next((row for row in run.rows if row.state == "running"), None)
    if run.status != "running" or running is None:
        return f"{run.recipe}: {run.status}"
    left, known = run_left(run, now)
    more = f", {'about' if known else 'at least'} {coarse(left)} left" if left >= 5 else ""
    return f"{run.recipe}: {running.id} {running.share:.0%}{more}"


def headline(run: Run, now: float) -> str:
    """Title, the running stage's bar, and when all will be over."""
    if run.status != "running":
        seconds = run.record.get("seconds")
        took = f" in {duration(seconds)}" if is_number(seconds) else ""
        failed = next((row.id for row in run.rows if row.state == "failed"), "")
        where = f" in {failed}" if run.status == "failed" and failed else ""
        return f"# {MARKS.get(run.status, '·')} {name_of(run.recipe)}: {run.status}{where}{took}"
    lines = [f"# ▶ {name_of(run.recipe)}"]
    for row in (row for row in run.rows if row.state == "running"):
        text = f"**{row.id}**"
        if row.share:
            text += f" `{bar(row.share)}` **{row.share:.0%}**, step {row.line.get('step')} of {row.line.get('total')}"
        left = row.left(now)
        basis = "" if row.share or row.expected is None else f" ({row.expected.source})"
        text += f", {coarse(now - row.began)} so far" + (f", about {coarse(left)} left{basis}" if left else "")
        lines += ["", text]
    left, known = run_left(run, now)
    if left > 0.0:
        sources = [row.expected.source for row in run.rows if row.state == "waiting" and row.expected is not None]
        ends = time.strftime("%H:%M UTC" if left < 12 * 3600 else "%a %d %b %H:%M UTC", time.gmtime(now + left))
        about = f"about **{coarse(left)}** left, until {ends}" if known else f"at least {coarse(left)} left"
        basis = f" ({'; '.join(dict.fromkeys(sources))})" if sources else ""
        lines += ["", f"The whole run: {coarse(now - run.began)} so far, {about}{basis}."]
    return "\n".join(lines)


def strip(run: Run) -> str:
    """All stages in one line, each with its mark."""
    words = [f"{MARKS.get(row.state, '?')} {f'**{row.id}**' if row.state == 'running' else row.id}" for row in run.rows]
    return " → ".join(words)


def told(run: Run) -> str:
    """What it waits for, and alarms."""
    waits = [f"**{escaped(run.waits)}**"] if run.waits and run.status == "running" else []
    going = [row for row in run.rows if row.waits and row.state in ("waiting", "running")]
    waits += [f"**{row.id}** {escaped(row.waits)}" for row in going]
    alarms = [f"⚠ **{row.id}** {escaped(alarm)}" for row in run.rows for alarm in row.alarms[-MAX_ALARMS:]]
    return "\n\n".join([*waits[:MAX_ALARMS], *alarms[-MAX_ALARMS:]])


def stages(run: Run, now: float) -> str:
    """Every stage with its state, its time and what is known of where it came from."""
    rows = []
    for row in run.rows:
        reused = f"reused{_link(run, row.built_by)}" if row.state == "reused" else row.state
        if row.state == "running":
            state, seconds = f"**running** {row.share:.0%}" if row.share else "**running**", now - row.began
            time_told = f"{coarse(seconds)}"
        elif row.state == "waiting":
            state = ""
            expected = row.expected if run.status == "running" else None
            time_told = "" if expected is None else f"≈ {coarse(expected.seconds)}"
        else:
            state = reused
            time_told = "" if row.seconds is None else duration(row.seconds)
        name = f"**{row.id}**" if row.state == "running" else row.id
        rows.append({" ": MARKS.get(row.state, "?"), "stage": name, "kind": row.kind, "state": state,
                     "time": time_told, "digest": f"`{row.digest[:12]}`"})  # fmt: skip
    return "\n".join(["## Stages", "", *table(rows, right=("time",))])


def curves(row: Row, limit: int, over: bool) -> str:
    """One picture of a stage's most telling curves."""
    drawn = row.curves.drawn(limit) if row.curves is not None and row.kind in (*MODEL_KINDS, "sample") else []
    picture = panels(drawn)
    if not picture:
        return ""
    summary = "; ".join(f"{name} {number(line[0][1])} to {number(line[-1][1])}" for name, line in drawn)
    image = f"![{summary}](data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()})"
    return f"**{row.id}**\n\n{image}" if over else image


def figures(row: Row, memory: tuple[float, float] | None) -> str:
    """Speed and memory of a training stage; of any other all that it says."""
    known = {} if row.curves is None else row.curves.figures
    cells = {}
    if row.kind in MODEL_KINDS:
        for name, title in SPEEDS.items():
            value = known.get(f"{row.kind}/{name}")
            if value is not None:
                cells[title] = _figure(name, value)
    else:
        cells = {_title(short_name(name)): number(value) for name, value in list(known.items())[:10]}
    if memory is not None:
        cells["host memory"] = f"{memory[0] / 1e9:.1f} of {memory[1] / 1e9:.0f} GB"
    return "\n".join(table([cells])) if cells else ""


def completions(row: Row) -> str:
    """The latest completions, each with its verdict and why."""
    if row.rollouts is None:
        return ""
    if row.rollouts.too_long:
        return f"The latest completions of {row.id} are too long for this page; see {inline(row.rollouts.path, 300)}."
    latest = row.rollouts.latest
    if not latest:
        return ""
    lines = [f"## Latest completions of {row.id}, step {escaped(latest[0].step, 12)}"]
    for one in latest:
        asked = " ".join(one.prompt[: 4 * MAX_PROMPT].split())
        asked = asked if len(asked) <= MAX_PROMPT else f"{asked[:MAX_PROMPT]}…"
        lines += ["", _verdict(one), "", fenced(f"[{asked}]\n\n{one.completion}", MAX_PROMPT + 500, 500)]
    return "\n".join(lines)


def facts(run: Run) -> str:
    """What was asked for, and how to ask again."""
    rows = [{"run": cell(run.id), "base": cell(run.base), "machine": cell(run.machine), "store": cell(run.store, 200)}]
    return "\n".join([*table(rows), "", "The same in a terminal:", "", fenced(run.command, 1500, 500, 2000)])


def run_left(run: Run, now: float) -> tuple[float, bool]:
    """Seconds until the run is over as far as they can be told, and whether every stage's could."""
    lefts = [row.left(now) for row in run.rows if row.state in ("waiting", "running")]
    return sum(left or 0.0 for left in lefts), None not in lefts


def coarse(seconds: float) -> str:
    """A time as a person says it, so coarse that it does not change at every look.

    >>> [coarse(value) for value in (3.2, 48, 200, 4000, 90000, 400000)]
    ['5 s', '50 s', '3 min', '1 h 07 min', '25 h', '4.6 days']
    """
    if seconds < 57.5:
        return f"{max(5, round(seconds / 5) * 5)} s"
    if seconds < 3570:
        return f"{round(seconds / 60)} min"
    if seconds < 24 * 3600:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.1f} days"


def bar(share: float) -> str:
    """A share drawn in a line.

    >>> bar(0.5)
    '██████████░░░░░░░░░░'
    """
    done = round(BAR * share)
    return "█" * done + "░" * (BAR - done)


def _verdict(one: Rollout) -> str:
    outcome = OUTCOMES.get(one.outcome, inline(one.outcome, 40))
    told = (("reason", one.reason), ("read", one.extracted), ("expected", one.answer))
    return ", ".join([f"**{outcome}**", *(f"{name} {inline(text, 60)}" for name, text in told if inline(text))])


def _figure(name: str, value: float) -> str:
    if name in ("mfu", "no_verdict", "truncated"):
        return f"{value:.1%}"
    return f"{value:.1f} GB" if name == "peak_memory_gb" else number(value)


def _title(name: str) -> str:
    return name.replace("_", " ").replace("|", "/")


def _link(run: Run, built_by: str) -> str:
    if not built_by:
        return ""
    short = name_of(built_by)[:15]  # its time; the rest names the recipe
    return f" from [{short}]({run.links[built_by]})" if built_by in run.links else f" from {short}"


def _within(limit: int, parts: Sequence[tuple[str, str]]) -> str:
    """The parts that fit, and the names of those that do not; a part without a name always stands."""
    always = sum(len(text.encode()) + 2 for name, text in parts if not name)
    left, kept, missing = limit - always - 400, [], []
    for name, text in parts:
        size = len(text.encode()) + 2
        if not text or (name and size > left):
            missing += [name] if text else []
            continue
        left -= size if name else 0
        kept.append(text)
    note = [f"Left out for want of room: {', '.join(missing)[:300]}."] if missing else []
    return "\n\n".join([*kept, *note]) + "\n"
