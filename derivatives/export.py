"""Writing a checkpoint that anybody's transformers opens, and proving it before it is shown.

The folder is the plain Hugging Face layout: bf16 safetensors, config, tokenizer with a chat template, generation
config. It is then opened again through `AutoModelForCausalLM` and `AutoTokenizer`, as a stranger would, with none of
this project's attention or loading code, and must give back the very weights, the logits of a probe, tied embeddings
where the source had them, and no probability on ids past the last real token.

Those ids exist because Qwen2.5 pads its vocabulary (151,936 rows against 151,665 tokens). They are listed as
`suppress_tokens` in generation_config.json, which `generate` obeys; an engine that ignores that field has to mask
ids >= len(tokenizer) itself, and the card says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from configs.errors import UserError
from derivatives.training.context import complete_config, in_words

END_OF_TURN, END_OF_TEXT, START_OF_TURN = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
PROBE = "What is 12 + 30? Tom has 3 dogs and 4 birds: how many legs are there?"
PROBE_TEXTS = (
    PROBE,
    "12345.678, 3,000 and -7",
    "def f(x):\n\treturn x ** 2  # two  spaces\n\n",
    "naïve café, 数学, 🙂 e\u0301",
    f"{START_OF_TURN}user\n<think>\\boxed{{4}}</think>{END_OF_TURN}\n{END_OF_TEXT}",
    "  leading and trailing  ",
)
LOGIT_TOLERANCE = 0.05
"""Largest difference of a probe logit: the weights are compared bit for bit, so this only leaves room for bf16 kernels
that depend on memory alignment. A lost rope base or a wrong head moves logits by whole units."""


@dataclass(frozen=True)
class Exported:
    """What was written, as measured on the opened copy."""

    num_parameters: int
    num_tokens: int
    vocab_size: int
    tied_embeddings: bool
    max_logit_difference: float
    size_bytes: int
    context: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def export_model(source: Path, target: Path, system: str | None = None) -> Exported:
    """Write the checkpoint in `source` to the new folder `target` and prove that it opens and is the same model.

    Args:
        source: Hugging Face checkpoint folder.
        target: Folder to create; the caller renames it when all is well.
        system: System prompt that the chat template puts before conversations that bring none.

    Raises:
        UserError: The source is not a whole causal language model with a Qwen2.5 tokenizer, or the disk is too small.
    """
    _check_space(source, target.parent)
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = open_plain(source)
    num_tokens = _check_vocabulary(source, model, tokenizer)
    tokenizer.chat_template = chat_template_with(tokenizer.chat_template or CHATML, system)
    tokenizer.eos_token, tokenizer.pad_token = END_OF_TURN, END_OF_TEXT
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config = _generation_config(tokenizer, num_tokens, model.config.vocab_size)
    tied, context = is_tied(model), in_words(model.config)
    digests, logits = weight_digests(model), probe_logits(model, tokenizer)
    try:
        model.save_pretrained(target, max_shard_size="5GB")
    except SafetensorError as error:
        raise _disk_error(error, target) from error
    complete_config(target / "config.json")
    save_tokenizer(tokenizer, target)
    del model  # the copy is opened next: one model in memory at a time
    encodings = probe_encodings(tokenizer)
    difference = verify_folder(target, Expected(digests, logits, encodings, tied, system))
    flush_folder(target)
    for path in target.iterdir():
        path.chmod(0o644)  # safetensors leaves its file to its owner alone
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    num_parameters = sum(count for count, _ in digests.values())
    vocab_size = int(logits.shape[-1])
    return Exported(num_parameters, num_tokens, vocab_size, tied, difference, size, context)


def open_plain(folder: Path) -> tuple[Any, Any]:
    """Open a checkpoint as any user of transformers would, and refuse one whose weights are not all there."""
    if not (folder / "config.json").is_file():
        raise UserError(f"model: {folder} holds no config.json; give the folder of a Hugging Face checkpoint")
    try:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, local_files_only=True, output_loading_info=True
        )
        model, info = opened
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model: {folder} does not open as a causal language model ({first[:200]}); make that stage again"
        ) from error
    for kind in ("missing_keys", "mismatched_keys"):
        if info.get(kind):  # transformers would fill them with random numbers and only warn
            names = sorted(str(name) for name in info[kind])
            raise UserError(
                f"model: {folder} has {kind.replace('_', ' ')} {names[:3]} ({len(names)} in all); "
                "its weights are not whole, make that stage again"
            )
    return model.eval(), tokenizer


def _check_vocabulary(source: Path, model: Any, tokenizer: Any) -> int:
    """Number of real tokens (largest id + 1), after checking that the special ones are there and all have a row."""
    vocabulary = tokenizer.get_vocab()
    lacking = [token for token in (END_OF_TEXT, START_OF_TURN, END_OF_TURN) if token not in vocabulary]
    if lacking:
        raise UserError(
            f"model: the tokenizer in {source} lacks {', '.join(lacking)}; use a checkpoint with a Qwen2.5 tokenizer"
        )
    num_tokens = max(vocabulary.values()) + 1
    if num_tokens > model.config.vocab_size:
        raise UserError(
            f"model: {source} has {num_tokens} tokens but {model.config.vocab_size} embedding rows; "
            "the tokenizer belongs to another model"
        )
    return num_tokens


def _generation_config(tokenizer: Any, num_tokens: int, vocab_size: int) -> GenerationConfig:
    """Greedy, as evaluated; stops at the end of a turn or of a text; padded ids can never be drawn."""
    end_of_turn, end_of_text = tokenizer.convert_tokens_to_ids([END_OF_TURN, END_OF_TEXT])
    padded = list(range(num_tokens, vocab_size))
    return GenerationConfig(
        do_sample=False,
        eos_token_id=[end_of_turn, end_of_text],
        pad_token_id=end_of_text,
        **({"suppress_tokens": padded} if padded else {}),
    )


def chat_template_with(template: str, system: str | None) -> str:
    """The chat template with another default system prompt, put before conversations that start without one.

    `system` goes in as a Jinja string literal, so that quotes, braces and line breaks stay text.
    """
    if system is None:
        return template
    literal = json.dumps(system, ensure_ascii=False)
    return (
        "{%- if messages and messages[0]['role'] != 'system' %}"
        "{%- set messages = [{'role': 'system', 'content': " + literal + "}] + messages %}{%- endif %}" + template
    )


@dataclass(frozen=True)
class Expected:
    """What an opened copy must give back."""

    digests: dict[str, tuple[int, str]]
    logits_TV: torch.Tensor
    encodings: list[list[int]]
    tied: bool
    system: str | None


def verify_folder(folder: Path, expected: Expected) -> float:
    """Open a written folder afresh and compare it with what was meant; the largest difference of a probe logit.

    Raises:
        UserError: Any difference; the message names it.
    """
    model, tokenizer = open_plain(folder)

    def fail(what: str) -> UserError:
        return UserError(
            f"release: the written model {what}; nothing was released. Check the disk and the installed "
            "transformers, then run the stage again"
        )

    digests = weight_digests(model)
    changed = sorted(name for name in digests | expected.digests if digests.get(name) != expected.digests.get(name))
    if changed:
        raise fail(f"has other weights than its source ({', '.join(changed[:3])})")
    if probe_encodings(tokenizer) != expected.encodings:
        raise fail("has a tokenizer that splits text in another way than its source's")
    difference = float((probe_logits(model, tokenizer) - expected.logits_TV).abs().max())
    if not difference <= LOGIT_TOLERANCE:
        raise fail(f"gives other logits than its source (by {difference:.3g})")
    if is_tied(model) != expected.tied:
        raise fail("lost its tied embeddings" if expected.tied else "tied embeddings that were separate")
    _check_chat(tokenizer, expected.system, fail)
    _check_generation(model, tokenizer, fail)
    return difference


def _check_chat(tokenizer: Any, system: str | None, fail: Any) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROBE}], tokenize=False, add_generation_prompt=True
    )
    if PROBE not in text or not text.endswith(f"{START_OF_TURN}assistant\n"):
        raise fail("has a chat template that does not render a user's turn and open the assistant's")
    if system is not None and f"{START_OF_TURN}system\n{system}{END_OF_TURN}" not in text:
        raise fail("has a chat template that leaves out the default system prompt")


def _check_generation(model: Any, tokenizer: Any, fail: Any) -> None:
    """`generate` with the folder's own settings: both stop ids known, nothing on padded ids."""
    stops = tokenizer.convert_tokens_to_ids([END_OF_TURN, END_OF_TEXT])
    if model.generation_config.eos_token_id != stops:
        raise fail(f"has generation stop ids {model.generation_config.eos_token_id} instead of {stops}")
    num_tokens = max(tokenizer.get_vocab().values()) + 1
    inputs = tokenizer(PROBE, return_tensors="pt")
    drawn = model.generate(
        inputs.input_ids,
        attention_mask=inputs.attention_mask,
        max_new_tokens=1,
        output_scores=True,
        return_dict_in_generate=True,
    )
    if not torch.isneginf(drawn.scores[0][:, num_tokens:]).all():
        raise fail("leaves probability on padded vocabulary ids")


