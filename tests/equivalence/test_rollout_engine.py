"""The rollout engine against transformers, and against itself in other batches and orders."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

import derivatives.seedling
from configs.errors import UserError
from configs.settings.common import Sampling
from derivatives.rollout import packed_weights
from derivatives.rollout.chat import reply
from derivatives.rollout.engine import Completion, RolloutEngine
from derivatives.rollout.forward import decode_step, prefill, read_weights, rotary_table
from derivatives.rollout.packed_weights import pack_weights
from derivatives.training.model import load_tokenizer, num_real_tokens, stop_ids

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
NEEDS_PACKED = pytest.mark.skipif(
    not packed_weights._works(torch.float32) or not packed_weights._works(torch.bfloat16),
    reason="this build of torch has no packed products",
)
PROMPTS = [[5, 6, 7], [900, 31, 8, 77, 12, 400, 3], [44], [10, 11], list(range(100, 140))]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(CHECKPOINT)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """Random weights, wide enough apart that no two logits tie, with 40 padding ids."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=num_real_tokens(tokenizer) + 40, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
        initializer_range=0.15, use_cache=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def tokens_of(groups: list[list[Completion]]) -> list[list[list[int]]]:
    return [[one.token_ids for one in group] for group in groups]


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=NEEDS_PACKED)])
@pytest.mark.parametrize("length", [1, 2, 7, 33, 100])
def test_logits_of_prefill_and_decode_equal_transformers_at_every_position(
    model: Qwen2ForCausalLM, length: int, packed: bool
) -> None:
    torch.manual_seed(length)
    ids = torch.randint(0, 500, (2, length))
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        weights, rotary = read_weights(model, packed), rotary_table(model, 128)
        assert (weights.packed is not None) == packed
        for num_prefilled in {0, length // 2, length - 1}:
            cache = torch.zeros(3, 2, 2, 2, 128, 16)
            if num_prefilled:
                cache[:, :, :, :, :num_prefilled] = prefill(weights, ids[:, :num_prefilled], rotary)
            for position in range(num_prefilled, length):
                logits = decode_step(weights, ids[:, position], torch.full((2,), position), cache, rotary)
                torch.testing.assert_close(logits, expected[:, position], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=NEEDS_PACKED)])
def test_rows_of_different_lengths_share_a_step(model: Qwen2ForCausalLM, packed: bool) -> None:
    first, second = torch.tensor([[3, 4, 5, 6, 7]]), torch.tensor([[8, 9]])
    with torch.inference_mode():
        weights, rotary = read_weights(model, packed), rotary_table(model, 32)
        cache = torch.zeros(3, 2, 2, 2, 32, 16)
        cache[:, :, :1, :, :4] = prefill(weights, first[:, :4], rotary)
        cache[:, :, 1:, :, :1] = prefill(weights, second[:, :1], rotary)
        logits = decode_step(weights, torch.tensor([7, 9]), torch.tensor([4, 1]), cache, rotary)
        torch.testing.assert_close(logits[0], model(input_ids=first).logits[0, -1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits[1], model(input_ids=second).logits[0, -1], rtol=1e-4, atol=1e-4)


@NEEDS_PACKED
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_packed_steps_in_bf16_are_as_near_to_fp32_as_plain_ones(num_kv_heads: int) -> None:
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=num_kv_heads, initializer_range=0.15)  # fmt: skip
    exact = Qwen2ForCausalLM(config).eval()
    rounded = copy.deepcopy(exact).bfloat16()
    ids = torch.randint(0, 300, (5, 21))
    with torch.inference_mode():
        expected = exact(input_ids=ids).logits[:, -1]
        errors = []
        for packed in (False, True):
            weights, rotary = read_weights(rounded, packed), rotary_table(rounded, 32)
            cache = torch.zeros(3, 2, 5, num_kv_heads, 32, 16, dtype=torch.bfloat16)
            cache[:, :, :, :, :20] = prefill(weights, ids[:, :20], rotary)
            logits = decode_step(weights, ids[:, 20], torch.full((5,), 20), cache, rotary)
            errors.append(float((logits.float() - expected).norm() / expected.norm()))
    assert errors[0] < 0.05 and errors[1] < 1.3 * errors[0]


