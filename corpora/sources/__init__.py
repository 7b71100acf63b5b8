"""Where documents come from: one file a kind of source, each with `read(source, output, dropped)`.

    python_stdlib        sources of the running interpreter's library
    python_packages      sources of the packages that are installed beside this project
    package_readmes      prose of the descriptions of those packages
    sympy_examples       worked examples of the installed sympy
    procedural           reasoning_gym/... and functions/... with worked solutions
    catalogue_data       data sets of configs/catalogue.yaml
    user_jsonl           a path ending in .jsonl, .jsonl.gz, .jsonl.zst or .parquet
    local_files          any other path: a text file, a folder, a git checkout, a folder of checkouts

A reader yields documents in an order that depends on the source alone, and drops, with a reason, what it cannot use.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from configs.catalogue import dataset, dataset_identity
from configs.errors import UserError
from configs.hub import UNPINNED, revisions_file
from configs.names import ROW_FILES, check_source, is_path
from configs.settings.corpus import CorpusSource
from configs.stage import write_json_atomic
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.sources import (
    catalogue_data,
    local_files,
    package_readmes,
    procedural,
    python_packages,
    python_stdlib,
    sympy_examples,
    user_jsonl,
)

COMMITS = "commits.json"
"""Beside an unfinished and a finished product: at which commit each data set of the hub was read."""
TEXT_ONLY = (python_stdlib, python_packages, package_readmes, sympy_examples, local_files)
WITH_REPOSITORIES = (python_stdlib, python_packages, local_files, user_jsonl)
"""Sources whose documents may say of which repository they are."""
BUILT_IN = {
    "python_stdlib": python_stdlib, "python_packages": python_packages, "package_readmes": package_readmes,
    "sympy_examples": sympy_examples,
}  # fmt: skip


def check(field: str, source: CorpusSource, output: str) -> None:
    """The source exists and has what the output needs. Raises UserError that names `field`, the value and a remedy."""
    check_source(field, source)
    module = reader(source)
    has_repositories = module in WITH_REPOSITORIES or (
        module is catalogue_data and catalogue_data.has_repositories(source.name))
    if source.level == "repository" and not has_repositories:
        raise UserError(f"{field}.level: 'repository' was given to {source.name!r}, whose documents are of none; "
                        "allowed with python_stdlib, python_packages, paths and data sets of repositories (stack_v3); "
                        "remove level")
    if module is user_jsonl:
        user_jsonl.check_file(Path(source.name).expanduser())
    elif module is catalogue_data:
        catalogue_data.check_columns(field, source.name, output)
    elif module in TEXT_ONLY and output != "tokens":
        raise UserError(f"{field}.name: {source.name!r} has only text, no questions; allowed for output {output!r}: "
                        "sources with questions; set output: tokens or remove it")
    elif module is local_files:
        local_files.check_path(field, source)


def reader(source: CorpusSource) -> ModuleType:
    """The module that reads a source, by its name."""
    if source.name.endswith(ROW_FILES):
        return user_jsonl
    if is_path(source.name):
        return local_files
    if source.name.startswith(procedural.PREFIXES):
        return procedural
    return BUILT_IN.get(source.name, catalogue_data)


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


def plain_name(source: CorpusSource) -> str:
    """The name by which a report knows a source: of a path the last part only."""
    module = reader(source)
    if module is user_jsonl:
        return Path(source.name).name
    return local_files.name_of(source) if module is local_files else source.name


def keeps_own_split(source: CorpusSource) -> bool:
    """Whether a part of the source is kept for evaluation. A user's file of rows has no parts."""
    return reader(source) is not user_jsonl


def record_commits(out: Path, given: Sequence[CorpusSource]) -> None:
    """Write OUT/commits.json: the hub's commit of every data set that is read from there.

    Raises:
        UserError: An interrupted build in this folder read a data set at another commit.
    """
    path = out / COMMITS
    recorded: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = {}
    for i, source in enumerate(given):
        if reader(source) is not catalogue_data:
            continue
        for page, commit in catalogue_data.commits(source.name, source.split).items():
            earlier = recorded.get(page, UNPINNED)
            if UNPINNED not in (earlier, commit) and earlier != commit:
                raise UserError(f"stage.sources[{i}].name: {source.name!r}: the work in {out} was begun at commit "
                                f"{earlier[:8]}, now it is {commit[:8]}; put {earlier} for {page} into "
                                f"{revisions_file()}, or delete the folder to begin anew")
            found[page] = commit if commit != UNPINNED else earlier
    if found:
        write_json_atomic(path, found)


def collection_licence(source: CorpusSource) -> str | None:
    """Licence of the collection that documents with licences of their own come from; None where there is none."""
    if reader(source) is not catalogue_data or "licence" not in dataset(source.name).columns:
        return None
    return dataset(source.name).licence


def licence(source: CorpusSource) -> str:
    """Licence of the source's documents."""
    module = reader(source)
    return dataset(source.name).licence if module is catalogue_data else str(module.LICENCE)


def identity(source: CorpusSource) -> dict[str, Any]:
    """What the documents depend on beside the settings: package version, file content, or data set revision."""
    module = reader(source)
    if module is user_jsonl:
        with Path(source.name).expanduser().open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if module is local_files:
        return local_files.identity(source)
    if module is catalogue_data:
        return dataset_identity(source.name, source.split)
    return {"version": module.version()}
