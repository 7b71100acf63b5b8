"""`derive verifiers diff`, `rescore` and `export`: what a change of verifier changes, and verifiers in other tools."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from configs.errors import UserError
from flows import changes
from flows.rollouts_command import KINDS, stage_folder

CHOSEN_FIRST = ("rl", "sample", "evaluate")
"""Which kind of stage is rescored where a run has several."""
SHOWN_ON_PAGE = 40


def diff(given: argparse.Namespace) -> int:
    """`derive verifiers diff`. Raises UserError."""
    from derivatives.evaluation.agreement import Agreement
    from verifiers import registry
    from verifiers.judging import read_lines

    names = first, second = given.first, given.second
    for name in names:
        registry.check_name(name)
    if first == second:
        raise UserError(f"B: {second!r} is A; give another verifier; `rescore` compares with what A had said before")
    if given.source.exists() and not given.source.is_file() and not given.source.is_dir():
        raise UserError(f"DATA: {given.source} is a pipe or a device and is read twice; write it to a file first")
    total = 0
    for name in names:  # the whole file is checked before the first line is judged
        total = sum(1 for _ in read_lines(given.source, name))
    if not total:
        raise UserError(f'DATA: {given.source} has no line; write one {{"completion": ..., "gold": ...}} a line')
    agreement, began = Agreement(), time.monotonic()
    with changes.Kept(names, given.out, given.cases, int(given.truth == "B"), int(given.show)) as kept:
        for pair in changes.counted(
            changes.judge_both(first, second, given.source, int(given.workers)), total, "lines"
        ):
            agreement.note(pair.first, pair.second)
            kept.note(pair)
    found = {
        "first": registry.identity(first), "second": registry.identity(second), "data": str(given.source),
        **agreement.as_dict(), "other_scores": kept.other_scores,
        "seconds": {name: round(seconds, 3) for name, seconds in zip(names, kept.seconds, strict=True)},
        "wall_s": round(time.monotonic() - began, 3), **kept.told(),
    }  # fmt: skip
    if given.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    changes.print_agreement(found, names, "lines")
    changes.print_changes(kept.shown, names, agreement.changed)
    console = changes.terminal()
    if kept.other_scores:
        changes.say(console, f"{kept.other_scores} lines have the same label and another score")
    spent = ", ".join(f"{name} {seconds:.1f} s ({1000 * seconds / total:.2f} ms a line)"
                      for name, seconds in zip(names, kept.seconds, strict=True))  # fmt: skip
    changes.say(console, f"judging took {spent}; {found['wall_s']:.1f} s in all")
    changes.print_kept(found)
    return 0


def rescore(given: argparse.Namespace) -> int:
    """`derive verifiers rescore`. Raises UserError."""
    from configs.stage import load_stage_file
    from verifiers import registry

    registry.check_name(given.second)
    if given.page is not None and given.page.exists():
        raise UserError(f"--page: {given.page} exists; give another file, or remove it")
    folder = stage_folder(given, (*KINDS, "evaluate"), CHOSEN_FIRST)
    if not (folder / "stage.json").is_file():
        raise UserError(f"RUN: {folder} holds no stage.json; name a run, or the folder of one of its stages")
    kind = load_stage_file(folder / "stage.json").stage.kind
    found, pairs, names = _rescore_answers(given, folder) if kind == "evaluate" else _rescore_rollouts(given, folder)
    if given.page is not None:
        _write_page(given.page, found, pairs, names)
    if given.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    changes.print_agreement(found, names, "completions")
    _print_steps(found, names)
    changes.print_changes(pairs[: int(given.show)], names, found["changed"])
    changes.print_kept(found)
    if given.page is not None:
        changes.say(changes.terminal(), f"page: {given.page}")
    return 0


def export(given: argparse.Namespace) -> int:
    """`derive verifiers export`. Raises UserError."""
    from verifiers.export import write

    out = given.out or Path(f"{given.name}-{given.tool}")
    for path in write(given.name, given.tool, out, given.gold, given.partial_credit):
        print(f"written: {path}")
    return 0


Found = tuple[dict[str, Any], list[changes.Pair], tuple[str, str]]


def _rescore_rollouts(given: argparse.Namespace, folder: Path) -> Found:
    from derivatives.evaluation.agreement import Agreement
    from derivatives.rollout.changed import GROUP_CHANGES, changed_steps
    from derivatives.rollout.stored import StoredRollouts

    stored = StoredRollouts(folder)
    if not stored.steps:
        raise UserError(f"RUN: {folder} holds no whole step; name another run")
    names = _names(stored.step(stored.steps[0])[0].verifiers[0], given.second)
    agreement, groups, steps = Agreement(), Counter[str](), []
    with _kept(given, names) as kept:
        made = changed_steps(stored, given.second, int(given.workers), *given.steps)
        for one in changes.counted(made, len(stored.steps), "steps"):
            agreement.labels.update(one.labels.labels)
            agreement.reasons.update(one.labels.reasons)
            groups.update(one.groups)
            steps.append({"step": one.step, "completions": one.labels.total, "reward": one.rewards,
                          "agreement": one.labels.agreement(), "gap": one.labels.gap(),
                          "groups": dict(one.groups)})  # fmt: skip
            for stored_one, verdict in one.pairs:
                where = f"step {stored_one.step}, group {stored_one.group}, sample {stored_one.sample}"
                kept.note(changes.Pair(stored_one.task, stored_one.judged.completion.text, stored_one.judged.verdict,
                                       verdict, stored_one.row(), where))  # fmt: skip
    found = {
        "folder": str(folder), "first": names[0], "second": names[1], **agreement.as_dict(),
        "groups": {name: groups[name] for name in GROUP_CHANGES} if groups else None, "steps": steps,
        "seconds": {names[1]: round(kept.seconds[1], 3)}, **kept.told(),
    }  # fmt: skip
    return found, kept.shown, names


def _rescore_answers(given: argparse.Namespace, folder: Path) -> Found:
    from derivatives.evaluation.agreement import Agreement
    from derivatives.evaluation.rescored import StoredAnswers, rescore
    from derivatives.evaluation.statistics import wilson

    stored = StoredAnswers(folder)
    names = _names(_judge_of(folder), given.second)
    agreement = Agreement()
    models: dict[str, Agreement] = {}
    with _kept(given, names) as kept:
        made = rescore(stored, given.second, int(given.workers))
        for one, verdict in changes.counted(made, len(stored.judged), "answers"):
            for counts in (agreement, models.setdefault(one.model, Agreement())):
                counts.note(one.verdict, verdict)
            row = {**one.row, "metadata": dict(one.task.metadata)}
            kept.note(changes.Pair(one.task, one.row["completion"], one.verdict, verdict, row,
                                   f"{one.model}, {one.task.id}"))  # fmt: skip
    num = len(stored.answers) // max(1, len(models))

    def right(counts: Agreement, place: int) -> dict[str, float]:
        correct = sum(count for label, count in counts.labels.items() if label[place] == "correct")
        low, high = wilson(correct, num, 0.95)
        return {"value": correct / num, "low": low, "high": high}

    found = {
        "folder": str(folder), "first": names[0], "second": names[1], **agreement.as_dict(),
        "problems": "drawn again" if stored.whole else "prompt and gold answer of samples.jsonl alone",
        "models": {name: {"first": right(counts, 0), "second": right(counts, 1), **counts.as_dict()}
                   for name, counts in models.items()},
        "seconds": {names[1]: round(kept.seconds[1], 3)}, **kept.told(),
    }  # fmt: skip
    return found, kept.shown, names


def _kept(given: argparse.Namespace, names: tuple[str, str]) -> changes.Kept:
    shown = max(int(given.show), SHOWN_ON_PAGE if given.page is not None else 0)
    return changes.Kept(names, given.out, given.cases, int(given.truth == "B"), shown)


def _names(first: str, second: str) -> tuple[str, str]:
    """What both are called: a verifier may be compared with what another version of it said."""
    return (f"{first} (stored)" if first == second else first), second


def _judge_of(folder: Path) -> str:
    """What an evaluation was judged by."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return str(results.get("judge") or "the evaluation")


