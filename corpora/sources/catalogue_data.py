"""Data sets of the catalogue (`configs/catalogue.yaml`), from the local mirror or the hub, in their own order.

As text a row is its text column, or question and solution; a file of code knows its path, its repository and the
licences found for it, of which the strictest counts. As an example it is question and solution; a solution
that does not show its answer in a box gets it as a last line, so that every example ends alike: `\\boxed{72}`.
As a problem it is the task that `verifiers.tasks` makes of it, with the verifier that judges it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from configs.catalogue import DatasetEntry, dataset, hub_revision, mirror_path, open_rows
from configs.errors import UserError
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from corpora import licences
from corpora.document import Document
from corpora.dropped import DropLog
from verifiers.tasks import load_tasks

BOX = "\\boxed{"


def version(name: str, split: str) -> str:
    """What the documents depend on: the hub's id with the commit, or that they are a mirror's."""
    return "".join(f"{page}@{commit}" for page, commit in commits(name, split).items()) or \
        f"{dataset(name).hub} (mirror)"


def commits(name: str, split: str) -> dict[str, str]:
    """The hub's id and the commit that is read; nothing for what a mirror has."""
    entry = dataset(name)
    splits = list(entry.splits) if split == "all" else [split]
    if all(mirror_path(name, each) is not None for each in splits):
        return {}
    return {entry.hub: hub_revision(entry, or_unpinned=True)}


def has_repositories(name: str) -> bool:
    """Whether its documents say of which repository they are."""
    return "repository" in dataset(name).columns


def check_columns(field: str, name: str, output: str) -> None:
    """Raises UserError when the data set lacks the columns that the output needs."""
    entry = dataset(name)
    needed = "question and answer (or tests)" if output == "problems" else "question and solution"
    if output == "problems":
        fits = entry.is_task_set
    else:
        fits = {"question", "solution"} <= set(entry.columns) or (output == "tokens" and "text" in entry.columns)
    if not fits:
        raise UserError(f"{field}.name: {name!r} has only {', '.join(sorted(entry.columns))}; allowed for output "
                        f"{output!r}: a data set with {needed}; name another one or change the output")


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Rows of the split."""
    entry = dataset(source.name)
    provenance = {"version": version(source.name, source.split)}
    if output == "problems":
        yield from _problems(source, entry, provenance)
        return
    has_text = output == "tokens" and "text" in entry.columns
    for row in open_rows(source.name, source.split):
        if has_text:
            yield _document(source, entry, row, provenance, text=row["text"])
            continue
        prompt, completion = row["question"].strip(), worked_text(row, entry.has_answers)
        if not row.get("solution", "").strip():
            dropped.add(_document(source, entry, row, provenance, prompt=prompt), "no_worked_solution")
        elif not completion:
            dropped.add(_document(source, entry, row, provenance, prompt=prompt), "no_answer")
        else:
            text = f"{prompt}\n{completion}\n" if output == "tokens" else ""
            yield _document(source, entry, row, provenance, prompt=prompt, completion=completion, text=text)


def worked_text(row: dict[str, Any], needs_answer: bool) -> str:
    """The solution with its answer in a box at the end; empty when an answer is needed and there is none.

    >>> worked_text({"solution": "24 + 48 = 72", "answer": "72"}, needs_answer=True)
    '24 + 48 = 72\\n\\\\boxed{72}'
    """
    solution, answer = str(row.get("solution", "")).strip(), str(row.get("answer", "")).strip()
    if BOX in solution or not needs_answer:
        return solution
    return f"{solution}\n{BOX}{answer}}}" if answer else ""


def _document(source: CorpusSource, entry: DatasetEntry, row: dict[str, Any], provenance: dict[str, Any],
              **content: Any) -> Document:
    if row.get("url"):
        provenance = {**provenance, "url": row["url"]}
    return Document(row["id"], source.name, licence_of(row, entry), row.get("path") or entry.hub,
                    repository=row.get("repository", ""), language=row.get("language", "").lower().replace(" ", "-"),
                    provenance=provenance, **content)


def licence_of(row: dict[str, Any], entry: DatasetEntry) -> str:
    """The row's own licence where the set states one for each row, else the set's."""
    if "licence" not in entry.columns:
        return entry.licence
    return licences.of_expression(row["licence"]) if row["licence"] else "unknown"


def _problems(source: CorpusSource, entry: DatasetEntry, provenance: dict[str, Any]) -> Iterator[Document]:
    drawn = TaskSource(name=source.name, split=source.split, count=source.count, seed=source.seed)
    for task in load_tasks(drawn):
        yield _document(source, entry, {"id": task.id}, provenance, prompt=task.prompt, answer=task.answer,
                        verifier=task.verifier, metadata=dict(task.metadata))
