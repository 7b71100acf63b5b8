"""The ledger of dropped documents: every one is counted under a named reason, the first ones are kept to be read.

A reason says what happened (`exact_duplicate`, `contaminated:gsm8k`, `too_long`, `empty`, `no_worked_solution`).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from configs.stage import write_text_atomic
from corpora.document import Document

KEPT_PER_REASON = 200
KEPT_CHARS = 500


class DropLog:
    """Counts drops by source and reason, and keeps the first `KEPT_PER_REASON` of each reason."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._num_kept: Counter[str] = Counter()
        self._lines: list[dict[str, Any]] = []
        self.source = ""
        """Name of the source being read; two sources of one kind are told apart by it."""

    def add(self, document: Document, reason: str, **details: Any) -> None:
        """Count one dropped document; `details` say what it collided with."""
        self.counts[self.source, reason] += 1
        if self._num_kept[reason] >= KEPT_PER_REASON:
            return
        self._num_kept[reason] += 1
        line = {"id": document.id, "source": self.source, "reason": reason, "path": document.path}
        self._lines.append({**line, **details, "text": document.full_text()[:KEPT_CHARS]})

    def by_reason(self, source: str | None = None) -> dict[str, int]:
        """Drops per reason, of one source or of all."""
        total: Counter[str] = Counter()
        for (name, reason), count in self.counts.items():
            if source is None or name == source:
                total[reason] += count
        return dict(sorted(total.items()))

    def total(self) -> int:
        """All drops."""
        return sum(self.counts.values())

    def write(self, path: Path) -> None:
        """Write the kept ones as JSON lines, in the order in which they were dropped."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines)
        # UTF-8 cannot hold a lone surrogate; its JSON escape can stand for it.
        write_text_atomic(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def drop_unusable(batch: list[Document], output: str, dropped: DropLog) -> list[Document]:
    """Drop what lacks a part that the output needs (`empty`, `no_answer`) or has characters that UTF-8 cannot hold."""
    kept = []
    for document in batch:
        if not all(part.strip() for part in _needed(document, output)):
            dropped.add(document, "empty")
        elif output == "problems" and not document.answer.strip():
            dropped.add(document, "no_answer")
        elif _has_lone_surrogate(document.full_text()) or _has_lone_surrogate(document.answer):
            dropped.add(document, "lone_surrogate")
        else:
            kept.append(document)
    return kept


def _needed(document: Document, output: str) -> list[str]:
    """The parts of a document without which it is empty."""
    if output == "tokens":
        return [document.text]
    if output == "problems":
        return [document.prompt]
    if document.messages:
        return [message["content"] for message in document.messages if message["role"] == "assistant"]
    return [document.prompt, document.completion]


def _has_lone_surrogate(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
