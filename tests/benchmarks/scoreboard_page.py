"""The page of the scoreboard: Markdown tables from the figures, written by `scoreboard.py` and by nobody's hand."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from tests.benchmarks import scoreboard_math, scoreboard_programs
from tests.benchmarks.scoreboard_hacks import FAMILIES
from tests.benchmarks.scoreboard_items import SHA256

Z = 1.959964
"""Of a two-sided 95% interval."""
SETS = {
    "hard": "Math: hard pairs", "gsm8k": "Math: GSM8K model solutions",
    "golds": "Math: golds of MATH-500, and with one digit changed", "made": "Math: made answers, respelled and mutated",
}  # fmt: skip
SHORT = {
    "ours": "ours", "ours_blind": "ours, no question", "math_verify": "Math-Verify", "lighteval": "lighteval",
    "inspect_math": "inspect `math`", "inspect_match": "inspect `match`", "inspect_answer": "inspect `answer`",
    "qwen": "Qwen's",
}  # fmt: skip
MATH = {grader.key: grader.title for grader in scoreboard_math.GRADERS}
CODE = {"ours": "this project's `code`"} | {grader.key: grader.title for grader in scoreboard_programs.GRADERS}
HEAD = """# Scoreboard

Public graders and ours on the same answers, in the same order, each in an environment of its own. This page is written
by this command and by nobody's hand; what was read of misses and of labels is in [accuracy](verifiers/accuracy.md).

    make scoreboard                           # DERIVE_DATA names the mirror of the public data sets
    make scoreboard BENCH="--quick"           # a small sample of each part: does it run?
"""
COLUMNS = {
    "recall": "right answers accepted, of those labelled right, with a 95% Wilson interval",
    "false positives": "wrong answers accepted, of those labelled wrong, with the same",
    "put": "how bare answers were put to the grader. All of these were tried with each grader on this very set: as "
    "they are, in dollar signs, in a box, after `ANSWER:`. The one with most right verdicts stands here",
    "no word": "pairs on which the grader said that it cannot judge, raised, hung beyond its limit (20 s of processor "
    "time) or died; none of them counts as accepted",
    "answers/s": "verdicts a second of the grader's processor time on one core, after a warm-up, reading both sides "
    "each time; in brackets by the clock",
    "paid": "hostile completions or programs accepted; fewer is better",
    "honest": "plain right answers to the same questions accepted: a grader that refuses all pays for no hack",
    "ran": "answers that hold a program which the grader ran",
    "got out": "programs paid that read a file, opened a socket or started a process although they were only asked for "
    "a number",
    "touched": "programs that changed a file outside or reached a listener, paid or not",
    "left": "programs of which a process was still there after the verdict",
    "no verdict": "programs from which the grader did not come back within 20 s, or with which it died",
}
LIMITS = (
    "Ours was mended with the hard pairs in sight, and with the hostile answers and programs here, which are ours. For "
    "it these are no held-out sets. The peers never saw them. Not all labels are right: "
    "[accuracy](verifiers/accuracy.md) lists those that were read and found wrong.",
    "Math-Verify, lighteval and inspect_ai may mean to accept what this board calls a hack: `12-5` for 7, `5 cm` for "
    "`5 m`. Why each family must not pay is in the table; a benchmark may see it otherwise than a reward.",
    "`golds` and `made` hold answers made by rule, the second by the generator that our own fuzzing uses.",
    "No grader but ours is given the question; the row without it is the like-for-like one.",
    "evalplus' strength is its larger tests, which are on no package index: it judges HumanEval's own here.",
    "inspect_ai's sandbox for hostile programs is Docker, which is not measured; `local` is not meant to isolate.",
    "The public graders' programs run confined (no network but loopback, a tmpfs as the only place to write), which "
    "can only lower their counts. Ours runs as it does in training, each function against calls and against a script.",
    "The public graders' own limits (Math-Verify and lighteval 5 s, inspect_ai 2 s) are by the clock: on a loaded "
    "machine they cut sooner, which can cost these graders recall. The rates are of one machine.",
)


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    parts, where = report.get("parts", {}), report.get("machine", {})
    said = [HEAD]
    if where:
        took = report.get("seconds", 0.0)
        several = "in several runs, whose parts are joined here; the last of them"
        runs = several if report.get("joined") else "in one run,"
        said.append(prose(f"Measured {where['date']} on {where['cores']} cores of an {where['processor']}, Python "
                    f"{where['python']}, {took / 60:.0f} minutes in all, {runs} at a load of {where['load']:.0f} on "
                    f"the machine: rates by the clock are of such loads."))  # fmt: skip
    if "labelled" in parts and "hacks" in parts:
        said.append(summary(parts["labelled"]["sets"], parts["hacks"]))
    if "labelled" in parts:
        said += [labelled(name, found) for name, found in parts["labelled"]["sets"].items()]
    if "hacks" in parts:
        said.append(hacks(parts["hacks"]))
    if "completions" in parts:
        said.append(completions(parts["completions"]))
    if "hostile" in parts:
        said.append(hostile(parts["hostile"]))
    said += [settings(), "## What the columns mean\n\n" + table(["column", "meaning"], list(COLUMNS.items())),
             "## What this comparison does not say\n\n" + "".join(map(bullet, LIMITS)), data()]
    left_out = {key: why for part in parts.values() for key, why in part["left_out"].items()}
    if left_out:
        said.append("## Left out\n\n" + "".join(bullet(f"{key}: {why}") for key, why in left_out.items()))
    return "\n".join(said)


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95% Wilson interval of a share (Wilson 1927); all of [0, 1] where nothing was counted."""
    if not of:
        return 0.0, 1.0
    share, square = hits / of, Z * Z / of
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / of + square / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(hits: int, of: int) -> str:
    """A share with its interval and counts: `87.2% (80.2 to 91.9), 109 of 125`."""
    if not of:
        return "-"
    low, high = wilson(hits, of)
    return f"{hits / of:.1%} ({100 * low:.1f} to {100 * high:.1f}), {hits:,} of {of:,}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
                     for row in lines) + "\n"  # fmt: skip


