"""`derive evaluate`: options as an evaluate stage, and what is wrong with them told by the option."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from flows import evaluate_command
from flows.cli import main, parser


def given(*words: str) -> argparse.Namespace:
    return parser().parse_args(["evaluate", "seedling", "--tasks", "reasoning_gym/gcd", *words])


def test_options_are_the_settings_of_a_stage(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "x"}\n')
    stage = evaluate_command.stage_of(
        given("--samples", "4", "--temperature", "0.7", "--budgets", "16,64", "--answer-tokens", "32", "--probe",
              "--kept", "functions/lists", "--limit", "9", "--text", "sympy_examples", "--text", f"{tmp_path}/t.jsonl")
    )  # fmt: skip
    assert (stage.num_samples, stage.sampling.temperature, stage.sampling.max_new_tokens) == (4, 0.7, 512)
    assert (stage.thinking_budgets, stage.answer_tokens) == ((16, 64), 32)
    assert [(one.name, one.split, one.count) for one in (*stage.tasks, *stage.kept_tasks)] == [
        ("reasoning_gym/gcd", "heldout", 9), ("functions/lists", "heldout", 9)
    ]  # fmt: skip
    assert [(one.name, one.split) for one in stage.heldout_text] == [
        ("sympy_examples", "heldout"), (str(tmp_path / "t.jsonl"), "all")
    ]  # fmt: skip
    assert stage.probe is not None and stage.tools is None and stage.judge is None
    plain = evaluate_command.stage_of(given("--tools"))
    assert plain.tools is not None and plain.probe is None and not plain.thinking_budgets


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budgets", "16,900"), "--budgets: 900 tokens of thinking, in completions of 512; allowed: at most --max-"),
        (("--budgets", "64,16"), "--budgets: [64, 16]; allowed: rising numbers"),
        (("--budgets", "64", "--tools"), "--budgets: [64] with --tools; allowed: one of the two"),
        (("--kept", "gsm9k"), "--kept.name: 'gsm9k'"),
        (("--text", "sympy"), "--text.name: 'sympy'"),
    ],
)
def test_what_does_not_fit_is_told_by_its_option(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "seedling", "--tasks", "reasoning_gym/gcd", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


@pytest.mark.parametrize("word", ["a,3", "0,3", ""])
def test_budgets_are_numbers_of_at_least_one(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        given("--budgets", word)
    assert "argument --budgets" in capsys.readouterr().err


def test_the_help_says_what_each_measure_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = capsys.readouterr().out
    for word in ("maj@K", "--budgets", "--kept", "--probe", "--text", "examples:"):
        assert word in said


def test_a_checkpoint_is_judged_by_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(3)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.jsonl").write_text('{"text": "One text."}\n{"text": "Another text."}\n')
    words = ["--tasks", f"{tmp_path}/p.jsonl", "--kept", f"{tmp_path}/p.jsonl", "--text", f"{tmp_path}/t.jsonl"]
    more = ["--samples", "2", "--budgets", "2,4", "--max-new-tokens", "6", "--machine", "cpu", "--json"]
    assert main(["evaluate", "seedling", *words, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    one = found["models"]["seedling"]
    assert one["pass@1"]["total"] == one["kept_all"]["total"] == len(found["samples"]) == 3
    assert one["maj@k"]["problems"] == 3 and set(one["bits_per_byte"]) == {"t.jsonl"}
    assert "budgets" in one or "no_budgets" in one
    assert found["judge"] == "each set's own" and found["pairwise"] == {}
