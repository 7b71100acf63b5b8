"""From the sources to shelves of clean documents: which shard is taken when, and who counts what.

A source is cut into shards (`cut.py`). Over every shard goes a first pass (`first_pass.py`), which asks each document
alone; then exact duplicates are found over all shards (`exact.py`), near-duplicates too if the recipe wants
(`near.py`); then a second pass (`second_pass.py`, `regroup.py`) decontaminates, encodes and shelves what is left. Each
of these is a task that an executor does (`executors/`). This file says which tasks there are and puts together what
they counted, in the order of sources and shards, so that the result does not depend on who did what when.

A token budget ends the reading of a source. Without near-duplicates the source is taken in waves: as many shards as
should be enough, then more while it is not. With them the whole is judged at once, so that reading ends by an estimate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs import stall
from configs.errors import UserError
from configs.settings.corpus import CorpusStage
from configs.stage import Progress, write_json_atomic
from corpora import artifact, copies, cut, exact, near, regroup, sources
from corpora.account import Account
from corpora.dropped import DropLog
from corpora.executors import Executor, Task
from corpora.first_pass import first_pass
from corpora.line import open_line
from corpora.mix import parts_of_budget
from corpora.product import Gathered
from corpora.second_pass import second_pass
from corpora.shelf import Shelves
from corpora.timings import Timings
from corpora.work import Work

SHARDS_PER_LINE = 4
"""Shards between two lines of the progress log."""
BYTES_PER_TOKEN = 6
"""A source whose documents are judged all at once is read until it holds so many bytes for each token of its part of
the budget: tokens of code and prose have three to five, the rest makes up for what the second pass drops."""
BYTES_PER_MISSING_TOKEN = 4
"""Bytes of the next wave for each token that is still missing."""


class Gathering:
    """The documents of all sources on their way."""

    def __init__(self, stage: CorpusStage, names: list[str], identities: list[Any], work: Work, executor: Executor,
                 progress: Progress, timings: Timings) -> None:
        self._stage, self._work, self._executor = stage, work, executor
        self._progress, self._timings = progress, timings
        self._folder = str(work.folder)
        self._all = [
            _Source(i, Gathered(names[i], source, budget, Account(names[i]), identities[i]))
            for i, (source, budget) in enumerate(zip(stage.sources, budgets(stage), strict=True))]
        self.dropped = DropLog()
        self.near_report: dict[str, Any] | None = None
        self.copies_report: dict[str, Any] | None = None
        self._num_waves = 0
        self._done: list[exact.Shard] = []
        """Shards whose exact duplicates are known, in order."""
        self._num_done = 0

    def gather(self) -> list[Gathered]:
        """Clean documents of every source on its shelf: all, or enough for its part of the mixture."""
        if self._stage.near_duplicates or self._stage.duplicate_repositories or self._stage.num_tokens is None:
            wave = self._all_at_once()
            if self._stage.near_duplicates and self._done:
                with self._timings.step("near-duplicates"):
                    assert wave is not None
                    self.near_report = near.search(open_line(self._folder), wave, self._executor)
            self._second_passes({one.i: one.shards for one in self._all}, wave)
        else:
            for one in self._all:
                self._in_waves(one)
        with self._timings.step("accounts"):
            for one in self._all:
                self._put_together(one)
        return [one.gathered for one in self._all]

    def _all_at_once(self) -> int | None:
        """The first pass over all sources, and their exact duplicates."""
        bounds = {one.i: one.bound(BYTES_PER_TOKEN) for one in self._all}
        self._first_passes(self._all, bounds)
        for one in self._all:
            self._remember(one)
        shards = [(one.i, shard) for one in self._all for shard in range(one.shards)]
        if self._stage.duplicate_repositories and shards:
            with self._timings.step("copied repositories"):
                self.copies_report = copies.search(open_line(self._folder), shards, self._executor)
        return self._exact(shards)

    def _in_waves(self, one: _Source) -> None:
        """All passes over a source with a budget, until it has its part. Its shards come before any later source's."""
        at_once = one.gathered.by_repository()
        while True:
            begin = one.shards
            missing = one.bound(1)
            per_token = BYTES_PER_TOKEN if at_once else BYTES_PER_MISSING_TOKEN
            self._first_passes([one], {one.i: None if missing is None else one.size + per_token * (
                missing - one.tokens)})
            taken = list(range(begin, one.shards))
            wave = self._exact([(one.i, shard) for shard in taken])
            if at_once:
                self._second_passes({one.i: one.shards}, wave)
                break
            one.shards = begin
            for shard in self._results([self._second(one, shard, wave) for shard in taken]):
                one.shards = taken[shard] + 1
                one.tokens += artifact.read_state(self._work.second(one.i, taken[shard]))["tokens"]
                self._log(one)
                if one.has_enough():
                    one.gathered.read_whole = False
                    break
            del self._done[len(self._done) - len(taken) + one.shards - begin:]
            if one.gathered.read_whole or one.has_enough():
                break
        self._remember(one)

    def _first_passes(self, wanted: list[_Source], bounds: dict[int, int | None]) -> None:
        """The first pass over the next shards of these sources, each to its end or until it holds so many bytes."""
        closed: set[int] = set()
        given: list[tuple[_Source, int]] = []
        failed: list[tuple[_Source, UserError]] = []

        def tasks() -> Iterator[Task]:
            for one in wanted:
                shard = one.shards
                while one.i not in closed:
                    try:
                        if not self._cut(one, shard):
                            break
                    except UserError as error:
                        failed.append((one, error))
                        return
                    given.append((one, shard))
                    yield Task(f"{one.gathered.name}, shard {shard}: first pass", first_pass,
                               (self._folder, one.i, shard))
                    shard += 1

        for number, steps in enumerate(self._executor.ordered(tasks())):
            one, shard = given[number]
            self._count(steps)
            artifact.remove(self._work.raw(one.i, shard))
            if one.i in closed:
                continue
            one.shards = shard + 1
            one.size += artifact.read_state(self._work.first(one.i, shard))["bytes"]
            self._log(one)
            bound = bounds[one.i]
            if bound is not None and one.size >= bound:
                closed.add(one.i)
        for one, error in failed:
            if one.i not in closed:  # what lies behind the end was read ahead, and need not be sound
                raise error
            behind = wanted.index(one) + 1
            self._first_passes(wanted[behind:], bounds)
            wanted = wanted[:behind]
        for one in wanted:  # whether the end was seen beyond a bound depends on how far the workers read ahead
            one.gathered.read_whole = one.i not in closed and one.ended()

    def _cut(self, one: _Source, shard: int) -> bool:
        """See to it that a shard is there to be taken; False behind the end of the source."""
        if one.known is None and self._work.source(one.i).exists():
            one.known = json.loads(self._work.source(one.i).read_text(encoding="utf-8"))
        if one.known is not None:
            found: bool = shard < one.known["shards"]
            return found
        if one.raw is None:
            chars = cut.shard_chars(one.bound(1))
            one.raw = cut.cut(one.gathered.source, one.gathered.name, self._stage.output, chars, self._timings)
        while one.num_cut <= shard:
            if one.fault is not None:
                raise one.fault
            try:
                raw = next(one.raw, None)
            except UserError as error:
                one.fault = error
                raise
            if raw is None:
                one.all_cut = True
                return False
            if not self._work.first(one.i, one.num_cut).exists():
                with self._timings.step("spool"):
                    cut.write_raw(self._work.raw(one.i, one.num_cut), raw)
            one.num_cut += 1
        return True

    def _exact(self, shards: list[exact.Shard]) -> int | None:
        """Find the exact duplicates of these shards; returns the number of the wave."""
        if not self._stage.deduplicate or not shards:
            return None
        wave, self._num_waves = self._num_waves, self._num_waves + 1
        with self._timings.step("exact duplicates"):
            groups = exact.begin_wave(self._work, wave, self._done, shards)
            self._done += shards
            for _ in self._executor.ordered(
                    Task(f"exact duplicates, group {group} of {groups}", exact.find, (self._folder, wave, group))
                    for group in range(groups)):
                pass
        return wave

    def _second_passes(self, shards: dict[int, int], wave: int | None) -> None:
        """The second pass over so many shards of each source, all in one wave."""
        chosen = [one for one in self._all if one.i in shards]
        by_repository = [one for one in chosen if one.gathered.by_repository()]
        for one in by_repository:
            one.groups = regroup.num_groups(one.size) if one.shards else 0
        for _ in self._results([
                Task(f"{one.gathered.name}, shard {shard}: regrouping", regroup.regroup,
                     (self._folder, one.i, shard, wave, one.groups))
                for one in by_repository for shard in range(one.shards)]):
            pass
        tasks: list[Task] = []
        owners: list[_Source] = []
        for one in chosen:
            if one in by_repository:
                found = [Task(f"{one.gathered.name}, repositories {group}: second pass", regroup.second_pass_over_group,
                              (self._folder, one.i, group, one.shards)) for group in range(one.groups)]
            else:
                found = [self._second(one, shard, wave) for shard in range(one.shards)]
            tasks += found
            owners += [one] * len(found)
        for number in self._results(tasks):
            one = owners[number]
            one.tokens += artifact.read_state(self._work.second(one.i, one.parts))["tokens"]
            one.parts += 1
            self._log(one)

    def _second(self, one: _Source, shard: int, wave: int | None) -> Task:
        return Task(f"{one.gathered.name}, shard {shard}: second pass", second_pass,
                    (self._folder, one.i, shard, wave))

    def _results(self, tasks: list[Task]) -> Iterator[int]:
        """Do tasks; yields the number of each, in order, when it is done."""
        for number, steps in enumerate(self._executor.ordered(tasks)):
            self._count(steps)
            yield number

    def _count(self, steps: dict[str, tuple[float, float]]) -> None:
        """A task is done."""
        stall.alive()
        self._timings.add(steps)

    def _remember(self, one: _Source) -> None:
        """Write down how many shards a source has, so that another attempt need not read it."""
        write_json_atomic(self._work.source(one.i), {"shards": one.shards, "read_whole": one.gathered.read_whole})

    def _put_together(self, one: _Source) -> None:
        """What the tasks of a source counted, in the order of its shards, and its shelf."""
        gathered, name = one.gathered, one.gathered.name
        parts = [self._work.second(one.i, part) for part in range(one.groups or one.shards)]
        num_documents: list[int] = []

        def count(place: Path) -> None:
            state = artifact.read_state(place)  # one at a time: each holds samples and the first drops
            self.dropped.merge(name, state["dropped"])
            if "account" in state:
                gathered.account.merge(state["account"])
            if "documents" in state and "tokens" in state:
                num_documents.append(state["documents"])

        for shard in range(one.shards):
            count(self._work.first(one.i, shard))
            count(self._work.regrouped(one.i, shard) if one.groups else parts[shard])
        for part in parts if one.groups else []:
            count(part)
        gathered.shelf = Shelves(parts, num_documents)
        gathered.account.check(self.dropped)

    def _log(self, one: _Source) -> None:
        self._num_done += 1
        if self._num_done % SHARDS_PER_LINE == 1:
            self._progress.write(one.i, len(self._all) + 1, source=one.gathered.name, **{
                "corpus/source_shards": one.shards, "corpus/source_bytes": one.size,
                "corpus/source_tokens": one.tokens})