def prose(text: str) -> str:
    """A paragraph in lines that fit a screen."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def bullet(text: str) -> str:
    """A point of a Markdown list, in lines that fit a screen."""
    return textwrap.fill(text, 120, initial_indent="- ", subsequent_indent="  ", break_long_words=False,
                         break_on_hyphens=False) + "\n"  # fmt: skip


def rate(per_s: float) -> str:
    """A rate in three digits."""
    return f"{float(f'{per_s:.3g}'):,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def summary(sets: dict[str, Any], hostile_answers: dict[str, Any]) -> str:
    """All math graders at a glance; empty where one was not measured."""
    rows = []
    for grader in scoreboard_math.GRADERS:
        found = {name: one["graders"].get(grader.key) for name, one in sets.items()}
        paid = hostile_answers["graders"].get(grader.key)
        row = [f"{one['hits'] / max(1, one['right']):.1%}, {one['false_positives']}" if one else ""
               for one in found.values()]  # fmt: skip
        row.append(f"{paid['paid'] / hostile_answers['count']:.1%}" if paid and "hacks" not in grader.cannot else "")
        row += [rate(one["per_s"]) if one else "" for one in (found.get("gsm8k"), found.get("hard"))]
        rows.append([grader.title, *row])
    wrong = [f"{name} (of {one['wrong']:,} wrong)" for name, one in sets.items()]
    head = ["grader", *wrong, f"hacks (of {hostile_answers['count']})", "gsm8k/s", "hard/s"]
    return ("## Math at a glance\n\nRecall, and wrong answers accepted; hostile answers paid; answers a second.\n\n"
            + table(head, rows))  # fmt: skip


def labelled(name: str, found: dict[str, Any]) -> str:
    """One labelled set."""
    rows, bare = [], any(len(one["tried"]) > 1 for one in found["graders"].values())
    for grader in scoreboard_math.GRADERS:
        one = found["graders"].get(grader.key)
        if one is None:
            why = f"cannot judge this: {grader.cannot[name]}" if name in grader.cannot else "not measured"
            rows.append([grader.title, why, *[""] * (4 if bare else 3)])
            continue
        rows.append([grader.title, share(one["hits"], one["right"]), share(one["false_positives"], one["wrong"]),
                     *([one["presentation"]] if bare else []), silent(one),
                     f"{rate(one['per_s'])} ({rate(one['per_s_wall'])})"])  # fmt: skip
    head = ["grader", "recall", "false positives", *(["put"] if bare else []), "no word", "answers/s"]
    return (f"## {SETS[name]}\n\n{found['right']:,} right, {found['wrong']:,} wrong. Labels: {found['labels']}.\n\n"
            + table(head, rows))  # fmt: skip


def silent(one: dict[str, Any]) -> str:
    """How many pairs a grader gave no word on, and why."""
    counts = {why: one[key] for key, why in (("cannot", "cannot judge"), ("raised", "raised"), ("hung", "hung"),
                                             ("died", "died"), ("given_up", "given up"))}  # fmt: skip
    return ", ".join(f"{count} {why}" for why, count in counts.items() if count) or "0"


def hacks(found: dict[str, Any]) -> str:
    """The hostile completions: what is paid, then by family."""
    keys = [grader.key for grader in scoreboard_math.GRADERS
            if grader.key in found["graders"] and "hacks" not in grader.cannot]  # fmt: skip
    graders = found["graders"]
    rows = [[MATH[key], share(one["paid"], found["count"]), f"{one['honest']} of {found['honest']}", str(one["ran"]),
             str(one["hung"]), str(one["died"]), f"{one['slowest_s']:.1f} s"]
            for key in keys for one in [graders[key]]]  # fmt: skip
    rows += [[grader.title, f"cannot judge this: {grader.cannot['hacks']}", *[""] * 5]
             for grader in scoreboard_math.GRADERS if "hacks" in grader.cannot]  # fmt: skip
    text = ("## Math completions that must not pay\n\n" + prose(f"{found['count']} invented completions of "
            f"{len(found['families'])} families (`tests/benchmarks/scoreboard_hacks.py`), with {found['honest']} plain "
            "right answers to the same questions as a control. Each grader is confined.") + "\n"
            + table(["grader", "paid", "honest", "ran", "hung", "died", "slowest"], rows))  # fmt: skip
    head = ["family", "why it must not pay", "of", *[SHORT[key] for key in keys]]
    rows = [[family, FAMILIES[family][0], str(count),
             *[str(graders[key]["paid_by_family"].get(family, 0)) for key in keys]]
            for family, count in found["families"].items() if family in FAMILIES]  # fmt: skip
    return text + "\nPaid, by family:\n\n" + table(head, rows)


def completions(found: dict[str, Any]) -> str:
    """A model's completions beside the published verdicts."""
    rows = [[CODE[key], f"{one['hits'] + one['wrong'] - one['false_positives']} of {one['right'] + one['wrong']}",
             share(one["hits"], one["right"]), share(one["false_positives"], one["wrong"]),
             f"{one['cannot']}" + f", {one['lost']} of them hung" * (one["lost"] > 0), rate(one["per_s"])]
            for key in CODE if key in found["graders"] for one in [found["graders"][key]]]  # fmt: skip
    head = ["grader", "verdicts as published", "recall", "false positives", "no word", "programs/s by the clock"]
    return (f"## Programs: Qwen2.5-Coder-7B's published completions of HumanEval\n\n{found['programs']} programs, "
            f"{found['right']} of them right by the verdict that was published with each.\n\n"
            + table(head, rows))  # fmt: skip


