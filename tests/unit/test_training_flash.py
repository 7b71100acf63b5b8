"""The exact arguments that fused attention gets, with fakes of the packages' published signatures in their place.

Signatures: flash-attn 2.8.3 and 3 (`flash_attn_interface`), 4.0.0b36 (`flash_attn.cute`), torch 2.11 to 2.15.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from derivatives.training import attention, flash
from derivatives.training.attention import MIN_CU_SEQLENS, packed_attention, plan
from derivatives.training.batch import Row, pack

LENGTHS = (7, 5, 1)
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, SCALE = 4, 2, 64, 0.125


def flash_attn_2(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False,
    block_table=None,
):  # fmt: skip
    ...


def flash_attn_3(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None, seqused_k=None,
    softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None, window_size=(-1, -1),
    attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, sm_margin=0,
    return_attn_probs=False,
):  # fmt: skip
    ...


def flash_attn_4(
    q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None, min_seqlen_k=None,
    seqused_q=None, seqused_k=None, gather_kv_indices=None, page_table=None, softmax_scale=None, causal=False,
    window_size=(None, None), learnable_sink=None, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False,
    score_mod=None, score_mod_bwd=None, mask_mod=None, block_sparse_tensors=None, aux_tensors=None, aux_scalars=None,
    return_lse=False,
):  # fmt: skip
    ...


def varlen_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
): ...


def varlen_2_12(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1),
    enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    ...


Calls = list[dict[str, Any]]


def fake_of(signature: Callable[..., Any], calls: Calls, gives_pair: bool = False) -> Callable[..., Any]:
    """A function that takes what the original takes, notes every argument by name, and attends plainly."""

    def call(*args: Any, **named: Any) -> Any:
        bound = inspect.signature(signature).bind(*args, **named)
        bound.apply_defaults()
        calls.append(dict(bound.arguments))
        q, k, v = args[:3]
        ends = bound.arguments.get("cu_seqlens_q", bound.arguments.get("cu_seq_q"))
        out = reference(q, k, v, ends.tolist())
        return (out, None) if gives_pair else out

    call.__signature__ = inspect.signature(signature)  # type: ignore[attr-defined]
    return call


def reference(q: Tensor, k: Tensor, v: Tensor, ends: list[int]) -> Tensor:
    """Causal attention, one document at a time; as the kernels do, one without tokens gives nothing."""
    out = torch.zeros_like(q)
    for start, end in zip(ends, ends[1:], strict=False):
        heads = [part[start:end].float().transpose(0, 1) for part in (q, k, v)]
        keys, values = (part.repeat_interleave(q.shape[1] // len(part), 0) for part in heads[1:])
        scores = heads[0] @ keys.transpose(1, 2) * SCALE
        future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, float("-inf")).softmax(-1) @ values
        out[start:end] = mixed.transpose(0, 1).to(q.dtype)
    return out


def install(monkeypatch: pytest.MonkeyPatch, name: str, function: object) -> None:
    """Put a fake package where its import is looked for."""
    (module_name,) = (package.module for package in flash.PACKAGES if package.name == name)
    parts = module_name.split(".")
    for end in range(1, len(parts)):
        if not isinstance(sys.modules.get(".".join(parts[:end])), ModuleType):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    module = ModuleType(module_name)
    module.flash_attn_varlen_func = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module_name, module)


@pytest.fixture(autouse=True)
def forget_packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No package is installed but those that a test installs."""
    for package in flash.PACKAGES:
        monkeypatch.setitem(sys.modules, package.module, None)
    flash.function_of.cache_clear()
    yield
    flash.function_of.cache_clear()


def packed_qkv() -> tuple[tuple[Tensor, Tensor, Tensor], Any]:
    """Queries, keys and values as a projection gives them (not contiguous), in bf16, and the batch."""
    (batch,) = pack([Row([1] * length) for length in LENGTHS], 100)
    heads = NUM_HEADS + 2 * NUM_KV_HEADS
    joined = torch.randn(sum(LENGTHS), heads, HEAD_DIM, generator=torch.Generator().manual_seed(0)).bfloat16()
    return joined.split((NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS), dim=1), batch


PADDED_ENDS = [0, 7, 12, *[13] * (MIN_CU_SEQLENS - 3)]


def assert_common(call: dict[str, Any], names: tuple[str, ...]) -> None:
    """What all kernels want: bf16, contiguous, int32 `cu_seqlens` (one object) of a fixed length, plain numbers."""
    q, k, v, ends, other_ends, longest, other_longest = (call[name] for name in names)
    assert all(part.dtype == torch.bfloat16 and part.is_contiguous() for part in (q, k, v))
    assert ends is other_ends and ends.dtype == torch.int32 and ends.tolist() == PADDED_ENDS
    assert (type(longest), longest) == (type(other_longest), other_longest) == (int, 7)


