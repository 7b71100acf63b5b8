"""The leak probe is exactly 0 on the CPU, whatever is trained and however, and finds what it is there to find."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import UserError
from configs.settings.training import Lora
from derivatives.training import attention
from derivatives.training.attention import Packing, leak_probe, packed_attention, require_no_leak
from derivatives.training.document_attention import SHORT_DOCUMENT
from derivatives.training.lora import add_adapters
from derivatives.training.model import load_model
from derivatives.training.recompute import recompute_layers
from derivatives.training.spread import open_spread, two_layers
from tests.training_fixtures import write_checkpoint

MIXED = ((1, 40, 3, 3, 27, 2, 61), (SHORT_DOCUMENT + 30, 9, SHORT_DOCUMENT + 2))
PRECISIONS = ("fp32", "bf16")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_trace_of_one_document_is_in_another(
    base: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, recompute: Any, lora: bool
) -> None:
    model, _ = load_model(base, precision, "cpu")
    if lora:
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
        add_adapters(model, Lora(rank=4), seed=0)
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # 0 at first, when an adapter adds nothing
                torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    recompute_layers(model, recompute)
    monkeypatch.setattr(attention, "PROBE_LENGTHS", (*attention.PROBE_LENGTHS, *MIXED))
    assert leak_probe(model) == 0.0


class Reaching(torch.autograd.Function):
    """Adds nothing to what a token sees, and a little to the gradient of the token after it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] + 1e-3 * gradients[0].roll(1, 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_that_reach_into_another_document_are_found_where_outputs_do_not(
    base: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    def reaching(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, packing: Packing, scale: float) -> Tensor:
        return packed_attention(q_THD, k_TKD, Reaching.apply(v_TKD), packing, scale)

    model, _ = load_model(base, precision, "cpu")
    monkeypatch.setattr(attention, "packed_attention", reaching)
    assert leak_probe(model) > 0.0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_numbers_that_are_not_finite_prove_nothing(base: Path, monkeypatch: pytest.MonkeyPatch, broken: float) -> None:
    def spoilt(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, packing: Packing, scale: float) -> Tensor:
        return packed_attention(q_THD, k_TKD, v_TKD, packing, scale) * broken

    model, _ = load_model(base, "fp32", "cpu")
    monkeypatch.setattr(attention, "packed_attention", spoilt)
    assert leak_probe(model) == math.inf
    with pytest.raises(UserError, match="packed documents see one another"):
        require_no_leak(model)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_where_no_rank_holds_the_model_two_layers_of_its_shape_are_probed(
    base: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    model, _ = open_spread(base, precision, "cpu")
    before = torch.get_rng_state()
    probed = two_layers(model, precision, "cpu")
    assert torch.equal(before, torch.get_rng_state())
    shapes = [[tuple(weight.shape) for weight in one.model.layers[1].parameters()] for one in (model, probed)]
    assert shapes[0] == shapes[1] and probed.dtype == model.dtype
    assert leak_probe(probed) == 0.0

    def leaking(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, packing: Packing, scale: float) -> Tensor:
        return packed_attention(q_THD, k_TKD, v_TKD + v_TKD.roll(1, 0), packing, scale)

    monkeypatch.setattr(attention, "packed_attention", leaking)
    assert leak_probe(probed) > 0.0
