"""The files of a corpus, written from the shelves in the order of the mixture.

| output | files in data/ |
|---|---|
| tokens | `tokens.bin` (little-endian uint32), `documents.npy` (N+1 int64 offsets into it), `sources.npy` (N int16) |
| tokens, packed | `sequences.npy` (int64: the documents at which sequences begin, and their number) |
| examples | `examples.jsonl` |
| problems | `problems.jsonl` |
| all | `report.json`, `dropped.jsonl`, `kept.jsonl`, `question_hashes.txt` (one per line, 16 hex digits, sorted) |
| with near-duplicates | `clusters.jsonl` (`corpora/near_duplicates/`) |
| with copied repositories | `repositories.jsonl` (`corpora/near_duplicates/repositories.py`) |

`dropped.jsonl` holds the first drops of each source and reason, `kept.jsonl` an even draw of each source's clean
documents.
`sources.npy` numbers the sources as `source_names` in the report does. `question_hashes.txt` holds the BLAKE2b-8 of
every normalised question that was written, so that an evaluation can count what it shares with its own questions.
Token files are written front to back, for readers to map into memory: a mapped write would end in a bus error on a
full disk.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from configs.settings.corpus import CorpusSource, CorpusStage
from configs.stage import write_json_atomic, write_text_atomic
from corpora import packing as packing_of
from corpora import sources
from corpora.account import Account
from corpora.contamination.self_test import Questions, measure, removed_by
from corpora.decontaminate import Decontaminator
from corpora.document import Document
from corpora.dropped import CONTAMINATION, FILTERS, LICENCES, DropLog, write_json_lines
from corpora.encode import HASH_BYTES, question_hash
from corpora.mix import Selection, interleave, select
from corpora.ngrams import canonical
from corpora.report import SourceCount, build_report
from corpora.shelf import Shelves

WRITE_BYTES = 1 << 22
RECORDS_AT_ONCE = 1 << 16
SELF_TEST_QUESTIONS = 100
"""Questions of each benchmark that are injected in each disguise."""


@dataclass
class Gathered:
    """One source with its clean documents.

    Attributes:
        name: Its name in the report.
        budget: Tokens that it may give to the mixture; None takes all.
        identity: What its documents depend on (`sources.identity`).
        account: What became of its documents.
        read_whole: Whether it was read to its end.
    """

    name: str
    source: CorpusSource
    budget: int | None
    account: Account
    identity: dict[str, Any]
    read_whole: bool = False
    shelf: Shelves = field(default_factory=lambda: Shelves([], []))

    def by_repository(self) -> bool:
        """Whether its documents are wanted repository by repository."""
        return self.source.level == "repository"


@dataclass(frozen=True)
class Cleaned:
    """What the report needs to know of the cleaning.

    Attributes:
        near_report: What the near-duplicate search says, if there was one; then `clusters` is its file.
        copies_report: The same of the search for copied repositories; then `repositories` is its file.
    """

    dropped: DropLog
    benchmarks: Decontaminator
    near_report: dict[str, Any] | None
    clusters: Path
    copies_report: dict[str, Any] | None = None
    repositories: Path = Path()


def source_names(stage: CorpusStage) -> list[str]:
    """A unique name for each source, in order: a user's file by its file name, a repeated name with its number."""
    names: list[str] = []
    for source in stage.sources:
        plain = sources.plain_name(source)
        number = 1
        while (name := plain if number == 1 else f"{plain}#{number}") in names:
            number += 1
        names.append(name)
    return names


def write_product(stage: CorpusStage, seed: int, gathered: list[Gathered], cleaned: Cleaned,
                  folder: Path) -> dict[str, Any]:
    """Mix the shelves and write all files of the product; returns the report.

    Raises:
        UserError: Nothing is left to write.
    """
    selections = [select(one.shelf.lengths(), one.budget, seed, one.name, one.source.max_epochs) for one in gathered]
    if not any(len(selection.records) for selection in selections):
        raise UserError(nothing_left(stage, gathered, cleaned.dropped))
    lengths = [one.shelf.lengths()[selection.records] for one, selection in zip(gathered, selections, strict=True)]
    _check_shortage(stage, gathered, selections)
    owners, positions = interleave(lengths)
    packing = None
    if stage.packing == "best_fit":
        written = _written(lengths, owners, positions)
        order, bounds = packing_of.best_fit(written, stage.sequence_length, seed)
        owners, positions = owners[order], positions[order]
        _write_array(folder / "sequences.npy", bounds.astype("<i8"))
        packing = packing_of.described(written[order], bounds, stage.sequence_length)
    records = _records(gathered, selections, owners, positions)
    if stage.output == "tokens":
        _write_stream(folder / "tokens.bin", records)
        written = _written(lengths, owners, positions)
        _write_array(folder / "documents.npy", np.concatenate(([0], np.cumsum(written))).astype("<i8"))
        _write_array(folder / "sources.npy", owners.astype("<i2"))
    else:
        _write_stream(folder / f"{stage.output}.jsonl", records)

    hashes = set[int]().union(*(one.shelf.questions_in(s.records) for one, s in zip(gathered, selections, strict=True)))
    overlap = len(hashes & {question_hash(question) for question in cleaned.benchmarks.question_keys()})
    assert overlap == 0, f"{overlap} benchmark questions were written in spite of the decontamination"
    write_text_atomic(folder / "question_hashes.txt", "".join(f"{one:0{2 * HASH_BYTES}x}\n" for one in sorted(hashes)))
    cleaned.dropped.write(folder / "dropped.jsonl")
    samples = [line for one in gathered for line in one.account.samples()]
    write_json_lines(folder / "kept.jsonl", samples)
    if cleaned.near_report is not None:
        shutil.copyfile(cleaned.clusters, folder / "clusters.jsonl")
    if cleaned.copies_report is not None:
        shutil.copyfile(cleaned.repositories, folder / "repositories.jsonl")
    report = build_report(stage, [_count(one, s) for one, s in zip(gathered, selections, strict=True)],
                          cleaned.dropped, cleaned.benchmarks, overlap)
    report["near_duplicates"] = cleaned.near_report
    report["duplicate_repositories"] = cleaned.copies_report
    report["packing"] = packing
    if stage.self_test:
        report["contamination"]["self_test"] = self_test(cleaned.benchmarks, [line["text"] for line in samples], seed)
    write_json_atomic(folder / "report.json", report)
    sync(folder)
    return report


