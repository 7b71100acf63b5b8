"""Bits per byte on held-out text: what a model still knows of what it was not trained on.

A text is cut into windows, each predicted from its first token on after an end-of-text token, so that every token
counts once. Bytes are those of the text in UTF-8, so models with different tokenizers compare. What each document needs
is kept apart, so that two models can be compared on the same documents (`statistics.relative_rise`).

Long documents are cut short for an evaluation: many beginnings say more of a kind of text than a few whole files, and
an interval over documents needs many of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs import stall
from configs.errors import UserError
from configs.settings.corpus import CorpusSource
from corpora.sources import texts
from derivatives.losses.cross_entropy import chunked_log_probs
from derivatives.training.batch import Row, pack
from derivatives.training.chat import END_OF_TEXT, encode_text
from derivatives.training.forward import hidden_states
from derivatives.training.model import head_weight, num_real_tokens
from derivatives.training.ranks import ALONE, Ranks

MAX_BYTES = 200_000
"""Text that is read of each source; the figure's error is then well below a hundredth of a bit."""
MAX_DOCUMENT_BYTES = 16_384
"""Of one document, in an evaluation: our choice; half of the standard library's files are below it."""
WINDOW_TOKENS = 1024
_BATCH_TOKENS = 8192

Cost = tuple[int, float]
"""Bytes of a document, and the bits that a model needs for it."""


def read_texts(
    sources: Sequence[CorpusSource], max_bytes: int = MAX_BYTES, max_document_bytes: int | None = None
) -> dict[str, list[str]]:
    """The first texts of each source, by name. Raises UserError for a source without any.

    Args:
        sources: Where they come from.
        max_bytes: Reading stops after so many bytes of a source.
        max_document_bytes: A longer text is cut there; None keeps it whole.
    """
    found: dict[str, list[str]] = {}
    for source in sources:
        chosen: list[str] = []
        num_bytes = 0
        for text in texts(source):
            kept = text if max_document_bytes is None else beginning(text, max_document_bytes)
            chosen.append(kept)
            num_bytes += len(kept.encode("utf-8", "surrogatepass"))
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


def beginning(text: str, max_bytes: int) -> str:
    """The first whole lines of a text that take at most so many bytes; where the first line is longer, part of it.

    >>> beginning("ab\\ncd\\nef", 7), beginning("abcdef", 4), beginning("ab", 4)
    ('ab\\ncd\\n', 'abcd', 'ab')
    """
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= max_bytes:
        return text
    cut = encoded[:max_bytes].decode("utf-8", "ignore")
    return cut[: cut.rfind("\n") + 1] or cut


def text_rows(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], max_positions: int
) -> tuple[list[Row], int]:
    """The windows of documents as rows, and the bytes that they stand for."""
    rows = [row for document in documents for row in _windows(tokenizer, document, max_positions)]
    return rows, sum(map(_num_bytes, documents))


@torch.inference_mode()
def document_costs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], ranks: Ranks = ALONE
) -> list[Cost]:
    """Bytes and bits of each document; every rank works out a share, and must call it."""
    rows: list[Row] = []
    owners: list[int] = []
    for number, document in enumerate(documents):
        windows = _windows(tokenizer, document, model.config.max_position_embeddings)
        rows += windows
        owners += [number] * len(windows)
    nats = np.zeros(len(documents))
    for batch in pack(rows, _BATCH_TOKENS)[ranks.rank :: ranks.num]:
        placed = batch.to(model.device)
        log_probs_T, _ = chunked_log_probs(
            hidden_states(model, placed), head_weight(model), placed.targets_T,
            num_real_tokens=num_real_tokens(tokenizer),
        )  # fmt: skip
        stall.alive()  # a large model may read for longer than a stage without progress
        by_row = log_probs_T.double().cpu().split(list(batch.lengths))
        for index, own in zip(batch.row_indices, by_row, strict=True):
            nats[owners[index]] -= float(own.sum())
    total = np.sum(ranks.gather_numbers(nats.tolist()), axis=0)
    return [(_num_bytes(one), float(value) / math.log(2)) for one, value in zip(documents, total, strict=True)]


def bits_per_byte(costs: Iterable[Cost]) -> float:
    """Bits of all documents over their bytes.

    >>> bits_per_byte([(100, 150.0), (300, 250.0)])
    1.0
    """
    num_bytes, bits = map(sum, zip(*costs, strict=True))
    return bits / num_bytes


def _windows(tokenizer: PreTrainedTokenizerBase, document: str, max_positions: int) -> list[Row]:
    (start,) = encode_text(tokenizer, END_OF_TEXT)
    window = min(WINDOW_TOKENS, max_positions) - 1
    ids = tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
    return [Row([start, *ids[place : place + window]]) for place in range(0, len(ids), window)]


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
