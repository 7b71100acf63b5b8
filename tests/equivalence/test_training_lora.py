"""Adapters: what is trained and kept, exact resume, and the merged model beside the adapted one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from configs.errors import UserError
from configs.settings.training import Lora
from configs.stage import read_progress
from derivatives import sft
from derivatives.export import export_model
from derivatives.training import checkpoint
from derivatives.training.batch import Row, pack
from derivatives.training.forward import hidden_states
from derivatives.training.loop import Trainer
from derivatives.training.lora import add_adapters, merged_weights, set_dropout
from derivatives.training.model import head_weight
from tests.training_fixtures import sft_file, tiny_model, write_checkpoint, write_sums

pytest.importorskip("peft", reason="the extra `lora` is not installed")
LORA = {"rank": 4, "alpha": 8}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_sums(tmp_path / "sums.jsonl", 40)


def step_through(trainer: Trainer, steps: int) -> None:
    rows, _ = sft.read_rows(trainer.stage_file, trainer.stage, trainer.tokenizer)  # type: ignore[arg-type]
    for step in trainer.steps(100):
        if step > steps:
            return
        trainer.train_step(rows[(step - 1) % 5 * 8 :][:8])


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits [T, V] by transformers itself, without packing."""
    with torch.inference_mode():
        output: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return output


def test_the_packed_pass_goes_through_the_adapters() -> None:
    """By hand for one map: x W' + b + (x A') B' alpha / rank."""
    model = tiny_model()
    add_adapters(model, Lora.model_validate({**LORA, "targets": ["q_proj"]}), seed=0)
    (batch,) = pack([Row([1, 2, 3, 4])], 4)
    before = hidden_states(model, batch)
    layer = model.model.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(3, 32)
    wanted = x @ layer.base_layer.weight.t() + layer.base_layer.bias
    wanted = wanted + x @ layer.lora_A["default"].weight.t() @ layer.lora_B["default"].weight.t() * (8.0 / 4)
    torch.testing.assert_close(layer(x), wanted)
    assert (hidden_states(model, batch) - before).abs().max() > 1e-2


def test_only_adapters_are_trained_have_state_and_are_saved(tmp_path: Path, base: Path, data: Path) -> None:
    trainer = Trainer(sft_file(base, data, lora=LORA), tmp_path)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    step_through(trainer, 3)
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(before[name], weight) == ("lora_" not in name), name
    # Seven maps in each of two layers, two products each: 32 in, 4 inside, 32, 16, 16, 32, 64, 64 or 32 out.
    num_adapter = 2 * 4 * (5 * 32 + 32 + 64 + 32 + 16 + 16 + 32 + 64 + 64 + 32)
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    saved = found[1]["optimizer"]
    assert sum(master.numel() for master in saved["masters"]) == num_adapter
    moments = [value for state in saved["adamw"]["state"].values() for value in state.values() if value.ndim > 0]
    assert sum(moment.numel() for moment in moments) == 2 * num_adapter


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_merged_model_is_the_adapted_one_in_any_transformers(
    tmp_path: Path, base: Path, data: Path, precision: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    trainer = Trainer(sft_file(base, data, lora=LORA, precision=precision, learning_rate=1e-2), out)
    step_through(trainer, 20)
    trainer.total = 20
    trainer.finish()
    ids = [72, 101, 108, 108, 111, 32, 49]
    with torch.inference_mode():
        hidden_TE = hidden_states(trainer.model, pack([Row(ids)], 16)[0])
        adapted = (hidden_TE @ head_weight(trainer.model).t()).float()
    opened = AutoModelForCausalLM.from_pretrained(out / "model", dtype=torch.bfloat16)
    difference = float((logits(opened, ids) - adapted).abs().max())
    unadapted = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    learnt = float((logits(unadapted, ids) - adapted).abs().max())
    rounding = float((logits(tiny_model(), ids) - logits(tiny_model().to(torch.bfloat16), ids)).abs().max())
    assert difference < 3 * rounding < 0.2 * learnt
    assert set(load_file(out / "model" / "model.safetensors")) == set(load_file(base / "model.safetensors"))
    exported = export_model(out / "model", tmp_path / "release")  # what the release stage does with it
    assert exported.max_logit_difference == 0.0
    released = AutoModelForCausalLM.from_pretrained(tmp_path / "release", dtype=torch.bfloat16)
    assert torch.equal(logits(released, ids), logits(opened, ids))
    exact = tiny_model()
    exact.load_state_dict(merged_weights(trainer.model.state_dict(), Lora.model_validate(LORA)))
    if precision == "fp32":  # before it is rounded to the bf16 that is written, the merged model is the adapted one
        torch.testing.assert_close(logits(exact, ids), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
def test_peft_opens_the_adapter_on_the_model_that_was_started_from(tmp_path: Path, base: Path, data: Path) -> None:
    from peft import PeftModel

    out = tmp_path / "out"
    out.mkdir()
    trainer = Trainer(sft_file(base, data, lora=LORA, learning_rate=1e-2), out)
    step_through(trainer, 10)
    trainer.total = 10
    trainer.finish()
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), out / "adapter")
    ids = [72, 101, 108, 108, 111]
    with torch.inference_mode():
        hidden_TE = hidden_states(trainer.model, pack([Row(ids)], 16)[0])
        adapted = hidden_TE @ head_weight(trainer.model).t()
    torch.testing.assert_close(logits(opened, ids), adapted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}], ids=["plain", "dropout"])
