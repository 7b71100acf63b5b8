"""Documents of one source on disk between the two passes of a build, one JSON object a line.

A spool is written in the order in which the source was read, published whole, and read back in that order or
repository by repository. In memory are 8 bytes for each document, and 16 more while it is read by repository.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from corpora.document import Document, num_bytes

READER = "corpora.spool:read_texts"
"""The reader that the near-duplicate search is given."""
_DEFAULTS = {one.name: one.default for one in fields(Document)} | {"metadata": {}, "provenance": {}}


class SpoolWriter:
    """Appends documents to a file that must not exist yet."""

    def __init__(self, path: Path, label: str) -> None:
        """Args: label: goes before the documents' ids, so that they are unique over all sources."""
        self._file = path.open("xb")
        self._label = label
        self.num_documents = 0
        self.num_bytes = 0

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())  # its name will say that it is whole
        self._file.close()

    def add(self, batch: list[Document]) -> None:
        """Append documents."""
        for document in batch:
            given = {name: value for name in _DEFAULTS if (value := getattr(document, name)) != _DEFAULTS[name]}
            line = json.dumps({"label": self._label, **given}, ensure_ascii=False)
            # A lone surrogate in an id or in metadata comes out as the JSON escape that it was.
            self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self.num_documents += 1
            self.num_bytes += num_bytes(document.full_text())


def read(path: Path, by_repository: bool = False) -> Iterator[tuple[int, Document]]:
    """Row (from 0) and content of every document, as written, or with those of one repository together.

    Repositories then come in the order of their names, documents without one first, each in the order as written.
    """
    if not by_repository:
        with path.open("rb") as file:
            for row, line in enumerate(file):
                yield row, _document(line)
        return
    starts, numbers = array("q"), array("q")
    names: dict[str, int] = {}
    with path.open("rb") as file:
        place = 0
        for line in file:
            repository = json.loads(line).get("repository", "")
            starts.append(place)
            numbers.append(names.setdefault(repository, len(names)))
            place += len(line)
        rank = np.zeros(len(names), dtype=np.int64)
        rank[[names[name] for name in sorted(names)]] = np.arange(len(names))
        for row in np.argsort(rank[np.frombuffer(numbers, dtype=np.int64)], kind="stable").tolist():
            file.seek(starts[row])
            yield row, _document(file.readline())


def read_texts(shard: str) -> Iterator[tuple[str, str]]:
    """(id, text) of every document of a spool; ids are unique over the sources if they are within each."""
    with Path(shard).open("rb") as file:
        for line in file:
            given = json.loads(line)
            name = f"{given['label']}/{given['id']}"
            yield name, _made(given).full_text()


def _document(line: bytes) -> Document:
    return _made(json.loads(line))


def _made(given: dict[str, Any]) -> Document:
    del given["label"]
    if "messages" in given:
        given["messages"] = tuple(given["messages"])
    return Document(**given)
