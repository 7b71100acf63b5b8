"""Copied repositories through the stage: they go as a whole, and what they hold alone of a text is not lost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import derivatives
from configs.settings.corpus import CorpusStage
from configs.settings.machine import Machine
from configs.stage import StageFile, StageInput, run_command
from corpora.build import run

SEEDLING = Path(derivatives.__file__).parent / "seedling" / "checkpoint"


def module(seed: int) -> str:
    draw = random.Random(seed)
    return "".join(f"def work_{seed}_{i}(a): return a * {draw.randrange(10**6)}\n" for i in range(25))


def build(folder: Path, rows: list[dict[str, Any]], num_threads: int = 1, name: str = "out", **given: Any) -> Path:
    (folder / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = CorpusStage(**{"id": "corpus", "output": "tokens", "sequence_length": 1024,
                           "sources": [{"name": str(folder / "code.jsonl"), **given.pop("source", {})}], **given})
    base = {"base": StageInput(kind="base", path=str(SEEDLING))}
    path = folder / f"{name}.json"
    path.write_text(StageFile(recipe="test", inputs=base, stage=stage,
                              machine=Machine(name="cpu", num_threads=num_threads)).model_dump_json())
    assert run_command("corpus", run, "", [str(path), str(folder / name)]) == 0
    return folder / name / "data"


def rows() -> list[dict[str, Any]]:
    """A fork comes first and holds one file less and one of its own; two other repositories; one file of none."""
    def of(name: str, *seeds: int) -> list[dict[str, Any]]:
        return [{"id": f"{name}/{seed}", "path": f"m{seed}.py", "repository": name, "text": module(seed)}
                for seed in seeds]
    return [*of("fork", *range(9), 50), *of("origin", *range(11)), *of("other", *range(20, 26), 3), *of("", 0, 60)]


def report_of(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "report.json").read_text())
    return found


@pytest.mark.parametrize("settings", [{}, {"near_duplicates": True}, {"source": {"level": "repository"}},
                                      {"num_tokens": 10**6}], ids=str)
def test_a_fork_goes_as_a_whole_and_its_origin_keeps_every_file(tmp_path: Path, settings: dict[str, Any]) -> None:
    data = build(tmp_path, rows(), duplicate_repositories=True, **settings)
    report = report_of(data)
    [source] = report["sources"].values()
    steps = {step["step"]: step["dropped"] for step in source["funnel"]}
    assert steps["copied repositories"] == {"duplicate_repository": 10}
    # Of what is left, "other" and the file of no repository hold one file each of the origin's.
    assert steps["exact duplicates"] == {"exact_duplicate": 2} and source["clean"] == 11 + 6 + 1
    tokens = np.fromfile(data / "tokens.bin", dtype="<u4").tolist()
    text = Tokenizer.from_file(str(SEEDLING / "tokenizer.json")).decode(tokens)
    passes = source["passes"]
    assert all(text.count(f"work_{seed}_0(") == passes for seed in [*range(11), *range(20, 26), 60])
    assert "work_50_0(" not in text
    drops = [json.loads(line) for line in (data / "dropped.jsonl").read_text().splitlines()]
    [one] = [line for line in drops if line["id"] == "fork/50"]
    assert (one["reason"], one["duplicate_of"]) == ("duplicate_repository", "code.jsonl/origin")
    assert one["share"] == pytest.approx(0.9, abs=0.02)
    [cluster] = [json.loads(line) for line in (data / "repositories.jsonl").read_text().splitlines()]
    assert cluster["repository"] == "code.jsonl/origin" and [c["files"] for c in cluster["copies"]] == [10]
    assert report["duplicate_repositories"] == {"threshold": 0.7, "dropped": 1, "kept": 1}


def test_without_the_setting_the_fork_keeps_its_own_file(tmp_path: Path) -> None:
    [source] = report_of(build(tmp_path, rows()))["sources"].values()
    assert source["dropped"] == {"exact_duplicate": 9 + 1 + 1} and source["clean"] == 19


def test_the_product_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    given: dict[str, Any] = {"duplicate_repositories": 0.8, "source": {"level": "repository"}}
    one, two = (build(tmp_path, rows(), n, f"out{n}", **given) for n in (1, 2))
    for name in ("tokens.bin", "documents.npy", "report.json", "dropped.jsonl", "repositories.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_copies_are_looked_for_only_beside_exact_duplicates() -> None:
    wrong: dict[str, Any] = {"id": "c", "output": "tokens", "sources": [{"name": "x.jsonl"}], "deduplicate": False}
    with pytest.raises(ValueError, match="remove deduplicate"):
        CorpusStage(**wrong, duplicate_repositories=True)
