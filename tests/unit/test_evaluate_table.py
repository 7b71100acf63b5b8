"""The printed tables: one line for each model or set at 120 columns, and nothing that was not asked for."""

from __future__ import annotations

from typing import Any

import pytest

from derivatives.evaluation.table import NUM_COLUMNS, print_table

HALF = {"value": 0.5, "low": 0.412, "high": 0.588}
LOST = {"value": -0.046, "low": -0.06, "high": -0.032}
ONE = {"pass@1": {**HALF, "total": 90}, "pass@k": None, "bits_per_byte": {}, "mean_tokens": 46.0, "format": "chat",
       "by_task": {"gsm8k": {**HALF, "total": 90}}}  # fmt: skip
FLOOR = {"value": 0.1, "best_constant": {"gsm8k": {"answer": "7", "value": 0.1}}}
BUDGET = {"max_thinking_tokens": 64, "pass@1": HALF, "maj@k": {"k": 8, **HALF}, "over_smallest": HALF,
          "mean_tokens": 65.0, "closed_fraction": 0.511}  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str], **results: Any) -> list[str]:
    print_table({"judge": "math", "confidence": 0.95, "gains": {}, "floor": FLOOR, **results})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert all(len(line) <= NUM_COLUMNS for line in lines)
    return lines


def starting(lines: list[str], word: str) -> list[str]:
    return [" ".join(line.split()) for line in lines if line.split()[:1] == [word]]


def test_every_figure_of_a_model_stands_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    whole = {
        **ONE, "pass@k": {"k": 8, **HALF}, "maj@k": {"k": 8, **HALF}, "truncated_fraction": 0.02,
        "tokens": {"right": {"mean": 31.4}, "wrong": {"mean": 120.0}}, "kept": {"lists": {**HALF, "total": 20}},
        "kept_all": HALF, "bits_per_byte": {"python_stdlib": 1.25, "package_readmes": 2.0},
        "by_task": {"gsm8k": {**HALF, "total": 90, "contamination": {"flag": True}}},
    }  # fmt: skip
    rise = {"python_stdlib": {**LOST, "value": 0.01}, "package_readmes": {"value": 0.02, "low": None, "high": None}}
    gain = {"pass@1": HALF, "kept": LOST, "bits_per_byte": rise}
    base = {**whole, "no_budgets": "no answer opens a thought"}
    models = {"base": base, "rl": {**whole, "budgets": [BUDGET, BUDGET]}}
    twins = {"gsm8k": {"rl": {"original": HALF, "twin": HALF, "gap": LOST}}}
    lines = printed(capsys, models=models, gains={"rl": gain}, not_voted={"lists": "a reason"}, twins=twins)
    half = "50.0 [41.2, 58.8]"
    assert starting(lines, "rl")[0] == f"rl {half} +50.0 [+41.2, +58.8] {half} {half} 31/120 2.0 chat"
    assert starting(lines, "kept") == [f"kept tasks {half} 50.0 -4.6 [-6.0, -3.2]"]
    assert starting(lines, "python_stdlib") == ["python_stdlib 1.250 1.250 +1.0 [-6.0, -3.2]"]
    assert starting(lines, "package_readmes") == ["package_readmes 2.000 2.000 +2.0"], "one document: no interval"
    assert starting(lines, "rl")[1] == f"rl 64 {half} {half} 65 51", "the smallest budget adds nothing to itself"
    assert starting(lines, "64") == [f"64 {half} +50.0 [+41.2, +58.8] {half} 65 51"]
    assert starting(lines, "gsm8k")[0] == f"gsm8k (!) 90 10.0 (7) {half} {half}"
    assert starting(lines, "kept:") == [f"kept: lists 20 {half} {half}"]
    assert starting(lines, "gsm8k")[1] == f"gsm8k rl {half} {half} -4.6 [-6.0, -3.2]"
    for said in ("base: no answer opens a thought", "without a vote: lists"):
        assert said in lines
    assert any(line.startswith("(!) the first model completes") for line in lines)


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, models={"runs/[/v2]": ONE, "[red]x": ONE})
    assert sum("runs/[/v2]" in line for line in lines) == 2 == sum("[red]x" in line for line in lines)


def test_what_was_not_asked_for_takes_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    said = "\n".join(printed(capsys, models={"base": ONE}))
    for word in ("maj@", "pass@k", "lost", "budgets", "kept", "twins", "audited", "(!)", "without a vote"):
        assert word not in said
    assert "90 problems, judged by math; in percent, 95% intervals" in said
    assert starting(said.splitlines(), "all") == ["all 90 10.0 50.0 [41.2, 58.8]"]


def test_four_models_take_one_line_a_set(capsys: pytest.CaptureFixture[str]) -> None:
    name = "reasoning_gym/prime_factorization"
    one = {**ONE, "by_task": {name: {**HALF, "total": 90}}}
    floor = {"value": 0.1, "best_constant": {name: {"answer": "7", "value": 0.1}}}
    lines = printed(capsys, models={f"model{n}": one for n in range(4)}, floor=floor)
    assert starting(lines, name) == [f"{name} 90 10.0 " + " ".join(["50.0 [41, 59]"] * 4)]
