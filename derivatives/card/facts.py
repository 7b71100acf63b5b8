"""What a card is made of, gathered by `derivatives.release` from the files of the line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.settings.evaluation import Keep
from derivatives.export import Exported
from derivatives.gates import GateResult
from derivatives.licence import LicenceResult


@dataclass(frozen=True)
class Facts:
    """What a card is made of.

    `stages` are lineage entries, `corpora` the report.json of each corpus stage, `verifiers` maps reward and judge
    to the identities of verifiers, `controls` are the recipe's control arms (`of`, `arm`, `stage`), `wrong` a few of
    the released model's wrong answers (lines of samples.jsonl).
    """

    name: str
    recipe: str
    released: str
    base: Mapping[str, Any]
    licence: LicenceResult
    results: Mapping[str, Any]
    model_order: tuple[str, ...]
    gates: tuple[GateResult, ...]
    exported: Exported
    stages: tuple[Mapping[str, Any], ...] = ()
    corpora: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verifiers: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    commit: str | None = None
    command: str = ""
    question: str = "What is 12 + 30?"
    max_new_tokens: int = 256
    system: str | None = None
    evaluated_system: str | None = None
    keep: Keep | None = None
    same_judge_allowed: bool = False
    controls: tuple[Mapping[str, Any], ...] = ()
    wrong: tuple[Mapping[str, Any], ...] = ()


def model_name(name: str, facts: Facts) -> str:
    return f"**{name}** (released)" if name == facts.released else name


def named_metrics(facts: Facts, metrics: Sequence[str]) -> list[str]:
    """Metrics with their number of samples, `pass@8`, where the evaluation has one."""
    rows = list(facts.results["models"].values())
    found = {
        metric: next((row[metric]["k"] for row in rows if (row.get(metric) or {}).get("k")), None) for metric in metrics
    }
    return [metric if k is None else f"{metric.partition('@')[0]}@{k}" for metric, k in found.items()]


def base_name(base: Mapping[str, Any], folder: Path) -> str:
    """The base's public name: a hub id or `seedling`; of a local path only the last part."""
    name = str(base.get("name") or base.get("id") or base.get("base") or "")
    if not name:
        return "seedling" if folder.parent.name == "seedling" else folder.name
    return Path(name).name if name.startswith((".", "/", "~")) or name.count("/") > 1 else name
