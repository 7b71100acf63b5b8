"""The unit of a corpus: one document, and the grouping of documents into batches of bounded size.

A source (`corpora/sources/`) yields documents; every later step (empty, duplicates, contamination, length)
keeps a document as it is or drops it with a named reason; only redaction (`corpora/redact.py`) rewrites text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

BATCH_CHARS = 1_000_000
"""Characters in one batch: large enough to keep vectorised hashing and parallel tokenising busy, small in memory."""
BATCH_DOCUMENTS = 4096
"""Documents in one batch at most, so that a stream of very short ones is bounded too."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document with where it came from.

    A plain text has only `text`. A worked question has `prompt` and `completion`, a conversation `messages`,
    a problem `prompt`, `answer`, `verifier` and `metadata`.

    Attributes:
        id: Unique within the source.
        source: Name of the source, as the recipe gives it; of a user's file, its name without folders.
        licence: SPDX-like name, or `unknown`.
        path: File, data set or generator that it was read from; never an absolute path of the machine.
        provenance: Anything else that says where it came from (line, package version, row).
        repository: Name of the repository that the file is of; empty where it is of none.
        language: Language in lower case where its source states one (`python`); empty leaves it to the path.
    """

    id: str
    source: str
    licence: str
    path: str
    text: str = ""
    prompt: str = ""
    completion: str = ""
    messages: tuple[dict[str, str], ...] = ()
    answer: str = ""
    verifier: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    repository: str = ""
    language: str = ""

    def full_text(self) -> str:
        """Everything a model would read of this document, as one string."""
        if self.text:
            return self.text
        if self.messages:
            return "\n".join(message["content"] for message in self.messages)
        return f"{self.prompt}\n{self.completion}" if self.completion else self.prompt

    def questions(self) -> list[str]:
        """What is asked in it: the prompt, or each user turn; empty for plain text."""
        if self.messages:
            return [message["content"] for message in self.messages if message["role"] == "user"]
        return [self.prompt] if self.prompt else []


def num_bytes(text: str) -> int:
    """Length of a text in UTF-8; half of a surrogate pair counts as the three bytes that UTF-8 forbids."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Consecutive documents in lists of about `BATCH_CHARS` characters. Depends on the documents alone."""
    batch: list[Document] = []
    num_chars = 0
    for document in documents:
        batch.append(document)
        num_chars += len(document.full_text())
        if num_chars >= BATCH_CHARS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch
