"""Text to token ids with the base checkpoint's own tokenizer.

Every document ends with `<|endoftext|>`. One longer than the sequence length is split, at the end of a line where
one lies in the second half of the piece; every piece ends with `<|endoftext|>` too, so that each is a document to
the training stages. Without those ends the pieces are the document's tokens, none lost and none added.

Text is data: the string `<|im_end|>` inside a document becomes ordinary tokens, never the special one. For that the
encoder is the tokenizer without its added tokens; it is checked at the start that none of them can come out.

Batches are encoded in parallel by the tokenizer's own threads; the ids do not depend on their number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from configs.errors import UserError

END_OF_TEXT = "<|endoftext|>"
TOKEN_DTYPE = np.dtype("<u4")
_NEWLINE_MARK = "Ċ"
"""How byte-level BPE writes a line feed in its vocabulary."""


class Encoder:
    """Encodes text without special tokens and knows where a document may be split."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        end_id = tokenizer.token_to_id(END_OF_TEXT)
        if end_id is None:
            raise UserError(f"inputs.base: its tokenizer has no {END_OF_TEXT}; give a checkpoint of the Qwen2.5 family")
        self.end_id: int = end_id
        self._plain = _without_added_tokens(tokenizer)
        self._ends_line = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=bool)
        for token, token_id in tokenizer.get_vocab().items():
            self._ends_line[token_id] = token.endswith(_NEWLINE_MARK)
        self._check_specials(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids (uint32) of each text, without any end mark."""
        encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=TOKEN_DTYPE) for encoding in encodings]

    def pieces(self, ids: np.ndarray, sequence_length: int) -> list[np.ndarray]:
        """A document as pieces of at most `sequence_length` tokens, each ending with the end-of-text id."""
        room = sequence_length - 1
        pieces = []
        start = 0
        while start < len(ids):
            stop = min(start + room, len(ids))
            if stop < len(ids):
                stop = self._line_end(ids, start + (room + 1) // 2, stop)
            pieces.append(np.append(ids[start:stop], TOKEN_DTYPE.type(self.end_id)))
            start = stop
        return pieces

    def _line_end(self, ids: np.ndarray, first: int, stop: int) -> int:
        """The last place in (first, stop] that follows a line feed, else `stop`."""
        after = np.flatnonzero(self._ends_line[ids[first:stop]])
        return first + int(after[-1]) + 1 if len(after) else stop

    def _check_specials(self, tokenizer: Tokenizer) -> None:
        """No added token may come out of plain text. Raises UserError for a tokenizer in which one does."""
        added = {token.content: token_id for token_id, token in tokenizer.get_added_tokens_decoder().items()}
        for (content, token_id), ids in zip(added.items(), self.encode([f"a {c} b" for c in added]), strict=True):
            if token_id in ids:
                raise UserError(f"inputs.base: its tokenizer turns the plain text {content!r} into the special token "
                                f"{token_id}; give a checkpoint with a byte-level BPE tokenizer, as Qwen2.5 has")


def load_encoder(checkpoint: Path, num_threads: int | None) -> Encoder:
    """The encoder of a checkpoint folder. `num_threads` bounds the tokenizer's threads; empty takes all cores."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if num_threads is not None:
        os.environ["RAYON_NUM_THREADS"] = str(num_threads)
    if not checkpoint.is_dir():
        raise UserError(f"inputs.base.path: {checkpoint} is not a folder; give the folder of a Hugging Face checkpoint")
    try:
        return Encoder(_read_tokenizer(checkpoint))
    except UserError:
        raise
    except Exception as error:  # the libraries raise bare Exception, OSError and ValueError for a broken file
        raise UserError(f"inputs.base.path: the tokenizer in {checkpoint} cannot be read ({str(error)[:200]}); "
                        "it needs tokenizer.json, or vocab.json and merges.txt") from error


def _read_tokenizer(checkpoint: Path) -> Tokenizer:
    if (checkpoint / "tokenizer.json").exists():
        return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True).backend_tokenizer


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    description = json.loads(tokenizer.to_str())
    description.update(added_tokens=[], truncation=None, padding=None, post_processor=None)
    return Tokenizer.from_str(json.dumps(description))
