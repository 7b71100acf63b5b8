"""Data sets of the catalogue (`configs/catalogue.yaml`), from the local mirror or the hub, in their own order.

As text a row is its text column, or question and solution. As an example it is question and solution; a solution
that does not show its answer in a box gets it as a last line, so that every example ends alike: `\\boxed{72}`.
As a problem it is the task that `verifiers.tasks` makes of it, with the verifier that judges it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from configs.catalogue import DatasetEntry, dataset, open_rows
from configs.errors import UserError
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from verifiers.tasks import load_tasks

BOX = "\\boxed{"


def version(name: str) -> str:
    """What the documents depend on."""
    entry = dataset(name)
    return f"{entry.hub}@{entry.revision}"


def check_columns(field: str, name: str, output: str) -> None:
    """Raises UserError when the data set lacks the columns that the output needs."""
    entry = dataset(name)
    needed = "question and answer" if output == "problems" else "question and solution"
    if output == "problems":
        fits = entry.has_answers
    else:
        fits = {"question", "solution"} <= set(entry.columns) or (output == "tokens" and "text" in entry.columns)
    if not fits:
        raise UserError(f"{field}.name: {name!r} has only {', '.join(sorted(entry.columns))}; allowed for output "
                        f"{output!r}: a data set with {needed}; name another one or change the output")


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Rows of the split."""
    entry = dataset(source.name)
    if output == "problems":
        yield from _problems(source, entry)
        return
    has_text = output == "tokens" and "text" in entry.columns
    for row in open_rows(source.name, source.split):
        if has_text:
            yield _document(source, entry, row, text=row["text"])
            continue
        prompt, completion = row["question"].strip(), worked_text(row, entry.has_answers)
        if not row.get("solution", "").strip():
            dropped.add(_document(source, entry, row, prompt=prompt), "no_worked_solution")
        elif not completion:
            dropped.add(_document(source, entry, row, prompt=prompt), "no_answer")
        else:
            text = f"{prompt}\n{completion}\n" if output == "tokens" else ""
            yield _document(source, entry, row, prompt=prompt, completion=completion, text=text)


def worked_text(row: dict[str, Any], needs_answer: bool) -> str:
    """The solution with its answer in a box at the end; empty when an answer is needed and there is none.

    >>> worked_text({"solution": "24 + 48 = 72", "answer": "72"}, needs_answer=True)
    '24 + 48 = 72\\n\\\\boxed{72}'
    """
    solution, answer = str(row.get("solution", "")).strip(), str(row.get("answer", "")).strip()
    if BOX in solution or not needs_answer:
        return solution
    return f"{solution}\n{BOX}{answer}}}" if answer else ""


def _document(source: CorpusSource, entry: DatasetEntry, row: dict[str, Any], **content: Any) -> Document:
    provenance = {"version": version(source.name)}
    return Document(row["id"], source.name, entry.licence, entry.hub, provenance=provenance, **content)


def _problems(source: CorpusSource, entry: DatasetEntry) -> Iterator[Document]:
    drawn = TaskSource(name=source.name, split=source.split, count=source.count, seed=source.seed)
    for task in load_tasks(drawn):
        yield _document(source, entry, {"id": task.id}, prompt=task.prompt, answer=task.answer, verifier=task.verifier,
                        metadata=dict(task.metadata))