@pytest.mark.parametrize(
    ("name", "signature", "gives_pair"),
    [("flash_attn", flash_attn_2, False), ("flash_attn_3", flash_attn_3, False), ("flash_attn_4", flash_attn_4, True)],
)
def test_what_a_flash_attn_package_is_given(
    name: str, signature: Callable[..., Any], gives_pair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Calls = []
    install(monkeypatch, name, fake_of(signature, calls, gives_pair))
    qkv, batch = packed_qkv()
    out = packed_attention(*qkv, plan(batch.lengths, batch.cu_seqlens, name), SCALE)
    (call,) = calls
    assert_common(call, ("q", "k", "v", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k"))
    assert call["k"].shape == (13, NUM_KV_HEADS, HEAD_DIM)  # grouped queries are the kernel's own
    assert call["causal"] is True and call["softmax_scale"] == SCALE
    defaults = {key: value.default for key, value in inspect.signature(signature).parameters.items()}
    given = {"q", "k", "v", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "softmax_scale", "causal"}
    assert all(call[key] == default for key, default in defaults.items() if key not in given)
    torch.testing.assert_close(out, plain(batch))


@pytest.mark.parametrize(("signature", "has_gqa"), [(varlen_2_11, False), (varlen_2_12, True)])
def test_what_torch_varlen_is_given(
    signature: Callable[..., Any], has_gqa: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Calls = []
    monkeypatch.setattr(attention, "varlen_attn", fake_of(signature, calls))
    qkv, batch = packed_qkv()
    out = packed_attention(*qkv, plan(batch.lengths, batch.cu_seqlens, "varlen"), SCALE)
    (call,) = calls
    assert_common(call, ("query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"))
    assert call["window_size"] == (-1, 0) and call["scale"] == SCALE and call["return_aux"] is None
    if has_gqa:
        assert call["enable_gqa"] is True and call["key"].shape[1] == NUM_KV_HEADS
    else:
        assert call["key"].shape[1] == call["value"].shape[1] == NUM_HEADS
    torch.testing.assert_close(out, plain(batch))


def test_torch_varlen_is_not_told_of_groups_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = []
    monkeypatch.setattr(attention, "varlen_attn", fake_of(varlen_2_12, calls))
    (q, _, _), batch = packed_qkv()
    packed_attention(q, q, q, plan(batch.lengths, batch.cu_seqlens, "varlen"), SCALE)
    assert calls[0]["enable_gqa"] is False


def plain(batch: Any) -> Tensor:
    qkv, _ = packed_qkv()
    return reference(*qkv, batch.cu_seqlens.tolist())


def test_the_installed_torch_takes_what_varlen_is_given() -> None:
    """The signature of the torch at hand, so that a new one is noticed without a GPU."""
    from torch.nn.attention.varlen import varlen_attn

    options = {"window_size": (-1, 0), "scale": SCALE}
    if attention._names_gqa(varlen_attn):
        options["enable_gqa"] = True
    inspect.signature(varlen_attn).bind(*[None] * 7, **options)


@pytest.mark.parametrize(("num_documents", "length"), [(1, 64), (63, 64), (64, 128), (127, 128), (128, 256)])
def test_cu_seqlens_have_few_lengths(num_documents: int, length: int) -> None:
    (batch,) = pack([Row([1, 2])] * num_documents, 1000)
    ends = plan(batch.lengths, batch.cu_seqlens, "varlen").cu_seqlens
    assert len(ends) == length and ends.dtype == torch.int32
    assert ends[: num_documents + 1].tolist() == list(range(0, 2 * num_documents + 1, 2))
    assert set(ends[num_documents:].tolist()) == {2 * num_documents}


@pytest.mark.parametrize(
    ("installed", "major", "head_dim", "chosen"),
    [
        ((), 9, 128, "varlen"),
        (("flash_attn",), 8, 128, "flash_attn"),
        (("flash_attn", "flash_attn_3", "flash_attn_4"), 9, 128, "flash_attn_3"),
        (("flash_attn", "flash_attn_4"), 9, 64, "flash_attn"),
        (("flash_attn_4",), 9, 64, "flash_attn_4"),
        (("flash_attn_3",), 8, 64, "varlen"),
        (("flash_attn", "flash_attn_3", "flash_attn_4"), 10, 128, "flash_attn_4"),
        (("flash_attn_4",), 10, 256, "varlen"),
        (("flash_attn",), 7, 64, "varlen"),
    ],
)
def test_the_package_that_fits_the_gpu_is_chosen(
    installed: tuple[str, ...], major: int, head_dim: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in installed:
        install(monkeypatch, name, lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device=None: (major, 0))
    assert attention.choose("cuda", torch.bfloat16, head_dim) == chosen
    assert attention.choose("cuda", torch.float32, head_dim) == "documents"


def test_a_package_that_breaks_while_it_is_imported_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "flash_attn":
                raise RuntimeError("built for another torch")

    monkeypatch.delitem(sys.modules, "flash_attn")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert flash.function_of("flash_attn") is None
    with pytest.raises(ValueError, match="not installed"):
        qkv, batch = packed_qkv()
        packed_attention(*qkv, plan(batch.lengths, batch.cu_seqlens, "flash_attn"), SCALE)