def test_a_killed_run_ends_in_the_same_bytes(tmp_path: Path, base: Path, data: Path, options: dict[str, Any]) -> None:
    given = sft_file(base, data, lora={**LORA, **options}, precision="bf16", recompute="full", checkpoint_every=2)
    (tmp_path / "straight").mkdir()
    sft.run(given, tmp_path / "straight")
    out = tmp_path / "killed"
    out.mkdir()
    trainer = Trainer(given, out)
    rows, _ = sft.read_rows(given, given.stage, trainer.tokenizer)  # type: ignore[arg-type]
    for step in trainer.steps(5):
        if step == 4:
            break
        items = sft.items_between((step - 1) * 8, step * 8, len(rows), given.seed)
        trainer.train_step([rows[item] for item in items])
    torch.manual_seed(99)  # another process would have drawn other numbers
    sft.run(given, out)
    curves = [[line["sft/loss"] for line in read_progress(tmp_path / name)] for name in ("straight", "killed")]
    assert curves[0] == curves[1]
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        ours, theirs = load_file(tmp_path / "straight" / name), load_file(out / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_dropout_acts_in_training_alone() -> None:
    model = tiny_model().eval()
    add_adapters(model, Lora.model_validate({**LORA, "dropout": 0.5}), seed=0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    (batch,) = pack([Row([1, 2, 3, 4])], 4)
    with torch.inference_mode():
        still = hidden_states(model, batch)
        assert torch.equal(still, hidden_states(model, batch))
        set_dropout(model, True)
        assert not torch.equal(still, hidden_states(model, batch))
        set_dropout(model, False)
        assert torch.equal(still, hidden_states(model, batch))


def test_a_target_that_the_model_has_not_is_named(tmp_path: Path, base: Path, data: Path) -> None:
    given = sft_file(base, data, lora={"targets": ["q_proj", "c_attn"]})
    with pytest.raises(UserError, match=r"stage\.lora\.targets\[1\]: 'c_attn' .* allowed: down_proj, gate_proj"):
        Trainer(given, tmp_path)


def test_without_peft_the_remedy_is_told(
    tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"stage\.lora: peft is needed .* pip install 'derivative-factory\[lora\]'"):
        Trainer(sft_file(base, data, lora={}), tmp_path)
