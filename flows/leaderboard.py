"""All completed runs of a store side by side, best first: the table that Prefect's UI does not have.

Accuracies of two runs compare where both were asked the same questions; the column says which evaluation it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.runs import all_runs
from flows.session import results
from flows.store import Store
from flows.terminal import duration, interval

KEY = "leaderboard"
"""The artifact's key, fixed, so that Prefect shows its history on one page."""


def rows(store: Store) -> list[dict[str, str]]:
    """A row per completed run that evaluated something, by the accuracy of its last model; text in every cell."""
    found = []
    for record in all_runs(store):
        if record["status"] != "completed":
            continue
        try:
            judged = results(record)
            models = list((judged or {}).get("models", {}).items())
            once = (models[-1][1].get("pass@1") or {}) if models else {}
            if judged is not None and isinstance(once.get("value"), (int, float)):
                found.append((float(once["value"]), _row(record, judged, models)))
        except (AttributeError, KeyError, TypeError, ValueError):  # of another version; its own report still shows it
            continue
    return [row for _, row in sorted(found, key=lambda pair: -pair[0])]


def _row(record: Mapping[str, Any], judged: Mapping[str, Any], models: list[tuple[str, Any]]) -> dict[str, str]:
    (first, base), (last, best) = models[0], models[-1]
    evaluation = next(entry for entry in reversed(record["stages"]) if entry["kind"] == "evaluate")
    gain = (judged.get("gains", {}).get(last) or {}).get("pass@1")
    return {
        "recipe": record["recipe"],
        "model": last,
        "pass@1": interval(best.get("pass@1") or {}),
        f"gain over {first}" if first == "base" else "gain over the first": interval(gain, sign=True),
        "base": interval(base.get("pass@1") or {}),
        "pass@k": interval(best.get("pass@k")),
        "evaluation": str(evaluation.get("digest", ""))[:12],
        "released": Path(record["release"]).parent.name[:12] if record["release"] else "no",
        "time": duration(record["seconds"]),
        "run": record["id"],
    }
