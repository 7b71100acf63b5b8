"""The stages that judge stop when their verifier gives too few verdicts, say why, and go on when it is mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import derivatives.seedling
from configs.settings.common import Sampling, TaskSource
from configs.settings.evaluation import EvaluateStage
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives import evaluate, rl
from derivatives.training.model import load_tokenizer, num_real_tokens, save_model, stop_ids
from flows.stages import waiting_lines
from verifiers.breaker import WAITING
from verifiers.pool import TooManyNoVerdicts

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
VERIFIER = '''
from verifiers.api import correct, incorrect, no_verdict

class FaultyVerifier:
    """Correct if the completion is short; without a verdict on some tasks."""
    name, version = "faulty", "1"

    def judge(self, task, completion):
        if (int(task.id) + 1) % {every} == 0:
            return no_verdict("gold_lost")
        return correct(completion) if len(completion) < 9 else incorrect("long")
'''
ALWAYS, NOW_AND_THEN, NEVER = 1, 40, 10**9
NUM_PROBLEMS = 80


def quick_model() -> Qwen2ForCausalLM:
    """A random model that ends every other completion after a token or two."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(CHECKPOINT)
    config = Qwen2Config(
        vocab_size=num_real_tokens(tokenizer) + 8, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True,
        initializer_range=0.1,
    )  # fmt: skip
    model = Qwen2ForCausalLM._from_config(config)
    with torch.no_grad():  # all hidden states point along the first axis, the ends of a turn the furthest
        model.model.embed_tokens.weight[:, 0] += 1.0
        model.model.embed_tokens.weight[stop_ids(tokenizer), 0] += 1.3
    return model


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path in which the verifier `faulty` is installed; `install` says how often it fails."""
    folder = tmp_path / "site"
    (folder / "faulty-1.0.dist-info").mkdir(parents=True)
    (folder / "faulty-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (folder / "faulty-1.0.dist-info" / "entry_points.txt").write_text(
        "[derivative_factory.verifiers]\nfaulty = faulty_verifier:FaultyVerifier\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    save_model(quick_model(), load_tokenizer(CHECKPOINT), tmp_path / "model")
    lines = [{"id": str(n), "prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(NUM_PROBLEMS)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "out").mkdir()
    return folder


def install(site: Path, every: int) -> None:
    (site / "faulty_verifier.py").write_text(VERIFIER.format(every=every))


def stage_file(stage: RlStage | EvaluateStage, folder: Path) -> StageFile:
    inputs = {"base": StageInput(kind="base", path=str(folder / "model"))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    return StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine)


def rl_file(folder: Path) -> StageFile:
    stage = RlStage(
        id="rl", data=(str(folder / "p.jsonl"),), steps=3, prompts_per_step=NUM_PROBLEMS, group_size=2,
        learning_rate=1e-4, sampling=Sampling(max_new_tokens=4), verifier="faulty", curriculum=False,
    )  # fmt: skip
    return stage_file(stage, folder)


def evaluate_file(folder: Path) -> StageFile:
    tasks = (TaskSource(name=str(folder / "p.jsonl"), split="all"),)
    stage = EvaluateStage(
        id="evaluate", models=("base",), tasks=tasks, judge="faulty", few_shot=0, sampling=Sampling(max_new_tokens=4)
    )
    return stage_file(stage, folder)


def test_rl_stops_at_too_many_missing_verdicts_and_goes_on_when_the_verifier_is_mended(
    tmp_path: Path, site: Path
) -> None:
    install(site, ALWAYS)
    out = tmp_path / "out"
    # 11 are more than a twentieth of the 200 that count at least.
    message = r"max_no_verdict: 11 of the last 11 .* share of 0.05; 11 times the reason was 'gold_lost'.*'faulty', task"
    with pytest.raises(TooManyNoVerdicts, match=message):
        rl.run(rl_file(tmp_path), out)
    assert read_progress(out) == [] and not (out / "model").exists()
    install(site, NEVER)
    rl.run(rl_file(tmp_path), out)
    assert [line["rl/no_verdict"] for line in read_progress(out)] == [0.0] * 3 and (out / "model").is_dir()


def test_a_verifier_that_fails_now_and_then_does_not_stop_rl(tmp_path: Path, site: Path) -> None:
    install(site, NOW_AND_THEN)
    rl.run(rl_file(tmp_path), tmp_path / "out")
    missing = [line["rl/no_verdict"] for line in read_progress(tmp_path / "out")]
    assert len(missing) == 3 and 0 < sum(missing) / 3 <= 2 / NUM_PROBLEMS  # cut completions are not judged


def test_only_whole_lines_of_a_log_that_tell_of_waiting_are_repeated(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    line = f"{WAITING}61 s; awaited: task '7' for 60 s (process 5, R)"
    log.write_text(f"--- rl\nloss 3\nWARNING:verifiers: {line}\nwaiting: no ver")
    told, start = waiting_lines(log, 7)
    assert told == [line] and waiting_lines(log, start) == ([], start)
    with log.open("a") as file:
        file.write("dict for 121 s; awaited: x\n")
    assert waiting_lines(log, start) == (["waiting: no verdict for 121 s; awaited: x"], log.stat().st_size)


def test_an_evaluation_stops_at_too_many_missing_verdicts(tmp_path: Path, site: Path) -> None:
    install(site, ALWAYS)
    with pytest.raises(TooManyNoVerdicts, match="21 of the last 21 .* share of 0.1; 21 times .* 'gold_lost'"):
        evaluate.run(evaluate_file(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_verifier_that_fails_now_and_then_is_counted_in_an_evaluation(tmp_path: Path, site: Path) -> None:
    install(site, NOW_AND_THEN)
    evaluate.run(evaluate_file(tmp_path), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "results.json").read_text())["models"]["base"]["pass@1"]
    assert (found["no_verdict"], found["total"]) == (2, NUM_PROBLEMS)
    assert found["high_bound"] - found["low_bound"] == pytest.approx(2 / NUM_PROBLEMS)
