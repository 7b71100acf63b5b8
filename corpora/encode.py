"""Documents as records of the product: token pieces, or JSON lines.

| output | record |
|---|---|
| tokens | little-endian uint32 ids of one piece, ending with the end-of-text id |
| examples | `{"id", "source", "prompt", "completion"}`, or `messages` instead of the two |
| problems | `{"id", "source", "prompt", "answer", "verifier", "metadata"}` |

An example whose prompt and completion have more tokens than the sequence length is dropped as `too_long`; the few
tokens that a chat template adds are not counted here (`sft.max_length` counts them).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from corpora.document import Document
from corpora.dropped import DropLog
from corpora.shelf import Shelf
from corpora.tokens import Encoder
from verifiers.tasks import normalise_question

HASH_BYTES = 8


def question_hash(question: str) -> int:
    """BLAKE2b of the normalised question, 8 bytes, as a number."""
    key = normalise_question(question).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=HASH_BYTES).digest(), "big")


class Shelver:
    """Turns clean documents into records of one output and puts them on a shelf."""

    def __init__(self, output: str, encoder: Encoder | None, sequence_length: int) -> None:
        assert encoder is not None or output == "problems"
        self._shelve = {"tokens": self._tokens, "examples": self._examples, "problems": self._problems}[output]
        self._encoder = encoder
        self._sequence_length = sequence_length

    def shelve(self, batch: list[Document], shelf: Shelf, dropped: DropLog) -> None:
        """Add the batch to the shelf; what is too long is dropped (examples) or split (tokens)."""
        self._shelve(batch, shelf, dropped)

    def _tokens(self, batch: list[Document], shelf: Shelf, dropped: DropLog) -> None:
        assert self._encoder is not None
        for document, ids in zip(batch, self._encoder.encode([one.text for one in batch]), strict=True):
            pieces = self._encoder.pieces(ids, self._sequence_length)
            shelf.add([piece.tobytes() for piece in pieces], [len(piece) for piece in pieces], _hashes(document))

    def _examples(self, batch: list[Document], shelf: Shelf, dropped: DropLog) -> None:
        assert self._encoder is not None
        parts = [[turn["content"] for turn in one.messages] or [one.prompt, one.completion] for one in batch]
        lengths = iter([len(ids) for ids in self._encoder.encode([part for one in parts for part in one])])
        for document, one in zip(batch, parts, strict=True):
            num_tokens = sum(next(lengths) for _ in one)
            if num_tokens > self._sequence_length:
                dropped.add(document, "too_long", tokens=num_tokens)
                continue
            content: dict[str, Any] = {"messages": list(document.messages)} if document.messages else \
                {"prompt": document.prompt, "completion": document.completion}
            shelf.add([_line(document, content)], [num_tokens], _hashes(document))

    def _problems(self, batch: list[Document], shelf: Shelf, dropped: DropLog) -> None:
        for document in batch:
            content = {"prompt": document.prompt, "answer": document.answer, "verifier": document.verifier,
                       "metadata": document.metadata}
            shelf.add([_line(document, content)], [0], _hashes(document))


def _line(document: Document, content: dict[str, Any]) -> bytes:
    line = {"id": document.id, "source": document.source, **content}
    # A lone surrogate in an id or in metadata comes out as the JSON escape that it was.
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _hashes(document: Document) -> list[int]:
    return [question_hash(question) for question in document.questions()]
