"""A longer context is one and the same in training, in rollouts and in a stranger's transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from configs.settings.common import Sampling
from configs.settings.training import Lora, SftStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives import pretrain, sft
from derivatives.export import export_model
from derivatives.rollout.engine import RolloutEngine
from derivatives.rollout.forward import decode_step, prefill, read_weights, rotary_table
from derivatives.training.batch import Row, pack
from derivatives.training.forward import hidden_states
from derivatives.training.model import head_weight, load_model, load_tokenizer, stop_ids
from tests.equivalence.test_training_runs import run_until
from tests.training_fixtures import sft_file, stage_file, write_checkpoint

OLD, NEW = 64, 256
"""Positions before and after."""
WAYS: dict[str, dict[str, Any]] = {
    "base": {"length": NEW, "rope_base": 1e6},
    "yarn": {"length": NEW, "yarn": {"factor": NEW / OLD, "original": OLD}},
}
ROTATIONS: dict[str, dict[str, Any]] = {
    "base": {"rope_type": "default", "rope_theta": 1e6},
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": OLD},
}
"""The same as a stranger would write it into config.json."""
Trained = tuple[str, StageFile, Path]
"""The way, the stage file and the folder that it made."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("context") / "base", max_position_embeddings=OLD)


def moved(base: Path, folder: Path, way: str) -> StageFile:
    """Three steps over ten examples of about 70 to 230 tokens, so that all of them go beyond the old limit."""
    lines = [{"prompt": "count", "completion": "123456789 " * (5 + 2 * number)} for number in range(9)]
    data = folder / "long.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]), encoding="utf-8")
    settings = {"batch_examples": 10, "epochs": 3.0, "max_length": NEW, "micro_batch_tokens": 300}
    return sft_file(base, data, context=WAYS[way], **settings)


@pytest.fixture(scope="module", params=list(WAYS))
def trained(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    given = moved(base, folder, request.param)
    sft.run(given, folder / "out")
    return request.param, given, folder / "out"


def ids_of(num_tokens: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_tokens,), generator=generator).tolist()


@torch.inference_mode()
def packed_logits(model: PreTrainedModel, documents: list[list[int]]) -> list[Tensor]:
    """The training forward of documents in one packed row, as logits of each."""
    (batch,) = pack([Row(ids) for ids in documents], sum(map(len, documents)))
    logits_TV = hidden_states(model, batch) @ head_weight(model).T
    parts = dict(zip(batch.row_indices, logits_TV.split(batch.lengths), strict=True))
    return [parts[index] for index in range(len(documents))]


def stranger(folder: Path, **config: Any) -> PreTrainedModel:
    """What plain transformers opens, in FP32, with parts of its config replaced."""
    given = AutoConfig.from_pretrained(folder, **config)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, config=given, dtype=torch.float32)
    return model.eval()


@torch.inference_mode()
def plain_logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits


def test_the_written_model_opens_elsewhere_with_the_logits_of_the_training_forward(trained: Trained) -> None:
    way, _, out = trained
    model, _ = load_model(out / "model", "fp32", "cpu")
    plain = stranger(out / "model")
    long, short = ids_of(NEW), ids_of(20, seed=1)
    for ids, logits in zip((long, short), packed_logits(model, [long, short]), strict=True):
        torch.testing.assert_close(logits, plain_logits(plain, ids), rtol=1e-4, atol=1e-4)
    assert plain.config.max_position_embeddings == AutoTokenizer.from_pretrained(out / "model").model_max_length == NEW
    rotation = plain.config.rope_parameters
    assert {name: rotation[name] for name in ROTATIONS[way]} == ROTATIONS[way]


def test_the_first_steps_loss_is_that_of_the_base_with_the_new_rotation(trained: Trained, base: Path) -> None:
    way, given, out = trained
    assert isinstance(given.stage, SftStage)
    rows, _ = sft.read_rows(given, given.stage, load_tokenizer(base))
    assert all(len(row.ids) > OLD for row in rows) and max(len(row.ids) for row in rows) > 3 * OLD
    losses = {}
    for name, rotation in {"old": {}, "new": {"rope_parameters": ROTATIONS[way]}}.items():
        model, nats, num = stranger(base, max_position_embeddings=NEW, **rotation), 0.0, 0
        for row in rows:
            first, ids = row.trained_from, torch.tensor(row.ids)
            logits_TV = plain_logits(model, list(row.ids))
            nats += float(F.cross_entropy(logits_TV[first - 1 : -1], ids[first:], reduction="sum"))
            num += len(ids) - first
        losses[name] = nats / num
    first_loss = read_progress(out)[0]["sft/loss"]
    assert first_loss == pytest.approx(losses["new"], rel=1e-4)
    assert first_loss != pytest.approx(losses["old"], rel=2e-3)


def test_rollouts_compute_the_same_logits_beyond_the_old_limit(trained: Trained) -> None:
    _, _, out = trained
    model, _ = load_model(out / "model", "fp32", "cpu")
    ids, num_prefilled = torch.tensor([ids_of(NEW)]), 3 * OLD
    expected = plain_logits(stranger(out / "model"), ids[0].tolist())
    with torch.inference_mode():
        weights, rotary = read_weights(model), rotary_table(model, NEW)  # type: ignore[arg-type]
        cache = torch.zeros(2, 2, 1, 2, NEW, 8)
        cache[:, :, :, :, :num_prefilled] = prefill(weights, ids[:, :num_prefilled], rotary)
        for position in range(num_prefilled, NEW):
            logits = decode_step(weights, ids[:, position], torch.tensor([position]), cache, rotary)
            torch.testing.assert_close(logits[0], expected[position], rtol=1e-4, atol=1e-4)


