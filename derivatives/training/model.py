"""Checkpoints in Hugging Face layout: opening them with a preflight, and writing them so that others can.

What is checked before any time is spent: the folder, the weights file (truncated, or with tensors missing, which
transformers would fill with random numbers), the architecture, the special tokens, that every token id has a row in
the embedding, and that tied embeddings are tied.

Working weights are in the asked precision; FP32 masters belong to the optimizer (`optimizer.py`). Qwen2.5 facts
(arXiv:2412.15115): the vocabulary is padded past the last real token, chat turns end with `<|im_end|>` while the base
model's end is `<|endoftext|>`, small sizes tie the embeddings. It downloads nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from configs.errors import UserError
from derivatives.training import attention
from derivatives.training.chat import (
    CHATML_TEMPLATE,
    END_OF_TEXT,
    TURN_END,
    TURN_START,
    conversation,
    render,
    token_id,
)
from derivatives.training.checkpoint import disk_full_as_os_error
from derivatives.training.context import complete_config

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
QWEN_BASE_VOCABULARY = 151_643
"""Entries of Qwen's vocab.json; the special tokens follow it."""
QWEN_ADDED_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
"""Qwen2.5's added tokens in order of their published ids, 151643 to 151664."""
NUM_QWEN_SPECIAL = 14
"""How many of them count as special (left out of decoded text), as in Qwen2.5's tokenizer_config."""

Precision = Literal["bf16", "fp32"]


