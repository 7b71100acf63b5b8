"""What a build keeps beside its unfinished product, so that a killed one goes on: OUT/work/.

    key.json             what this work is for; that of anything else is removed
    NUMBER/documents     the spool of source NUMBER after the first pass, whole or not there
    NUMBER/state.json    what that pass counted
    near/                the near-duplicate search, which resumes by itself
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import corpora
from configs.settings.corpus import CorpusStage
from configs.stage import write_json_atomic, write_text_atomic

NAME = "work"


class Work:
    """The folder, emptied unless it was begun for the same stage, seed, sources and code."""

    def __init__(self, out: Path, stage: CorpusStage, seed: int, identities: Any) -> None:
        self.folder = out / NAME
        key = {"stage": stage.model_dump(mode="json"), "seed": seed, "identities": identities,
               "code": _code()}
        key = json.loads(json.dumps(key))
        path = self.folder / "key.json"
        if not path.exists() or json.loads(path.read_text(encoding="utf-8")) != key:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json_atomic(path, key)

    def spool(self, i: int) -> Path:
        """Where the documents of source i lie once they are there."""
        return self.folder / f"{i:04d}" / "documents"

    def begin(self, i: int) -> Path:
        """An empty folder in which to write the spool of source i, as `documents`."""
        partial = self.folder / f"partial-{i:04d}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        return partial

    def publish(self, i: int, state: dict[str, Any]) -> None:
        """Give the spool of source i its name, with what was counted."""
        partial = self.folder / f"partial-{i:04d}"
        write_text_atomic(partial / "state.json", json.dumps(state))  # unsorted: the log's lines keep their form
        os.replace(partial, self.folder / f"{i:04d}")

    def state(self, i: int) -> dict[str, Any] | None:
        """What was counted for source i; None where it is not there yet."""
        path = self.folder / f"{i:04d}" / "state.json"
        found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return found

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _code() -> str:
    """Digest of this package's files."""
    digest = hashlib.sha256()
    root = Path(corpora.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
