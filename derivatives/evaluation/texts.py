"""Bits per byte on held-out text: what a model still knows of what it was not trained on.

A text is cut into windows, each predicted from its first token on after an end-of-text token, so that every token
counts once. Bytes are those of the text in UTF-8, so models with different tokenizers compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import UserError
from configs.settings.corpus import CorpusSource
from corpora.sources import texts
from derivatives.losses.cross_entropy import chunked_cross_entropy
from derivatives.training.batch import Row, pack
from derivatives.training.chat import END_OF_TEXT, encode_text
from derivatives.training.forward import hidden_states
from derivatives.training.model import head_weight, num_real_tokens
from derivatives.training.ranks import ALONE, Ranks

MAX_BYTES = 200_000
"""Text that is read of each source; the figure's error is then well below a hundredth of a bit."""
WINDOW_TOKENS = 1024
_BATCH_TOKENS = 8192


def read_texts(sources: Sequence[CorpusSource], max_bytes: int = MAX_BYTES) -> dict[str, list[str]]:
    """The first texts of each source, by name. Raises UserError for a source without any."""
    found: dict[str, list[str]] = {}
    for source in sources:
        chosen: list[str] = []
        num_bytes = 0
        for text in texts(source):
            chosen.append(text)
            num_bytes += len(text.encode("utf-8", "surrogatepass"))
            if num_bytes >= max_bytes:
                break
        if not chosen:
            raise UserError(
                f"heldout_text: {source.name} (split {source.split}) has no text; name another source or split"
            )
        plain = Path(source.name).name if source.name.endswith(".jsonl") else source.name
        name = plain if plain not in found else f"{plain}#{len(found) + 1}"
        found[name] = chosen
    return found


def text_rows(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], max_positions: int
) -> tuple[list[Row], int]:
    """The windows of documents as rows, and the bytes that they stand for."""
    (start,) = encode_text(tokenizer, END_OF_TEXT)
    window = min(WINDOW_TOKENS, max_positions) - 1
    rows: list[Row] = []
    for document in documents:
        ids = tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
        rows += [Row([start, *ids[place : place + window]]) for place in range(0, len(ids), window)]
    return rows, sum(len(document.encode("utf-8", "surrogatepass")) for document in documents)


@torch.inference_mode()
def bits_per_byte(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], ranks: Ranks = ALONE
) -> float:
    """Bits that the model needs for each byte of the documents; every rank works out a share, and must call it."""
    rows, num_bytes = text_rows(tokenizer, documents, model.config.max_position_embeddings)
    nats = 0.0
    for batch in pack(rows, _BATCH_TOKENS)[ranks.rank :: ranks.num]:
        placed = batch.to(model.device)
        hidden_TE = hidden_states(model, placed)
        nats += float(
            chunked_cross_entropy(
                hidden_TE, head_weight(model), placed.targets_T, placed.weights_T, num_real_tokens(tokenizer)
            )
        )
    total = sum(own for (own,) in ranks.gather_numbers([nats]))
    return total / math.log(2) / num_bytes
