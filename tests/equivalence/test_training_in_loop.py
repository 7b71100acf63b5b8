"""Held-out measures of a training run: right figures, the alarm, and no trace in the trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from configs.errors import UserError
from configs.schema import Recipe
from configs.stage import StageFile, read_progress
from derivatives import sft
from derivatives.evaluation.texts import bits_per_byte, document_costs
from derivatives.training.loop import Trainer
from derivatives.training.model import load_model
from flows.source import closure
from tests.training_fixtures import sft_file, write_checkpoint, write_sums

TEXTS = {"prose": "The slow river goes round the old mill, and the mill stands still.", "code": "def f(x): return x"}
TASKS = {"name": "reasoning_gym/chain_sum", "split": "heldout", "count": 4, "params": {"max_terms": 2}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


def measured_file(base: Path, folder: Path, **stage: Any) -> StageFile:
    """Ten steps of sums, measured after each fourth and the last."""
    for name, text in TEXTS.items():
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": text * 3}) + "\n")
    heldout = [{"name": str(folder / f"{name}.jsonl")} for name in TEXTS]
    data = write_sums(folder / "sums.jsonl", 40)
    given = {"heldout_text": heldout, "evaluate_every": 4, "epochs": 2.0, **stage}
    return sft_file(base, data, **given)


def bits(folder: Path, name: str) -> float:
    model, tokenizer = load_model(folder, "bf16")
    return bits_per_byte(document_costs(model, tokenizer, [TEXTS[name] * 3]))


def test_bits_per_byte_are_those_of_the_evaluate_stage_and_forgetting_is_named(
    tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out").mkdir()
    sft.run(measured_file(base, tmp_path, precision="bf16", learning_rate=1e-2), tmp_path / "out")
    lines = read_progress(tmp_path / "out")
    assert [line["step"] for line in lines if "sft/forgetting" in line] == [4, 8, 10]
    rises = []
    for name in TEXTS:
        before, after = bits(base, name), bits(tmp_path / "out" / "model", name)
        assert lines[-1][f"sft/heldout_bits/{name}.jsonl"] == pytest.approx(after, rel=1e-5)
        rises.append(after / before - 1)
    assert lines[-1]["sft/forgetting"] == pytest.approx(max(rises), rel=1e-3) and max(rises) > 0.1
    assert "forgetting: " in caplog.text and "code.jsonl from" in caplog.text and "allowed is +10.0%" in caplog.text
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["sft/heldout_bits/code.jsonl"] == lines[-1]["sft/heldout_bits/code.jsonl"]


def test_the_alarm_stops_when_asked_and_the_run_goes_on_when_it_is_eased(tmp_path: Path, base: Path) -> None:
    """The checkpoint of before the alarm keeps the first figures, so that a resumed run measures against the same."""
    for out in ("plain", "alarmed"):
        (tmp_path / out).mkdir()
    sft.run(measured_file(base, tmp_path, learning_rate=1e-2, max_forgetting=9.0), tmp_path / "plain")
    with pytest.raises(
        UserError, match=r"step 8: forgetting: .*bits per byte .*allowed is \+10\.0%; lower stage\.lear"
    ):
        sft.run(measured_file(base, tmp_path, learning_rate=1e-2, on_forgetting="stop"), tmp_path / "alarmed")
    assert read_progress(tmp_path / "alarmed")[-1]["sft/forgetting"] > 0.1  # the line that set it off is there
    eased = measured_file(base, tmp_path, learning_rate=1e-2, on_forgetting="stop", max_forgetting=9.0)
    sft.run(eased, tmp_path / "alarmed")
    straight, resumed = (
        [[line.get(f"sft/{name}") for name in ("loss", "forgetting")] for line in read_progress(tmp_path / out)]
        for out in ("plain", "alarmed")
    )
    assert straight == resumed


def test_measuring_leaves_no_trace_in_the_model(tmp_path: Path, base: Path) -> None:
    for out, more in (("with", {"probe_tasks": [TASKS], "probe_tokens": 8}), ("without", {"heldout_text": []})):
        (tmp_path / out).mkdir()
        sft.run(measured_file(base, tmp_path, **more), tmp_path / out)
    ours, theirs = (load_file(tmp_path / out / "model" / "model.safetensors") for out in ("with", "without"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    last = read_progress(tmp_path / "with")[-1]
    assert last["sft/heldout_accuracy_tasks"] in (0.0, 0.25, 0.5, 0.75, 1.0) and last["sft/heldout_no_verdict"] == 0.0
    assert not any("heldout" in name for name in read_progress(tmp_path / "without")[-1])


@pytest.mark.parametrize("options", [{}, {"lora": {"rank": 16, "alpha": 64}}], ids=["weights", "adapters"])
def test_problems_are_answered_from_the_weights_as_they_are(
    tmp_path: Path, base: Path, options: dict[str, Any]
) -> None:
    """Taught the answers to the very problems, the model is judged right on all of them."""
    from derivatives.training.measured import measured
    from verifiers.tasks import load_tasks

    if options:
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
    options = {"evaluate_every": 1000, "checkpoint_every": 1000, "learning_rate": 1e-2, **options}
    given = measured_file(base, tmp_path, probe_tasks=[{**TASKS, "count": 2}], probe_tokens=16, **options)
    tasks = load_tasks(given.stage.probe_tasks[0])  # type: ignore[union-attr]
    lines = [{"prompt": task.prompt, "completion": task.answer} for task in tasks] * 4
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    trainer = Trainer(given, tmp_path)
    rows, _ = sft.read_rows(given, given.stage, trainer.tokenizer)  # type: ignore[arg-type]
    with measured(trainer):
        assert trainer.measures[-1]()["heldout_accuracy_tasks"] == 0.0
        for _ in trainer.steps(40):
            trainer.train_step(rows)
        assert trainer.measures[-1]()["heldout_accuracy_tasks"] == 1.0


def test_a_verifier_or_a_corpus_is_no_part_of_what_a_training_stage_is() -> None:
    for module in ("derivatives.sft", "derivatives.pretrain", "derivatives.dpo"):
        others = [name for name in closure(module) if name.startswith(("verifiers.", "corpora."))]
        assert others == ["verifiers.tool_text"], module  # says which text is an output, hence not trained on


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"heldout_text": [{"name": "nowhere.jsonl"}]}, r"nowhere\.jsonl"),
        ({"probe_tasks": [{"name": "nowhere.jsonl", "split": "all"}]}, r"nowhere\.jsonl"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path: Path, base: Path, stage: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        sft.run(measured_file(base, tmp_path, **stage), tmp_path / "out")


def test_problems_where_they_cannot_be_answered_are_refused() -> None:
    corpus = {"id": "corpus", "kind": "corpus", "output": "tokens", "sources": [{"name": "python_stdlib"}]}
    pretrain = {"kind": "pretrain", "data": ["corpus"], "num_tokens": 9}
    stages = [corpus, {"id": "it", "learning_rate": 1e-5, "probe_tasks": [TASKS], **pretrain}]
    with pytest.raises(ValidationError, match=r"it\.probe_tasks: 1 were given to a pretrain stage, .* not taught"):
        Recipe.model_validate({"name": "x", "title": "x", "status": "validated only", "stages": stages})
