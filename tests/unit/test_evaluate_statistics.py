"""Intervals and estimators, against published values and by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from derivatives.evaluation.statistics import bootstrap_mean, bootstrap_means, pass_at_k, relative_rise, spread, wilson
from derivatives.evaluation.table import print_table


def test_wilson_gives_the_textbook_intervals() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), table I: 81/263, 15/148, 0/20, 1/29.
    for (correct, total), expected in {
        (81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718),
    }.items():  # fmt: skip
        assert wilson(correct, total, 0.95) == pytest.approx(expected, abs=1e-4)
    assert wilson(20, 20, 0.95)[1] == 1.0
    assert wilson(0, 0, 0.95) == (0.0, 1.0)


@pytest.mark.parametrize(("num", "correct", "k"), [(5, 2, 1), (5, 2, 3), (6, 1, 6), (4, 0, 2), (4, 4, 2), (7, 3, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(num: int, correct: int, k: int) -> None:
    subsets = list(itertools.combinations([True] * correct + [False] * (num - correct), k))
    assert pass_at_k(num, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_refuses_more_than_there_are_samples() -> None:
    with pytest.raises(ValueError, match="allowed: 1 to the number of samples"):
        pass_at_k(2, 1, 3)


def test_the_bootstrap_interval_of_a_proportion_is_near_the_normal_one() -> None:
    found = bootstrap_mean([1.0] * 40 + [0.0] * 60, 0.95, seed=0)
    # 1.96 * sqrt(0.4 * 0.6 / 100) = 0.096
    assert found["value"] == pytest.approx(0.4)
    assert found["low"] == pytest.approx(0.304, abs=0.011) and found["high"] == pytest.approx(0.496, abs=0.011)


def test_the_bootstrap_is_seeded_and_constant_values_have_no_width() -> None:
    values = [0.0, 0.25, 1.0, 0.5]
    assert bootstrap_mean(values, 0.9, seed=1) == bootstrap_mean(values, 0.9, seed=1)
    assert bootstrap_mean([0.5] * 7, 0.95, seed=0) == {"value": 0.5, "low": 0.5, "high": 0.5}
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([], 0.95, seed=0)


def test_paired_gains_are_narrower_than_unpaired_figures() -> None:
    before = [float(index % 2) for index in range(200)]
    after = [1.0 if index % 20 == 0 else value for index, value in enumerate(before)]
    paired = bootstrap_mean([b - a for a, b in zip(before, after, strict=True)], 0.95, seed=0)
    assert paired["value"] == pytest.approx(0.05) and paired["low"] > 0.01
    assert bootstrap_mean(after, 0.95, seed=0)["low"] < 0.5


def test_several_figures_are_resampled_alike() -> None:
    first, second = [0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]
    assert bootstrap_means([first, second], 0.95, seed=3) == [bootstrap_mean(one, 0.95, 3) for one in (first, second)]


def test_a_relative_rise_is_of_the_sums_and_its_interval_over_documents() -> None:
    found = relative_rise([100.0, 300.0], [130.0, 300.0], 0.95, seed=0)
    assert found["value"] == pytest.approx(30 / 400) and found["documents"] == 2
    # Drawn twice, the first document rises by 30%, the second not at all; a quarter of the resamples are each of these.
    assert (found["low"], found["high"]) == pytest.approx((0.0, 0.3))
    many = [float(size) for size in range(100, 300)]
    fallen = relative_rise(many, [0.98 * one for one in many], 0.95, seed=0)
    assert fallen["low"] == pytest.approx(fallen["high"]) == pytest.approx(-0.02), "all alike: no doubt"


def test_one_document_says_nothing_of_others() -> None:
    assert relative_rise([100.0], [101.0], 0.95, 0) == {
        "value": pytest.approx(0.01), "documents": 1, "low": None, "high": None,
    }  # fmt: skip


def test_lengths_are_shown_by_mean_and_quartiles() -> None:
    assert spread([]) is None
    assert spread([4, 8]) == {"count": 2, "mean": 6.0, "low_quartile": 5.0, "median": 6.0, "high_quartile": 7.0}


@pytest.mark.parametrize(
    ("best", "shown"),
    [
        ({"answer": "a text of many words\nand two lines", "value": 0.5}, "50.0 (a text of many words and...)"),
        ({"answer": "[red]", "value": 0.01}, "1.0 ([red])"),
        ({"answer": None, "value": None, "reason": "not judged by [it]"}, "none: not judged by [it]"),
    ],
)
def test_the_best_constant_takes_one_short_line_with_its_brackets(
    best: dict[str, Any], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    one = {
        "pass@1": interval, "pass@k": None, "bits_per_byte": {}, "mean_tokens": 3.0, "format": "chat",
        "by_task": {"functions/lists": {**interval, "total": 2}},
    }  # fmt: skip
    floor = {"value": best["value"], "best_constant": {"functions/lists": best}}
    print_table({"models": {"base": one}, "judge": "code", "confidence": 0.95, "gains": {}, "floor": floor})
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "functions/lists" in line]
    assert shown in line
