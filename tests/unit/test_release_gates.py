"""Gates against a hand-made evaluation: base 10%, sft 20%, rl 25%."""

from __future__ import annotations

import math
from typing import Any

import pytest

from configs.errors import UserError
from configs.settings.evaluation import Gate
from derivatives.evaluation.statistics import bootstrap_mean
from derivatives.gates import check_gates, gain_between


def evaluation(**changes: Any) -> dict[str, Any]:
    models = {
        name: {"pass@1": {"value": value}, "bits_per_byte": {"python": bits, "english": bits + 1.0}}
        for name, value, bits in [("base", 0.10, 2.0), ("sft", 0.20, 2.3), ("rl", 0.25, 2.4)]
    }
    return {
        "models": models,
        "gains": {
            "sft": {"pass@1": {"value": 0.10, "low": 0.08, "high": 0.12}},
            "rl": {"pass@1": {"value": 0.15, "low": 0.12, "high": 0.18}},
        },
        "pairwise": {"sft->rl": {"pass@1": {"value": 0.05, "low": -0.01, "high": 0.11}, "pass@k": None}},
    } | changes


def judged(gate: Gate, results: dict[str, Any] | None = None) -> Any:
    return check_gates(results or evaluation(), (gate,), "rl")[0]


def test_a_gate_holds_when_the_intervals_lower_end_exceeds_the_required_gain() -> None:
    assert judged(Gate(metric="pass@1", against="base", min_gain=0.11)).passed
    assert not judged(Gate(metric="pass@1", against="base", min_gain=0.12)).passed, "equal is not more"


def test_a_gain_whose_interval_reaches_below_zero_does_not_pass_although_its_value_is_positive() -> None:
    result = judged(Gate(metric="pass@1", against="sft"))
    assert (result.gain, result.low, result.passed) == (0.05, -0.01, False)
    assert result.line() == "gate pass@1, rl against sft: gain +0.050 [-0.010, +0.110]; must exceed +0.000; not passed"


def test_a_pair_that_is_stored_the_other_way_round_is_turned_over() -> None:
    results = evaluation(pairwise={"rl->sft": {"pass@1": {"value": -0.05, "low": -0.11, "high": 0.01}}})
    assert gain_between(results, "pass@1", "sft", "rl") == (0.05, -0.01, 0.11)


def test_bits_per_byte_takes_the_worst_text_and_counts_a_fall_as_gain() -> None:
    results = evaluation()
    results["models"]["rl"]["bits_per_byte"] = {
        "python": 1.5,
        "english": 3.25,
    }  # python falls by 0.5, english rises by 0.25
    assert judged(Gate(metric="bits_per_byte", min_gain=-0.3), results).passed
    strict = judged(Gate(metric="bits_per_byte", min_gain=-0.25), results)
    assert (strict.gain, strict.detail, strict.passed) == (-0.25, "worst text: english", False)


def test_a_figure_that_is_missing_or_not_a_number_never_passes() -> None:
    lenient = -100.0
    assert not judged(Gate(metric="pass@k", min_gain=lenient)).passed
    results = evaluation()
    results["models"]["rl"]["bits_per_byte"]["python"] = math.nan
    assert not judged(Gate(metric="bits_per_byte", min_gain=lenient), results).passed
    del results["models"]["rl"]["bits_per_byte"]["python"]
    assert not judged(Gate(metric="bits_per_byte", min_gain=lenient), results).passed
    results["gains"]["rl"]["pass@1"] = {"value": 0.15, "low": math.nan, "high": math.nan}
    assert not judged(Gate(metric="pass@1", min_gain=lenient), results).passed


def counted(num: int, correct: tuple[int, int], no_verdict: int = 0, **more: Any) -> dict[str, Any]:
    """An evaluation of so many problems, by the real interval; those that one model solves, the other solves too."""
    shares = [count / num for count in correct]
    differences = [1.0] * (correct[1] - correct[0]) + [0.0] * (num - (correct[1] - correct[0]))
    rows = [{"value": share, "total": num, "no_verdict": missing}
            for share, missing in zip(shares, (no_verdict, 0), strict=True)]  # fmt: skip
    pair = {"pass@1": bootstrap_mean(differences, 0.95, 0)}
    models = {name: {"pass@1": row} for name, row in zip(("base", "rl"), rows, strict=True)}
    return {"models": models, "pairwise": {"base->rl": pair}, **more}


def test_few_problems_without_a_difference_do_not_show_that_nothing_was_lost() -> None:
    few = judged(Gate(metric="pass@1", min_gain=-0.02), counted(5, (3, 3)))
    # the bootstrap of five equal answers is [0, 0]; at 0 of 5 Wilson's interval reaches z^2 / (5 + z^2) = 43.4%
    assert not few.passed and few.low == pytest.approx(-3.8415 / 8.8415, abs=1e-4)
    assert few.detail == "5 problems cannot show more"
    assert judged(Gate(metric="pass@1", min_gain=-0.02), counted(200, (120, 120))).passed  # 3.84 / 203.84 = 1.9%
    many = judged(Gate(metric="pass@1"), counted(1000, (100, 150)))
    assert many.passed and many.detail == "" and many.low == pytest.approx(0.037, abs=0.003), "the bootstrap's own"


def test_missing_verdicts_on_the_other_model_are_no_gain() -> None:
    same = judged(Gate(metric="pass@1", min_gain=0.05), counted(1000, (200, 300), no_verdict=100))
    assert not same.passed and same.gain == pytest.approx(0.1) and same.low < 0.0
    assert "100 of 1000 problems lack a verdict on base and count as solved" in same.line()
    assert judged(Gate(metric="pass@1", min_gain=0.05), counted(1000, (200, 300))).passed
    sampled = {"value": 0.3, "low": 0.25, "high": 0.35}
    results = evaluation(pairwise={"base->rl": {"maj@k": sampled}})
    results["models"]["base"]["maj@k"] = {"k": 8, "value": 0.1, "problems": 200, "no_verdict": 40}
    assert judged(Gate(metric="maj@k", min_gain=0.04), results).low == pytest.approx(0.25 - 40 / 200)


def test_a_lower_confidence_than_the_usual_is_told() -> None:
    line = judged(Gate(metric="pass@1"), counted(100, (10, 20), confidence=0.6)).line()
    assert "at 60% confidence instead of 95%" in line


def test_a_gate_on_a_users_file_finds_its_figures() -> None:
    row = {"value": 0.2, "low": 0.1, "high": 0.3}
    results = evaluation(pairwise={"base->rl": {"by_task": {"mine.jsonl": row}}})
    assert judged(Gate(metric="pass@1", tasks="/data/mine.jsonl"), results).passed


def test_an_evaluation_without_the_base_is_refused_even_without_gates() -> None:
    results = evaluation()
    del results["models"]["base"]
    with pytest.raises(UserError, match="base was not evaluated"):
        check_gates(results, (), "rl")


def test_a_gain_that_contradicts_the_figures_is_refused() -> None:
    results = evaluation()
    results["models"]["rl"]["pass@1"]["value"] = 0.11
    with pytest.raises(UserError, match=r"given as \+0.1500, but the figures are 0.1100 and 0.1000"):
        check_gates(results, (Gate(metric="pass@1"),), "rl")


def test_every_gate_is_judged_although_an_earlier_one_fails() -> None:
    gates = (Gate(metric="pass@1", min_gain=0.5), Gate(metric="pass@1", min_gain=0.0))
    assert [result.passed for result in check_gates(evaluation(), gates, "rl")] == [False, True]
