"""Text to token ids with the base checkpoint's own tokenizer.

Every document ends with `<|endoftext|>`. One longer than the sequence length is split, at the end of a line where
one lies in the second half of the piece; every piece ends with `<|endoftext|>` too, so that each is a document to
the training stages. Without those ends the pieces are the document's tokens, none lost and none added.

Text is data: the string `<|im_end|>` inside a document becomes ordinary tokens, never the special one. For that the
encoder is the tokenizer without its added tokens; it is checked at the start that none of them can come out.

`corpora/words.py` encodes the texts with a tokenizer of Qwen2.5's kind; others go through the tokenizer in batches, on
its own threads. The ids are the tokenizer's either way.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from configs.errors import UserError
from corpora.words import WordEncoder

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
        self._words = WordEncoder(self._plain, TOKEN_DTYPE) if WordEncoder.fits(self._plain) else None
        self._added = {token.content: token_id for token_id, token in tokenizer.get_added_tokens_decoder().items()}
        vocabulary = tokenizer.get_vocab()
        ids = np.fromiter(vocabulary.values(), dtype=np.int64, count=len(vocabulary))
        self._ends_line = np.zeros(int(ids.max()) + 1, dtype=bool)
        self._ends_line[ids] = [token.endswith(_NEWLINE_MARK) for token in vocabulary]
        self._num_bytes = np.zeros(len(self._ends_line), dtype=np.int64)
        self._num_bytes[ids] = [len(token) for token in vocabulary]  # a character of byte-level BPE's is a byte
        self._check_specials(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids (uint32) of each text, without any end mark."""
        if self._words is not None:
            return self._words.encode(texts)
        encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=TOKEN_DTYPE) for encoding in encodings]

    def added_id(self, content: str) -> int:
        """Id of an added token. Raises UserError for a tokenizer that does not have it."""
        if content not in self._added:
            raise UserError(f"inputs.base: its tokenizer has no {content}, which fim and level: repository need; give "
                            "a checkpoint of the Qwen2.5 family, or remove them")
        return self._added[content]

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

    def with_pieces(self, texts: Sequence[str], sequence_length: int) -> list[list[tuple[str, np.ndarray]]]:
        """Each text as pieces of at most `sequence_length` tokens without an end mark: the part of the text, its ids.

        The parts put together are the text; a character that lies across two pieces counts to the second.
        """
        found = []
        for text, ids in zip(texts, self.encode(texts), strict=True):
            ends = list(accumulate(len(piece) - 1 for piece in self.pieces(ids, sequence_length + 1)))
            places = [0, *self._places(text, ids, ends[:-1]), len(text)]
            found.append([(text[places[i]:places[i + 1]], ids[begin:end])
                          for i, (begin, end) in enumerate(pairwise([0, *ends]))])
        return found

    def _places(self, text: str, ids: np.ndarray, ends: list[int]) -> list[int]:
        """Characters of the text before each of these tokens; one that lies across counts to what follows."""
        if not ends:
            return []
        encoded = text.encode("utf-8")
        sizes = np.cumsum(self._num_bytes[ids])
        if int(sizes[-1]) != len(encoded) or not unicodedata.is_normalized("NFC", text):
            # The tokens are those of the composed text.
            offsets = self._plain.encode(text, add_special_tokens=False).offsets
            return [offsets[end][0] for end in ends]
        places, begin, place = [], 0, 0
        for end in sizes[np.array(ends) - 1].tolist():
            while encoded[end] & 0xC0 == 0x80:  # within a character
                end -= 1
            place += len(encoded[begin:end].decode("utf-8"))
            places.append(place)
            begin = end
        return places

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


def tokenizer_json(checkpoint: Path) -> str:
    """The checkpoint's tokenizer as the text of one tokenizer.json, of which `load_encoder` makes the same encoder."""
    file = checkpoint / "tokenizer.json"
    return file.read_text(encoding="utf-8") if file.exists() else str(_read_tokenizer(checkpoint).to_str())


def _read_tokenizer(checkpoint: Path) -> Tokenizer:
    if (checkpoint / "tokenizer.json").exists():
        return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True).backend_tokenizer


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer of the same model (shared, not read again) that makes nothing but the model's tokens."""
    plain = Tokenizer(tokenizer.model)
    # Its parts cannot be set to None, which is what they begin as.
    if tokenizer.normalizer is not None:
        plain.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        plain.pre_tokenizer = tokenizer.pre_tokenizer
    return plain
