"""`derive plan` from end to end, without weights: what it prints, what it refuses, what it knows of built stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from derivatives.planning.devices import GPUS
from derivatives.planning.probe import answer
from derivatives.planning.questions import DrawQuestion, Found, TrainQuestion, ask, read_questions
from derivatives.planning.shape import QWEN_SHAPES, Shape
from derivatives.planning.speed import PUBLISHED_MFU, mfu_of
from flows.cli import main

SEEDLING = Path(__file__).parents[2] / "derivatives" / "seedling" / "checkpoint"
TINY = Shape(32, 2, 4, 2, 8, 64, 300, tied=True)


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "store"))


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["plan", *arguments, "--json"])
    plain: dict[str, Any] = json.loads(capsys.readouterr().out)
    plain["by_id"] = {stage["id"]: stage["prediction"] for stage in plain["stages"]}
    return code, plain


def test_a_preset_for_gpus_is_planned_offline_and_on_any_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, plain = planned(capsys, "math/0.5b", "--machine", "one-gpu", "--set", "rl.micro_batch_tokens=8192",
                          "--set", "pretrain.micro_batch_tokens=8192")  # fmt: skip
    memory_refused = [line["refusal"] for line in plain["by_id"].values() if line["refusal"]]
    assert memory_refused == []
    assert code == (2 if any(check["state"] == "refused" for check in plain["checks"]) else 0)  # by this disk's room
    pretrain = plain["by_id"]["pretrain"]
    assert pretrain["tokens"] == 954 * 1_048_576  # whole steps
    assert pretrain["mfu"] == pytest.approx(PUBLISHED_MFU[0][1], rel=0.01)
    assert pretrain["seconds"] == pytest.approx(pretrain["tokens"] / pretrain["tokens_per_s"])
    assert pretrain["basis"] == "from data sheets, published figures of others and guesses; not measured here"
    assert plain["by_id"]["corpus"]["unpredicted"].startswith("a corpus takes what its sources")


FULL = ("--set", "rl.lora=null", "--set", "pretrain.micro_batch_tokens=16384")
"""More than fits beside 7.6 billion weights on eight GPUs with 80 GB."""


def test_seven_billion_weights_fit_on_eight_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    _, plain = planned(capsys, "math/7b", "--machine", "eight-gpu")
    assert {name: stage.get("refusal") for name, stage in plain["by_id"].items() if stage.get("refusal")} == {}
    assert 60e9 < plain["by_id"]["rl"]["memory"]["total"] < 80e9


def test_rl_of_a_large_model_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    code, plain = planned(capsys, "math/7b", "--machine", "one-gpu", *FULL)
    assert code == 2 and plain["refused"]
    assert plain["by_id"]["rl"]["refusal"].startswith("rl: needs ")
    adapters, more = plain["by_id"]["rl"]["remedies"]
    assert adapters.startswith("--set 'rl.lora={rank: 16, alpha: 32}' ")
    assert more.startswith("a machine profile with num_processes: ")
    _, plain = planned(capsys, "math/7b", "--machine", "eight-gpu", *FULL)
    assert plain["by_id"]["rl"]["refusal"] == plain["by_id"]["sft"]["refusal"] == ""
    assert plain["by_id"]["rl"]["devices"] == plain["by_id"]["sft"]["devices"] == 8


def test_the_table_tells_total_checks_and_remedies(capsys: pytest.CaptureFixture[str]) -> None:
    wide = ("--set", "rl.micro_batch_tokens=65536")
    assert main(["plan", "math/7b", "--machine", "eight-gpu", *FULL, *wide]) == 2
    text = capsys.readouterr().out
    assert "fits with --set pretrain.micro_batch_tokens=" in text
    for part in ("all predicted", "refused  memory: rl: needs", "vocabulary: 152,064 rows", "device-hours"):
        assert part in text


def test_a_remedy_taken_makes_the_stage_fit(capsys: pytest.CaptureFixture[str]) -> None:
    _, before = planned(capsys, "math/7b", "--machine", "eight-gpu", *FULL)
    (remedy,) = before["by_id"]["pretrain"]["remedies"]
    change = remedy.split()[1]
    _, after = planned(capsys, "math/7b", "--machine", "eight-gpu", *FULL, "--set", change)
    assert before["by_id"]["pretrain"]["refusal"] and after["by_id"]["pretrain"]["refusal"] == ""


def test_a_cpu_plan_adds_up_what_was_timed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine on which a layer takes a microsecond a token, and nothing else takes any time."""
    training = {"layer_s_per_token": 1e-6, "row_s": 0.0, "head_s_per_token": 0.0, "optimizer_s_per_parameter": 0.0}

    def ask(questions: list[Any], num_threads: int | None, folder: Path | None) -> Found:
        return Found({one: training for one in questions if isinstance(one, TrainQuestion)}, None)

    monkeypatch.setattr("derivatives.planning.questions.ask", ask)
    code, plain = planned(capsys, "math/tiny", "--machine", "cpu")
    pretrain = plain["by_id"]["pretrain"]
    assert code == 0
    assert pretrain["tokens_per_s"] == pytest.approx(1 / (6 * 1e-6))  # six layers
    assert pretrain["steps"] == -(-250_000 // 8192)
    assert plain["by_id"]["rl"]["unpredicted"].startswith("speed: ")  # its drawing was not timed


def test_without_a_probe_a_cpu_plan_has_memory_and_no_speed(capsys: pytest.CaptureFixture[str]) -> None:
    code, plain = planned(capsys, "math/tiny", "--machine", "cpu", "--no-probe")
    assert code == 0
    assert plain["by_id"]["sft"]["unpredicted"] == "speed: --no-probe was given"
    assert plain["by_id"]["sft"]["memory"]["total"] > 0.5e9
    assert plain["by_id"]["sft"]["seconds"] is None


def test_an_unknown_base_is_planned_without_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    code, plain = planned(capsys, "math/7b", "--base", "me/mine", "--machine", "one-gpu")
    assert plain["checks"][0]["state"] == "warning" and "'me/mine' is not known" in plain["checks"][0]["text"]
    assert plain["by_id"]["sft"]["unpredicted"] == "the shape of its model is not known"
    assert code == 0


def test_shares_of_the_peak_lie_between_the_published_sizes() -> None:
    for parameters, share in PUBLISHED_MFU:
        nearest = min(QWEN_SHAPES.values(), key=lambda shape: abs(shape.parameters - parameters))
        assert mfu_of(nearest, 1) == pytest.approx(share, abs=0.005)
    assert mfu_of(QWEN_SHAPES["72B"], 1) == PUBLISHED_MFU[-1][1]
    assert mfu_of(TINY, 1) == PUBLISHED_MFU[0][1]
    assert mfu_of(QWEN_SHAPES["7B"], 8) == pytest.approx(0.36, abs=0.005)
    assert all(gpu.bandwidth_gb_s > gpu.memory_gb for gpu in GPUS.values())


@pytest.mark.parametrize("change", [{}, {"rank": 4}, {"recompute": "full"}, {"loss": "log_probs"}])
def test_the_probe_times_every_part_of_a_step(change: dict[str, Any]) -> None:
    question = TrainQuestion(TINY, "bf16", "none", None, 128, 40, 64)
    (found,) = answer([TrainQuestion(**{**vars(question), **change})], num_threads=1).answers
    assert found["layer_s_per_token"] > 0 and found["row_s"] > 0 and found["optimizer_s_per_parameter"] >= 0


@pytest.mark.parametrize("rank", [None, 4])
def test_the_probe_times_drawing(rank: int | None) -> None:
    (found,) = answer([DrawQuestion(TINY, "bf16", 8, 64, 16, rank)], num_threads=1).answers
    assert found["prefill_s_per_token"] > 0
    assert found["layer_s_all"] + found["ends_s_all"] > 0
    assert (found["rows_all"], found["rows_few"]) == (8, 2)


@pytest.mark.slow
def test_the_probe_answers_from_a_process_of_its_own_or_says_why_not() -> None:
    question = TrainQuestion(TINY, "bf16", "none", None, 128, 40, 64)
    found = ask([question, question], num_threads=1, folder=SEEDLING)
    assert isinstance(found, Found) and found.facts is not None
    assert found.answers[question]["layer_s_per_token"] > 0
    assert found.facts["num_real_tokens"] == 2040
    failed = ask([TrainQuestion(Shape(**{**vars(TINY), "hidden": 0}), "bf16", "none", None, 8, 8, 8)], num_threads=1)
    assert isinstance(failed, str) and failed.startswith("the probe failed (")


def test_questions_survive_their_json() -> None:
    from dataclasses import asdict

    asked = [TrainQuestion(TINY, "bf16", "full", 8, 128, 40, 64), DrawQuestion(TINY, "fp32", 8, 64, 16, 4, ("q_proj",))]
    assert read_questions(json.loads(json.dumps([asdict(one) for one in asked]))) == asked
