"""Exact duplicates: the first document wins, so sources are read in their order of precedence.

Two documents are the same when their text is, after Unicode composition (NFC) and with every run of white space
taken as one space. Case, punctuation and digits count: `a + b` and `a - b` are two documents. A problem is known by
its question, an example by its question and completion. Near-duplicates are not looked for.

Hashes are 128 bits of BLAKE2b: among 10^12 documents two different ones collide with a chance of about 10^-15. `Seen`
holds one hash and one id per document in memory (about 200 bytes); a corpus stage finds the same ones over shards, in
bounded memory (`corpora/exact.py`).
"""

from __future__ import annotations

import hashlib
import unicodedata

from corpora.document import Document
from corpora.dropped import DropLog


def text_digest(text: str) -> bytes:
    """16 bytes that are equal for texts that differ only in white space or in Unicode composition."""
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    return hashlib.blake2b(" ".join(composed.split()).encode("utf-8"), digest_size=16).digest()


class Seen:
    """What was read so far, over all sources: digest -> the document that came first."""

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def deduplicate(self, batch: list[Document], dropped: DropLog) -> list[Document]:
        """The documents of a batch that were not seen before; the others are dropped as `exact_duplicate`."""
        kept = []
        for document in batch:
            digest = text_digest(document.full_text())
            if digest in self._first:
                dropped.add(document, "exact_duplicate", duplicate_of=self._first[digest])
            else:
                self._first[digest] = document.id
                kept.append(document)
        return kept
