"""The report's section on audits: what a second verifier said of what the first one rewarded or judged.

Of reinforcement learning it shows the score by either verifier and the gap over the steps (`audit.json`, the progress
log), of an evaluation the gap and the gains of every model (`results.json`), of both agreement with its interval, the
card of the auditing verifier, and completions on which the two disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from flows.charts import Bar, Point, forest_plot, line_chart, number, overlay_chart

if TYPE_CHECKING:
    from flows.report import Stage
    from verifiers.certify.card import Card

AUDIT_FILE = "audit.json"
SHOWN_DISAGREEMENTS = 6
NOT_CERTIFIED = "not certified"


def audit_section(stage: Stage, curves: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    """Everything that the template shows of a stage's audit; empty where it has none.

    Args:
        stage: An rl or evaluate stage.
        curves: Of its progress.
    """
    if stage.kind == "rl":
        return _of_training(stage, curves)
    return _of_evaluation(stage) if stage.kind == "evaluate" else {}


def _of_training(stage: Stage, curves: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    found = stage.json(AUDIT_FILE)
    if not found.get("verifier"):
        return {}
    names = str(found.get("judge")), str(found["verifier"])
    scores = list(zip(names, (curves.get("rl/audit_reward", []), curves.get("rl/audit_truth", [])), strict=True))
    charts = [
        _chart("score by both, the reward's faint", overlay_chart("score", scores), [points for _, points in scores]),
        _chart("gap", line_chart("gap", curves.get("rl/audit_gap", [])), [curves.get("rl/audit_gap", [])]),
    ]
    pairs = [(f"step {one.get('step', '?')}", one, one.get("first"), one.get("second"))
             for one in reversed(_list(found, "disagreements"))]  # fmt: skip
    return {
        **_section(stage, names, [(stage.id, found)], pairs),
        "charts": [chart for chart in charts if chart["svg"]],
        "alarms": len(_list(found, "alarms", int)),
    }


def _of_evaluation(stage: Stage) -> dict[str, Any]:
    found = stage.results.get("audit")
    if not isinstance(found, dict) or not found.get("verifier"):
        return {}
    names = str(stage.results.get("judge") or "each set's own"), str(found["verifier"])
    models = {name: one for name, one in (found.get("models") or {}).items() if isinstance(one, dict)}
    differing = [
        line for line in stage.lines("samples.jsonl")
        if isinstance(line.get("audit"), dict) and line["audit"].get("outcome") != line.get("outcome")
    ]  # fmt: skip
    last = list(models)[-1:]
    differing.sort(key=lambda line: line.get("model") not in last)  # those of the last model first
    pairs = [(str(line.get("model")), line, line, line["audit"]) for line in differing]
    bars = [
        Bar(name, 100 * gap["value"], 100 * gap["low"], 100 * gap["high"], name in last)
        for name, one in models.items()
        if (gap := one.get("gap"))
    ]
    return {
        **_section(stage, names, list(models.items()), pairs),
        "plot": forest_plot(bars, unit="", signed=True),
        "gains": {name: one for name, one in (found.get("gains") or {}).items() if one.get("problems")},
        "problems": found.get("problems"),
    }


def _section(
    stage: Stage, names: tuple[str, str], rows: list[tuple[str, Mapping[str, Any]]],
    pairs: Sequence[tuple[str, Mapping[str, Any], Any, Any]],
) -> dict[str, Any]:  # fmt: skip
    """What both kinds have. `pairs` are completions that the two judge differently: who, the line, both verdicts."""
    from flows.report import _problem, _verdict

    groups: dict[str, list[dict[str, Any]]] = {}
    for who, line, first, second in pairs[:SHOWN_DISAGREEMENTS]:
        said = [
            {"who": f"{who}, {name}", **_verdict(one if isinstance(one, dict) else {}), "completion": text}
            for name, one, text in zip(names, (first, second), (line.get("completion") or "", None), strict=True)
        ]
        groups.setdefault(said[0]["outcome"], []).append({**_problem(line), "answers": said})
    return {
        "id": stage.id, "kind": stage.kind, "judge": names[0], "verifier": names[1], "rows": rows,
        "card": card_facts(stage, names[1]), "groups": list(groups.items()), "num_disagreements": len(pairs),
    }  # fmt: skip


def card_facts(stage: Stage, name: str) -> dict[str, Any]:
    """What the card of a verifier says, as it was when the stage was made: `state`, `good`, `rows`."""
    identity = ((stage.manifest.get("ingredients") or {}).get("verifiers") or {}).get(name) or {}
    cards = _cards(stage, name)
    card = next((one for one in cards if one.current(identity)), cards[0] if cards and not identity else None)
    if card is None:
        state = "certified in another version" if any(one.certified for one in cards) else NOT_CERTIFIED
        return {"state": state, "good": False, "rows": [], "digest": ""}
    state = "certified" if card.certified else f"{NOT_CERTIFIED}: {len(card.failed)} checks failed"
    return {"state": state, "good": card.certified, "rows": card.rows(), "digest": card.digest}


def _cards(stage: Stage, name: str) -> list[Card]:
    """The cards that are there of a verifier: the store's, then the packaged one. The verifier itself is not loaded."""
    from verifiers.certify.card import PACKAGED, load_card

    found = []
    for folder in (stage.folder.parents[1] / "cards" if stage.folder is not None else None, PACKAGED):
        path = Path(folder or "") / f"{name}.json"
        if folder is not None and path.is_file():
            try:
                found.append(load_card(path))
            except UserError:
                continue  # a damaged card is none
    return found


def _chart(name: str, svg: Any, curves: Sequence[Sequence[Point]]) -> dict[str, Any]:
    return {"name": name, "svg": svg, "last": " | ".join(number(points[-1][1]) for points in curves if points)}


def _list(found: Mapping[str, Any], key: str, kind: type = dict) -> list[Any]:
    value = found.get(key)
    return [one for one in value if isinstance(one, kind)] if isinstance(value, list) else []
