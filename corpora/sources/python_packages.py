"""Source files of the Python packages that are installed beside this project, each distribution a repository.

A file is taken when the distribution's own record lists it, it lies in the packages' folder, and its name tells a
language that is written by hand (`languages.py`): Python, C, headers, JavaScript, documentation. Metadata is left out.
What cannot be read is dropped as `corpora/sources/local_files.py` does it.

The licence is the distribution's: its SPDX expression, else its classifier, else what its short licence field or its
licence files say. A file's own header goes before it (`corpora/licences.py`).

Files come in a seeded order, at level repository distributions, each whole. One file in twenty, by the hash of its
path, is held out for evaluation.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

from configs.settings.corpus import CorpusSource
from corpora import licences
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.filters.languages import language_of
from corpora.order import in_split, shuffled, shuffled_groups
from corpora.sources.local_files import read_text

LICENCE = "mixed"
_CLASSIFIER = "License :: "
_LONGEST_NAME = 80
"""Characters up to which the field `License` is a name and no text."""


def version() -> str:
    """What the documents depend on: a digest of every distribution's name and version."""
    listed = "\n".join(f"{name}=={one.version}" for name, one in sorted(distributions().items()))
    return f"packages {hashlib.sha256(listed.encode()).hexdigest()[:16]}"


def distributions() -> dict[str, importlib.metadata.Distribution]:
    """Installed distributions by their normalised names, the first of each, as the interpreter finds them."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for one in importlib.metadata.distributions():
        name = one.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), one)
    return found


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Files of the split in the order of `source.seed`."""
    listed = []
    for name, one in sorted(distributions().items()):
        licence, version = licence_of(one) or "unknown", one.version  # each parses the metadata
        listed += [(name, version, licence, path, file) for path, file in source_files(one)
                   if in_split(f"{name}/{path}", source.split)]
    order = shuffled(len(listed), source.seed, "python_packages").tolist()
    if source.level == "repository":
        order = shuffled_groups([entry[0] for entry in listed], source.seed, "python_packages")
    for i in order:
        name, version, licence, path, file = listed[i]
        text, fault = read_text(file)
        document = Document(f"{name}/{path}", source.name, licence, path, text=text, repository=name,
                            language=language_of(path), provenance={"version": f"{name} {version}"})
        if fault:
            dropped.add(document, fault)
        else:
            yield document


def source_files(one: importlib.metadata.Distribution) -> list[tuple[str, Path]]:
    """Path and place of every file of a distribution whose name tells a language, in order."""
    found = {}
    record = one.read_text("RECORD")  # quicker than `one.files`, which makes an object of every line
    paths = [row[0] for row in csv.reader(record.splitlines()) if row] if record else map(str, one.files or ())
    for path in paths:
        if not path.startswith(("/", "../")) and ".dist-info/" not in path and language_of(path):
            place = Path(str(one.locate_file(path)))
            if place.is_file():  # some that are recorded were never installed
                found[path] = place
    return sorted(found.items())


def licence_of(one: importlib.metadata.Distribution) -> str | None:
    """Id of a distribution's licence; what is stated and not known comes back in lower case, None when none is."""
    def stated(field: str) -> list[str]:
        return [value for value in one.metadata.get_all(field) or () if value]

    for expression in stated("License-Expression"):
        return licences.of_expression(expression)
    named = [value.rpartition("::")[2].strip() for value in stated("Classifier") if value.startswith(_CLASSIFIER)]
    short = "".join(stated("License")[:1]).strip()
    named += [short] if len(short) <= _LONGEST_NAME else []
    for name in named:
        known = _named(name)
        if known:
            return known
    texts = {Path(str(file)).name: file for file in one.files or () if licences.is_licence_file(file.name)}
    return licences.of_repository({name: read_text(Path(str(file.locate())))[0] for name, file in texts.items()}) or (
        licences.recognise(short) if len(short) > _LONGEST_NAME else None)


def _named(name: str) -> str | None:
    """Licence of `MIT License`, `Mozilla Public License 2.0 (MPL 2.0)`, `BSD-3-Clause AND MIT`."""
    short = re.search(r"\(([^)]+)\)$", name)
    plain = name[: short.start()].strip() if short else name
    for candidate in (plain, short[1] if short else None):
        known = licences.normalise_licence(candidate)
        if known:
            return known
    expression = licences.of_expression(name) if re.search(r" (?:AND|OR|WITH) ", name) else None
    return expression if expression in licences.KNOWN else None
