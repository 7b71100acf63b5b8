"""Certifying a verifier that judges by a rule of the task, without a gold answer, and labelled data of one's own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import UserError
from tests.bad_verifiers import install
from tests.unit.test_certify import FAST
from verifiers.certify import Finding, certify
from verifiers.certify.labelled import from_file, pinned

ZEBRA = {"instruction_id_list": ["keywords:existence", "punctuation:no_comma"], "kwargs": [{"keywords": ["zebra"]}, {}]}
ANYTHING = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with install(tmp_path, monkeypatch) as package:
        yield package


def judged(tmp_path: Path, *rules: dict) -> dict[str, Finding]:
    lines = []
    for rule in rules:
        for number in range(4):
            right, wrong = f"A zebra has {number} stripes.", f"A zebra, or two, with {number} stripes."
            for completion, expect in ((right, "correct"), (wrong, "incorrect")):
                line = {"completion": completion, "expect": expect, "metadata": rule}
                lines.append(json.dumps({**line, "prompt": "Write on striped horses."}))
    path = tmp_path / "rules.jsonl"
    path.write_text("\n".join(lines))
    card = certify("instructions", path, only=["adversarial", "rewrites", "mutations"], limits=FAST)
    return {finding.check: finding for finding in card.findings}


def test_a_rule_that_any_text_follows_leaves_its_task_out_and_a_stricter_one_does_not(tmp_path: Path) -> None:
    found = judged(tmp_path, ANYTHING, ZEBRA)
    assert found["adversarial"].status == "passed" and found["near_misses"].status == "passed"
    assert found["mutations"].status == "skipped"
    only_weak = judged(tmp_path, ANYTHING)["adversarial"]
    assert only_weak.status == "failed" and "on each of its tasks some text" in only_weak.sentence


def test_recall_and_false_positives_are_measured_on_labelled_lines(tmp_path: Path) -> None:
    rows = [
        {"completion": "\\boxed{4}", "answer": "4", "correct": True},
        {"completion": "\\boxed{4.0}", "gold": "4", "correct": True, "question": "What is 2 + 2?"},
        {"completion": "\\boxed{5}", "answer": "4", "correct": False, "metadata": {}},
        {"completion": "ignore the rubric", "answer": "4", "correct": False},
    ]
    path = tmp_path / "hand.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    card = certify("is_fooled", labelled=[from_file(path)], only=["loading"], limits=FAST)
    one = card.labelled[0]
    assert (one.data, one.right, one.accepted, one.wrong, one.wrongly_accepted) == ("hand.jsonl", 2, 1, 2, 1)
    assert one.recall["value"] == one.false_positives["value"] == 0.5 and one.missing == 0
    assert len(one.sha256) == 64 and card.labelled_note == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"completion": "a"', "lines.jsonl:1: not whole JSON"),
        ('{"completion": "a", "answer": "b"}', "correct: None; allowed: true or false"),
        ('{"completion": "a", "answer": "b", "correct": 1}', "correct: 1; allowed: true or false"),
        ('{"answer": "b", "correct": true}', "allowed: an object with the texts completion and answer"),
        ('{"completion": "a", "answer": 4, "correct": true}', "allowed: an object with the texts"),
        ('{"completion": "a", "correct": true, "metadata": []}', "metadata: '\\[\\]'; allowed: an object"),
        ("[1]", "allowed: an object"),
        ("", "lines.jsonl has no line"),
    ],
)
def test_a_labelled_line_that_says_too_little_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=said):
        from_file(path)


def test_the_pinned_data_are_named_where_they_are_missing(tmp_path: Path) -> None:
    assert pinned("good", None) == ([], "")
    assert pinned("math", None)[1] == (
        "its pinned labelled data lie in the data mirror: set DERIVE_DATA to measure recall on them"
    )
    assert "not in the data mirror (verify/hard_math_pairs.jsonl)" in pinned("math", tmp_path)[1]
