"""What a build keeps beside its unfinished product, for its tasks and for the next attempt: OUT/work/KEY/.

    line.json                   stage, seed, names of the sources, identities of all that the work depends on
    benchmarks, tokenizer/      what the second pass needs of the machine that the build runs on
    raw/SOURCE/SHARD            documents as they were read; gone once the first pass over them is done
    first/SOURCE/SHARD/         the first pass (`corpora/first_pass.py`)
    exact/WAVE/GROUP            exact duplicates (`corpora/exact.py`)
    copies/                     the search for copies of repositories (`corpora/copies.py`)
    copied/SOURCE/SHARD         rows of a shard that go with them
    near/                       the near-duplicate search
    regrouped/SOURCE/SHARD/     documents by repository (`corpora/regroup.py`)
    second/SOURCE/SHARD/        the second pass (`corpora/second_pass.py`)
    sources/SOURCE.json         how many shards a source has, once that is known

KEY is a digest of line.json and of this package: work that was begun for anything else is removed, and a straggler of
it, on another machine, writes nowhere near this one's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from configs.stage import write_json_atomic
from corpora import artifact
from corpora.version import code_digest

NAME = "work"
LINE = "line.json"


class Work:
    """The places of one build's work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def benchmarks(self) -> Path:
        """The decontamination, ready to be used."""
        return self.folder / "benchmarks"

    @property
    def tokenizer(self) -> Path:
        """The base's tokenizer, as a folder."""
        return self.folder / "tokenizer"

    @property
    def near(self) -> Path:
        """The near-duplicate search."""
        return self.folder / "near"

    @property
    def copies(self) -> Path:
        """The search for copies of repositories."""
        return self.folder / "copies"

    def copied(self, i: int, shard: int) -> Path:
        """Rows of a shard of source i that are of a copy."""
        return self._place("copied", i, shard)

    def raw(self, i: int, shard: int) -> Path:
        """Documents of a shard of source i as they were read."""
        return self._place("raw", i, shard)

    def first(self, i: int, shard: int) -> Path:
        """What the first pass made of a shard of source i."""
        return self._place("first", i, shard)

    def exact(self, wave: int) -> Path:
        """Exact duplicates among the shards of a wave."""
        return self.folder / "exact" / f"{wave:04d}"

    def regrouped(self, i: int, shard: int) -> Path:
        """What is left of a shard of source i, by repository."""
        return self._place("regrouped", i, shard)

    def second(self, i: int, shard: int) -> Path:
        """What the second pass made of a shard, or of a group of repositories, of source i."""
        return self._place("second", i, shard)

    def source(self, i: int) -> Path:
        """What is known of source i."""
        return self.folder / "sources" / f"{i:04d}.json"

    def begin(self, num_sources: int) -> None:
        """Make the folders that artifacts are put into, and remove what killed writers left."""
        artifact.remove_partial(self.folder)
        for kind in ("raw", "first", "copied", "regrouped", "second"):
            for i in range(num_sources):
                self._place(kind, i, 0).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "sources").mkdir(exist_ok=True)

    def remove(self) -> None:
        """Remove all of it."""
        artifact.remove(self.folder.parent)

    def _place(self, kind: str, i: int, shard: int) -> Path:
        return self.folder / kind / f"{i:04d}" / f"{shard:06d}"


def open_work(out: Path, line: dict[str, Any]) -> Work:
    """The work of this line below OUT, as an earlier attempt left it; that of any other line is removed."""
    text = json.dumps({**line, "code": code_digest()}, sort_keys=True)
    key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    folder = out / NAME / key
    if (out / NAME).exists():
        for other in (out / NAME).iterdir():
            if other.name != key:
                artifact.remove(other)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LINE).exists():
        write_json_atomic(folder / LINE, line)
    return Work(folder)
