"""Builds a corpus: sources to packed tokens, supervised examples, or problems with gold answers.

    python -m corpora.build STAGE.json OUT/

Writes OUT/data/ (`corpora/product.py` lists its files), OUT/timings.json, OUT/report.html and, last, OUT/metrics.json.
The data folder appears whole or not at all: after a kill the same command goes on from what OUT/work/ holds of it, or
starts over, and writes the same bytes. They depend on the stage file, the seed and the sources, not on the number of
threads. The report's page shows timings, so that its bytes are no one's to compare.

What each document passes through stands in `corpora/gather.py`; docs/corpora/ says what the steps are worth.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from configs.errors import UserError
from configs.settings.corpus import CorpusStage
from configs.settings.machine import Machine
from configs.stage import Progress, StageFile, run_command, write_json_atomic
from corpora import sources
from corpora.gather import Cleaner
from corpora.product import sync, write_product
from corpora.rules import Judges
from corpora.shelf import Shelf
from corpora.timings import Timings

PARTIAL = "data.partial"
PAGE = "corpora.page"
"""Draws the report. Found by its name, so that a better page makes no corpus another one."""


def run(stage_file: StageFile, out: Path) -> None:
    """The stage: gather clean documents source by source, mix, write, publish."""
    stage = stage_file.stage
    assert isinstance(stage, CorpusStage)
    folder = fresh_folder(out)
    check_stage(stage)
    timings, num_workers = Timings(), workers(stage_file.machine)
    with ExitStack() as stack:
        judges = stack.enter_context(Judges(stage.sources, num_workers))
        shelves = [stack.enter_context(Shelf(folder / f".source-{i}")) for i in range(len(stage.sources))]
        cleaner = Cleaner(stage_file, stage, Progress(out), judges, num_workers, timings)
        gathered, work = cleaner.gather(shelves, out)
        with timings.step("writing"):
            report = write_product(stage, stage_file.seed, gathered, cleaner, folder, work)
    publish(folder, out / "data")
    read = sum(one.account.yielded[1] for one in gathered)
    write_json_atomic(out / "timings.json", timings.as_dict(bytes_read=read, tokens=report["tokens"],
                                                            num_workers=num_workers))
    importlib.import_module(PAGE).write_page(out)
    metrics = {"corpus/documents": report["documents"], "corpus/tokens": report["tokens"],
               "corpus/dropped": cleaner.dropped.total()}
    cleaner.progress.write(len(gathered) + 1, len(gathered) + 1, **metrics)
    write_json_atomic(out / "metrics.json", metrics)
    if work is not None:
        work.remove()


def workers(machine: Machine) -> int:
    """Processes for the rules and the near-duplicate search: the machine's threads, or the cores it has for us."""
    return machine.num_threads or len(os.sched_getaffinity(0))


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
