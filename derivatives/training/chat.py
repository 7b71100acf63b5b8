"""ChatML through the tokenizer's own template: conversations to token ids, and which of them are trained on.

One rule keeps sampling and training in step: what stands before a completion is tokenised exactly as
`encode_chat(..., add_generation_prompt=True)` does for a rollout, and the completion is tokenised by itself. So the
ids that the loss sees are the ids that a sampler would have produced.

Format: ChatML as in Qwen2.5 (arXiv:2412.15115). It does not cut or pad, and it adds no system prompt of its own;
a template may (the published Qwen2.5 template does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from configs.errors import UserError

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
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, system: str | None = None
) -> tuple[list[int], int]:
    """Ids of one question and answer, ending with the end-of-turn token, and how many of them are the prompt."""
    prompt_ids = encode_chat(tokenizer, conversation(prompt, system), add_generation_prompt=True)
    return [*prompt_ids, *encode_text(tokenizer, completion), turn_end_id(tokenizer)], len(prompt_ids)


def encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], system: str | None = None
) -> tuple[list[int], list[bool]]:
    """Ids of a conversation and, for each id, whether it is trained on: assistants' contents and their end-of-turn.

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
        turn_ids = [*encode_text(tokenizer, message["content"]), turn_end_id(tokenizer)]
        ids += [*context_ids, *turn_ids]
        trained += [False] * len(context_ids) + [True] * len(turn_ids)
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
