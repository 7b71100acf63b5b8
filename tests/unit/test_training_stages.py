"""What the training stages refuse, count and name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import UserError
from configs.settings.machine import Machine
from configs.stage import StageFile, StageInput, read_progress
from derivatives import pretrain, sft
from derivatives.training.batch import PackedBatch, Row, pack
from derivatives.training.loop import Trainer, set_up
from tests.training_fixtures import sft_file, stage_file, write_checkpoint, write_sums


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


def run_sft(base: Path, out: Path, lines: list[object], **stage: object) -> None:
    data = out.parent / "data.jsonl"
    data.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    out.mkdir(exist_ok=True)
    sft.run(sft_file(base, data, **stage), out)


GOOD = {"prompt": "1 + 1 =", "completion": "2"}


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([GOOD, "{"], r"data\.jsonl:2: not JSON"),
        ([GOOD, "", [1]], r"data\.jsonl:3: .* is no object"),
        ([{"prompt": "x"}], r"data\.jsonl:1: completion: 'None' is no text"),
        ([{"messages": [{"role": "user", "content": "x"}]}], r"data\.jsonl:1: messages: no turn of the assistant"),
        ([], "holds no example"),
        ([{**GOOD, "completion": "2" * 2000}], r"max_length = 1024 tokens \(1 are longer\)"),
    ],
)
def test_data_that_is_no_example_is_named_with_its_line(
    tmp_path: Path, base: Path, lines: list[object], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        run_sft(base, tmp_path / "out", lines)


def test_longer_examples_are_dropped_and_counted_and_messages_work(tmp_path: Path, base: Path) -> None:
    messages = [{"role": "user", "content": "2 + 2 ="}, {"role": "assistant", "content": "4"}]
    run_sft(base, tmp_path / "out", [GOOD, {**GOOD, "completion": "2" * 300}, {"messages": messages}], max_length=200)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (found["sft/examples"], found["sft/dropped_too_long"], found["sft/steps"]) == (2, 1, 1)
    assert found["sft/trained_tokens"] == 4  # "2", "4" and their ends of turn


def test_an_example_that_does_not_fit_into_a_micro_batch_is_named(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserError, match=r"stage\.micro_batch_tokens: 16 is less than the longest example"):
        run_sft(base, tmp_path / "out", [GOOD], micro_batch_tokens=16)


def test_a_finished_folder_is_left_alone_and_another_run_in_it_is_refused(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "out"
    run_sft(base, out, [GOOD])
    before = {path: os.stat(path).st_mtime_ns for path in out.rglob("*")}
    run_sft(base, out, [GOOD])
    assert {path: os.stat(path).st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(UserError, match="holds a run of another stage file"):
        run_sft(base, out, [GOOD], learning_rate=1e-4)
    with pytest.raises(UserError, match="holds a run of another stage file"):
        run_sft(base, out, [GOOD, GOOD])  # the same file name, other examples


def test_a_started_folder_of_another_run_is_refused(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    data = write_sums(tmp_path / "sums.jsonl", 8)
    trainer = Trainer(sft_file(base, data), out)
    trainer.save_checkpoint()
    trainer.saver.wait()
    with pytest.raises(UserError, match="another stage file"):
        Trainer(sft_file(base, data, epochs=2.0), out)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(tmp_path: Path, base: Path) -> None:
    trainer = Trainer(sft_file(base, write_sums(tmp_path / "sums.jsonl", 8)), tmp_path)
    batches = pack([Row([1] * 9), Row([2, 3])], max_tokens=9)
    trainer.step, trainer.total = 1, 1

    def loss(hidden: Tensor, batch: PackedBatch) -> Tensor:
        return hidden.sum() * (float("nan") if batch.num_tokens == 2 else 1.0)

    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    with pytest.raises(UserError, match=r"step 1: loss nan .* in micro-batch 1 \(rows: sums\.jsonl:17\)"):
        trainer.update(batches, loss, 1.0, keys=["sums.jsonl:3", "sums.jsonl:17"])
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.model.parameters(), strict=True))
    kept = json.loads((tmp_path / "anomaly.json").read_text())
    assert (kept["step"], kept["loss"]) == ("1", "nan")
    assert kept["rows"] == [{"key": "sums.jsonl:17", "ids": [2, 3], "weights": [1.0, 0.0]}]


def test_what_a_stage_keeps_comes_back_with_the_checkpoint(tmp_path: Path, base: Path) -> None:
    given = sft_file(base, write_sums(tmp_path / "sums.jsonl", 8))
    first = Trainer(given, tmp_path)
    first.state = {"curriculum": [1, 2]}
    first.step = 4
    first.save_checkpoint()
    first.saver.wait()
    second = Trainer(given, tmp_path)
    assert (second.step, second.state) == (4, {"curriculum": [1, 2]})
    assert list(second.steps(7)) == [5, 6, 7]


def test_processes_that_were_not_started_and_a_missing_gpu_are_named(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_sums(tmp_path / "sums.jsonl", 8)
    two = sft_file(base, data).model_copy(update={"machine": Machine(name="two-cpu", num_processes=2)})
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match=r"machine\.num_processes: 2 processes were asked for, 1 were started; start"):
        sft.run(two, tmp_path / "out")
    monkeypatch.setenv("WORLD_SIZE", "2")  # as under a launcher
    with pytest.raises(UserError, match=r"machine\.num_processes: 1 processes were asked for, 2 were started"):
        sft.run(sft_file(base, data), tmp_path / "out")
    with pytest.raises(UserError, match=r"machine\.num_processes: 2 .* runs in 1 here"):
        Trainer(two, tmp_path / "out")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="finds no GPU"):
            set_up(Machine(name="one-gpu", device="cuda"), 0)


def test_kernels_kept_for_past_shapes_are_few_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "")  # so that it is put back
    monkeypatch.delenv("LRU_CACHE_CAPACITY")
    set_up(Machine(name="cpu", device="cpu", num_threads=torch.get_num_threads()), 0)
    assert (os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], os.environ["LRU_CACHE_CAPACITY"]) == ("7", "64")


def pretrain_file(base: Path, folder: Path, tokens: list[int], offsets: list[int], **stage: object) -> StageFile:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    np.array(tokens, dtype="<u4").tofile(folder / "data" / "tokens.bin")
    np.save(folder / "data" / "documents.npy", np.array(offsets, dtype=np.int64))
    given = stage_file(base, kind="pretrain", data=["corpus"], num_tokens=100, **stage)
    return given.model_copy(
        update={"inputs": {**given.inputs, "corpus": StageInput(kind="corpus", path=str(folder))}}
    )


@pytest.mark.parametrize(
    ("tokens", "offsets", "stage", "named"),
    [
        ([1, 2, 3], [0, 2], {}, r"does not fit tokens\.bin \(3 tokens\)"),
        ([1, 2, 300], [0, 3], {}, "token id 300, the model has 272"),
        ([1, 2], [0, 1, 2], {}, "no document of two tokens or more"),
        ([1] * 40, [0, 40], {"micro_batch_tokens": 32}, r"micro_batch_tokens: 32 .* \(40 tokens\)"),
    ],
)
def test_packed_tokens_that_do_not_fit_are_named(
    tmp_path: Path, base: Path, tokens: list[int], offsets: list[int], stage: dict[str, object], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        pretrain.run(pretrain_file(base, tmp_path / "corpus", tokens, offsets, **stage), tmp_path / "out")


def test_packed_tokens_that_are_not_there_are_named(tmp_path: Path, base: Path) -> None:
    given = pretrain_file(base, tmp_path / "corpus", [1, 2], [0, 2])
    (tmp_path / "corpus" / "data" / "tokens.bin").unlink()
    with pytest.raises(UserError, match="holds no packed tokens"):
        pretrain.run(given, tmp_path / "out")


@pytest.mark.slow  # compiles for a minute
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_run_has_the_losses_of_a_plain_one(tmp_path: Path, base: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    data = write_sums(tmp_path / "data.jsonl", 24)
    losses = []
    for compiled in (False, True):
        out = tmp_path / f"compiled_{compiled}"
        out.mkdir()
        sft.run(sft_file(base, data, machine={"compile": compiled}), out)
        losses.append([line["sft/loss"] for line in read_progress(out)])
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert json.loads((out / "metrics.json").read_text())["environment"]["compile"] is True
