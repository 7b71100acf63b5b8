"""Builds a corpus: sources to packed tokens, supervised examples, or problems with gold answers.

    python -m corpora.build STAGE.json OUT/

Writes OUT/data/ (`corpora/product.py` lists its files) and, last, OUT/metrics.json. The folder appears whole or not at
all: after a kill the same command starts over and writes the same bytes. They depend on the stage file, the seed and
the sources, not on the number of threads.

It does not judge quality, find near-duplicates or remove personal data: sources are taken to be curated.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from configs.errors import UserError
from configs.schema import CorpusStage
from configs.stage import Progress, StageFile, run_command, write_json_atomic
from corpora import sources
from corpora.decontaminate import Decontaminator, load_benchmarks
from corpora.dedup import Seen
from corpora.document import batches
from corpora.dropped import DropLog, drop_unusable
from corpora.encode import Shelver
from corpora.mix import parts_of_budget
from corpora.product import Gathered, source_names, sync, write_product
from corpora.shelf import Shelf
from corpora.tokens import load_encoder

PARTIAL = "data.partial"
BATCHES_PER_LINE = 16
"""Batches of documents between two lines of the progress log."""


def run(stage_file: StageFile, out: Path) -> None:
    """The stage: gather clean documents source by source, mix, write, publish."""
    stage = stage_file.stage
    assert isinstance(stage, CorpusStage)
    folder = fresh_folder(out)
    check_stage(stage)
    cleaner = Cleaner(stage_file, stage, Progress(out))
    with ExitStack() as stack:
        shelves = [stack.enter_context(Shelf(folder / f".source-{i}")) for i in range(len(stage.sources))]
        gathered = [cleaner.gather(i, shelf) for i, shelf in enumerate(shelves)]
        report = write_product(stage, stage_file.seed, gathered, cleaner, folder)
    publish(folder, out / "data")
    metrics = {"corpus/documents": report["documents"], "corpus/tokens": report["tokens"],
               "corpus/dropped": cleaner.dropped.total()}
    cleaner.progress.write(len(gathered) + 1, len(gathered) + 1, **metrics)
    write_json_atomic(out / "metrics.json", metrics)


class Cleaner:
    """What the sources share while they are read: all that was seen, every benchmark, every drop."""

    def __init__(self, stage_file: StageFile, stage: CorpusStage, progress: Progress) -> None:
        self.stage = stage
        self.progress = progress
        self.seen = Seen()
        self.dropped = DropLog()
        self.benchmarks = Decontaminator(load_benchmarks(stage.decontaminate), stage.ngram)
        encoder = None
        if stage.output != "problems":
            encoder = load_encoder(stage_file.model_folder("base"), stage_file.machine.num_threads)
        self.shelver = Shelver(stage.output, encoder, stage.sequence_length)

    def gather(self, i: int, shelf: Shelf) -> Gathered:
        """Put the clean documents of source i on its shelf: all of them, or enough for its part of the mixture."""
        source = self.stage.sources[i]
        one = Gathered(source_names(self.stage)[i], source, budgets(self.stage)[i], shelf)
        self.dropped.source = one.name
        for number, batch in enumerate(batches(sources.open_source(source, self.stage.output, self.dropped))):
            batch = drop_unusable(batch, self.stage.output, self.dropped)
            if self.stage.deduplicate:
                batch = self.seen.deduplicate(batch, self.dropped)
            batch = self.benchmarks.remove(batch, self.dropped)
            self.shelver.shelve(batch, shelf, self.dropped)
            if number % BATCHES_PER_LINE == 0:
                self.log(i, one)
            if one.has_enough():
                break
        else:
            one.read_whole = True
        shelf.finish()
        self.log(i + 1, one)
        return one

    def log(self, step: int, one: Gathered) -> None:
        """One line of progress; steps are sources, plus one for the mixture."""
        self.progress.write(step, len(self.stage.sources) + 1, source=one.name, **{
            "corpus/source_documents": one.shelf.num_documents, "corpus/source_tokens": one.shelf.num_tokens,
            "corpus/dropped": self.dropped.total()})


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
        if source.split != "train" and not source.name.endswith(".jsonl"):
            raise UserError(f"stage.sources[{i}].split: {source.split!r} of {source.name!r} is kept for evaluation; "
                            "allowed in a corpus: train; set split: train")


def budgets(stage: CorpusStage) -> list[int | None]:
    """Tokens that each source may give; None takes all."""
    if stage.num_tokens is None:
        return [None] * len(stage.sources)
    return list(parts_of_budget(stage.num_tokens, [source.weight for source in stage.sources]))


def fresh_folder(out: Path) -> Path:
    """An empty folder to build in. What an earlier run left is removed, so that it cannot pass for this one's."""
    (out / "metrics.json").unlink(missing_ok=True)
    folder = out / PARTIAL
    for old in (out / "data", folder):
        if old.exists():
            shutil.rmtree(old)
    folder.mkdir(parents=True)
    return folder


def publish(folder: Path, final: Path) -> None:
    """Put the finished folder in its place, in one step that also outlives a power cut."""
    os.replace(folder, final)
    sync(final.parent)


if __name__ == "__main__":
    sys.exit(run_command("corpus", run, __doc__))
