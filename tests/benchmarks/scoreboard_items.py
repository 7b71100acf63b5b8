"""What the scoreboard judges: labelled pairs of a gold answer and a completion, and where each label comes from.

    hard     the hard pairs of the mirror, bare answers; how they are put to a grader is one of `PRESENTATIONS`
    gsm8k    real model solutions of the mirror with published labels
    golds    MATH-500's gold answers in a plain sentence (right), and with one digit changed (wrong)
    made     answers made by rule, in another spelling (right) or proved to be worth something else (wrong)

`hard` and `gsm8k` are labelled by others; the labels of `golds` and `made` follow from how they are made.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
SHA256 = {
    "verify/hard_math_pairs.jsonl": "cd0777b381d220e043ae8e02a5f1a9066dcd4863168b1a17d5dc7d2527a996ad",
    "verify/gsm8k_model_solutions.jsonl": "d5b9aa5c845ec81ca54e68858c43df08a330893ddf36eb6c628287be03a1b278",
    "math/math500.json": "236bd0cc329ee3efaf045a150e6473e4f420e7e7e17051a4e77a1f2688599e63",
    "humaneval/HumanEval.jsonl.gz": "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    "qwen2.5-coder-7b-base/humaneval_completions.jsonl":
        "7a46c6a917c03006343f616a19142ec1b8e76ca8f166d89dd1b0b7a81cafeba1",
    "qwen2.5-coder-7b-base/humaneval_expected.jsonl":
        "13a0bbd53f176964f2c12282d64349753359024d762ecc9ab0dc91fb9845c3b2",
}  # fmt: skip
"""The files of the mirror that labels come from. Another file is another board."""
NUM_MADE = 1_000
SEED = 20


class DataError(RuntimeError):
    """A file of the mirror that is not there, or not the one that the board is about."""


@dataclass(frozen=True)
class Labelled:
    """A set of labelled pairs: its name, what its labels rest on, the pairs, and how bare answers may be put."""

    name: str
    labels: str
    rows: list[Row]
    presentations: tuple[str, ...] = ("as it is",)


PRESENTATIONS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "in dollar signs": lambda text: text if re.search(r"(?<!\\)\$|\\boxed|\n", text) else f"${text}$",
    "in a box": lambda text: f"\\boxed{{{text}}}",
    "after ANSWER:": lambda text: f"ANSWER: {text}",
}
"""Ways to put a bare answer to a grader. Each grader gets all of them, and is shown with its best."""


def mirrored_file(mirror: Path, name: str) -> Path:
    """A file of the mirror. Raises DataError where it is not the one that SHA256 names."""
    path = mirror / name
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; name the mirror of the public data sets in DERIVE_DATA")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[name]:
        raise DataError(f"{path}: sha256 is {found}, the board is about {SHA256[name]}; fetch the file anew")
    return path


def labelled_sets(mirror: Path) -> list[Labelled]:
    """All sets of labelled answers. Raises DataError."""
    return [
        Labelled("hard", "by people (HardVerify-Math, the half in the mirror)",
                 _json_lines(mirrored_file(mirror, "verify/hard_math_pairs.jsonl")), tuple(PRESENTATIONS)),
        Labelled("gsm8k", "published with the solutions (half of them in the mirror)",
                 _json_lines(mirrored_file(mirror, "verify/gsm8k_model_solutions.jsonl"))),
        Labelled("golds", "by construction, from MATH-500", gold_rows(mirrored_file(mirror, "math/math500.json"))),
        Labelled("made", "by construction, each wrong one proved to differ", made_rows(NUM_MADE)),
    ]  # fmt: skip


def gold_rows(path: Path) -> list[Row]:
    """Each gold answer of MATH-500 in a plain sentence, and once more with one digit changed where it has any."""
    rng, rows = random.Random(SEED), []
    for problem in json.loads(path.read_text(encoding="utf-8")):
        question, gold = problem["prompt"][0]["value"], problem["final_answer"]
        rows.append({"question": question, "gold": gold, "completion": _sentence(gold), "correct": True})
        changed = one_digit_changed(gold, rng)
        if changed is not None:
            rows.append({"question": question, "gold": gold, "completion": _sentence(changed), "correct": False})
    return rows


def one_digit_changed(gold: str, rng: random.Random) -> str | None:
    """The text with one digit made another one, never to or from a 0; None where it has no such digit."""
    places = [match.start() for match in re.finditer(r"[1-9]", gold)]
    if not places:
        return None
    place = rng.choice(places)
    other = rng.choice([digit for digit in "123456789" if digit != gold[place]])
    return gold[:place] + other + gold[place + 1:]


def made_rows(count: int) -> list[Row]:
    """Answers made by `tests.property.mutated_answers`: half of them respelled, half of them mutated."""
    from tests.property.mutated_answers import mutation, respelled

    rng, rows = random.Random(SEED), []
    for _ in range(count // 2):
        gold, answer = respelled(rng)
        rows.append({"question": "", "gold": gold, "completion": _sentence(answer), "correct": True})
        pair = mutation(rng)
        rows.append({"question": "", "gold": pair.gold, "completion": _sentence(pair.answer), "correct": False})
    return rows


def presented(rows: list[Row], how: str) -> list[Row]:
    """The rows with their bare answers put in this way."""
    return [{**row, "completion": PRESENTATIONS[how](row["completion"])} for row in rows]


def sample(rows: list[Row], most: int | None) -> list[Row]:
    """All rows, or so many drawn with a fixed seed."""
    return rows if most is None or most >= len(rows) else random.Random(SEED).sample(rows, most)


def _sentence(answer: str) -> str:
    return f"Therefore, the final answer is $\\boxed{{{answer}}}$."


def _json_lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
