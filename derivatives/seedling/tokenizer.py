"""The seedling's tokenizer: a small byte-level BPE with Qwen2.5's special tokens and pre-tokenizer.

Digits are split one by one, as in Qwen2.5; `<think>` is plain text. As in Qwen2.5 the model's vocabulary is
padded past the last real token: ids from `len(tokenizer)` on must never be sampled.

Source: Qwen2.5 (arXiv:2412.15115), whose `tokenizer.json` set the regular expression, the normaliser and
the special tokens. Departures: no vision tokens, no tool-call tokens, no default system prompt in the chat
template.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

PADDED_VOCAB_SIZE = 2048
NUM_UNUSED_IDS = 8  # Padding past the last real token, as real Qwen2.5 checkpoints have.

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CODE_TOKENS = [
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
]
CONTROL_TOKENS = [END_OF_TEXT, TURN_START, TURN_END]

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of `PADDED_VOCAB_SIZE - NUM_UNUSED_IDS` entries learned from `texts`."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    num_special = len(CONTROL_TOKENS) + len(CODE_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=PADDED_VOCAB_SIZE - NUM_UNUSED_IDS - num_special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL_TOKENS])
    core.add_tokens([AddedToken(token, normalized=False, special=False) for token in CODE_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START, TURN_END],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
