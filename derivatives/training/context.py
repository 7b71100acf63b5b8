"""A longer context: other rotary frequencies for a loaded model, and a config.json that everybody reads alike.

Two ways, both transformers' own rotation, so that training, rollouts and a stranger's `from_pretrained` compute the
same numbers:

- another base (adjusted base frequency, arXiv:2309.16039): all frequencies but the fastest get slower. Qwen2.5 went
  from 10,000 at 4,096 tokens to 1,000,000 at 32,768, with training on long texts (arXiv:2412.15115, section 3.3).
- YaRN (arXiv:2309.00071): a frequency that turns less than once within the old context is divided by the factor, one
  that turns more than 32 times stays, between them is a ramp; queries and keys are each multiplied by
  0.1 ln(factor) + 1. Qwen2.5 serves 131,072 tokens by factor 4 over 32,768.

Departure from the paper, as in its authors' own code, transformers and vLLM: the ramp is linear in the number of the
frequency, between whole numbers, not in its turns.

transformers 5 writes and reads `rope_parameters`. Version 4, and tools that read config.json themselves, know
`rope_theta` and `rope_scaling` alone and take a base of 10,000 where they find neither; `older_rope_keys` has these.

Not done: scaling that depends on the length of the text, frequencies of single layers, dual chunk attention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import UserError
from configs.settings.training import Context

PLAIN = ("default", "yarn")
"""Types of rotation that can be moved to a longer context; the others depend on numbers of their own."""


def extend(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: Context | None) -> None:
    """Give a model and its tokenizer a longer context, in place; without a setting nothing changes.

    The frequencies are made anew in FP32, whatever the working precision, by the model's own rotary embedding.

    Raises:
        UserError: The setting does not fit the model; names the field and the remedy.
    """
    if context is None:
        return
    rotary = getattr(model.base_model, "rotary_emb", None)
    if rotary is None:
        raise UserError(
            f"stage.context: {type(model).__name__} has no rotary embedding of its own to change; allowed: models such "
            "as Qwen2ForCausalLM; leave stage.context out"
        )
    parameters = rope_parameters(model.config.rope_parameters, model.config.max_position_embeddings, context)
    model.config.max_position_embeddings = context.length
    model.config.rope_parameters = parameters
    model.base_model.rotary_emb = type(rotary)(model.config).to(model.device)
    tokenizer.model_max_length = context.length


def rope_parameters(old: Mapping[str, Any], num_positions: int, context: Context) -> dict[str, Any]:
    """transformers' `rope_parameters` of the longer context.

    Args:
        old: Those of the model as it is.
        num_positions: Its `max_position_embeddings`.
        context: What is asked for.

    Raises:
        UserError: The model's rotation is of a type that is not known here, or its context is no shorter.
    """
    kind = old.get("rope_type")
    if kind not in PLAIN:
        raise UserError(
            f"stage.context: the model's rotation is of type {kind or 'one for each kind of layer'}; allowed: "
            f"{', '.join(PLAIN)}; leave stage.context out"
        )
    kept = {name: value for name, value in old.items() if name not in ("type", "attention_factor")}
    if context.rope_base is not None:
        if kind == "yarn":
            raise UserError(
                f"stage.context.rope_base: {context.rope_base:g} was given for a model with YaRN, which the new base "
                "would undo; allowed: stage.context.yarn with its original context, or a model without YaRN"
            )
        _require_longer(num_positions, context)
        return {**kept, "rope_theta": context.rope_base}
    assert context.yarn is not None  # one of the two is set
    original = context.yarn.original
    if kind == "yarn" and original != old["original_max_position_embeddings"]:
        raise UserError(
            f"stage.context.yarn.original: {original} was given for a model with YaRN over "
            f"{old['original_max_position_embeddings']}; allowed: {old['original_max_position_embeddings']}; set it"
        )
    if original > num_positions:
        raise UserError(
            f"stage.context.yarn.original: {original} was given, and the model has {num_positions} positions; allowed: "
            f"what it was trained on, up to {num_positions}; lower it"
        )
    if kind == "yarn" or context.length != num_positions:
        # Configs of Qwen2.5 (7B, for one) say 131,072 of models that were trained at 32,768: as many is then no error.
        _require_longer(num_positions, context)
    return {**kept, "rope_type": "yarn", "factor": context.yarn.factor, "original_max_position_embeddings": original}


def _require_longer(num_positions: int, context: Context) -> None:
    if context.length <= num_positions:
        raise UserError(
            f"stage.context.length: {context.length} is not more than the {num_positions} positions that the model "
            f"has; allowed: above {num_positions}; raise it, or leave stage.context out"
        )


def in_words(config: Any) -> str:
    """How long a model's context is and, where it is scaled, over what; for a card. Empty where a config says nothing.

    >>> from transformers import Qwen2Config
    >>> rotation = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768}
    >>> in_words(Qwen2Config(max_position_embeddings=131072, rope_parameters=rotation))
    '131,072 tokens (yarn, 4 times 32,768)'
    """
    num_positions = getattr(config, "max_position_embeddings", None)
    if num_positions is None:
        return ""
    rotation, words = getattr(config, "rope_parameters", None) or {}, f"{num_positions:,} tokens"
    if rotation.get("rope_type", "default") == "default" or "factor" not in rotation:
        return words
    original = rotation.get("original_max_position_embeddings")
    over = f" {original:,}" if original else ""
    return f"{words} ({rotation['rope_type']}, {rotation['factor']:g} times{over})"


def older_rope_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotation of a config.json in the spelling of transformers 4: `rope_theta`, and where scaled `rope_scaling`.

    Both spellings of the type are in it: `rope_type`, and `type`, which Qwen's own instructions use.

    >>> rotation = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768}
    >>> older_rope_keys({"rope_parameters": rotation})["rope_scaling"]
    {'factor': 4.0, 'original_max_position_embeddings': 32768, 'rope_type': 'yarn', 'type': 'yarn'}
    """
    rotation = config.get("rope_parameters")
    if not isinstance(rotation, Mapping) or "rope_theta" not in rotation:
        return {}
    kind = rotation.get("rope_type", "default")
    keys: dict[str, Any] = {"rope_theta": rotation["rope_theta"]}
    if kind != "default":
        scaling = {name: value for name, value in rotation.items() if name != "rope_theta"}
        keys["rope_scaling"] = dict(sorted({**scaling, "rope_type": kind, "type": kind}.items()))
    return keys


def complete_config(path: Path, **more: Any) -> None:
    """Add to a written config.json what others read of the rotation, and what else is given."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {**older_rope_keys(config), **more}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