def test_greedy_answers_beyond_the_old_limit_are_those_of_generate(trained: Trained) -> None:
    _, _, out = trained
    model, tokenizer = load_model(out / "model", "fp32", "cpu")
    prompt = ids_of(NEW - 80)
    sampling = Sampling(temperature=0.0, max_new_tokens=80)
    ((completion,),) = RolloutEngine(model, tokenizer).generate([prompt], 1, sampling)
    plain = stranger(out / "model")
    expected = plain.generate(  # type: ignore[operator]
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64), do_sample=False,
        max_new_tokens=80, eos_token_id=stop_ids(tokenizer), pad_token_id=0,
        suppress_tokens=list(range(259, model.config.vocab_size)),
    )  # fmt: skip
    assert completion.token_ids == expected[0, len(prompt) :].tolist()


def test_later_stages_and_the_release_carry_it_on(trained: Trained, tmp_path: Path) -> None:
    way, given, out = trained
    stage = given.stage.model_copy(update={"context": None, "id": "later"})
    later = given.model_copy(
        update={"stage": stage, "inputs": {"base": StageInput(kind="sft", path=str(out))}, "model": "base"}
    )
    sft.run(later, tmp_path / "later")
    exported = export_model(tmp_path / "later" / "model", tmp_path / "release")
    assert exported.context == {"base": "256 tokens", "yarn": "256 tokens (yarn, 4 times 64)"}[way]
    written = json.loads((tmp_path / "release" / "config.json").read_text())
    assert written["max_position_embeddings"] == NEW and written["rope_theta"] == ROTATIONS[way]["rope_theta"]
    assert written.get("rope_scaling", {"rope_type": "default"})["rope_type"] == ROTATIONS[way]["rope_type"]
    assert AutoTokenizer.from_pretrained(tmp_path / "release").model_max_length == NEW
    logits = packed_logits(load_model(tmp_path / "later" / "model", "bf16", "cpu")[0], [ids_of(NEW)])[0]
    released = AutoModelForCausalLM.from_pretrained(tmp_path / "release", dtype=torch.bfloat16)
    torch.testing.assert_close(logits, plain_logits(released, ids_of(NEW)), rtol=0.05, atol=0.3)


def test_a_killed_run_with_a_longer_context_ends_in_the_same_bytes(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, given, out = trained
    run_until(sft.run, given, tmp_path / "killed", 3, monkeypatch)
    sft.run(given, tmp_path / "killed")
    for name in ("model.safetensors", "config.json", "tokenizer_config.json"):
        assert (out / "model" / name).read_bytes() == (tmp_path / "killed" / "model" / name).read_bytes(), name


def test_adapters_train_by_the_new_rotation_and_are_merged_under_its_config(trained: Trained, tmp_path: Path) -> None:
    _, given, out = trained
    stage = given.stage.model_copy(update={"lora": Lora(rank=2)})
    sft.run(given.model_copy(update={"stage": stage}), tmp_path / "out")
    first = [read_progress(folder)[0]["sft/loss"] for folder in (out, tmp_path / "out")]
    assert first[0] == pytest.approx(first[1], rel=1e-5)  # an adapter starts as nothing
    assert (tmp_path / "out" / "model" / "config.json").read_bytes() == (out / "model" / "config.json").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_move_as_one_process_does(trained: Trained, tmp_path: Path) -> None:
    _, given, out = trained
    machine = given.machine.model_copy(update={"num_processes": 2})
    (tmp_path / "stage.json").write_text(given.model_copy(update={"machine": machine}).model_dump_json())
    launcher = [sys.executable, "-m", "derivatives.training.launch", "--num-processes=2", sys.executable]
    command = [*launcher, "-m", "derivatives.sft", str(tmp_path / "stage.json"), str(tmp_path / "two")]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=800)
    curves = [[line["sft/loss"] for line in read_progress(folder)] for folder in (out, tmp_path / "two")]
    assert len(curves[0]) == 3 and curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert (tmp_path / "two" / "model" / "config.json").read_bytes() == (out / "model" / "config.json").read_bytes()


def test_pretraining_moves_as_fine_tuning_does_and_reads_long_documents(tmp_path: Path, base: Path) -> None:
    lengths = [200, 10, 256, 90]
    data = tmp_path / "corpus" / "data"
    data.mkdir(parents=True)
    np.array(ids_of(sum(lengths))).astype("<u4").tofile(data / "tokens.bin")
    np.save(data / "documents.npy", np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    given = stage_file(
        base, kind="pretrain", data=["corpus"], num_tokens=sum(lengths), batch_tokens=sum(lengths),
        context=WAYS["yarn"], learning_rate=1e-12,
    )  # fmt: skip
    corpus = StageInput(kind="corpus", path=str(tmp_path / "corpus"))
    pretrain.run(given.model_copy(update={"inputs": {**given.inputs, "corpus": corpus}}), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert (written["max_position_embeddings"], written["rope_scaling"]["factor"]) == (NEW, 4.0)
    model, nats = stranger(base, max_position_embeddings=NEW, rope_parameters=ROTATIONS["yarn"]), 0.0
    for ids in torch.tensor(ids_of(sum(lengths))).split(lengths):
        nats += float(F.cross_entropy(plain_logits(model, ids.tolist())[:-1], ids[1:], reduction="sum"))
    mean = nats / (sum(lengths) - len(lengths))
    assert read_progress(tmp_path / "out")[0]["pretrain/loss"] == pytest.approx(mean, rel=1e-4)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out" / "model"))
    assert before.keys() == after.keys()  # the rotation is no weight
