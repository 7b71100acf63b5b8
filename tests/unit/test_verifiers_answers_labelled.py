"""The labelled answers of the mirror (`$DERIVE_DATA`): what `docs/verifiers/math.md` says of them."""

import json
import os
from pathlib import Path

import pytest

from verifiers.api import Task
from verifiers.math import MathVerifier

MIRROR = os.environ.get("DERIVE_DATA")
pytestmark = pytest.mark.skipif(not MIRROR, reason="DERIVE_DATA is not set: no mirror of the public data sets")
LOOSE = {36, 84, 120, 132, 142, 188, 194, 196, 214, 218, 246}
"""Rows labelled right whose completion is not the gold answer, or whose gold answer is broken."""
UNREAD = {148, 150, 164, 180, 220}
"""Rows labelled right that say it in prose."""
BY_QUESTION = {178, 190, 208, 212}
"""Rows that only the question makes right."""


@pytest.mark.parametrize("frame", ["{}", "so \\boxed{{{}}}."])
@pytest.mark.parametrize("asked", [True, False])
def test_hard_pairs_are_missed_for_the_stated_reasons_and_no_wrong_one_is_accepted(frame: str, asked: bool) -> None:
    verifier, lines = MathVerifier(), (Path(str(MIRROR)) / "verify/hard_math_pairs.jsonl").read_text().splitlines()
    missed, accepted = set(), set()
    for place, row in enumerate(map(json.loads, lines)):
        task = Task("t", row["question"] if asked else "", row["gold"])
        right = verifier.judge(task, frame.format(row["completion"])).score == 1.0
        if right != row["correct"]:
            (missed if row["correct"] else accepted).add(place)
    assert accepted == set()
    assert missed == LOOSE | UNREAD | (set() if asked else BY_QUESTION)


def test_every_label_of_the_model_solutions_is_reproduced() -> None:
    verifier, path = MathVerifier(), Path(str(MIRROR)) / "verify/gsm8k_model_solutions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 2_636
    verdicts = [verifier.judge(Task("t", row["question"], row["gold"]), row["completion"]) for row in rows]
    assert [place for place, row in enumerate(rows) if (verdicts[place].score == 1.0) != row["correct"]] == []
