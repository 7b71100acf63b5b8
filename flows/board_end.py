"""What the run board says once a run is over: its error, or the result with intervals, gates, release and lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.board_facts import is_number
from flows.markdown import escaped, fenced, name_of, table
from flows.terminal import interval, number

if TYPE_CHECKING:
    from flows.board_page import Run

MAX_ERROR = 6_000
"""Characters of an error's log that are shown, from its end."""


def error(run: Run) -> str:
    """Why it failed: the first line for itself, then the rest."""
    text = str(run.record.get("error") or "")
    first, _, rest = text.partition("\n")
    if not first:
        return ""
    lines = [f"**{escaped(first, 900)}**"]
    return "\n".join(lines + (["", fenced(rest, 0, MAX_ERROR)] if rest.strip() else []))


def result(run: Run) -> str:
    """Base against derivatives with intervals."""
    rows = result_rows(run.results) if run.results else []
    if not rows or run.results is None:
        return ""
    level = f"{run.results.get('confidence', 0.95):.0%}"
    lines = [f"Held-out problems, {level} intervals:", "", *table(rows)]
    floor = run.results.get("floor") or {}
    if is_number(floor.get("value")):
        lines += ["", f"The best constant answer reaches {floor['value']:.1%}."]
    return "\n".join(lines)


def result_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of the result table as plain text."""
    gains, rows = results.get("gains", {}), []
    for name, facts_of in results.get("models", {}).items():
        once, many = facts_of.get("pass@1") or {}, facts_of.get("pass@k")
        over_first = gains.get(name) or {}
        rows.append(
            {
                "model": name,
                "pass@1": interval(once),
                "gain over the first": interval(over_first.get("pass@1"), sign=True),
                "pass@k": interval(many) + (f" (k = {many['k']})" if many else ""),
                **({"maj@k": interval(facts_of["maj@k"])} if "maj@k" in facts_of else {}),
                **({"kept": interval(over_first.get("kept") or facts_of["kept_all"], sign="kept" in over_first)}
                   if "kept_all" in facts_of else {}),
                "no verdict": f"{once.get('no_verdict', 0)} of {once.get('total', 0)}",
            }
        )
    return rows


def gates(run: Run) -> str:
    """What the release had to reach."""
    found = [gate for entry in run.record.get("stages", []) if entry.get("kind") == "release"
             for gate in entry.get("metrics", {}).get("gates", []) if isinstance(gate, dict)]  # fmt: skip
    rows = []
    for gate in found:
        name = " of ".join(str(gate[key]) for key in ("metric", "tasks") if gate.get(key))
        verdict = {"against": str(gate.get("against", "")), " ": "✔ passed" if gate.get("passed") else "✖ not passed"}
        if gate.get("default") is not None:  # what must be kept: a loss has no "must exceed"
            said = {"gain": str(gate.get("measured", "")), "must exceed": f"(must {gate.get('requirement', '')})"}
            rows.append({"gate": name, "against": verdict["against"], **said, " ": verdict[" "]})
            continue
        unit = ("", 1.0) if gate.get("metric") == "bits_per_byte" else (" points", 100.0)
        gain, low, high, required = (
            f"{gate[name] * unit[1]:+.1f}" if unit[0] and is_number(gate.get(name)) else _plain(gate.get(name))
            for name in ("gain", "low", "high", "required")
        )
        rows.append({
            "gate": name, "against": verdict["against"],
            "gain": f"{gain}{unit[0]}" + (f" [{low}, {high}]" if low != high else ""),
            "must exceed": f"{required}{unit[0]}",
            " ": verdict[" "],
        })  # fmt: skip
    return "\n".join(table(rows))


def released(run: Run) -> str:
    """Where the release and the report are."""
    path, report = run.record.get("release"), run.record.get("report")
    lines = ["Nothing was released."] if not path and run.status == "completed" else []
    card = f" ([model card]({run.card}))" if run.card else ""
    for title, where in ((f"Released{card} to", path), ("Report", report)):
        lines += ["", f"{title}:", "", fenced(str(where), 500, 500, 1000)] if where else []
    return "\n".join(lines).strip()


def lineage(run: Run) -> str:
    """Stages and what they read, as a diagram."""
    names = {row.id for row in run.rows}
    lines = ["```mermaid", "flowchart LR", f'  base(["{name_of(run.base)}"])']
    lines += [f'  s_{row.id}["{row.id}"]' for row in run.rows]
    for row in run.rows:
        sources = [source for source in row.reads if source in names or source == "base"]
        if row.kind in ("evaluate", "release"):  # what the model that they judge read, they read too
            sources = [source for source in sources if source not in _read_by(run, sources)] or sources
        lines += [f"  {'base' if source == 'base' else 's_' + source} --> s_{row.id}" for source in sources]
    lines += ["  linkStyle default stroke:#888,stroke-width:1.5px", "```"]
    return "\n".join(lines) if any("-->" in line for line in lines) else ""


def _plain(value: Any) -> str:
    return number(value) if is_number(value) else "-"


def _read_by(run: Run, names: Sequence[str]) -> set[str]:
    rows = {row.id: row for row in run.rows}
    found: set[str] = set()
    waiting = [source for name in names if name in rows for source in rows[name].reads]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += rows[name].reads if name in rows else []
    return found
