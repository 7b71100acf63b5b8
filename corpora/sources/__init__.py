"""Where documents come from: one file a kind of source, each with `read(source, output, dropped)`.

    python_stdlib        sources of the running interpreter's library
    sympy_examples       worked examples of the installed sympy
    procedural           reasoning_gym/... and functions/... with worked solutions
    catalogue_data       data sets of configs/catalogue.yaml
    user_jsonl           a path ending in .jsonl

A reader yields documents in an order that depends on the source alone, and drops, with a reason, what it cannot use.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from configs.catalogue import dataset, dataset_identity
from configs.errors import UserError
from configs.names import check_source
from configs.schema import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.sources import catalogue_data, procedural, python_stdlib, sympy_examples, user_jsonl

TEXT_ONLY = (python_stdlib, sympy_examples)


def check(field: str, source: CorpusSource, output: str) -> None:
    """The source exists and has what the output needs. Raises UserError that names `field`, the value and a remedy."""
    check_source(field, source)
    module = reader(source)
    if module is user_jsonl:
        user_jsonl.check_file(Path(source.name))
    elif module is catalogue_data:
        catalogue_data.check_columns(field, source.name, output)
    elif module in TEXT_ONLY and output != "tokens":
        raise UserError(f"{field}.name: {source.name!r} has only text, no questions; allowed for output {output!r}: "
                        "sources with questions; set output: tokens or remove it")


def reader(source: CorpusSource) -> ModuleType:
    """The module that reads a source, by its name."""
    if source.name.endswith(".jsonl"):
        return user_jsonl
    if source.name.startswith(procedural.PREFIXES):
        return procedural
    return {"python_stdlib": python_stdlib, "sympy_examples": sympy_examples}.get(source.name, catalogue_data)


def open_source(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Documents of a source, at most `source.count`, for one output: tokens, examples or problems."""
    documents: Iterator[Document] = reader(source).read(source, output, dropped)
    return itertools.islice(documents, source.count)


def texts(source: CorpusSource) -> Iterator[str]:
    """The plain texts of a source, for measuring bits per byte on its held-out split."""
    return (document.text for document in open_source(source, "tokens", DropLog()) if document.text.strip())


def may_stop_early(source: CorpusSource) -> bool:
    """Whether reading may end when the mixture has enough. The user's own file is always read and checked whole."""
    return reader(source) is not user_jsonl


def licence(source: CorpusSource) -> str:
    """Licence of the source's documents."""
    module = reader(source)
    return dataset(source.name).licence if module is catalogue_data else str(module.LICENCE)


def identity(source: CorpusSource) -> dict[str, Any]:
    """What the documents depend on beside the settings: package version, file content, or data set revision."""
    module = reader(source)
    if module is user_jsonl:
        with Path(source.name).open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if module is catalogue_data:
        return dataset_identity(source.name, source.split)
    return {"version": module.version()}
