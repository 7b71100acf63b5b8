"""Python sources of the running interpreter's standard library, one document a file. PSF licence.

Tests, generated build settings and bundled wheels are left out. Files come in a seeded order, so that a reader who
stops early has an unbiased part; at level repository packages do, each whole. One file in twenty, by the hash of its
path, is held out for evaluation.
"""

from __future__ import annotations

import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from configs.settings.corpus import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.order import in_split, shuffled, shuffled_groups
from verifiers.tasks.library import source_files

LICENCE = "PSF-2.0"
REPOSITORY = "cpython"


def version() -> str:
    """What the documents depend on."""
    return f"python {platform.python_version()}"


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Files of the split in the order of `source.seed`. One that is not valid text is dropped as `not_text`."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in source_files(root) if in_split(path, source.split)]
    order = shuffled(len(paths), source.seed, "python_stdlib").tolist()
    if source.level == "repository":
        order = shuffled_groups([path.partition("/")[0] for path in paths], source.seed, "python_stdlib")
    for i in order:
        path = paths[i]
        document = Document(path, source.name, LICENCE, path, provenance={"version": version()})
        try:
            with tokenize.open(root / path) as file:
                text = file.read()
        except (SyntaxError, UnicodeDecodeError):  # a few files show wrong encodings on purpose
            dropped.add(document, "not_text")
            continue
        yield Document(path, source.name, LICENCE, path, text=text, provenance=document.provenance,
                       repository=REPOSITORY, language="python")