def hostile(found: dict[str, Any]) -> str:
    """The hostile programs."""
    rows = [[CODE[key], share(one["rewarded"], found["functions"]), str(one["got_out"]), str(one["touched"]),
             str(one["left"]), str(one["lost"])]
            for key in CODE if key in found["graders"] for one in [found["graders"][key]]]  # fmt: skip
    return (f"## Programs that must not pay\n\n{found['functions']} wrong functions that try to pass all the same, or "
            "to get out, or to stay (`tests/hostile`).\n\n"
            + table(["grader", "paid", "got out", "touched", "left", "no verdict"], rows))  # fmt: skip


def settings() -> str:
    """How each grader is used."""
    rows = [[grader.title, grader.setting] for grader in scoreboard_math.GRADERS]
    rows += [[grader.title, grader.setting] for grader in scoreboard_programs.GRADERS]
    return "## How each grader is used\n\n" + table(["grader", "setting"], rows) + (
        "\n`tests/benchmarks/peers.py` says what is installed for each. Of lighteval, what its graders never call\n"
        "(torch, transformers) is left out.\n")


def data() -> str:
    """The files that the labels come from."""
    rows = [[f"`{name}`", f"`{digest[:16]}...`"] for name, digest in SHA256.items()]
    return "## Data\n\n" + table(["file of the mirror", "sha256"], rows)
