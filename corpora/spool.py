"""Documents on disk between the parts of a build: lists of them, one after another, in pickle's form.

The files are read by nothing but the code that wrote them (`corpora/work.py` sees to that). The pickler remembers no
objects, so that the bytes are a function of the documents and not of which of their texts were one object.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

from corpora.document import Document

_FIELDS = tuple(one.name for one in fields(Document))


def write_batch(file: BinaryIO, batch: list[Document]) -> None:
    """Append a list of documents."""
    write_object(file, [tuple(getattr(document, name) for name in _FIELDS) for document in batch])


def read_batches(path: Path) -> Iterator[list[Document]]:
    """The lists of a file, one in memory at a time."""
    with path.open("rb") as file:
        for batch in read_objects(file):
            yield [Document(*given) for given in batch]


def write_object(file: BinaryIO, content: Any) -> None:
    """Append anything that holds no circle."""
    pickler = pickle.Pickler(file, protocol=5)
    pickler.fast = True
    pickler.dump(content)


def read_objects(file: BinaryIO) -> Iterator[Any]:
    """What was appended to a file, in order."""
    while True:
        try:
            yield pickle.load(file)
        except EOFError:
            return
