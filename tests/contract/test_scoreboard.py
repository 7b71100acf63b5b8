"""The parts of `make scoreboard`: intervals, labels, hostile answers, a grader that hangs or dies, the page."""

import json
import random
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import scoreboard, scoreboard_client, scoreboard_items, scoreboard_page
from tests.benchmarks.scoreboard_client import NoGraderError, Said, judge_all
from tests.benchmarks.scoreboard_hacks import hacks, honest
from tests.benchmarks.scoreboard_math import counts, hack_counts
from tests.benchmarks.scoreboard_programs import agreement, hostile_counts
from verifiers.api import Outcome, Task
from verifiers.math import MathVerifier


def test_the_interval_is_wilsons() -> None:
    low, high = scoreboard_page.wilson(109, 125)
    assert (round(low, 4), round(high, 4)) == (0.8022, 0.9197)
    assert scoreboard_page.wilson(0, 0) == (0.0, 1.0)
    assert scoreboard_page.wilson(0, 125)[0] == 0.0 and scoreboard_page.wilson(5, 5)[1] == pytest.approx(1.0)
    assert scoreboard_page.share(109, 125) == "87.2% (80.2 to 92.0), 109 of 125"


def test_our_verifier_pays_for_no_hostile_answer_and_for_each_plain_one() -> None:
    verifier = MathVerifier()
    wrong = hacks()
    assert len(wrong) >= 250 and len({hack.family for hack in wrong}) >= 20
    assert all(hack.why and hack.gold for hack in wrong)
    assert len({(hack.question, hack.gold, hack.completion) for hack in wrong}) == len(wrong)
    paid = [hack for hack in wrong
            if verifier.judge(Task("t", hack.question, hack.gold), hack.completion).outcome is not Outcome.INCORRECT]
    assert paid == []
    refused = [case for case in honest()
               if verifier.judge(Task("t", case[0], case[1]), case[2]).outcome is not Outcome.CORRECT]
    assert refused == []


def test_a_changed_digit_is_another_digit() -> None:
    rng = random.Random(1)
    for gold in ("\\frac{3}{4}", "x^2+10", "7"):
        changed = scoreboard_items.one_digit_changed(gold, rng)
        assert changed is not None and len(changed) == len(gold)
        assert sum(a != b for a, b in zip(gold, changed, strict=True)) == 1 and changed.count("0") == gold.count("0")
    assert scoreboard_items.one_digit_changed("\\text{Friday 0}", rng) is None


def test_a_file_that_is_another_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(scoreboard_items.DataError, match="no such file"):
        scoreboard_items.mirrored_file(tmp_path, "math/math500.json")
    (tmp_path / "math").mkdir()
    (tmp_path / "math/math500.json").write_text("[]")
    with pytest.raises(scoreboard_items.DataError, match="the board is about 236bd0cc"):
        scoreboard_items.mirrored_file(tmp_path, "math/math500.json")


def test_verdicts_are_counted_against_the_labels() -> None:
    rows = [{"correct": True}, {"correct": True}, {"correct": False}, {"correct": False}]
    yes = Said(True, processor_s=0.25, wall_s=0.5)
    said = [yes, Said(False, "ValueError"), yes, Said(None, "hung", wall_s=20.0)]
    found = counts(said, rows)
    assert (found["hits"], found["right"], found["false_positives"], found["wrong"]) == (1, 2, 1, 2)
    assert (found["hung"], found["raised"], found["cannot"]) == (1, 1, 0)
    assert found["per_s"] == 4.0 and found["per_s_wall"] == 2.0
    assert (found["missed"], found["accepted"]) == ([1], [2])
    paid = hack_counts([Said(True), Said(True, ran=True), Said(None, "died")], hacks()[:2], 1)
    assert (paid["honest"], paid["paid"], paid["ran"], paid["died"]) == (1, 1, 1, 1)
    assert agreement({"a": True, "b": None, "c": True}, {"a": True, "b": True, "c": False}) == {
        "right": 1, "wrong": 1, "hits": 1, "false_positives": 1, "cannot": 1, "differ": ["c"]}


