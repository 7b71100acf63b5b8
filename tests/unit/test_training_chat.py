"""Conversations to token ids, and which of them are trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from derivatives.training.chat import (
    conversation,
    encode_chat,
    encode_example,
    encode_messages,
    encode_text,
    turn_end_id,
)
from derivatives.training.model import load_tokenizer
from tests.training_fixtures import write_tokenizer
from verifiers.tool_text import output_block


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerBase:
    write_tokenizer(tmp_path)
    return load_tokenizer(tmp_path)


def test_a_tokenizer_without_a_template_speaks_plain_chatml(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode_chat(tokenizer, conversation("Hi", system="Be kind"), add_generation_prompt=True)
    expected = "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == expected


def test_an_example_begins_with_the_ids_that_a_rollout_is_given(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, trained = encode_example(tokenizer, "1 + 1 =", "2", system=None)
    num_prompt = trained.index(True)
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
    assert (ids, trained) == encode_example(tokenizer, "What?", "That.", system="Short")
    assert tokenizer.decode(ids[trained.index(True) :]) == "That.<|im_end|>" and all(trained[trained.index(True) :])


def test_what_an_interpreter_said_is_context_that_is_not_learnt(tokenizer: PreTrainedTokenizerBase) -> None:
    written, rest = "Run it.\n```python\nprint(6 * 7)\n```", "It is 42."
    fed = output_block("42")
    ids, trained = encode_example(tokenizer, "6 * 7?", written + fed + rest)
    start = len(encode_chat(tokenizer, conversation("6 * 7?")))
    parts = [encode_text(tokenizer, part) for part in (written, fed, rest)]
    assert ids[start:] == [token for part in parts for token in part] + [turn_end_id(tokenizer)]
    flags = [[name == "drawn"] * len(part) for name, part in zip(("drawn", "fed", "drawn"), parts, strict=True)]
    assert trained[start:] == [flag for part in flags for flag in part] + [True] and not any(trained[:start])
    messages = [*conversation("6 * 7?"), {"role": "assistant", "content": written + fed + rest}]
    assert encode_messages(tokenizer, messages) == (ids, trained)


def test_an_output_may_be_learnt_where_it_is_asked_for_and_stands_after_no_program(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    answer = "```python\nprint(1)\n```" + output_block("1")
    _, trained = encode_example(tokenizer, "?", answer, learn_outputs=True)
    assert sum(trained) == len(answer) + 1
    _, trained = encode_example(tokenizer, "?", "It says:" + output_block("1"))
    assert sum(trained) == len("It says:" + output_block("1")) + 1


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
