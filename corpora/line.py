"""What every task of a build knows: the stage, the rules, the tokenizer, the benchmarks. Read from the shared folder.

A process loads each part once, when its first task asks for it.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
from functools import cached_property
from pathlib import Path

from configs.errors import RetryableError
from configs.settings.corpus import CorpusSource, CorpusStage
from corpora.decontaminate import Decontaminator
from corpora.rules import Rules
from corpora.tokens import Encoder, load_encoder
from corpora.work import LINE, Work


class Line:
    """One build, as its tasks see it."""

    def __init__(self, folder: str) -> None:
        self.work = Work(Path(folder))
        try:
            held = json.loads((self.work.folder / LINE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RetryableError(f"{folder}: is not seen on {os.uname().nodename}, or another build has taken its "
                                 "place; OUT must lie where every worker sees it under the same path") from None
        self.stage = CorpusStage.model_validate_json(json.dumps(held["stage"]))
        self.seed: int = held["seed"]
        self.names: list[str] = held["names"]
        self._rules: dict[int, Rules] = {}

    def source(self, i: int) -> CorpusSource:
        """Source i as the recipe gives it."""
        return self.stage.sources[i]

    def rules(self, i: int) -> Rules:
        """The rules of source i."""
        if i not in self._rules:
            self._rules[i] = Rules(self.source(i), f"stage.sources[{i}]")
        return self._rules[i]

    @cached_property
    def benchmarks(self) -> Decontaminator:
        """The questions that must not be seen."""
        with self.work.benchmarks.open("rb") as file:
            found: Decontaminator = pickle.load(file)
        return found

    @cached_property
    def encoder(self) -> Encoder | None:
        """The base's tokenizer on one thread; None where nothing is tokenised."""
        return load_encoder(self.work.tokenizer, 1) if self.work.tokenizer.is_dir() else None


@functools.lru_cache(maxsize=1)
def open_line(folder: str) -> Line:
    """The line whose work lies in this folder. Raises RetryableError where the folder is not seen."""
    return Line(folder)
