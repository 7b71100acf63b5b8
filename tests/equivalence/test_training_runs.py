"""Whole runs: split into micro-batches or not, interrupted or not, they are the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from configs.stage import StageFile, StageInput, read_progress
from derivatives import pretrain, sft
from derivatives.training.loop import Trainer
from tests.training_fixtures import sft_file, stage_file, write_checkpoint, write_sums


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_sums(tmp_path / "sums.jsonl", 40)


class Killed(BaseException):
    """Stands for a kill between two steps."""


def run_until(run: Any, given: StageFile, out: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, but stop dead after a step, before its checkpoint."""
    out.mkdir(exist_ok=True)
    record = Trainer.record

    def stop(trainer: Trainer, **quantities: float) -> None:
        record(trainer, **quantities)
        if trainer.step == step:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "record", stop)
        run(given, out)


def run_whole(run: Any, given: StageFile, out: Path) -> dict[str, torch.Tensor]:
    out.mkdir(exist_ok=True)
    run(given, out)
    return load_file(out / "model" / "model.safetensors")


def curve(out: Path, kind: str) -> list[tuple[int, float, float]]:
    return [(line["step"], line[f"{kind}/loss"], line[f"{kind}/grad_norm"]) for line in read_progress(out)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fine_tuning_that_is_killed_twice_ends_in_the_same_bytes(
    tmp_path: Path, base: Path, data: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sft_file(base, data, precision=precision, epochs=1.6)  # 64 examples: 8 steps
    straight = run_whole(sft.run, given, tmp_path / "straight")
    run_until(sft.run, given, tmp_path / "killed", 5, monkeypatch)
    run_until(sft.run, given, tmp_path / "killed", 7, monkeypatch)
    resumed = run_whole(sft.run, given, tmp_path / "killed")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert curve(tmp_path / "straight", "sft") == curve(tmp_path / "killed", "sft")
    assert len(curve(tmp_path / "killed", "sft")) == 8


def corpus_file(base: Path, folder: Path, **stage: Any) -> StageFile:
    """A pretrain stage over 30 random documents of 2 to 40 tokens."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 41, size=30)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    generator.integers(0, 256, size=lengths.sum()).astype("<u4").tofile(folder / "data" / "tokens.bin")
    np.save(folder / "data" / "documents.npy", np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    given = stage_file(base, kind="pretrain", data=["corpus"], **{"batch_tokens": 300, **stage})
    corpus = StageInput(kind="corpus", path=str(folder))
    return given.model_copy(update={"inputs": {**given.inputs, "corpus": corpus}})


def test_a_pretraining_that_is_killed_ends_in_the_same_bytes(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = corpus_file(base, tmp_path / "corpus", num_tokens=1500)  # 5 steps, more than two epochs of about 630
    straight = run_whole(pretrain.run, given, tmp_path / "straight")
    run_until(pretrain.run, given, tmp_path / "killed", 3, monkeypatch)
    resumed = run_whole(pretrain.run, given, tmp_path / "killed")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert curve(tmp_path / "straight", "pretrain") == curve(tmp_path / "killed", "pretrain")
    tokens = sum(line["pretrain/tokens"] for line in read_progress(tmp_path / "killed"))
    assert 1500 <= tokens < 1500 + 40  # whole documents, the last one may reach over the budget


def test_one_large_batch_and_many_small_ones_are_the_same_step(tmp_path: Path, base: Path, data: Path) -> None:
    """Weighted by token over the step: were each micro-batch averaged by itself, losses would differ by percents."""
    curves = []
    for micro_batch_tokens in (100_000, 70):
        given = sft_file(base, data, micro_batch_tokens=micro_batch_tokens, learning_rate=1e-3)
        out = tmp_path / str(micro_batch_tokens)
        run_whole(sft.run, given, out)
        curves.append(curve(out, "sft"))
    for (_, one_loss, one_norm), (_, other_loss, other_norm) in zip(*curves, strict=True):
        assert one_loss == pytest.approx(other_loss, rel=1e-4)
        assert one_norm == pytest.approx(other_norm, rel=1e-3)


def test_a_run_learns_and_sums_itself_up(tmp_path: Path, base: Path, data: Path) -> None:
    import json

    run_whole(sft.run, sft_file(base, data, epochs=6.0), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["sft/steps"] == 30 and found["sft/examples"] == 40 and found["sft/dropped_too_long"] == 0
    assert found["sft/last_loss"] < 0.6 * found["sft/first_loss"]
    assert found["sft/tokens"] == sum(line["sft/tokens"] for line in read_progress(tmp_path / "out"))
    assert "<svg" in (tmp_path / "out" / "plots" / "loss.svg").read_text()
    assert not (tmp_path / "out" / "checkpoints").exists()
