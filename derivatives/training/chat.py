"""ChatML through the tokenizer's own template: conversations to token ids, and which of them are trained on.

One rule keeps sampling and training in step: what stands before a completion is tokenised exactly as
`encode_chat(..., add_generation_prompt=True)` does for a rollout, and the completion is tokenised by itself. So the
ids that the loss sees are the ids that a sampler would have produced.

What an interpreter said inside an answer (`verifiers/tool_text.py`) was fed to the sampler, tokenised by itself. So it
is here, and it is not trained on: a model that learnt to write it would learn to make it up.

Format: ChatML as in Qwen2.5 (arXiv:2412.15115). It does not cut or pad, and it adds no system prompt of its own;
a template may (the published Qwen2.5 template does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from verifiers.tool_text import fed_spans

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Written into a checkpoint whose tokenizer has no template: Qwen2.5's, without its default system prompt."""

Message = Mapping[str, str]
ROLES = ("system", "user", "assistant", "tool")


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with nothing added before or after it."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    """The conversation as text, by the tokenizer's template."""
    turns = [dict(message) for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt))


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool = True
) -> list[int]:
    """Token ids of a conversation; with a generation prompt they end where an assistant turn's content begins."""
    return encode_text(tokenizer, render(tokenizer, messages, add_generation_prompt))


def conversation(prompt: str, system: str | None = None) -> list[dict[str, str]]:
    """The messages of a single question, with a system prompt before it if one is given."""
    before = [{"role": "system", "content": system}] if system is not None else []
    return [*before, {"role": "user", "content": prompt}]


def encode_example(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    completion: str,
    system: str | None = None,
    learn_outputs: bool = False,
) -> tuple[list[int], list[bool]]:
    """Ids of one question and answer, ending with the end-of-turn token, and whether each is trained on: the answer.

    What an interpreter said inside it is not trained on, unless `learn_outputs` says so.
    """
    prompt_ids = encode_chat(tokenizer, conversation(prompt, system), add_generation_prompt=True)
    answer_ids, trained = encode_answer(tokenizer, completion, learn_outputs)
    return [*prompt_ids, *answer_ids], [*([False] * len(prompt_ids)), *trained]


def encode_answer(
    tokenizer: PreTrainedTokenizerBase, text: str, learn_outputs: bool = False
) -> tuple[list[int], list[bool]]:
    """Ids of what an assistant says with the token that ends its turn, and whether each is trained on.

    Args:
        tokenizer: With a chat template.
        text: The turn's content.
        learn_outputs: Train on what an interpreter said too, tokenised as the rest of the text.
    """
    ids: list[int] = []
    trained: list[bool] = []
    position = 0
    for start, end in [] if learn_outputs else fed_spans(text):
        written, fed = encode_text(tokenizer, text[position:start]), encode_text(tokenizer, text[start:end])
        ids += [*written, *fed]
        trained += [True] * len(written) + [False] * len(fed)
        position = end
    rest = [*encode_text(tokenizer, text[position:]), turn_end_id(tokenizer)]
    return [*ids, *rest], [*trained, *([True] * len(rest))]


def encode_messages(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    system: str | None = None,
    learn_outputs: bool = False,
) -> tuple[list[int], list[bool]]:
    """Ids of a conversation and, for each id, whether it is trained on: assistants' contents and their end-of-turn.

    What an interpreter said inside a content is not trained on, unless `learn_outputs` says so.

    The row ends with the last assistant turn's end-of-turn token; what a user says after it teaches nothing.

    Raises:
        UserError: A message without role or content, no assistant turn, or a template that rewrites earlier turns
            when later ones come (then no id sequence fits all of its turns).
    """
    messages = checked_messages(messages)
    if system is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    ids: list[int] = []
    trained: list[bool] = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:index], add_generation_prompt=True)
        after = render(tokenizer, messages[: index + 1], add_generation_prompt=False)
        turn = message["content"] + TURN_END
        if not before.startswith(done) or not after.startswith(before + turn):
            raise UserError(
                f"messages.{index}: the tokenizer's chat template rewrites this conversation as it grows; "
                "give each turn as an example of its own (prompt and completion)"
            )
        context_ids = encode_text(tokenizer, before[len(done) :])
        turn_ids, turn_trained = encode_answer(tokenizer, message["content"], learn_outputs)
        ids += [*context_ids, *turn_ids]
        trained += [*([False] * len(context_ids)), *turn_trained]
        done = before + turn
    return ids, trained


def checked_messages(messages: object) -> list[Message]:
    """The messages if they are a conversation with an assistant turn. Raises UserError naming what is wrong."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise UserError(f"messages: {str(messages)[:80]!r} is not a list of turns; give [{{role, content}}, ...]")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise UserError(f"messages.{index}.content: {str(message)[:80]!r} has no text; a turn has role and content")
        if message.get("role") not in ROLES:
            raise UserError(f"messages.{index}.role: {message.get('role')!r} is unknown; allowed: {', '.join(ROLES)}")
    if all(message["role"] != "assistant" for message in messages):
        raise UserError("messages: no turn of the assistant, so nothing to train on; add one or leave the row out")
    return list(messages)


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that ends a turn."""
    return token_id(tokenizer, TURN_END)


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of a token that the tokenizer has (`model.load_tokenizer` made sure of those that a chat needs)."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found