class _Source:
    """A source on its way.

    Attributes:
        shards: Shards that count: those of the first pass, then those that the budget has left.
        size: Bytes that the first pass has left of them.
        tokens: Tokens on its shelf.
        groups: Groups of repositories that the second pass takes; 0 where it takes shards.
        parts: Parts of the second pass that are done.
        num_cut: Shards that were cut so far; those behind `shards` were read ahead.
        all_cut: Whether that is all of the source.
        fault: What stopped the reading, which may be behind what is needed so far; it stops it again.
        known: What an earlier attempt wrote down.
    """

    def __init__(self, i: int, gathered: Gathered) -> None:
        self.i, self.gathered = i, gathered
        self.shards = self.size = self.tokens = self.groups = self.parts = 0
        self.num_cut = 0
        self.all_cut = False
        self.fault: UserError | None = None
        self.known: dict[str, Any] | None = None
        self.raw: Iterator[cut.Raw] | None = None

    def ended(self) -> bool:
        """Whether the shards that count are all of the source."""
        if self.known is not None:
            return bool(self.known["read_whole"]) and self.shards == self.known["shards"]
        return self.all_cut and self.shards == self.num_cut

    def bound(self, per_token: int) -> int | None:
        """The budget, times a number; None for a source that is read to its end."""
        budget = self.gathered.budget
        return None if budget is None or not sources.may_stop_early(self.gathered.source) else per_token * budget

    def has_enough(self) -> bool:
        """Whether its part of the mixture is full, and it is not a file that has to be checked to its end."""
        bound = self.bound(1)
        return bound is not None and self.tokens >= bound


def budgets(stage: CorpusStage) -> list[int | None]:
    """Tokens that each source may give; None takes all."""
    if stage.num_tokens is None:
        return [None] * len(stage.sources)
    return list(parts_of_budget(stage.num_tokens, [source.weight for source in stage.sources]))
