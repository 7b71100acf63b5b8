"""One copy of a prompt for all completions of its group: the same losses and gradients as one in every row."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.settings.training import Lora
from derivatives.training import attention, document_attention
from derivatives.training.attention import Packing, leak_probe, packed_attention, plan
from derivatives.training.batch import NO_TARGET, PackedBatch, Row, pack, pack_shared
from derivatives.training.document_attention import DocumentAttention, Group
from derivatives.training.forward import hidden_states
from derivatives.training.lora import add_adapters
from derivatives.training.model import load_model
from derivatives.training.recompute import recompute_layers
from tests.training_fixtures import write_checkpoint

LENGTHS = ((7, (5, 9, 1, 9, 8)), (1, (4, 2)), (40, (3,)), (12, (30, 2, 2, 2)))
"""Tokens of each prompt and of its completions; a prompt of one token and a group of one share nothing."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"))


def families_of(vocab_size: int) -> tuple[list[list[Row]], list[int]]:
    draw = torch.Generator().manual_seed(1)

    def ids(count: int) -> list[int]:
        return torch.randint(vocab_size, (count,), generator=draw).tolist()

    families, numbers = [], itertools.count(1)
    for num_prompt, completions in LENGTHS:
        prompt = ids(num_prompt)
        families.append([
            Row([*prompt, *ids(count)], loss_weights=[0.0] * num_prompt + [1.0 / next(numbers)] * count,
                extras={"advantages": [0.0] * num_prompt + [float(next(numbers))] * count})
            for count in completions
        ])  # fmt: skip
    return families, [num_prompt for num_prompt, _ in LENGTHS]


def by_row(batches: list[PackedBatch], values: list[Tensor]) -> dict[int, list[tuple[int, float, float, Any]]]:
    """Of each row's weighted tokens: target, weight, advantage and a value."""
    found: dict[int, list[tuple[int, float, float, Any]]] = {}
    for batch, values_T in zip(batches, values, strict=True):
        places = torch.arange(batch.num_tokens).split(list(batch.lengths))
        for index, part in zip(batch.row_indices, places, strict=True):
            for token in part.tolist():
                if batch.weights_T[token] > 0:
                    numbers = batch.targets_T[token], batch.weights_T[token], batch.advantages_T[token]
                    found.setdefault(index, []).append((*(one.item() for one in numbers), values_T[token]))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("max_tokens", [200, 60, 20])
def test_every_token_is_trained_once_with_its_own_numbers_and_positions(max_tokens: int) -> None:
    families, num_shared = families_of(50)
    rows = [row for family in families for row in family]
    shared, plain = pack_shared(families, num_shared, max_tokens), pack(rows, 1000)
    positions = [[batch.position_ids_T for batch in batches] for batches in (shared, plain)]
    found, expected = (by_row(*both) for both in zip((shared, plain), positions, strict=True))
    assert found == expected and set(found) == set(range(len(rows)))
    for batch in shared:
        assert batch.num_tokens <= max_tokens or len(batch.lengths) == 1
        assert batch.cu_seqlens.diff().tolist() == list(batch.lengths)
        assert (batch.targets_T != NO_TARGET).sum() == batch.num_tokens - sum(
            not (parent >= 0) for parent in batch.parents or [-1] * len(batch.lengths)
        )


def test_a_prompt_costs_its_tokens_once() -> None:
    families, num_shared = families_of(50)
    (batch,) = pack_shared(families, num_shared, 1000)
    # Shared: 6 of 7 and 11 of 12 tokens. A branch has as many tokens as its completion; the other rows are whole.
    assert batch.num_tokens == 6 + (5 + 9 + 1 + 9 + 8) + 11 + (30 + 2 + 2 + 2) + (1 + 4) + (1 + 2) + (40 + 3)
    assert sorted(batch.lengths) == sorted([6, 5, 9, 1, 9, 8, 11, 30, 2, 2, 2, 5, 3, 43])


def loss_and_gradients(model: Any, batches: list[PackedBatch]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Hidden states, and the gradients of their weighted sum with the numbers of the rows."""
    model.zero_grad()
    states = []
    for batch in batches:
        hidden_TE = hidden_states(model, batch)
        logits_TV = hidden_TE.float() @ model.get_output_embeddings().weight.float().t()
        log_probs_T = logits_TV.log_softmax(-1).gather(1, batch.targets_T.clamp(min=0)[:, None]).squeeze(1)
        (log_probs_T * batch.weights_T * batch.advantages_T).sum().backward()
        states.append(log_probs_T.detach())
    return states, {name: weight.grad.float() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 3e-2)])
def test_log_probabilities_and_gradients_are_those_of_whole_rows(
    base: Path, precision: Any, tolerance: float, recompute: Any, adapted: bool
) -> None:
    model, _ = load_model(base, precision, "cpu")
    if adapted:
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
        add_adapters(model, Lora(rank=4), seed=0)
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # 0 at first, when an adapter adds nothing
                torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(0))
    recompute_layers(model, recompute)
    families, num_shared = families_of(model.config.vocab_size)
    whole = pack([row for family in families for row in family], 10_000)
    expected, expected_gradients = loss_and_gradients(model, whole)
    for max_tokens in (10_000, 60):
        shared = pack_shared(families, num_shared, max_tokens)
        found, gradients = loss_and_gradients(model, shared)
        pairs = (by_row(shared, found), by_row(whole, expected))
        for index, tokens in pairs[1].items():
            values = [torch.stack([one[3] for one in part[index]]) for part in (pairs[0], pairs[1])] if tokens else []
            torch.testing.assert_close(values[0], tokens and values[1], rtol=tolerance, atol=tolerance)
        assert set(gradients) == set(expected_gradients)
        for name, gradient in expected_gradients.items():
            assert (gradients[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("block", [2, 128])
@pytest.mark.parametrize("kept", [9, 2])
def test_the_kernel_has_the_gradient_of_its_own_formula(kept: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_attention, "BLOCK", block)
    monkeypatch.setattr(document_attention, "SHORT_DOCUMENT", kept)
    groups = Group(1, 4), Group(2, 3, 0, 3), Group(1, 2, 0, 3), Group(1, 1)
    qkv = torch.randn(13, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: DocumentAttention.apply(x, 2, 0.7, groups), (qkv,))


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_trace_of_one_completion_is_in_another(
    base: Path, precision: Any, recompute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_model(base, precision, "cpu")
    recompute_layers(model, recompute)
    monkeypatch.setattr(attention, "PROBE_TREES", ((30, 70, 61, 2, 9), (3, 1, 1, 250)))
    assert leak_probe(model) == 0.0


def test_completions_that_see_those_of_another_prompt_are_found(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(lengths: Any, ends: Tensor, method: str, parents: Any = ()) -> Packing:
        return plan(lengths, ends, method, [1 - parent if parent >= 0 else parent for parent in parents])

    model, _ = load_model(base, "fp32", "cpu")
    monkeypatch.setattr(attention, "plan", swapped)
    assert leak_probe(model) > 0.01


def test_completions_that_see_each_other_are_found(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, packing: Packing, scale: float) -> Tensor:
        if any(group.seen for group in packing.groups):
            v_TKD = torch.cat((v_TKD[:-4], v_TKD[-4:] + 0.1 * v_TKD[-5:-4]))
        return packed_attention(q_THD, k_TKD, v_TKD, packing, scale)

    model, _ = load_model(base, "fp32", "cpu")
    monkeypatch.setattr(attention, "packed_attention", mixed)
    assert leak_probe(model) > 0.001
