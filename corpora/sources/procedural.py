"""Procedural problems of reasoning-gym and function tasks of our own, with worked solutions of our own. Apache-2.0.

As text a document is the question, a line feed, and the solution; as an example they are prompt and completion; as a
problem it is the question with its gold answer. Only the split's questions are drawn: `verifiers.tasks` parts them by
the hash of the normalised question, and every draw is checked against that here once more.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from configs.errors import UserError
from configs.names import GENERATED
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from verifiers.tasks import load_tasks, split_of, worked_solution

LICENCE = "Apache-2.0"
PREFIXES = GENERATED


def version() -> str:
    """What the documents depend on beside this project."""
    return f"reasoning-gym {importlib.metadata.version('reasoning_gym')}"


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Problems in the order of the draw. One without a worked solution is dropped, except for output problems."""
    if source.split == "test":
        raise UserError(f"sources: {source.name!r} has no split 'test'; allowed: train, heldout, all; set split: train")
    drawn = TaskSource(name=source.name, split=source.split, count=source.count, params=source.params, seed=source.seed)
    provenance = {"version": version(), "seed": source.seed, "params": source.params}
    for task in load_tasks(drawn):
        document = Document(task.id, source.name, LICENCE, source.name, prompt=task.prompt, provenance=provenance)
        if source.split != "all" and split_of(task.prompt) != source.split:
            dropped.add(document, "other_split")
            continue
        if output == "problems":
            yield Document(task.id, source.name, LICENCE, source.name, prompt=task.prompt, answer=task.answer,
                           verifier=task.verifier, metadata=dict(task.metadata), provenance=provenance)
            continue
        solution = worked_solution(task, source.style)
        if solution is None:
            dropped.add(document, "no_worked_solution")
            continue
        yield Document(task.id, source.name, LICENCE, source.name, prompt=task.prompt, completion=solution,
                       text=f"{task.prompt}\n{solution}\n" if output == "tokens" else "", provenance=provenance)
