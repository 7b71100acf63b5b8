"""The search: shards of documents in, clusters of near-duplicates and the documents to drop out.

    search = plan(shards, reader, settings, folder)
    report = run(folder, workers=4)
    for row, duplicate in dropped_rows(folder, shard): ...

The work falls into tasks, each a function of the folder and a few numbers that writes one artifact whole or not at
all: `sign_shard` for every shard, then `link_group` for every range of band keys, with a threshold also
`verify_group` for every range of pairs, last the clusters. `run` hands them to processes of this machine, or to the
executor that it is given. What was published is never made again: after a kill the same call goes on, and the result
is the same to the byte. It depends on the documents alone: neither on their order, nor on the shards, nor on
the number of workers (`kept.py` says what is kept).

Written to the folder: `clusters.jsonl` (cluster, kept id, members with their similarity to the kept one),
`dropped/NUMBER.jsonl` for every shard (row, id, duplicate_of, similarity), `report.json`.
Memory: bounded by the constants of `spill.py` and `store.py` (at their limits about 0.5 GB a worker, by the sizes of
the arrays that are sorted), plus 16 bytes per document that has a near-duplicate, and 1 KB for each document of the
largest connected component.
Disk while it runs: about 0.8 KB a document, with a threshold 8 bytes more for every distinct shingle.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from configs import stall
from configs.errors import UserError
from configs.stage import write_json_atomic
from corpora import artifact
from corpora.executors import Executor
from corpora.executors import Task as ExecutorTask
from corpora.executors.processes import Processes
from corpora.near_duplicates import candidates
from corpora.near_duplicates.clusters import write_clusters
from corpora.near_duplicates.settings import NearDuplicateSettings
from corpora.near_duplicates.spill import groups, publish
from corpora.near_duplicates.store import ShardWriter, SignedShard, SignedShards

JSONL_READER = "corpora.near_duplicates.search:read_jsonl"
Task = tuple[Callable[..., None], tuple[Any, ...]]


def plan(shards: Sequence[str], folder: Path, settings: NearDuplicateSettings | None = None,
         reader: str = JSONL_READER) -> None:
    """Say in FOLDER/plan.json what is to be searched. Work of another plan that lies there is removed.

    Args:
        shards: Names, each read as a whole by one task; usually paths.
        folder: Where everything is written.
        settings: What counts as a near-duplicate.
        reader: `module:function`; called with a shard's name it yields (id, text). Ids are unique over all shards.

    Raises:
        UserError: A shard is named twice, or there is none.
    """
    if not shards or len(set(shards)) < len(shards):
        raise UserError(f"near_duplicates: {len(shards)} shards, {len(set(shards))} different ones; allowed: one or "
                        "more, each once; mend the list")
    if len(shards) >= 1 << 23:
        raise UserError(f"near_duplicates: {len(shards)} shards; allowed: below {1 << 23}; join small ones")
    files = [[Path(shard).stat().st_size, Path(shard).stat().st_mtime_ns] if Path(shard).is_file() else None
             for shard in shards]
    wanted = {"settings": asdict(settings or NearDuplicateSettings()), "reader": reader, "shards": list(shards),
              "files": files}
    path = folder / "plan.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) == wanted:
        return
    if path.exists():
        for old in ("report.json", "plan.json", "clusters.jsonl"):
            (folder / old).unlink(missing_ok=True)
        for old in ("signed", "links", "pairs", "verified", "dropped", "result.partial"):
            shutil.rmtree(folder / old, ignore_errors=True)
    for part in ("signed", "links", "pairs", "verified"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, wanted)


def run(folder: Path, workers: int | Executor = 1) -> dict[str, Any]:
    """Do what is left of the plan. Returns the report (also FOLDER/report.json).

    Args: workers: Processes of this machine, or who else does the tasks.
    """
    report = folder / "report.json"
    if not report.exists():
        settings, shards, _ = _plan(folder)
        run_tasks([(sign_shard, (folder, i)) for i in range(len(shards))], workers)
        run_tasks([(link_group, (folder, *group)) for group in groups(_files(folder, "signed", "bands"))], workers)
        if settings.threshold is not None:
            pairs = sorted((folder / "pairs").glob("[0-9]*/pairs"))
            run_tasks([(verify_group, (folder, *group)) for group in groups(pairs)], workers)
        _write_report(folder)
    for part in ("signed", "links", "pairs", "verified"):
        shutil.rmtree(folder / part, ignore_errors=True)
    written: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return written


def sign_shard(folder: Path, shard: int) -> None:
    """Sign all documents of one shard."""
    settings, shards, reader = _plan(folder)

    def write(partial: Path) -> None:
        partial.mkdir()
        ShardWriter(partial, shard, settings).write(reader(shards[shard]))

    artifact.make(folder / "signed" / f"{shard:06d}", write)


def link_group(folder: Path, first: int, last: int) -> None:
    """Link (without a threshold) or pair (with one) the documents that share a band key of this range of prefixes."""
    settings, _, _ = _plan(folder)
    name = f"{first:04d}-{last:04d}"

    def write_links(partial: Path) -> None:
        bands, begins = candidates.read_buckets(_files(folder, "signed", "bands"), first, last)
        _save(partial, candidates.link_first(bands, begins))

    def write_pairs(partial: Path) -> None:
        partial.mkdir()
        bands, begins = candidates.read_buckets(_files(folder, "signed", "bands"), first, last)
        candidates.write_pairs(bands, begins, partial / "pairs")

    if settings.threshold is None:
        artifact.make(folder / "links" / f"{name}.npy", write_links)
    else:
        artifact.make(folder / "pairs" / name, write_pairs)


def verify_group(folder: Path, first: int, last: int) -> None:
    """Link those pairs of this range of prefixes whose exact similarity reaches the threshold."""
    settings, _, _ = _plan(folder)
    assert settings.threshold is not None
    threshold = settings.threshold

    def write(partial: Path) -> None:
        pairs = candidates.read_pairs(sorted((folder / "pairs").glob("[0-9]*/pairs")), first, last)
        _save(partial, candidates.similar(pairs, _signed(folder, settings), threshold))

    artifact.make(folder / "verified" / f"{first:04d}-{last:04d}.npy", write)


def dropped_rows(folder: Path, shard: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a shard that are to be dropped, in order, each with its line: constant memory beside a second reading."""
    with (folder / "dropped" / f"{shard:06d}.jsonl").open(encoding="ascii") as file:
        for line in file:
            entry = json.loads(line)
            yield entry["row"], entry


