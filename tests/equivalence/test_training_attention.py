"""Packed documents give what each gives alone, and nothing of one reaches another."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import UserError
from derivatives.training import attention, document_attention
from derivatives.training.attention import (
    PROBE_LENGTHS,
    leak_probe,
    packed_attention,
    plan,
    probe_halves,
    require_no_leak,
)
from derivatives.training.batch import PackedBatch, Row, pack
from derivatives.training.document_attention import BLOCK, SHORT_DOCUMENT, DocumentAttention, Group
from derivatives.training.forward import hidden_states
from derivatives.training.model import load_model
from tests.training_fixtures import tiny_model, write_checkpoint

LENGTHS = (30, 7, 1, 12, 30, 25, 3)


def rows_of(lengths: tuple[int, ...]) -> list[Row]:
    generator = torch.Generator().manual_seed(1)
    return [Row(torch.randint(256, (length,), generator=generator).tolist()) for length in lengths]


def packed_model(**config: object) -> torch.nn.Module:
    model = tiny_model(**config)
    model.set_attn_implementation(attention.REGISTERED_NAME)
    return model


def loss_of(hidden: Tensor) -> Tensor:
    return (hidden * torch.linspace(-1, 1, hidden.shape[-1])).square().sum()


def test_packed_equals_padded_in_hidden_states_and_gradients() -> None:
    model, plain = packed_model(), tiny_model()
    rows = rows_of(LENGTHS)
    (batch,) = pack(rows, 200)
    packed = hidden_states(model, batch)  # type: ignore[arg-type]
    loss_of(packed).backward()

    longest = max(LENGTHS)
    ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows])
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in LENGTHS])
    padded = plain.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    loss_of(padded[mask.bool()]).backward()

    for piece, index in zip(packed.split(list(batch.lengths)), batch.row_indices, strict=True):
        torch.testing.assert_close(piece, padded[index, : LENGTHS[index]], rtol=1e-5, atol=1e-5)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4 * float(other.grad.abs().max()))


def test_rows_in_one_batch_or_in_many_give_the_same() -> None:
    model = packed_model()
    rows = rows_of(LENGTHS)
    with torch.no_grad():
        (whole,) = pack(rows, 200)
        together = dict(zip(whole.row_indices, hidden_states(model, whole).split(list(whole.lengths)), strict=True))  # type: ignore[arg-type]
        for index, row in enumerate(rows):
            alone = hidden_states(model, pack([row], 200)[0])  # type: ignore[arg-type]
            torch.testing.assert_close(together[index], alone, rtol=1e-5, atol=1e-5)


def test_called_without_packing_it_is_the_usual_causal_attention_with_padding_and_cache() -> None:
    model, plain = packed_model(), tiny_model()
    ids = torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 9])
    with torch.no_grad():
        for given in (None, mask):
            one, other = (m(input_ids=ids, attention_mask=given).logits[:, 2:] for m in (model, plain))
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        drawn = [
            m.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)  # type: ignore[operator]
            for m in (model, plain)
        ]
    assert torch.equal(drawn[0], drawn[1])


def reference_attention(qkv_TXD: Tensor, num_heads: int, lengths: tuple[int, ...], scale: float) -> Tensor:
    """One document at a time, in FP32, with the scores written out."""
    num_kv = (qkv_TXD.shape[1] - num_heads) // 2
    outputs = []
    for part in qkv_TXD.float().split(list(lengths)):
        q, k, v = (piece.transpose(0, 1) for piece in part.split((num_heads, num_kv, num_kv), dim=1))
        k, v = (piece.repeat_interleave(num_heads // num_kv, dim=0) for piece in (k, v))
        scores = q @ k.transpose(1, 2) * scale
        future = torch.ones_like(scores, dtype=torch.bool).triu(1)
        outputs.append((scores.masked_fill(future, float("-inf")).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("lengths", [LENGTHS, (5, 5, 5), (SHORT_DOCUMENT + 1, 40, 33), (BLOCK + 1, 2 * BLOCK), (1,)])
def test_attention_by_document_is_attention(dtype: torch.dtype, tolerance: float, lengths: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    qkv = torch.randn(sum(lengths), 8, 16, generator=generator).to(dtype).requires_grad_()
    weights = torch.randn(sum(lengths), 4, 16, generator=generator)
    ends = torch.tensor((0, *lengths)).cumsum(0).int()
    found = packed_attention(*qkv.split((4, 2, 2), dim=1), plan(lengths, ends, "documents"), 0.3)
    expected = reference_attention(qkv, 4, lengths, 0.3)
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    (gradient,) = torch.autograd.grad((found * weights).sum(), qkv)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), qkv)
    error = (gradient - expected_gradient).float().norm() / expected_gradient.float().norm()
    assert error < tolerance


@pytest.mark.parametrize("kept", [9, 2])
def test_the_kernel_has_the_gradient_of_its_own_formula(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_attention, "BLOCK", 2)
    monkeypatch.setattr(document_attention, "SHORT_DOCUMENT", kept)
    qkv = torch.randn(6, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: DocumentAttention.apply(x, 2, 0.7, (Group(2, 3),)), (qkv,))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_probe_finds_no_leak_in_a_loaded_model(tmp_path: Path, precision: str) -> None:
    model, _ = load_model(write_checkpoint(tmp_path / "base"), precision, "cpu")  # type: ignore[arg-type]
    assert leak_probe(model) == 0.0
    assert all(weight.grad is None for weight in model.parameters())


def test_the_probe_finds_a_leak_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_model(write_checkpoint(tmp_path / "base"), "fp32", "cpu")

    def merge_last_two(lengths: tuple[int, ...], ends: Tensor, method: str, parents: object) -> attention.Packing:
        return plan((*lengths[:-2], lengths[-2] + lengths[-1]), torch.cat((ends[:-2], ends[-1:])), method)

    monkeypatch.setattr(attention, "plan", merge_last_two)
    assert leak_probe(model) > 0.01
    with pytest.raises(UserError, match="packed documents see one another"):
        require_no_leak(model)


@pytest.mark.parametrize("num_documents", [1, 2, 3, 6, 7, 10, 11])
def test_the_probe_changes_each_document_at_least_once_while_each_other_one_stays(num_documents: int) -> None:
    halves = probe_halves(num_documents)
    for one, other in itertools.permutations(range(num_documents), 2):
        assert any(half[one] and not half[other] for half in halves)
    # Six documents take the 6 pairs of 4 passes, ten the 10 pairs of 5.
    assert len(halves) == {1: 1, 2: 2, 3: 3, 6: 4, 7: 5, 10: 5, 11: 6}[num_documents]


def test_the_probe_has_documents_that_are_alone_alike_padded_and_too_long_to_be_short() -> None:
    short, long = (plan(lengths, torch.tensor((0, *lengths)).cumsum(0).int(), "documents") for lengths in PROBE_LENGTHS)
    assert short.groups == (Group(3, 17), Group(1, 5), Group(1, 2), Group(1, 1))  # 17, 17 and a padded 15
    assert short.slots_T is not None
    assert long.groups == (Group(1, SHORT_DOCUMENT + 1), Group(1, 2))


def test_a_transformers_forward_that_ignores_the_packing_is_found_too(tmp_path: Path) -> None:
    model, _ = load_model(write_checkpoint(tmp_path / "base"), "fp32", "cpu")
    model.set_attn_implementation("sdpa")
    batch = pack(rows_of((6, 5)), 20)[0]
    joined = dataclasses.replace(batch, position_ids_T=torch.arange(11))  # nothing says that there are two
    assert not torch.allclose(hidden_states(model, batch)[6:], hidden_states(model, joined)[6:])
    model.model.register_forward_pre_hook(_join_positions, with_kwargs=True)
    assert leak_probe(model) > 0.01


def _join_positions(module: object, args: tuple[object, ...], given: dict[str, Tensor]) -> tuple[object, object]:
    num_tokens = given["input_ids"].shape[1]
    return args, {**given, "position_ids": torch.arange(num_tokens)[None]}


def test_cuda_has_a_fused_method_in_half_precision_only() -> None:
    assert attention.choose("cpu") == "documents"
    assert attention.choose("cuda", torch.float32) == "documents"
    assert attention.choose("cuda", torch.bfloat16) in ("flash_attn", "varlen")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_fused_method_equals_attention_by_document(tmp_path: Path) -> None:
    model, _ = load_model(write_checkpoint(tmp_path / "base", head_dim=64), "bf16", "cuda")
    batch: PackedBatch = pack(rows_of(LENGTHS), 200)[0].to("cuda")
    assert attention.method_of(model) != "documents"
    fused = hidden_states(model, batch)
    attention.set_method(model, "documents")
    plain = hidden_states(model, batch)
    assert float((fused - plain).float().norm() / plain.float().norm()) < 2e-2  # bf16, rounded elsewhere
    attention.set_method(model, attention.choose("cuda"))
    assert leak_probe(model) == 0.0


def test_scores_of_a_padded_document_do_not_depend_on_its_neighbours_length() -> None:
    generator = torch.Generator().manual_seed(4)
    short = torch.randn(9, 8, 16, generator=generator)
    ends = torch.tensor([0, 10, 19]).int()
    neighbour = torch.randn(10, 8, 16, generator=generator)
    together = torch.cat((neighbour, short)).split((4, 2, 2), dim=1)
    both = packed_attention(*together, plan((10, 9), ends, "documents"), 0.25)
    q, k, v = (part.transpose(0, 1) for part in short.split((4, 2, 2), dim=1))
    alone = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.25, enable_gqa=True).transpose(0, 1)
    torch.testing.assert_close(both[10:], alone)