def self_test(benchmarks: Decontaminator, clean: list[str], seed: int) -> dict[str, Any]:
    """How many injected questions the decontamination finds, by group and disguise (`corpora/contamination/`).

    It says nothing of false positives: the documents that the questions are put into have passed the very same rules.
    """
    asked = [Questions(one.name, tuple(question for question in one.questions if canonical(question)), one.procedural)
             for one in benchmarks.benchmarks]
    hosts = [Document(str(i), "clean", "", "", text=text) for i, text in enumerate(clean)]
    found = measure(removed_by(benchmarks.remove), asked, hosts, seed, per_kind=SELF_TEST_QUESTIONS)
    return {"recall": found["recall"], "hosts": len(hosts), "per_kind": SELF_TEST_QUESTIONS}


def nothing_left(stage: CorpusStage, gathered: list[Gathered], dropped: DropLog) -> str:
    """Why the corpus is empty, and what to change."""
    if any(one.shelf.num_documents for one in gathered):
        shortest = min(int(one.shelf.lengths().min()) for one in gathered if one.shelf.num_tokens)
        return (f"stage.num_tokens: {stage.num_tokens} leaves every source less than its first document (the shortest "
                f"of all has {shortest} tokens); raise num_tokens")
    reasons = dropped.by_reason()
    if not reasons:
        return f"stage.sources: no documents in {', '.join(one.name for one in gathered)}; name sources that have some"
    worst = max(reasons, key=lambda reason: reasons[reason])
    step = next(at for _, at, reason in dropped.counts if reason == worst)
    remedies = {"too_long": "raise sequence_length", "no_worked_solution": "name a family with worked solutions",
                "exact_duplicate": "set deduplicate: false, or name other sources"}
    by_step = {CONTAMINATION: "remove the benchmark or name other sources", FILTERS: "loosen or remove that filter",
               LICENCES: "widen licences, or name other sources"}
    remedy = remedies.get(worst) or by_step.get(step, "name other sources")
    return (f"stage.sources: no documents are left of {dropped.total()}; the most frequent reason is {worst} "
            f"({reasons[worst]}); {remedy}")


def sync(folder: Path) -> None:
    """Make the folder's names last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_shortage(stage: CorpusStage, gathered: list[Gathered], selections: list[Selection]) -> None:
    """Raises UserError where a source falls short of its part and is not to."""
    for i, (one, selection) in enumerate(zip(gathered, selections, strict=True)):
        if stage.on_shortage == "stop" and selection.shortfall:
            raise UserError(f"stage.sources[{i}].max_epochs: {one.source.max_epochs} passes over {one.name} give "
                            f"{selection.num_tokens} tokens of {one.budget} that num_tokens and weight ask for; lower "
                            "its weight or num_tokens, raise max_epochs, or set on_shortage: note")


def _written(lengths: list[np.ndarray], owners: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Tokens of every record in the order in which they are written."""
    written = np.zeros(len(owners), dtype=np.int64)
    for i, length in enumerate(lengths):
        written[owners == i] = length[positions[owners == i]]
    return written


def _records(gathered: list[Gathered], selections: list[Selection], owners: np.ndarray,
             positions: np.ndarray) -> Iterator[bytes]:
    for first in range(0, len(owners), RECORDS_AT_ONCE):  # a number of Python's takes four times the memory
        part = slice(first, first + RECORDS_AT_ONCE)
        for owner, position in zip(owners[part].tolist(), positions[part].tolist(), strict=True):
            yield gathered[owner].shelf.read(int(selections[owner].records[position]))


def _write_stream(path: Path, records: Iterator[bytes]) -> None:
    with path.open("wb", buffering=WRITE_BYTES) as file:
        for record in records:
            file.write(record)
        file.flush()
        os.fsync(file.fileno())


def _write_array(path: Path, array: np.ndarray) -> None:
    # numpy writes to real files in its own way, which loses the error number of a full disk.
    buffer = io.BytesIO()
    np.save(buffer, array)
    _write_stream(path, iter([buffer.getbuffer().tobytes()]))


def _count(one: Gathered, selection: Selection) -> SourceCount:
    lengths = one.shelf.lengths()
    used = np.bincount(selection.records, minlength=len(lengths))
    return SourceCount(
        name=one.name, source=one.source, identity=one.identity, account=one.account, read_whole=one.read_whole,
        written=len(selection.records), distinct=one.shelf.num_documents_in(selection.records),
        tokens=selection.num_tokens, passes=selection.num_passes, shortfall=selection.shortfall,
        clean_tokens=int(lengths.sum(dtype=np.int64)), distinct_tokens=int(lengths[used > 0].sum(dtype=np.int64)),
        most_repeats=int(used.max(initial=0)))
