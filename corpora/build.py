"""Builds a corpus: sources to packed tokens, supervised examples, or problems with gold answers.

    python -m corpora.build STAGE.json OUT/

Writes OUT/data/ (`corpora/product.py` lists its files), OUT/timings.json, OUT/report.html and, last, OUT/metrics.json.
The data folder appears whole or not at all: after a kill the same command goes on from what OUT/work/ holds of it, or
starts over, and writes the same bytes. They depend on the stage file, the seed and the sources, not on the number of
workers or who they are. The report's page shows timings, so that its bytes are no one's to compare.

What each document passes through stands in `corpora/gather.py`; docs/corpora/ says what the steps are worth, and
docs/corpora/scale.md who does the work and how much memory it takes.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings.corpus import CorpusStage
from configs.stage import Progress, StageFile, run_command, write_json_atomic
from corpora import artifact, sources
from corpora.decontaminate import Decontaminator, load_benchmarks
from corpora.executors import open_executor
from corpora.gather import Gathering
from corpora.line import open_line
from corpora.product import Cleaned, source_names, sync, write_product
from corpora.rules import all_rules
from corpora.timings import Timings
from corpora.tokens import load_encoder, tokenizer_json
from corpora.work import Work, open_work

PARTIAL = "data.partial"
PAGE = "corpora.page"
"""Draws the report. Found by its name, so that a better page makes no corpus another one."""


def run(stage_file: StageFile, out: Path) -> None:
    """The stage: gather clean documents of all sources, mix, write, publish."""
    stage = stage_file.stage
    assert isinstance(stage, CorpusStage)
    folder = fresh_folder(out)
    check_stage(stage)
    sources.record_commits(out, stage.sources)
    timings, progress = Timings(), Progress(out)
    work, names, identities = prepare(stage_file, stage, out, timings)
    with open_executor(stage_file.machine, work.folder) as executor:
        gathering = Gathering(stage, names, identities, work, executor, progress, timings)
        gathered = gathering.gather()
        elsewhere, num_workers = executor.processor_seconds, executor.num_workers
    benchmarks = open_line(str(work.folder)).benchmarks
    with timings.step("writing"):
        report = write_product(stage, stage_file.seed, gathered, Cleaned(
            gathering.dropped, benchmarks, gathering.near_report, work.near / "clusters.jsonl",
            gathering.copies_report, work.copies / "clusters.jsonl"), folder)
    publish(folder, out / "data")
    read = sum(one.account.yielded[1] for one in gathered)
    write_json_atomic(out / "timings.json", timings.as_dict(
        bytes_read=read, tokens=report["tokens"], num_workers=num_workers,
        executor=stage_file.machine.corpora.executor, processor_seconds_of_workers=round(elsewhere, 3)))
    importlib.import_module(PAGE).write_page(out)
    metrics = {"corpus/documents": report["documents"], "corpus/tokens": report["tokens"],
               "corpus/dropped": gathering.dropped.total()}
    progress.write(len(gathered) + 1, len(gathered) + 1, **metrics)
    write_json_atomic(out / "metrics.json", metrics)
    work.remove()


def prepare(stage_file: StageFile, stage: CorpusStage, out: Path,
            timings: Timings) -> tuple[Work, list[str], list[dict[str, Any]]]:
    """The folder of the work with all that its tasks need; names and identities of the sources.

    The tokenizer and the benchmarks are put there, so that workers on other machines need not see what this one has.
    Raises UserError for what cannot be used, before anything is read.
    """
    rules, names = all_rules(stage.sources), source_names(stage)
    with timings.step("reading"):
        identities = [sources.identity(source) for source in stage.sources]
    encoder, tokenizer = None, ""
    with timings.step("loading"):
        if stage.output != "problems":
            base = stage_file.model_folder("base")
            encoder = load_encoder(base, stage_file.machine.num_threads)
            tokenizer = tokenizer_json(base)
    with timings.step("benchmarks"):
        benchmarks = Decontaminator(load_benchmarks(stage.decontaminate), stage.ngram, stage.subsequence)
    questions = [[one.name, one.split, one.procedural, one.questions] for one in benchmarks.benchmarks]
    work = open_work(out, {
        "stage": stage.model_dump(mode="json"), "seed": stage_file.seed, "names": names, "identities": identities,
        "rules": [one.identity() for one in rules], "tokenizer": _digest(tokenizer),
        "benchmarks": _digest(json.dumps(questions))})
    work.begin(len(names))

    def write_tokenizer(partial: Path) -> None:
        partial.mkdir()
        (partial / "tokenizer.json").write_text(tokenizer, encoding="utf-8")

    def write_benchmarks(partial: Path) -> None:
        partial.write_bytes(pickle.dumps(benchmarks))

    if tokenizer:
        artifact.make(work.tokenizer, write_tokenizer)
    artifact.make(work.benchmarks, write_benchmarks)
    line = open_line(str(work.folder))
    line.benchmarks, line.encoder = benchmarks, encoder  # for tasks that are done in this process
    return work, names, identities


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_stage(stage: CorpusStage) -> None:
    """What the schema cannot see, checked before anything is read. Raises UserError."""
    if stage.num_tokens is not None and stage.output != "tokens":
        raise UserError(f"stage.num_tokens: {stage.num_tokens} was given with output {stage.output!r}; allowed: only "
                        "with output tokens; remove it and set each source's count instead")
    if stage.sequence_length < 2:
        raise UserError(f"stage.sequence_length: {stage.sequence_length}; allowed: at least 2 (a token and the end "
                        "mark); raise it")
    for i, source in enumerate(stage.sources):
        sources.check(f"stage.sources[{i}]", source, stage.output)
        if source.split != "train" and sources.keeps_own_split(source):
            raise UserError(f"stage.sources[{i}].split: {source.split!r} of {source.name!r} is kept for evaluation; "
                            "allowed in a corpus: train; set split: train")


def fresh_folder(out: Path) -> Path:
    """An empty folder to build in. What an earlier run left is removed, so that it cannot pass for this one's."""
    for old in ("metrics.json", "timings.json", "report.html"):
        (out / old).unlink(missing_ok=True)
    folder = out / PARTIAL
    for built in (out / "data", folder):
        if built.exists():
            shutil.rmtree(built)
    folder.mkdir(parents=True)
    return folder


def publish(folder: Path, final: Path) -> None:
    """Put the finished folder in its place, in one step that also outlives a power cut."""
    os.replace(folder, final)
    sync(final.parent)


if __name__ == "__main__":
    sys.exit(run_command("corpus", run, __doc__))