def test_copies_are_made_only_where_they_pay_and_see_later_updates_when_made_anew(
    model: Qwen2ForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_weights(model).packed is None
    assert pack_weights(read_weights(copy.deepcopy(model).half())) is None
    monkeypatch.setattr(packed_weights, "MAX_BYTES", 1000)
    assert pack_weights(read_weights(model)) is None


@NEEDS_PACKED
def test_a_generation_after_an_update_in_place_uses_the_new_weights(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    changing = copy.deepcopy(model)
    engine, sampling = RolloutEngine(changing, tokenizer), Sampling(temperature=0.0, max_new_tokens=24)
    before = tokens_of(engine.generate(PROMPTS, 1, sampling))
    with torch.no_grad():
        changing.model.layers[1].mlp.up_proj.weight.mul_(-3.0)
    after = tokens_of(engine.generate(PROMPTS, 1, sampling))
    assert after != before
    assert after == tokens_of(RolloutEngine(changing, tokenizer).generate(PROMPTS, 1, sampling))


def test_greedy_completions_equal_generate(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    groups = RolloutEngine(model, tokenizer).generate(PROMPTS, 1, Sampling(temperature=0.0, max_new_tokens=24))
    for prompt, (completion,) in zip(PROMPTS, groups, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64), do_sample=False,
            max_new_tokens=24, eos_token_id=stop_ids(tokenizer), pad_token_id=0,
            bad_words_ids=[[index] for index in range(num_real_tokens(tokenizer), model.config.vocab_size)],
        )  # fmt: skip
        assert completion.token_ids == expected[0, len(prompt) :].tolist()


def test_recorded_log_probabilities_are_the_models_own(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    sampling = Sampling(temperature=0.7, max_new_tokens=12)
    groups = RolloutEngine(model, tokenizer).generate(PROMPTS, 2, sampling, seed=3)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for one in group:
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([[*prompt, *one.token_ids]])).logits[0, len(prompt) - 1 : -1]
            log_probs = (logits[:, : num_real_tokens(tokenizer)] / 0.7).log_softmax(-1)
            expected = log_probs.gather(1, torch.tensor(one.token_ids)[:, None]).squeeze(1)
            torch.testing.assert_close(torch.tensor(one.log_probs), expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("num_slots", [1, 3, 7, 64])
def test_draws_do_not_depend_on_batch_or_order(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, num_slots: int
) -> None:
    sampling, keys = Sampling(max_new_tokens=16), ["a", "b", "c", "d", "e"]
    whole = RolloutEngine(model, tokenizer).generate(PROMPTS, 3, sampling, seed=1, keys=keys)
    few = RolloutEngine(model, tokenizer, num_slots).generate(PROMPTS[::-1], 3, sampling, seed=1, keys=keys[::-1])
    assert tokens_of(few[::-1]) == tokens_of(whole)
    alone = RolloutEngine(model, tokenizer, num_slots).generate(PROMPTS[1:2], 2, sampling, seed=1, keys=["b"])
    assert tokens_of(alone)[0] == tokens_of(whole)[1][:2]
    other = RolloutEngine(model, tokenizer, num_slots).generate(PROMPTS, 3, sampling, seed=2, keys=keys)
    assert tokens_of(other) != tokens_of(whole)


def test_a_refilled_slot_remembers_nothing(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    engine = RolloutEngine(model, tokenizer, num_slots=2)
    sampling = Sampling(max_new_tokens=20)
    first = tokens_of(engine.generate(PROMPTS, 4, sampling, seed=5))
    engine.generate([[9] * 60], 6, Sampling(max_new_tokens=20), seed=8)  # fills the same slots with something else
    assert tokens_of(engine.generate(PROMPTS, 4, sampling, seed=5)) == first
    engine.generate([[9]], 2, Sampling(max_new_tokens=5), seed=8)
    assert tokens_of(engine.generate(PROMPTS, 4, sampling, seed=5)) == first


def test_updates_in_place_and_replaced_tensors_are_both_seen(
    tokenizer: PreTrainedTokenizerBase, model: Qwen2ForCausalLM
) -> None:
    changed = copy.deepcopy(model)
    engine, sampling = RolloutEngine(changed, tokenizer), Sampling(temperature=0.0, max_new_tokens=10)
    before = tokens_of(engine.generate(PROMPTS, 1, sampling))
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    in_place = tokens_of(engine.generate(PROMPTS, 1, sampling))
    assert in_place != before
    assert in_place == tokens_of(RolloutEngine(changed, tokenizer).generate(PROMPTS, 1, sampling))
    projection = changed.model.layers[0].self_attn.q_proj
    projection.weight = torch.nn.Parameter(-projection.weight.detach())
    assert tokens_of(engine.generate(PROMPTS, 1, sampling)) == tokens_of(
        RolloutEngine(changed, tokenizer).generate(PROMPTS, 1, sampling)
    )


def test_a_stop_token_ends_a_completion_and_is_kept(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    forced = copy.deepcopy(model)
    end = stop_ids(tokenizer)[0]
    engine, sampling = RolloutEngine(forced, tokenizer), Sampling(max_new_tokens=6)
    plain = engine.generate(PROMPTS, 4, sampling, seed=2)
    assert {one.finish_reason for group in plain for one in group} == {"length"}
    assert all(len(one.token_ids) == len(one.log_probs) == 6 for group in plain for one in group)
    engine.stops_V[plain[0][0].token_ids[2]] = True  # as if the third token drawn were an end
    engine.stop_ids |= {plain[0][0].token_ids[2]}
    stopped = engine.generate(PROMPTS, 4, sampling, seed=2)[0][0]
    assert (stopped.finish_reason, stopped.token_ids) == ("stop", plain[0][0].token_ids[:3])
    assert stopped.text == tokenizer.decode(stopped.token_ids[:2])
    assert end in engine.stop_ids


def test_ended_completions_are_handed_over_at_once_and_once(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    seen: dict[tuple[int, int], Completion] = {}

    def take(index: int, sample: int, completion: Completion) -> None:
        assert (index, sample) not in seen
        seen[index, sample] = completion

    groups = RolloutEngine(model, tokenizer, 3).generate(PROMPTS, 3, Sampling(max_new_tokens=4), on_completion=take)
    assert seen == {(i, s): one for i, group in enumerate(groups) for s, one in enumerate(group)}


def test_padding_ids_are_never_drawn(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    groups = RolloutEngine(model, tokenizer).generate([[1], [2]], 64, Sampling(temperature=5.0, max_new_tokens=30))
    drawn = {token for group in groups for one in group for token in one.token_ids}
    assert max(drawn) < num_real_tokens(tokenizer) and len(drawn) > 500


@pytest.mark.parametrize("single", [True, False])
def test_a_stop_text_ends_a_completion_soon_after_it_and_changes_nothing_before(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, single: bool
) -> None:
    sampling = Sampling(temperature=1.0, max_new_tokens=100)
    whole = RolloutEngine(model, tokenizer, num_slots=3).generate(PROMPTS, 1, sampling, seed=3)
    text = tokenizer.decode(whole[1][0].token_ids[4:7])
    stops = text if single else ("nowhere to be found", text)
    stopped = RolloutEngine(model, tokenizer, num_slots=3).generate(PROMPTS, 1, sampling, seed=3, stop_text=stops)
    ids, shorter = whole[1][0].token_ids, stopped[1][0].token_ids
    assert len(ids) == 100
    assert 7 <= len(shorter) <= 7 + 16
    assert shorter == ids[: len(shorter)]
    others = [index for index in range(len(PROMPTS)) if text not in whole[index][0].text]
    assert len(others) >= 3
    assert all(stopped[index][0].token_ids == whole[index][0].token_ids for index in others)


def test_what_does_not_fit_is_refused(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    engine = RolloutEngine(model, tokenizer)
    with pytest.raises(UserError, match="257 positions; the model has 256"):
        engine.generate([[1]], 1, Sampling(max_new_tokens=256))
    with pytest.raises(UserError, match="number 1 is empty"):
        engine.generate([[1], []], 1, Sampling())
    assert engine.generate([], 1, Sampling()) == []


def test_a_chat_reply_is_the_greedy_completion_of_the_rendered_turns(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    messages = [{"role": "user", "content": "What is 1 + 1?"}]
    sampling = Sampling(temperature=0.0, max_new_tokens=8)
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer.encode(rendered, add_special_tokens=False)
    ((expected,),) = RolloutEngine(model, tokenizer).generate([prompt], 1, sampling)
    assert reply(model, tokenizer, messages, sampling) == expected.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_graphs_on_cuda_draw_what_plain_steps_draw(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    on_cuda = copy.deepcopy(model).to("cuda")
    for sampling in (Sampling(temperature=0.0, max_new_tokens=40), Sampling(max_new_tokens=40)):
        expected = tokens_of(RolloutEngine(model, tokenizer).generate(PROMPTS, 4, sampling, seed=4))
        engine = RolloutEngine(on_cuda, tokenizer, num_slots=8)
        for _ in range(2):  # the second time from captured graphs alone
            assert tokens_of(engine.generate(PROMPTS, 4, sampling, seed=4)) == expected