def _print_steps(found: Mapping[str, Any], names: tuple[str, str]) -> None:
    console = changes.terminal()
    if found.get("groups"):
        total = sum(found["groups"].values())
        told = ", ".join(f"{name} {count} ({count / total:.1%})" for name, count in found["groups"].items())
        changes.say(console, f"advantages of {total} groups under {names[1]}: {told}")
    steps = [one for one in found.get("steps") or [] if None not in one["reward"]]
    if steps:
        first, last = steps[0], steps[-1]
        for place, name in enumerate(names):
            mean = sum(one["reward"][place] for one in steps) / len(steps)
            changes.say(console, f"reward under {name}: {first['reward'][place]:.3f} at step {first['step']}, "
                                 f"{last['reward'][place]:.3f} at step {last['step']}, mean {mean:.3f}")  # fmt: skip
    for name, row in (found.get("models") or {}).items():
        changes.say(console, f"{name}: pass@1 {changes.percent(row['first'])} by {names[0]}, "
                             f"{changes.percent(row['second'])} by {names[1]}")  # fmt: skip
    if found.get("problems", "drawn again") != "drawn again":
        changes.say(console, f"problems: {found['problems']}")


def _write_page(path: Path, found: Mapping[str, Any], pairs: list[changes.Pair], names: tuple[str, str]) -> None:
    """The curves, the tables and the first changes as one page without script or network."""
    from markupsafe import Markup

    from configs.stage import write_text_atomic
    from flows.report import PAGE, page_environment

    groups = {name: count for name, count in (found.get("groups") or {}).items() if count}
    page = page_environment().get_template("changes.html.j2").render(
        title=f"{names[0]} and {names[1]}", first=names[0], second=names[1], found=found, pairs=pairs,
        outcomes=changes.OUTCOMES, counts={(one["first"], one["second"]): one["count"] for one in found["labels"]},
        charts=list(_charts(found.get("steps") or [], names)), models=found.get("models"),
        groups={"total": sum(groups.values()), "counts": groups} if groups else None,
        style=Markup((PAGE / "report.css").read_text(encoding="utf-8")),
    )  # fmt: skip
    write_text_atomic(path, page.encode("utf-8", "replace").decode("utf-8"))


def _charts(steps: list[dict[str, Any]], names: tuple[str, str]) -> Iterable[dict[str, Any]]:
    from flows.charts import line_chart, number, overlay_chart

    known = [one for one in steps if None not in one["reward"]]
    curves = [[(one["step"], one["reward"][place]) for one in known] for place in (0, 1)]
    if len(known) > 1:
        svg = overlay_chart("mean reward", list(zip(names, curves, strict=True)))
        yield {"name": "mean reward", "svg": svg, "last": " | ".join(number(curve[-1][1]) for curve in curves)}
    for name in ("gap", "agreement"):
        points = [(one["step"], one[name]["value"]) for one in steps if one[name] is not None]
        if len(points) > 1:
            yield {"name": name, "svg": line_chart(name, points), "last": number(points[-1][1])}
    turned = [
        (one["step"], 1 - (one["groups"].get("stays", 0) + one["groups"].get("only the size changes", 0)) / total)
        for one in steps
        if (total := sum(one["groups"].values()))
    ]
    if len(turned) > 1:
        name = "share of groups whose spread or signs change"
        yield {"name": name, "svg": line_chart(name, turned), "last": number(turned[-1][1])}