def read_jsonl(shard: str) -> Iterator[tuple[str, str]]:
    """(id, text) of a JSON lines file with these two columns. Raises UserError for a line that lacks one."""
    with Path(shard).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                name, text = row["id"], row["text"]
                if not isinstance(name, str) or not isinstance(text, str):
                    raise TypeError
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{Path(shard).name}, line {number}: {line[:60]!r}; allowed: one JSON object with the "
                                "strings id and text; mend the line") from error
            yield name, text


def _write_report(folder: Path) -> None:
    settings, shards, _ = _plan(folder)
    signed = _signed(folder, settings)
    kind = "links" if settings.threshold is None else "verified"
    links = sorted(path for path in (folder / kind).glob("[0-9]*.npy"))
    result = folder / "result.partial"
    shutil.rmtree(result, ignore_errors=True)
    shutil.rmtree(folder / "dropped", ignore_errors=True)
    result.mkdir()
    counts = write_clusters(links, signed, shards, result, settings)
    sizes = [(len(shard), shard.total_characters()) for shard in
             (SignedShard(path.parent, settings) for path in _files(folder, "signed", "rows"))]
    publish(result / "dropped", folder / "dropped")
    publish(result / "clusters.jsonl", folder / "clusters.jsonl")
    result.rmdir()
    write_json_atomic(folder / "report.json", {
        "settings": asdict(settings), "documents": sum(size[0] for size in sizes),
        "characters": sum(size[1] for size in sizes), **counts})


def _plan(folder: Path) -> tuple[NearDuplicateSettings, list[str], Callable[[str], Iterable[tuple[str, str]]]]:
    held = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    module, _, function = held["reader"].partition(":")
    return NearDuplicateSettings(**held["settings"]), held["shards"], getattr(importlib.import_module(module), function)


def _signed(folder: Path, settings: NearDuplicateSettings) -> SignedShards:
    return SignedShards([path.parent for path in _files(folder, "signed", "rows")], settings)


def _files(folder: Path, part: str, name: str) -> list[Path]:
    return sorted((folder / part).glob(f"[0-9]*/{name}"))


def run_tasks(tasks: list[Task], workers: int | Executor) -> None:
    """Run all tasks, in this process or in several, or by an executor; those of a worker that died are done again."""
    if isinstance(workers, int):
        with Processes(workers) as executor:
            run_tasks(tasks, executor)
        return
    named = [ExecutorTask(f"near-duplicates, {function.__name__} {', '.join(map(str, arguments[1:]))}", function,
                          arguments) for function, arguments in tasks]
    for _ in workers.ordered(named):
        stall.alive()


def _save(path: Path, links: np.ndarray) -> None:
    artifact.write_arrays(path, [links])
