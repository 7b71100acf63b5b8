"""Model FLOPs by hand, the peak that they are compared with, and what progress lines say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from configs.settings.machine import Machine
from configs.stage import read_progress
from derivatives import sft
from derivatives.training.throughput import ModelFlops, peak_flops
from tests.training_fixtures import VOCABULARY, sft_file, tiny_model, write_checkpoint, write_sums

# Two layers, 32 wide, 4 heads and 2 key-value heads of 8, 64 in between (tests/training_fixtures.py).
LAYER_WEIGHTS = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64


def test_flops_of_a_step_by_hand() -> None:
    flops = ModelFlops(tiny_model()).of_step([10, 30], trained_tokens=7)
    layers = 2 * 40 * 2 * LAYER_WEIGHTS
    attention = 2 * 2 * 4 * 8 * (10**2 + 30**2)
    head = 2 * 7 * VOCABULARY * 32
    assert flops == 3 * (layers + attention + head)


def test_frozen_weights_need_no_gradient_of_their_own() -> None:
    model = tiny_model()
    model.requires_grad_(False)
    flops = ModelFlops(model).of_step([10], trained_tokens=10)
    assert flops == 2 * (2 * 10 * 2 * LAYER_WEIGHTS + 2 * 10 * VOCABULARY * 32) + 3 * (2 * 2 * 4 * 8 * 10**2)


def test_the_layers_flops_are_those_that_torch_counts() -> None:
    """torch counts full scores where half are needed, so a document of one token has to do."""
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny_model()
    with FlopCounterMode(display=False) as counter:
        model.model(input_ids=torch.tensor([[5]]), use_cache=False).last_hidden_state.sum().backward()
    own = ModelFlops(model)
    # The counter sees both products with the one score, forward and backward; of a whole square, ours takes half.
    assert counter.get_total_flops() == pytest.approx(
        own.of_step([1], 0) + (own.of_step([1], 0) - own._per_token), rel=0.01
    )


def test_the_peak_is_the_profiles_or_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(Machine(name="cpu"), "bf16") is None
    assert peak_flops(Machine(name="cpu", peak_tflops=0.5, num_processes=2), "fp32") == 1e12
    gpu = Machine(name="one-gpu", device="cuda")
    for name, tflops in (("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-80GB", 312)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert peak_flops(gpu, "bf16") == tflops * 1e12
    assert peak_flops(gpu, "fp32") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A Card Of Next Year")
    assert peak_flops(gpu, "bf16") is None


def test_progress_lines_say_speed_share_memory_and_time_left(tmp_path: Path) -> None:
    base, data = write_checkpoint(tmp_path / "base"), write_sums(tmp_path / "sums.jsonl", 40)
    given = sft_file(base, data)
    given = given.model_copy(update={"machine": given.machine.model_copy(update={"peak_tflops": 1e-3})})
    (tmp_path / "out").mkdir()
    sft.run(given, tmp_path / "out")
    lines = read_progress(tmp_path / "out")
    assert len(lines) == 5
    for line in lines:
        assert line["sft/tokens_per_s"] > 0 and line["sft/eta_s"] >= 0 and line["sft/peak_memory_gb"] > 0.1
        seconds = line["sft/tokens"] / line["sft/tokens_per_s"]
        squares_at_least, squares_at_most = line["sft/tokens"], line["sft/tokens"] ** 2
        least = 3 * (2 * line["sft/tokens"] * 2 * LAYER_WEIGHTS + 128 * squares_at_least)
        most = 3 * (2 * line["sft/tokens"] * (2 * LAYER_WEIGHTS + VOCABULARY * 32) + 128 * squares_at_most)
        assert least < line["sft/mfu"] * seconds * 1e9 < most
    assert lines[-1]["sft/eta_s"] == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["sft/peak_memory_gb"] == max(line["sft/peak_memory_gb"] for line in lines)
    assert found["sft/mfu"] == sorted(line["sft/mfu"] for line in lines)[2]