@torch.inference_mode()
def probe_logits(model: Any, tokenizer: Any) -> torch.Tensor:
    """Logits `[T, V]` (float32) of a fixed text."""
    ids = tokenizer(PROBE, return_tensors="pt").input_ids
    return model(input_ids=ids, use_cache=False).logits[0].float()


def save_tokenizer(tokenizer: Any, target: Path) -> None:
    """The tokenizer's files, without the settings of this very call that transformers would write among them."""
    tokenizer.save_pretrained(target)
    path = target / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    kept = {
        key: value for key, value in settings.items() if key not in ("is_local", "local_files_only", "name_or_path")
    }
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def probe_encodings(tokenizer: Any) -> list[list[int]]:
    """Token ids of a few texts that tokenizers are known to disagree on."""
    return [tokenizer(text).input_ids for text in PROBE_TEXTS]


def weight_digests(model: Any) -> dict[str, tuple[int, str]]:
    """Every parameter's number of elements and digest of its bytes; tied ones appear once."""
    return {name: (weight.numel(), _digest(weight)) for name, weight in model.named_parameters()}


def _digest(weight: torch.Tensor) -> str:
    raw = weight.detach().contiguous().view(torch.uint8).numpy()
    return hashlib.blake2b(raw.data, digest_size=16).hexdigest()


def is_tied(model: Any) -> bool:
    """Whether input and output embeddings are one tensor."""
    return model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def _check_space(source: Path, target: Path) -> None:
    needed = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    free = shutil.disk_usage(target).free
    if free < needed:
        raise UserError(
            f"out: {target} has {free / 1e9:.1f} GB free and the model needs {needed / 1e9:.1f} GB; "
            "free space there or give another folder"
        )


def _disk_error(error: SafetensorError, target: Path) -> Exception:
    """safetensors hides the system's error number in its text; a full disk is the user's to mend."""
    if "os error 28" in str(error) or "No space left" in str(error):
        return UserError(f"out: the disk of {target} is full; free space there and run the same command again")
    return error


def flush_folder(folder: Path) -> None:
    """Bring every file of a folder to the disk, so that a rename after it cannot outlive its content."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
