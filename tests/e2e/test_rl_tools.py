"""Stages with an interpreter: reinforcement learning that is killed and goes on, sampling for sft, evaluation."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.tools import ToolUse
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl, sample
from derivatives.evaluate import Protocol, evaluate_model
from derivatives.rollout.stored import StoredRollouts
from derivatives.sft import encode_row, read_jsonl
from derivatives.training.model import load_tokenizer, save_model
from tests.tool_fixtures import fenced, learnt
from verifiers.api import Task
from verifiers.tool_text import output_block

ROOT = Path(rl.__file__).parents[1]
CLOCKS = {"seconds", "rl/tokens_per_s", "rl/rollout_tokens_per_s", "rl/eta_s", "rl/peak_memory_gb"}
PRODUCTS = {"67": 42, "34": 12, "58": 40, "29": 18}
ANSWERS = {
    question: fenced(f"print({question[0]}*{question[1]})") + output_block(str(product)) + f"\\boxed{{{product}}}"
    for question, product in PRODUCTS.items()
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that answers four questions with a program, most of the time."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    model, tokenizer = learnt(folder / "tokenizer", ANSWERS, chat=True)
    save_model(model, tokenizer, folder / "model")
    lines = [{"id": question, "prompt": question, "answer": str(product)} for question, product in PRODUCTS.items()]
    (folder / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def stage_file(base: Path, **stage: Any) -> StageFile:
    common = {
        "data": (str(base / "p.jsonl"),), "sampling": Sampling(temperature=1.3, max_new_tokens=128),
        "tools": ToolUse(turns=2, seconds=2.0, output_tokens=64), "verifier": "math", "max_no_verdict": 0.5,
    }  # fmt: skip
    kinds: dict[str, Any] = {"rl": RlStage, "sample": SampleStage}
    made = kinds[stage["kind"]](**{**common, "id": stage["kind"], **stage})
    inputs = {"base": StageInput(kind="base", path=str(base / "model"))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    return StageFile(recipe="t", stage=made, model="base", inputs=inputs, machine=machine)


def rl_file(base: Path) -> StageFile:
    return stage_file(
        base, kind="rl", steps=4, prompts_per_step=4, group_size=4, learning_rate=1e-4, precision="fp32",
        checkpoint_every=2, micro_batch_tokens=1024,
    )  # fmt: skip


def start(stage: StageFile, out: Path) -> subprocess.Popen[bytes]:
    path = out.with_suffix(".json")
    path.write_text(stage.model_dump_json())
    command = [sys.executable, "-m", "derivatives.rl", str(path), str(out)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


def product(out: Path) -> dict[str, object]:
    log = [{name: value for name, value in line.items() if name not in CLOCKS} for line in read_progress(out)]
    names = ["model/model.safetensors", "rollouts.jsonl", *(f"rollouts/{path.name}" for path in out.glob("rollouts/*"))]
    return {"log": log, **{name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in sorted(names)}}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rollouts_with_programs_are_on_policy_and_a_killed_run_ends_with_the_same_bytes(
    base: Path, tmp_path: Path
) -> None:
    assert start(rl_file(base), tmp_path / "whole").wait() == 0
    expected = product(tmp_path / "whole")
    log = read_progress(tmp_path / "whole")
    assert all(line["rl/programs"] > 0.2 and line["rl/fed_tokens"] > 1 for line in log)
    assert any(line["rl/programs_failed"] for line in log)  # it is hot enough to write broken ones
    assert any(line["rl/grad_norm"] > 0 for line in log)
    assert max(line["rl/largest_mismatch"] for line in log) < 1e-3 and max(line["rl/clipped"] for line in log) == 0
    out = tmp_path / "killed"
    for wanted in (1, 2, 3):
        process = start(rl_file(base), out)
        while process.poll() is None and len(read_progress(out)) < wanted:
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(rl_file(base), out).wait() == 0
    assert product(out) == expected
    stored = list(StoredRollouts(out).completions())
    assert any(one.judged.completion.fed for one in stored)
    for one in stored:
        assert one.row()["completion"].count("```output") == len(one.judged.completion.fed) or not one.judged.asked


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_sampling_makes_is_trained_on_without_what_was_fed(base: Path, tmp_path: Path) -> None:
    stage = stage_file(base, kind="sample", num_samples=4, max_pairs=0)
    sample.run(stage, tmp_path / "out")
    tokenizer = load_tokenizer(base / "model")
    examples = list(read_jsonl(tmp_path / "out" / "data" / "examples.jsonl"))
    with_programs = [(where, one) for where, one in examples if "```output" in one["completion"]]
    assert with_programs
    for where, one in with_programs:
        row = encode_row(where, one, None, tokenizer)
        learnt_text = tokenizer.decode([t for t, w in zip(row.ids, row.weights(), strict=True) if w > 0])
        fed_text = tokenizer.decode([t for t, w in zip(row.ids, row.weights(), strict=True) if w == 0])
        answer = one["completion"].rpartition("\\boxed{")[2]
        assert "```output" not in learnt_text and learnt_text.endswith(f"\\boxed{{{answer}<|im_end|>")
        assert fed_text.endswith(output_block(answer.partition("}")[0])) or "Error" in fed_text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_checkpoint_is_evaluated_with_an_interpreter_where_it_is_given_one(base: Path) -> None:
    tasks = [Task(question, question, str(value), "math", source="products") for question, value in PRODUCTS.items()]
    common: dict[str, Any] = {"tasks": tasks, "sampling": Sampling(max_new_tokens=128)}
    found = evaluate_model(base / "model", Protocol(**common, tools=ToolUse(seconds=2.0)))
    assert found["model"]["pass@1"]["value"] == 1.0 and found["model"]["mean_programs"] == 1.0
    assert all(one["num_programs"] == 1 for one in found["samples"])
    without = evaluate_model(base / "model", Protocol(**common))
    assert "mean_programs" not in without["model"]
