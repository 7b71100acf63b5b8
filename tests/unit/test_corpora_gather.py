"""Where the reading of a source ends: the same however far the workers read ahead."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import derivatives
from configs.settings.corpus import CorpusStage
from configs.stage import StageFile, StageInput, run_command
from corpora import build, cut
from corpora.document import Document
from corpora.executors import Task

SEEDLING = Path(derivatives.__file__).parent / "seedling" / "checkpoint"
WORDS = ("orchard", "lantern", "granite", "whistle", "harvest", "compass", "velvet", "thunder", "marble", "feather")


class Ahead:
    """Does tasks in this process, after it has taken so many of them."""

    num_workers, processor_seconds = 1, 0.0

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def ordered(self, tasks: Iterable[Task]) -> Iterator[Any]:
        given = iter(tasks)
        taken: list[Task] = []
        while True:
            taken += itertools.islice(given, self._ahead - len(taken))
            if not taken:
                return
            task = taken.pop(0)
            yield task.function(*task.arguments)


def in_tens(documents: Iterable[Document]) -> Iterator[list[Document]]:
    given = iter(documents)
    while batch := list(itertools.islice(given, 10)):
        yield batch


@pytest.fixture
def run_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path | None]:
    """Builds from a mirror in shards of thirty rows, so many of them read ahead; the product, or None after a fault."""
    monkeypatch.setenv("DERIVE_DATA", str(tmp_path))
    monkeypatch.setattr(cut, "batches", in_tens)
    monkeypatch.setattr(cut, "shard_chars", lambda budget: 20_000)

    def run(lines: list[str], ahead: int, **stage: Any) -> Path | None:
        (tmp_path / "gsm8k").mkdir(exist_ok=True)
        (tmp_path / "gsm8k" / "train.jsonl").write_text("".join(line + "\n" for line in lines))
        monkeypatch.setattr(build, "open_executor", lambda machine, folder: Ahead(ahead))
        stage_file = StageFile(recipe="t", inputs={"base": StageInput(kind="base", path=str(SEEDLING))},
                               stage=CorpusStage(id="corpus", output="tokens", sources=[{"name": "gsm8k"}], **stage))
        (tmp_path / "stage.json").write_text(stage_file.model_dump_json())
        out = tmp_path / f"out{ahead}"
        code = run_command("corpus", build.run, "", [str(tmp_path / "stage.json"), str(out)])
        assert code in (0, 2)
        return out / "data" if code == 0 else None

    return run


def row(i: int) -> str:
    draw = random.Random(i)
    text = " ".join(draw.choice(WORDS) for _ in range(60))
    return json.dumps({"question": f"Number {i}: {text}?", "answer": f"{text} is {i}\n#### {i}"})


def test_a_fault_that_was_read_ahead_of_need_still_stops_the_stage_when_it_is_needed(
    run_ahead: Callable[..., Path | None], capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [row(0) for _ in range(180)] + ['{"question": "torn'] + [row(i) for i in range(1, 100)]
    for ahead in (1, 3, 50):  # copies of one row never fill the budget, so that all rows are needed
        assert run_ahead(lines, ahead, num_tokens=10_000) is None
        assert "train.jsonl:181" in capsys.readouterr().err
    lines = [row(i) for i in range(180)] + ['{"question": "torn']
    for ahead in (1, 50):  # these do
        assert run_ahead(lines, ahead, num_tokens=10_000) is not None


def test_whether_a_source_was_read_whole_does_not_depend_on_what_was_read_ahead(
    run_ahead: Callable[..., Path | None],
) -> None:
    lines = [row(i) for i in range(150)]
    products = set()
    for ahead in (1, 3, 50):
        folder = run_ahead(lines, ahead, num_tokens=21_500, near_duplicates=True)  # the bound is in the last shard
        assert folder is not None
        source = json.loads((folder / "report.json").read_text())["sources"]["gsm8k"]
        assert source["read"] == 150 and not source["read_whole"]
        products.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())))
    assert len(products) == 1