def test_what_the_honest_program_leaves_is_no_escape() -> None:
    def finding(name: str, **said: bool) -> dict[str, Any]:
        return {"id": name, "passed": False, "touched": False, "left": True, "lost": False, **said}

    found = hostile_counts(
        [finding("", passed=True), finding("equal_object", passed=True), finding("hang_loop", lost=True)],
        ["equal_object", "hang_loop", "value_nothing"],
    )
    assert found == {"rewarded": 1, "programs": ["equal_object"], "judged": 2, "got_out": 0, "touched": 0, "left": 0,
                     "lost": 2}  # fmt: skip


def test_our_own_grader_answers_line_by_line() -> None:
    rows = [{"gold": "\\frac{1}{2}", "completion": "So $\\boxed{0.5}$."}, {"gold": "7", "completion": "8"},
            {"gold": "", "completion": "8"}]  # fmt: skip
    said = judge_all(sys.executable, "ours_blind", rows)
    assert [one.said for one in said] == [True, False, None] and all(one.processor_s > 0 for one in said)


def test_a_grader_that_hangs_or_dies_is_counted_and_started_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import json, os, sys, time\n"
        "print(json.dumps({'ready': True}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    said = json.loads(line)['completion']\n"
        "    while said == 'hang': pass\n"
        "    if said == 'die': os._exit(3)\n"
        "    print(json.dumps({'said': True, 'raised': '', 'processor_s': 0, 'wall_s': 0, 'ran': False}), flush=True)\n"
    )
    monkeypatch.setattr(scoreboard_client, "RUNNER", runner)
    rows = [{"completion": text} for text in ("one", "hang", "two", "die", "three")]
    said = judge_all(sys.executable, "any", rows, limit_s=0.4)
    assert [one.trouble or one.said for one in said] == [True, "hung", True, "died", True]
    runner.write_text("import sys; sys.exit('no such module')")
    with pytest.raises(NoGraderError, match="no such module"):
        judge_all(sys.executable, "any", rows)


def test_later_figures_of_a_grader_replace_its_earlier_ones() -> None:
    graders = {"a": {"paid": 1, "hung": 2}, "b": {"paid": 3}}
    first = {"parts": {"hacks": {"graders": graders, "left_out": {"c": "gone"}}}}
    second = {"parts": {"hacks": {"graders": {"a": {"paid": 0}, "c": {"paid": 5}}, "left_out": {}}}}
    assert scoreboard.joined(first, second) == {
        "parts": {"hacks": {"graders": {"a": {"paid": 0}, "b": {"paid": 3}, "c": {"paid": 5}}, "left_out": {}}}}


def test_without_data_the_labelled_parts_are_skipped_and_the_page_says_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DERIVE_DATA", raising=False)
    ours = {"paid": 0, "honest": 4, "ran": 0, "hung": 0, "died": 0, "slowest_s": 0.1, "paid_by_family": {}}
    measured = {"graders": {"ours": ours}, "left_out": {"qwen": "no such package"}, "count": 24, "honest": 4,
                "families": {"nothing": 24}}  # fmt: skip

    def measure(
        name: str, mirror: Path, arguments: Namespace, found: dict[str, Any], say: Callable[[str], None]
    ) -> None:
        found.update(measured)
        say("ours: pays 0 of 24")
        assert json.loads(arguments.out.read_text())["parts"]["hacks"]["count"] == 24  # kept before the part is done

    monkeypatch.setattr(scoreboard, "measure", measure)
    out, page = tmp_path / "new" / "board.json", tmp_path / "page.md"
    arguments = ["--parts", "labelled,hacks", "--out", str(out), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["scoreboard.py", *arguments])
    assert scoreboard.main() == 0
    assert "labelled: skipped: DERIVE_DATA is not set" in capsys.readouterr().out
    text = page.read_text()
    assert "| this project's `math` | 0.0% (0.0 to 13.8), 0 of 24 | 4 of 4 | 0 | 0 | 0 | 0.1 s |" in text
    assert "- qwen: no such package" in text and "## Math: hard pairs" not in text
    assert json.loads(out.read_text())["parts"]["hacks"]["count"] == 24
    assert all(line.count("|") >= 3 for line in text.splitlines() if line.startswith("|"))


def test_what_it_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["scoreboard.py", "--parts", "labels"])
    with pytest.raises(SystemExit):
        scoreboard.main()
    assert "'labels'; allowed: labelled, hacks" in capsys.readouterr().err