def load_model(
    folder: Path | str, precision: Precision = "bf16", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in the working precision, with packed attention, and its tokenizer.

    Raises:
        UserError: Whatever is wrong with the folder, with its name and what to do.
    """
    folder = Path(folder)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what it would warn of (tensors missing, of another shape) ends below
    check_folder(folder)
    tokenizer = load_tokenizer(folder)
    loaded: Any
    unpacking = _unpacking(folder)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            **unpacking,
            dtype=DTYPES[precision],
            attn_implementation=attention.REGISTERED_NAME,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # safetensors', torch's, the layers' own and the OS's errors, assertions among them
        raise UserError(
            f"model: the weights in {folder} cannot be read ({first_line(error)}); the file is damaged, cut short or "
            "of another shape than config.json says; copy or download the checkpoint again"
        ) from error
    model, loading = loaded
    unread = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if unread:
        raise UserError(
            f"model: {folder} lacks {len(unread)} tensors of the right shape ({', '.join(unread[:3])}, ...); "
            "the checkpoint is incomplete; copy or download it again"
        )
    check_vocabulary(model, tokenizer, folder)
    check_finite(model, folder)
    attention.set_method(model, attention.choose(device, DTYPES[precision], attention.head_dim_of(model)))
    model.get_input_embeddings().padding_idx = None  # else the pad token, which is also the end of text, learns nothing
    return model.to(device).eval(), tokenizer


def _unpacking(folder: Path) -> dict[str, Any]:
    """For an export with 8 or 4 bits: a config that has transformers unpack its weights, as any other folder's are. It
    would keep them packed, and only its own linear layers can use such weights."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return {}
    if settings.get("quant_method") != "compressed-tensors":
        raise UserError(
            f"model: {folder} holds weights with fewer bits by {settings.get('quant_method')!r}; allowed: 16 and 32 "
            "bits, and what `derive export --to int8 | int4` writes"
        )
    config.quantization_config = {**settings, "dequantize": True}
    return {"config": config}


def check_folder(folder: Path) -> None:
    """The folder is there and holds the config of a causal language model. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"model: {folder} is not a folder; give a checkpoint in Hugging Face layout")
    if not (folder / "config.json").is_file():
        raise UserError(f"model: {folder} has no config.json; give a checkpoint in Hugging Face layout")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a field of the wrong type or size has error types of its own
        raise UserError(
            f"model: {folder}/config.json cannot be read ({whole_line(error)}); "
            "give the file that belongs to the weights"
        ) from error
    architectures = list(getattr(config, "architectures", None) or [])
    known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not known or (architectures and not any(name.endswith("ForCausalLM") for name in architectures)):
        raise UserError(
            f"model: {folder} holds {', '.join(architectures) or config.model_type}, which is not a causal language "
            "model; give a checkpoint such as Qwen2.5 (Qwen2ForCausalLM)"
        )
    if "sliding_attention" in (getattr(config, "layer_types", None) or []):
        raise UserError(f"model: {folder} attends in sliding windows, which packing does not do; use full attention")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model: {folder} has no .safetensors file; give a checkpoint with its weights in that format")


def first_line(error: Exception) -> str:
    """The beginning of an error's text, for a one-line message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def whole_line(error: Exception) -> str:
    """An error's text in one line: where the first one names only a field, and the next what is wrong with it."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def check_finite(model: PreTrainedModel, folder: Path) -> None:
    """No weight is NaN or infinite: such a model answers nothing, and training it teaches nothing. Raises UserError."""
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"model: {name} in {folder} holds values that are not finite (NaN or infinity); "
                "the checkpoint is spoilt; copy or download it again, or take an earlier one"
            )


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Every token has an embedding, and tied embeddings share their storage. Raises UserError."""
    rows = len(head_weight(model))
    if num_real_tokens(tokenizer) > rows:
        raise UserError(
            f"model: {folder} has {rows} embedding rows and a tokenizer of {num_real_tokens(tokenizer)} tokens; "
            "the tokenizer belongs to another checkpoint; put the right one beside the weights"
        )
    if model.config.tie_word_embeddings and head_weight(model) is not model.get_input_embeddings().weight:
        model.tie_weights()
        if head_weight(model) is not model.get_input_embeddings().weight:
            raise UserError(f"model: {folder} says its embeddings are tied, but they do not load tied; export it again")


def head_weight(model: PreTrainedModel) -> nn.Parameter:
    """The output projection [V, D]: the embedding itself where they are tied."""
    return model.get_output_embeddings().weight


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder: `tokenizer.json`, or Qwen's `vocab.json` and `merges.txt`.

    A Qwen2.5 vocabulary without its added tokens gets them at their published ids, and a tokenizer without a chat
    template gets plain ChatML.

    Raises:
        UserError: No tokenizer there, or one without the tokens that a chat needs.
    """
    folder = Path(folder)
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
        else:
            raise UserError(f"model: {folder} has no tokenizer.json (nor vocab.json and merges.txt); put one there")
    except UserError:
        raise
    except Exception as error:  # whatever transformers stumbles on in a file that is not what it takes it for
        raise UserError(
            f"model: the tokenizer in {folder} cannot be read ({first_line(error)}); "
            "put the tokenizer files that belong to the weights there"
        ) from error
    add_qwen_tokens(tokenizer)
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise UserError(f"model: the tokenizer in {folder} lacks {', '.join(missing)}; a chat needs them: add them")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHATML_TEMPLATE
    check_template(tokenizer, folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = END_OF_TEXT
    return tokenizer


def check_template(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The chat template renders a question. Raises UserError."""
    try:
        render(tokenizer, conversation("1 + 1"), add_generation_prompt=True)
    except Exception as error:  # the template engine's own, or any that the template raises
        raise UserError(
            f"model: the chat template in {folder} cannot be used ({whole_line(error)}); "
            "mend it, or remove it to have plain ChatML"
        ) from error


def add_qwen_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Add Qwen2.5's special tokens to a bare Qwen2 vocabulary; anything else is left as it is."""
    vocabulary = tokenizer.get_vocab()
    if sum(token not in QWEN_ADDED_TOKENS for token in vocabulary) != QWEN_BASE_VOCABULARY:
        return
    tokens = [
        AddedToken(token, special=index < NUM_QWEN_SPECIAL, normalized=False)
        for index, token in enumerate(QWEN_ADDED_TOKENS)
        if token not in vocabulary
    ]
    tokenizer.add_tokens(tokens)
    for index, token in enumerate(QWEN_ADDED_TOKENS):
        if tokenizer.convert_tokens_to_ids(token) != QWEN_BASE_VOCABULARY + index:
            raise UserError(
                f"model: the tokenizer gives {token} the id {tokenizer.convert_tokens_to_ids(token)}, Qwen2.5 gives it "
                f"{QWEN_BASE_VOCABULARY + index}; put Qwen2.5's own tokenizer_config.json beside the vocabulary"
            )


def num_real_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest token id; ids from here on are padding of the embedding and must never be sampled."""
    return max(tokenizer.get_vocab().values()) + 1


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end a completion: the end of a turn, then the end of text."""
    return [token_id(tokenizer, token) for token in (TURN_END, END_OF_TEXT)]


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | str,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write bf16 safetensors, config, tokenizer with its template, and a generation config that stops at both ends.

    The config says the rotation in both spellings, that of transformers 5 and the one before (`context.py`).

    The folder appears whole or not at all; one that is there already is replaced. `weights` are taken in place of the
    model's own, where those are spread over several ranks.
    """
    folder = Path(folder)
    transformers_logging.disable_progress_bar()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        partial.chmod(0o755)
        given = model.state_dict() if weights is None else weights
        plain = {name: tensor.detach().to("cpu", torch.bfloat16) for name, tensor in given.items()}
        if model.config.tie_word_embeddings:
            plain.pop("lm_head.weight", None)
        with disk_full_as_os_error(folder.parent):
            model.save_pretrained(partial, state_dict=plain)
        complete_config(partial / "config.json", dtype="bfloat16")  # whatever precision it was trained in
        if tokenizer.chat_template is None:
            tokenizer.chat_template = CHATML_TEMPLATE
        tokenizer.save_pretrained(partial)
        GenerationConfig(
            eos_token_id=stop_ids(tokenizer), pad_token_id=token_id(tokenizer, END_OF_TEXT)
        ).save_pretrained(partial)
        sync_folder(partial)
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Put a folder's files on the disk, so that a rename after it never shows files without their content."""
    for path in [*(path for path in folder.rglob("*") if path.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_folder(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`; a reader finds the old or the new one, or for an instant none."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)
