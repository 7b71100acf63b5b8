"""The ledger of dropped documents: every one is counted under a named reason, the first ones are kept to be read.

A reason says what happened (`exact_duplicate`, `contaminated:gsm8k`, `too_long`, `empty`, `no_worked_solution`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from configs.stage import write_text_atomic
from corpora.document import Document, num_bytes

KEPT_PER_REASON = 200
KEPT_CHARS = 500
READING, USABLE, LICENCES, FILTERS, MARKS, REPOSITORIES, EXACT, NEAR, CONTAMINATION, LENGTH = STEPS = (
    "reading", "usable text", "licences", "filters", "marks", "copied repositories", "exact duplicates",
    "near-duplicates", "decontamination", "length")
"""The steps in order; every drop is one's."""


class DropLog:
    """Counts drops by source, step and reason, and keeps the first `KEPT_PER_REASON` of each source and reason."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.sizes: Counter[tuple[str, str, str]] = Counter()
        """Bytes of the dropped texts, by the same keys."""
        self._num_kept: Counter[tuple[str, str]] = Counter()
        self._lines: list[dict[str, Any]] = []
        self.source = ""
        """Name of the source being read; two sources of one kind are told apart by it."""
        self.step = READING
        """The step that drops are counted for."""

    def keeps(self, reason: str) -> bool:
        """Whether the next drop for a reason will be kept to be read, so that details are worth looking up."""
        return self._num_kept[self.source, reason] < KEPT_PER_REASON

    def add(self, document: Document, reason: str, **details: Any) -> None:
        """Count one dropped document; `details` say what it collided with."""
        text = document.full_text()
        self.counts[self.source, self.step, reason] += 1
        self.sizes[self.source, self.step, reason] += num_bytes(text)
        if self._num_kept[self.source, reason] >= KEPT_PER_REASON:
            return
        self._num_kept[self.source, reason] += 1
        line = {"id": document.id, "source": self.source, "reason": reason, "path": document.path}
        self._lines.append({**line, **details, "text": text[:KEPT_CHARS]})

    def by_reason(self, source: str | None = None, step: str | None = None) -> dict[str, int]:
        """Drops per reason, of one source or of all, of one step or of all."""
        total: Counter[str] = Counter()
        for (name, at, reason), count in self.counts.items():
            if source in (None, name) and step in (None, at):
                total[reason] += count
        return dict(sorted(total.items()))

    def num_bytes(self, source: str, step: str) -> int:
        """Bytes of the texts that a step dropped of a source."""
        return sum(size for (name, at, _), size in self.sizes.items() if (name, at) == (source, step))

    def total(self) -> int:
        """All drops."""
        return sum(self.counts.values())

    def state(self, source: str) -> dict[str, Any]:
        """What was counted for one source, as plain data for `merge`."""
        counts = [[step, reason, count, self.sizes[name, step, reason]]
                  for (name, step, reason), count in self.counts.items() if name == source]
        return {"counts": counts, "lines": [line for line in self._lines if line["source"] == source]}

    def take(self) -> dict[str, Any]:
        """`state` of the source that is being read; nothing of it is counted any longer."""
        state = self.state(self.source)
        self.counts, self.sizes, self._num_kept, self._lines = Counter(), Counter(), Counter(), []
        return state

    def merge(self, source: str, state: dict[str, Any]) -> None:
        """Add what was counted for a source elsewhere, as if it were dropped now."""
        for step, reason, count, size in state["counts"]:
            self.counts[source, step, reason] += count
            self.sizes[source, step, reason] += size
        for line in state["lines"]:
            if self._num_kept[source, line["reason"]] < KEPT_PER_REASON:
                self._num_kept[source, line["reason"]] += 1
                self._lines.append(line)

    def write(self, path: Path) -> None:
        """Write the kept ones as JSON lines, in the order in which they were dropped."""
        write_json_lines(path, self._lines)


def write_json_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
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
        elif any(map(_has_lone_surrogate, (document.full_text(), document.answer, document.path, document.repository,
                                           document.licence, document.language))):
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
