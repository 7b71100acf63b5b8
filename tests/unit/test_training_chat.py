"""Conversations to token ids, and which of them are trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from derivatives.training.chat import conversation, encode_chat, encode_example, encode_messages
from derivatives.training.model import load_tokenizer
from tests.training_fixtures import write_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerBase:
    write_tokenizer(tmp_path)
    return load_tokenizer(tmp_path)


def test_a_tokenizer_without_a_template_speaks_plain_chatml(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode_chat(tokenizer, conversation("Hi", system="Be kind"), add_generation_prompt=True)
    expected = "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == expected


def test_an_example_begins_with_the_ids_that_a_rollout_is_given(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, num_prompt = encode_example(tokenizer, "1 + 1 =", "2", system=None)
    assert ids[:num_prompt] == encode_chat(tokenizer, conversation("1 + 1 ="), add_generation_prompt=True)
    assert tokenizer.decode(ids[num_prompt:]) == "2<|im_end|>"


def test_only_what_the_assistant_says_and_its_end_is_trained_on(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")]
    ids, trained = encode_messages(tokenizer, [{"role": role, "content": text} for role, text in turns])
    learnt = [token for token, flag in zip(ids, trained, strict=True) if flag]
    assert tokenizer.decode(learnt) == "b<|im_end|>d<|im_end|>"
    assert tokenizer.decode(ids).endswith("<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>")


def test_one_turn_as_messages_gives_the_same_ids_as_prompt_and_completion(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [*conversation("What?"), {"role": "assistant", "content": "That."}]
    ids, trained = encode_messages(tokenizer, messages, system="Short")
    same_ids, num_prompt = encode_example(tokenizer, "What?", "That.", system="Short")
    assert ids == same_ids
    assert trained == [index >= num_prompt for index in range(len(ids))]


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "messages:"),
        ("hello", "messages:"),
        ([{"role": "assistant"}], "messages.0.content"),
        ([{"role": "bot", "content": "x"}], "messages.0.role: 'bot'"),
        ([{"role": "user", "content": "x"}], "no turn of the assistant"),
    ],
)
def test_a_conversation_that_cannot_be_trained_on_is_named(
    tokenizer: PreTrainedTokenizerBase, messages: object, named: str
) -> None:
    with pytest.raises(UserError, match=named):
        encode_messages(tokenizer, messages)  # type: ignore[arg-type]


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ messages | length }}" + str(tokenizer.chat_template)
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    with pytest.raises(UserError, match="rewrites this conversation"):
        encode_messages(tokenizer, [{"role": role, "content": text} for role, text in turns])
