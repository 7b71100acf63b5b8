"""Talking to a checkpoint: one reply to a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.settings.common import Sampling
from derivatives.rollout.engine import RolloutEngine
from derivatives.training.chat import encode_chat


def reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    sampling: Sampling,
    seed: int = 0,
) -> str:
    """The assistant's next turn, without its end token.

    Args:
        model: A Qwen2 causal language model.
        tokenizer: Its tokenizer, with a chat template.
        messages: The conversation so far, each with `role` and `content`; the last one is usually the user's.
        sampling: How the reply is drawn; temperature 0 is greedy.
        seed: Of the draw; with the conversation's length it decides the reply.
    """
    engine = RolloutEngine(model, tokenizer, num_slots=1)
    prompt = encode_chat(tokenizer, messages, add_generation_prompt=True)
    ((completion,),) = engine.generate([prompt], 1, sampling, seed, keys=[f"chat/{len(messages)}"])
    return completion.text
