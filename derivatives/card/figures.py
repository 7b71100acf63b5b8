"""The figures of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derivatives.card.facts import Facts, model_name, named_metrics
from derivatives.card.markdown import code, interval, interval_bounds, number, percent, prompt_format, table, total


def evaluation(facts: Facts) -> str:
    results = facts.results
    level = f"{100 * float(results.get('confidence', 0.95)):g}%"
    models = [name for name in facts.model_order if name in results["models"]]
    passes = {name: results["models"][name] for name in models}
    sampled = {
        metric: k
        for metric in ("pass@k", "maj@k")
        if (k := next((row[metric]["k"] for row in passes.values() if row.get(metric)), None))
    }
    header = [
        "model",
        "pass@1",
        *(metric.replace("k", str(k)) for metric, k in sampled.items()),
        "problems",
        "mean tokens",
        "cut short",
        "prompt format",
    ]
    rows = [
        [
            model_name(name, facts),
            interval(row.get("pass@1")),
            *(interval(row.get(metric)) for metric in sampled),
            total(row.get("pass@1")),
            number(row.get("mean_tokens")),
            percent(row.get("truncated_fraction")),
            prompt_format(row),
        ]
        for name, row in passes.items()
    ]
    floor = results.get("floor") or {}
    reasons = [best["reason"] for best in (floor.get("best_constant") or {}).values() if best.get("reason")]
    constant = _constant({"value": floor.get("value"), "reason": reasons[0] if reasons else None})
    if constant:
        rows.append(["best constant answer", constant, *([""] * len(sampled)), "", "", "", ""])
    parts = [f"## Evaluation\n\nGreedy pass@1 on held-out problems, with {level} intervals.\n", table(header, rows)]
    bounds = [
        f"{name}: {interval_bounds(row['pass@1'])}"
        for name, row in passes.items()
        if (row.get("pass@1") or {}).get("no_verdict")
    ] + [
        f"{name}, other domains: {interval_bounds(row['kept_all'])}"
        for name, row in passes.items()
        if (row.get("kept_all") or {}).get("no_verdict")
    ]
    parts.append(
        "No-verdicts count as wrong. "
        + (
            "Bounds if all of them were wrong, or all right: " + "; ".join(bounds) + ".\n"
            if bounds
            else "There were none.\n"
        )
    )
    parts += [
        _by_task(passes, facts),
        _gains(facts),
        _budgets(passes),
        _kept(passes, facts),
        _bits_per_byte(passes, facts),
        seen_before(facts),
    ]
    return "\n".join(part for part in parts if part)


def _by_task(passes: Mapping[str, Any], facts: Facts) -> str:
    tasks = sorted({task for row in passes.values() for task in row.get("by_task") or {}})
    if not tasks:
        return ""
    constants = (facts.results.get("floor") or {}).get("best_constant") or {}
    rows = [
        [
            task,
            *(interval((row.get("by_task") or {}).get(task)) for row in passes.values()),
            _constant(constants.get(task) or {}),
        ]
        for task in tasks
    ]
    return "### By task\n\n" + table(["task", *passes, "best constant"], rows)


def _constant(best: Mapping[str, Any]) -> str:
    return f"none: {best['reason']}" if best.get("reason") else percent(best.get("value"))


def _gains(facts: Facts) -> str:
    gains = facts.results.get("gains") or {}
    names = [name for name in facts.model_order if name in gains]
    measured = {metric for name in names for metric, row in (gains[name] or {}).items() if row}
    metrics = [metric for metric in ("pass@1", "pass@k", "maj@k") if metric in measured]
    if not metrics:
        return ""
    rows = [[name, *(interval(gains[name].get(metric), signed=True) for metric in metrics)] for name in names]
    header = ["model", *named_metrics(facts, metrics)]
    return f"### Gain over {facts.model_order[0]}, in points\n\n" + table(header, rows)


def _bits_per_byte(passes: Mapping[str, Any], facts: Facts) -> str:
    texts = sorted({text for row in passes.values() for text in row.get("bits_per_byte") or {}})
    if not texts:
        return ""
    rows = [
        [text, *(number((row.get("bits_per_byte") or {}).get(text), 3) for row in passes.values())] for text in texts
    ]
    return "### Bits per byte of held-out text (lower is better; a rise is forgetting)\n\n" + table(
        ["text", *passes], rows
    )


def _budgets(passes: Mapping[str, Any]) -> str:
    """pass@1 and majority votes at each thinking budget."""
    rows = [
        [
            name,
            number(one.get("max_thinking_tokens"), 0),
            interval(one.get("pass@1")),
            interval(one.get("maj@k")),
            number(one.get("mean_tokens")),
            percent(one.get("closed_fraction")),
        ]
        for name, row in passes.items()
        for one in row.get("budgets") or []
    ]
    if not rows:
        return ""
    header = ["model", "tokens of thinking, at most", "pass@1", "maj@k", "mean tokens", "thoughts closed by the model"]
    return "### At each thinking budget\n\n" + table(header, rows)


def _kept(passes: Mapping[str, Any], facts: Facts) -> str:
    """Other domains' tasks, which are no part of pass@1."""
    sets = sorted({name for row in passes.values() for name in row.get("kept") or {}})
    if not sets:
        return ""
    rows = [[name, *(interval((row.get("kept") or {}).get(name)) for row in passes.values())] for name in sets]
    base = (facts.results["models"].get("base") or {}).get("kept") or {}
    empty = [name for name in sets if not (base.get(name) or {}).get("value")]
    note = f"\nThe base solves none of {', '.join(empty)}: nothing could be lost there.\n" if empty else ""
    return "### Tasks of other domains (what was lost)\n\n" + table(["task", *passes], rows) + note


