"""The report of whole, partial and hostile runs."""

from __future__ import annotations

import json
import math
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flows.report import _in_turn, duration, headline, visible, write_report

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31m \u202egnp.exe {{ 7*7 }} </pre> & "
    '"quoted" \ud800 end'
)


def interval(value: float, half: float, total: int = 2000, no_verdict: int = 0) -> dict[str, Any]:
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "correct": round(value * total),
        "total": total,
        "no_verdict": no_verdict,
        "low_bound": value,
        "high_bound": value + no_verdict / total,
    }


def evaluation() -> dict[str, Any]:
    tasks = {
        "reasoning_gym/chain_sum": 0.5,
        "reasoning_gym/products": 0.9,
        "reasoning_gym/leg_counting": 1.3,
        "reasoning_gym/lcm": 0.2,
    }

    def model(value: float, bits: float, form: str, no_verdict: int = 0) -> dict[str, Any]:
        return {
            "pass@1": interval(value, 0.018, no_verdict=no_verdict),
            "format": form,
            "mean_tokens": 41.3,
            "truncated_fraction": 0.013,
            "pass@k": {
                "k": 8,
                "value": min(1.0, 2.1 * value),
                "low": 2.1 * value - 0.03,
                "high": 2.1 * value + 0.03,
                "problems": 400,
            },
            "by_task": {task: interval(value * scale, 0.03, 500) for task, scale in tasks.items()},
            "bits_per_byte": {"python_stdlib": bits, "sympy_examples": bits + 0.4},
        }

    return {
        "models": {
            "base": model(0.062, 1.71, "few_shot"),
            "sft": model(0.271, 2.05, "chat"),
            "rl": model(0.344, 2.11, "chat", 6),
        },
        "floor": {"best_constant": {task: {"answer": "12", "value": 0.04} for task in tasks}, "value": 0.04},
        "gains": {"sft": {"pass@1": interval(0.209, 0.021)}, "rl": {"pass@1": interval(0.282, 0.022)}},
        "overlap": {"train_questions": 9000, "shared": 0},
        "confidence": 0.95,
        "judge": "puzzles",
    }


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_run(root: Path, completion: str = "30 + 7 = 37\n37 - 9 = 28\n\\boxed{28}") -> dict[str, Any]:
    """A whole run of eight stages with folders, as `derive math` leaves it."""
    random.seed(0)
    inputs = {
        "corpus": ["base"],
        "pretrain": ["base", "corpus"],
        "examples": ["base"],
        "sft": ["pretrain", "examples"],
        "problems": [],
        "rl": ["sft", "problems"],
        "evaluate": ["base", "sft", "rl"],
        "release": ["rl", "base", "evaluate"],
    }
    kinds = {"examples": "corpus", "problems": "corpus"}
    stages = []
    for number, (name, reads) in enumerate(inputs.items()):
        folder, kind = root / name, kinds.get(name, name)
        config: dict[str, Any] = {"id": name, "kind": kind, "learning_rate": 0.001}
        if kind == "evaluate":
            config["models"] = ["base", "sft", "rl"]
        if kind == "corpus":
            config["output"] = {"corpus": "tokens", "examples": "examples", "problems": "problems"}[name]
        write_lines(
            folder / "stage.json",
            [{"stage": config, "inputs": {read: {"kind": "base", "path": "/x"} for read in reads}}],
        )
        write_lines(
            folder / "manifest.json",
            [
                {
                    "environment": {"torch": "2.13.0", "transformers": "5.23.0"},
                    "commit": "0123abc",
                    "num_threads": 2,
                    "seconds": 30.5 * number,
                }
            ],
        )
        stages.append(
            {
                "id": name,
                "kind": kind,
                "digest": f"{number}" * 64,
                "folder": str(folder),
                "reused": number < 2,
                "seconds": 30.5 * number,
                "metrics": {},
                "status": "completed",
            }
        )
    for name in ("corpus", "examples", "problems"):
        write_lines(
            root / name / "data" / "report.json",
            [
                {
                    "sources": {
                        "python_stdlib": {
                            "documents": 812,
                            "tokens": 402_113,
                            "asked_weight": 1.0,
                            "achieved_share": 0.249,
                            "licence": "PSF-2.0",
                        },
                        "reasoning_gym/gsm_symbolic": {
                            "documents": 9120,
                            "tokens": 1_204_002,
                            "asked_weight": 3.0,
                            "achieved_share": 0.751,
                            "licence": "Apache-2.0",
                        },
                    },
                    "dropped": {"exact_duplicate": 212, "too_long": 31},
                    "documents": 9932,
                    "tokens": 1_606_115,
                    "contamination": {"checked": ["gsm8k", "reasoning_gym/chain_sum"], "overlap": 0},
                }
            ],
        )
    for name, low, num_steps in (("pretrain", 2.1, 300), ("sft", 0.4, 120)):
        write_lines(
            root / name / "progress.jsonl",
            [
                {
                    "step": step,
                    "total": num_steps,
                    "seconds": step / 3,
                    f"{name}/loss": low + 5 * math.exp(-step / 30) + random.gauss(0, 0.03),
                    f"{name}/grad_norm": 1 + random.random(),
                    f"{name}/lr": 1e-3 * (1 - step / num_steps),
                    "tokens_per_second": 9000 + random.random(),
                }
                for step in range(1, num_steps + 1)
            ],
        )
    write_lines(
        root / "rl" / "progress.jsonl",
        [
            {
                "step": step,
                "total": 60,
                "seconds": step * 2.2,
                "rl/reward": 0.28 + 0.002 * step + random.gauss(0, 0.03),
                "rl/length": 40 - step / 10,
                "rl/entropy": 0.6 * math.exp(-step / 50),
                "rl/mismatch": 0.002 + random.random() / 1000,
                "rl/solved_fraction": 0.5,
                "rl/truncated": 0.01,
                "rl/no_verdict": 0.0,
                "rl/grad_norm": random.random(),
                "rl/tokens_per_second": 5000.0,
            }
            for step in range(1, 61)
        ],
    )
    (root / "evaluate" / "results.json").write_text(json.dumps(evaluation()))
    write_lines(
        root / "evaluate" / "samples.jsonl",
        [
            {
                "model": model,
                "id": f"p{index}",
                "task": "reasoning_gym/chain_sum",
                "prompt": f"State the final answer: 3{index} + 7 - 9 =",
                "answer": "28",
                "completion": completion,
                "extracted": "28",
                "reason": "boxed",
                "outcome": outcome,
            }
            for index, outcome in enumerate(["correct", "incorrect", "no_verdict", "correct"])
            for model in ("base", "sft", "rl")
        ],
    )
    write_lines(
        root / "rl" / "rollouts.jsonl",
        [
            {
                "step": step,
                "prompt": "How many legs?",
                "completion": completion,
                "outcome": "incorrect",
                "extracted": None,
                "reason": "no answer found",
                "answer": "48",
            }
            for step in range(3)
        ],
    )
    gate = {
        "metric": "pass@1",
        "against": "base",
        "gain": 0.282,
        "low": 0.26,
        "high": 0.304,
        "required": 0.05,
        "passed": True,
        "detail": "",
    }
    stages[-1]["metrics"] = {"released": True, "name": "Seedling Math", "model": "rl", "gates": [gate]}
    return {
        "id": "20260101-120000-math-tiny-ab12",
        "recipe": "math/tiny",
        "title": "A seedling learns to reckon",
        "base": "seedling",
        "status": "completed",
        "created": "2026-01-01T12:00:00.000+00:00",
        "seconds": 471.3,
        "stages": stages,
        "release": str(root / "release" / "release"),
        "metrics": {},
        "overrides": ["rl.steps=60"],
        "machine": "cpu",
        "seed": 0,
        "error": None,
    }


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on unbalanced tags."""

    VOID = {"meta", "br", "img", "link"}

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_whole_run_shows_its_gain_curves_corpora_samples_lineage_and_command(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path), tmp_path)
    assert path == tmp_path / "report.html"
    page = Page(path)
    for expected in [
        "rl is better than base: +28.2 points of greedy pass@1, interval [+26.0, +30.4].",
        "34.4 [32.6, 36.2]",
        "pretrain/loss",
        "sft/loss",
        "rl/reward",
        "rl/entropy",
        "rl/mismatch",
        "reasoning_gym/gsm_symbolic",
        "75.0%",
        "75.1%",
        "exact_duplicate 212",
        "How many legs?",
        "no answer found",
        "111111111111",
        "derive run math/tiny --machine cpu --set rl.steps=60",
        "torch",
        "2.13.0",
        "34.4% to 34.7%",
    ]:
        assert expected in page.text, expected
    assert page.tags.count("polyline") >= 12 and "script" not in page.tags


def test_the_page_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path), tmp_path))
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset", "action"}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_hostile_completions_stay_text(tmp_path: Path) -> None:
    record = write_run(tmp_path, completion=HOSTILE)
    record["error"] = record["title"] = HOSTILE.encode("utf-8", "replace").decode()
    page = Page(write_report(record, tmp_path))
    assert not {"script", "img"} & set(page.tags) and not any(name.startswith("on") for name, _ in page.attributes)
    assert "<script>alert(1)</script>" in page.text and "{{ 7*7 }}" in page.text
    assert "\\u001b[31m \\u202egnp.exe" in page.text and "\u202e" not in page.text.split("Held-out samples")[1]


def test_a_run_that_failed_half_way_or_lost_its_files_still_has_a_report(tmp_path: Path) -> None:
    record = write_run(tmp_path / "run")
    record |= {
        "status": "failed",
        "error": "sft: the sft command was killed by signal 9",
        "release": None,
        "stages": record["stages"][:4],
    }
    record["stages"][3] |= {"status": "failed", "reused": False}
    (tmp_path / "run" / "sft" / "progress.jsonl").write_text(
        '{"step": 1, "sft/loss": 3.0}\n{"step": 2, "sft/loss": NaN}\n{"step": 3, "sf'
    )
    (tmp_path / "run" / "corpus" / "data" / "report.json").write_text("{torn")
    page = Page(write_report(record, tmp_path))
    assert "killed by signal 9" in page.text and "pretrain/loss" in page.text and "sft/loss" not in page.text
    for bare in ({}, {"stages": [{"id": "corpus", "kind": "corpus", "folder": None}, {"folder": "/nowhere"}, None]}):
        Page(write_report(bare, tmp_path))


@pytest.mark.parametrize(
    "results",
    [
        {"models": {"base": {}}},
        {"models": {"base": {"pass@1": None, "by_task": None, "bits_per_byte": None}}, "floor": None, "gains": None},
        {"models": {"base": {"pass@1": {"value": 0.5}}}, "overlap": None},
    ],
)
def test_an_evaluation_with_missing_figures_is_drawn_as_far_as_it_goes(tmp_path: Path, results: dict[str, Any]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results))
    Page(write_report({"stages": [{"id": "evaluate", "kind": "evaluate", "folder": str(tmp_path)}]}, tmp_path))


def test_votes_kept_problems_budgets_and_flags_are_drawn_where_they_were_asked(tmp_path: Path) -> None:
    half, lost = interval(0.5, 0.1), {"value": -0.046, "low": -0.06, "high": -0.032}
    row = {"pass@1": half, "pass@k": {"k": 4, **half}, "maj@k": {"k": 4, **interval(0.437, 0.1)},
           "kept": {"functions/lists": interval(0.123, 0.1)}, "kept_all": interval(0.123, 0.1),
           "by_task": {"gsm8k": {**half, "contamination": {"flag": True}}}, "bits_per_byte": {"python_stdlib": 1.25},
           "tokens": {"right": {"mean": 31.0}, "wrong": None}}  # fmt: skip
    budget = {"max_thinking_tokens": 64, "pass@1": interval(0.456, 0.1), "maj@k": None, "mean_tokens": 65.0,
              "over_smallest": interval(0.333, 0.1), "closed_fraction": 0.511}  # fmt: skip
    models = {"base": {**row, "no_budgets": "no answer opens a thought"}, "rl": {**row, "budgets": [budget]}}
    results = {"models": models,
               "gains": {"rl": {"pass@1": lost, "kept": lost, "bits_per_byte": {"python_stdlib": lost}}}}  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = Page(write_report({"stages": [{"id": "evaluate", "kind": "evaluate", "folder": str(tmp_path)}]}, tmp_path))
    for said in ("maj@4", "43.7 [33.7, 53.7]", "kept: functions/lists", "-4.6 [-6.0, -3.2]", "At thinking budgets",
                 "45.6 [35.6, 55.6]", "51.1%", "base: no answer opens a thought", "right 31, wrong –",
                 "Completed from memory by base: gsm8k"):  # fmt: skip
        assert said in page.text, said


def test_a_task_without_a_constant_answer_says_why(tmp_path: Path) -> None:
    by_task = {"programs": interval(0.5, 0.1), "words": interval(0.5, 0.1)}
    none = {"answer": None, "value": None, "reason": "run, not read"}
    floor = {"best_constant": {"programs": none, "words": {"answer": "7", "value": 0.25}}, "value": None}
    results = {"models": {"base": {"pass@1": interval(0.5, 0.1), "by_task": by_task}}, "floor": floor}
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = Page(write_report({"stages": [{"id": "evaluate", "kind": "evaluate", "folder": str(tmp_path)}]}, tmp_path))
    assert "none: run, not read" in page.text and "25.0" in page.text
    assert "the line is the best constant" not in page.text


def test_the_headline_says_what_the_interval_allows_and_no_more() -> None:
    assert "better than" in headline({"value": 0.05, "low": 0.01, "high": 0.09}, "rl", "base")
    assert "not distinguishable from" in headline({"value": 0.05, "low": -0.01, "high": 0.11}, "rl", "base")
    assert "worse than" in headline({"value": -0.05, "low": -0.09, "high": -0.01}, "rl", "base")
    assert headline(None, "rl", "base") == ""


def test_long_completions_are_cut_with_the_number_of_characters_left_out() -> None:
    assert visible("x" * 2500) == "x" * 1500 + " … (1,000 more characters)"


def test_durations_read_as_people_say_them() -> None:
    assert [duration(value) for value in (0.04, 59.96, 60, 3599.6, 7300)] == [
        "0.0 s",
        "60.0 s",
        "1 min 0 s",
        "1 h 0 min",
        "2 h 1 min",
    ]


def test_few_samples_show_every_task_set_before_a_second_problem_of_one() -> None:
    problems = [({"source": source, "prompt": str(number)}, None) for source in ("a", "b") for number in range(3)]
    shown = [f"{sample['source']}{sample['prompt']}" for sample, _ in _in_turn(problems)]
    assert shown == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_drift_alarm_is_told_with_the_curve_of_the_gap(tmp_path: Path) -> None:
    steps = range(1, 9)
    lines = [
        {"step": n, "rl/reward": n / 10, "rl/audit_gap": n / 20, "rl/audit_truth": 0.1, "rl/audit_alarm": float(n > 5)}
        for n in steps
    ]
    write_lines(tmp_path / "rl" / "progress.jsonl", lines)
    record = {"id": "r", "stages": [{"id": "rl", "kind": "rl", "folder": str(tmp_path / "rl")}]}
    page = write_report(record, tmp_path).read_text()
    assert "drift alarm</span> at 3 audits, first at step 6" in page and "rl/audit_gap: 0.05 at first" in page
    write_lines(tmp_path / "rl" / "progress.jsonl", [line | {"rl/audit_alarm": 0.0} for line in lines])
    assert "drift alarm" not in write_report(record, tmp_path).read_text()


def test_a_fork_is_drawn_over_the_run_that_it_goes_on_from(tmp_path: Path) -> None:
    for name, slope in (("old", 1), ("new", 2)):
        write_lines(tmp_path / name / "progress.jsonl", [{"step": n, "rl/reward": slope * n / 10} for n in range(1, 6)])
    stage = {"inputs": {"(fork)": {"path": f"{tmp_path / 'old'}.partial"}}}
    write_lines(tmp_path / "new" / "stage.json", [stage])
    fork = {"run": "r1", "stage": "rl", "step": 2, "changed": ["rl.loss=<dapo>"]}
    record = {"id": "r2", "fork": fork, "stages": [{"id": "rl", "kind": "rl", "folder": str(tmp_path / "new")}]}
    page = write_report(record, tmp_path).read_text()
    assert "Fork of r1" in page and "rl.loss=&lt;dapo&gt;" in page and "parted after step 2" in page
    assert "0.5 | 1</span>" in page
    record["stages"] = []
    assert "Fork of" not in write_report(record, tmp_path).read_text()


def test_what_was_sampled_is_shown_with_its_pass_rates(tmp_path: Path) -> None:
    facts = {
        "sampled": 1200, "examples": 182, "pairs": 88, "problems": 62, "pass_rate": 0.76125, "cut": 1, "no_verdict": 0,
        "histogram": {"0.0": 24, "0.5": 62, "1.0": 114}, "dropped": {"pass_rate_too_high": 114},
    }  # fmt: skip
    write_lines(tmp_path / "picked" / "data" / "report.json", [facts])
    record = {"id": "r", "stages": [{"id": "picked", "kind": "sample", "folder": str(tmp_path / "picked")}]}
    page = write_report(record, tmp_path).read_text()
    assert "1,200 problems sampled, mean pass rate 76.1%: 182 examples, 88 pairs, 62 problems kept" in page
    assert "<th>0.5</th>" in page and "pass_rate_too_high 114" in page
    write_lines(tmp_path / "picked" / "data" / "report.json", [{"sampled": 3}])  # of another version
    assert "3 problems sampled" in write_report(record, tmp_path).read_text()
