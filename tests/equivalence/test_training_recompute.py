"""Recomputed activations: the same loss and gradients bit for bit, and less that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from derivatives import sft
from derivatives.losses.cross_entropy import chunked_cross_entropy
from derivatives.training import attention
from derivatives.training.batch import PackedBatch, Row, pack
from derivatives.training.forward import hidden_states
from derivatives.training.model import head_weight
from derivatives.training.recompute import Mode, recompute_layers
from tests.training_fixtures import sft_file, tiny_model, write_checkpoint, write_sums

MODES: tuple[Mode, ...] = ("selective", "full")


def packed() -> PackedBatch:
    """Short documents, which are padded side by side, and one that goes to the fused kernel."""
    generator = torch.Generator().manual_seed(1)
    lengths = (300, 40, 38, 7, 7, 1)
    rows = [Row(torch.randint(256, (length,), generator=generator).tolist(), trained_from=2) for length in lengths]
    (batch,) = pack(rows, 400)
    return batch


def loss_and_gradients(
    mode: Mode, dtype: torch.dtype, batch: PackedBatch
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = tiny_model().to(dtype)
    model.set_attn_implementation(attention.REGISTERED_NAME)
    recompute_layers(model, mode)
    hidden_TE = hidden_states(model, batch)
    loss = chunked_cross_entropy(hidden_TE, head_weight(model), batch.targets_T, batch.weights_T)
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return loss.detach(), gradients


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_equal_to_the_last_bit(mode: Mode, dtype: torch.dtype) -> None:
    batch = packed()
    loss, gradients = loss_and_gradients("none", dtype, batch)
    other_loss, other_gradients = loss_and_gradients(mode, dtype, batch)
    assert torch.equal(loss, other_loss)
    assert gradients.keys() == other_gradients.keys() and len(gradients) > 10
    assert all(torch.equal(gradients[name], other_gradients[name]) for name in gradients)


def kept_bytes(mode: Mode, batch: PackedBatch) -> int:
    """What a forward pass of 4 layers leaves allocated for the backward pass."""
    model = tiny_model(num_hidden_layers=4).to(torch.bfloat16)
    model.set_attn_implementation(attention.REGISTERED_NAME)
    recompute_layers(model, mode)
    hidden_states(model, batch)  # once before, for what is allocated only once
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        output_TE = hidden_states(model, batch)
    assert output_TE.requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.key_averages())


def test_less_is_kept() -> None:
    none, selective, full = (kept_bytes(mode, packed()) for mode in ("none", "selective", "full"))
    assert full < 0.2 * none and full < selective < 0.5 * none


def test_without_gradients_nothing_is_kept_or_made_again() -> None:
    model = tiny_model()
    model.set_attn_implementation(attention.REGISTERED_NAME)
    calls = 0

    def count(module: torch.nn.Module, args: object, output: object) -> None:
        nonlocal calls
        calls += 1

    recompute_layers(model, "full")
    model.model.layers[0].self_attn.register_forward_hook(count)
    with torch.no_grad():
        hidden_states(model, packed())
    assert calls == 1
    hidden_states(model, packed()).sum().backward()
    assert calls == 3  # forward, and again in the backward pass


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_goes_on_with_another_mode_ends_in_the_same_bytes(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a message that the device's memory is full."""
    base, data = write_checkpoint(tmp_path / "base"), write_sums(tmp_path / "sums.jsonl", 40)
    (tmp_path / "plain").mkdir()
    sft.run(sft_file(base, data), tmp_path / "plain")
    out = tmp_path / "other"
    out.mkdir()
    trainer = sft.Trainer(sft_file(base, data), out)
    rows, _ = sft.read_rows(trainer.stage_file, trainer.stage, trainer.tokenizer)  # type: ignore[arg-type]
    for step in trainer.steps(5):
        if step == 4:  # a checkpoint stands after step 2
            break
        first = (step - 1) * 8
        trainer.train_step([rows[item] for item in sft.items_between(first, first + 8, len(rows), 3)])
    sft.run(sft_file(base, data, recompute=mode), out)
    plain, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "other"))
    assert all(torch.equal(plain[name], other[name]) for name in plain)