def seen_before(facts: Facts) -> str:
    """Whether the questions may have been seen: by training here, by the base, and what is left on twins."""
    return "### Were the questions seen before?\n\n" + "\n".join(
        part for part in (_overlap(facts), _flags(facts), _twins(facts)) if part
    )


def _flags(facts: Facts) -> str:
    """What the probe by partial prompts found in each model that was probed."""
    rows = []
    for model in facts.model_order:
        for name, row in sorted((facts.results["models"][model].get("by_task") or {}).items()):
            flag = row.get("contamination")
            if isinstance(flag, Mapping):
                at = (flag.get("shares") or {}).get(str(flag.get("decided_at"))) or {}
                control = (flag.get("control") or {}).get("exact")
                rows.append([
                    model, name, "**raised**" if flag.get("flag") else "no", percent(flag.get("decided_at")),
                    interval(at.get("exact")), interval(control), number(flag.get("n"), 0),
                ])  # fmt: skip
    if not rows:
        return "Whether the base has read these questions before was not probed.\n"
    header = ["model", "task", "flag", "shown", "completed word for word", "the same of unseen twins", "problems"]
    return (
        "The model is shown the beginning of a question; to complete it word for word more often than questions that "
        "nobody can have seen raises the flag. No flag is no proof.\n\n" + table(header, rows)
    )


def _twins(facts: Facts) -> str:
    """Scores repeated on renumbered twins: the gap speaks for memory, the clean gain against it."""
    rows = [
        [
            name,
            model,
            interval(one.get("original")),
            interval(one.get("twin")),
            interval(one.get("gap"), signed=True),
            interval(one.get("plain_gain"), signed=True),
            interval(one.get("clean_gain"), signed=True),
        ]
        for name, by_model in sorted((facts.results.get("twins") or {}).items())
        for model, one in by_model.items()
        if isinstance(one, Mapping)
    ]
    if not rows:
        return ""
    header = ["set", "model", "original", "twins", "gap", "gain, original", "gain, twins (clean)"]
    return "The same questions with other numbers, whose answers nobody can have learnt:\n\n" + table(header, rows)


def _overlap(facts: Facts) -> str:
    overlap = facts.results.get("overlap") or {}
    if overlap.get("shared") is None:
        return "Overlap of training and held-out questions: not measured.\n"
    num_train, num_shared = overlap.get("train_questions") or 0, overlap["shared"]
    read = (str(name) for stage in facts.stages for name in (stage.get("config") or {}).get("data") or ())
    files = dict.fromkeys(Path(name).name for name in read if name.endswith(".jsonl"))
    unread = f" Not compared: {', '.join(map(code, files))}, which training read as it is." if files else ""
    return f"Of {num_train:,} training questions, {num_shared:,} are among the held-out ones.{unread}\n"
