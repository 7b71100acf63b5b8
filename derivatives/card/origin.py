"""Where the model comes from: stages, data, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.paths import without_folders
from derivatives.card.facts import Facts
from derivatives.card.markdown import cell, number, percent, table

KEY_SETTINGS = {
    "corpus": ("output", "num_tokens"),
    "pretrain": ("num_tokens", "batch_tokens", "learning_rate"),
    "sft": ("epochs", "batch_examples", "learning_rate"),
    "dpo": ("loss", "beta", "epochs", "batch_pairs", "learning_rate"),
    "rl": ("loss", "verifier", "steps", "prompts_per_step", "group_size", "learning_rate"),
    "evaluate": ("judge", "num_samples", "few_shot"),
}
"""Settings of each stage kind that the lineage table shows; lineage.json holds all."""


def lineage(facts: Facts) -> str:
    if not facts.stages:
        return "## Lineage\n\nThe stage was run by hand, without a lineage; lineage.json is empty.\n"
    rows = [
        [
            str(stage.get("id", "")),
            str(stage.get("kind", "")),
            f"`{str(stage.get('digest', ''))[:12]}`",
            key_settings(stage),
            _amount(stage),
            number(stage.get("seconds"), 0),
        ]
        for stage in facts.stages
    ]
    return (
        "## Lineage\n\nEvery stage's output is addressed by the digest of all that went into it; "
        "lineage.json holds the whole.\n\n" + table(["stage", "kind", "digest", "settings", "done", "seconds"], rows)
    )


def key_settings(stage: Mapping[str, Any]) -> str:
    """The settings of a lineage entry that tell its story."""
    config = stage.get("config") or {}
    shown = [
        f"{key} {config[key]}" for key in KEY_SETTINGS.get(str(stage.get("kind")), ()) if config.get(key) is not None
    ]
    if stage.get("kind") == "evaluate":
        shown += [f"{task.get('name')} x {task.get('count') or 'all'}" for task in config.get("tasks") or []]
    return without_folders(", ".join(shown))


def _amount(stage: Mapping[str, Any]) -> str:
    """Steps, tokens, examples or documents that a stage went through, as its metrics say."""
    metrics = {str(key).rsplit("/", 1)[-1]: value for key, value in (stage.get("metrics") or {}).items()}
    counts = {word: metrics.get(word) for word in ("steps", "tokens", "examples", "pairs", "documents")}
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if isinstance(count, int) and count > 0)


def data(facts: Facts) -> str:
    rows = [
        [
            stage,
            source,
            number(row.get("documents"), 0),
            number(row.get("tokens") or None, 0),
            percent(row.get("achieved_share")),
            str(row.get("licence") or "unknown"),
        ]
        for stage, report in facts.corpora.items()
        for source, row in (report.get("sources") or {}).items()
    ]
    if not rows:
        return "## Data\n\nNo corpus report was found for this line.\n"
    parts = ["## Data\n", table(["corpus", "source", "documents", "tokens", "share", "licence"], rows)]
    for stage, report in facts.corpora.items():
        dropped = {reason: count for reason, count in (report.get("dropped") or {}).items() if count}
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items())) or "nothing"
        checked = (report.get("contamination") or {}).get("checked") or []
        cleaned = (
            f"; decontaminated against {', '.join(_task_name(task) for task in checked)}, overlap left "
            f"{(report.get('contamination') or {}).get('overlap', 'unknown')}"
            if checked
            else ""
        )
        parts.append(f"- `{stage}` dropped: {cell(reasons)}{cleaned}{_changed(report)}.")
    return "\n".join(parts) + "\n"


def _changed(report: Mapping[str, Any]) -> str:
    """Near-duplicates that were looked for, and personal data that was written over, with counts."""
    said = []
    near = report.get("near_duplicates")
    if isinstance(near, Mapping):
        counts = ", ".join(f"{count:,} {key}" for key, count in near.items() if type(count) is int)
        said.append("near-duplicates looked for" + (f" ({counts})" if counts else ""))
    written: dict[str, int] = {}
    for row in (report.get("sources") or {}).values():
        for kind, count in (row.get("redactions") or {}).items():
            if isinstance(count, int):
                written[str(kind)] = written.get(str(kind), 0) + count
    if written:
        said.append("written over: " + ", ".join(f"{kind} {count:,}" for kind, count in sorted(written.items())))
    return "".join(f"; {cell(one)}" for one in said)


def _task_name(task: Any) -> str:
    return without_folders(str(task.get("name", task)) if isinstance(task, dict) else str(task))


def reproduce(facts: Facts) -> str:
    environment = ", ".join(
        f"{key} {value}" for key, value in sorted(facts.environment.items()) if not isinstance(value, (dict, list))
    )
    seconds = sum(float(stage["seconds"]) for stage in facts.stages if isinstance(stage.get("seconds"), (int, float)))
    devices = [str(one) for one in facts.machine.get("gpus") or []]
    num_cores = facts.machine.get("num_cores")
    where = ", ".join([*devices, f"{num_cores} cores of {facts.machine.get('processor')}"]) if num_cores else ""
    took = f" The stages took {_hours(seconds)} in all{f' on {cell(where)}' if where else ''}." if seconds else ""
    commit = f"At commit `{facts.commit}`:\n\n" if facts.commit else ""
    return (
        f"## Reproduce\n\n{commit}```\n{facts.command}\n```\n\nEnvironment: {cell(environment) or 'not recorded'}."
        f"{took} Equal commands on one machine, torch and thread count write the same bytes.\n"
    )


def _hours(seconds: float) -> str:
    """Time as a person says it.

    >>> _hours(90.0), _hours(9000.0)
    ('1.5 minutes', '2.5 hours')
    """
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
