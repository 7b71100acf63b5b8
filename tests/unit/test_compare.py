"""`derive compare` and `derive lineage` over made-up runs, by hand-computed figures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from flows import compare, lineage
from flows.cli import main
from flows.store import Store

RELEASE = {"id": "release", "kind": "release", "evaluation": "evaluate", "name": "made-up"}
SETS = {"sums": 6, "words": 4}


def evaluation(folder: Path, right: set[str], value: float, bits: float) -> None:
    """An evaluation of ten problems in two sets, of which `right` were answered correctly."""
    folder.mkdir(parents=True)
    lines = []
    for model in ("base", "sft"):
        for source, count in SETS.items():
            for number in range(count):
                good = model == "sft" and f"{source}{number}" in right
                lines.append(json.dumps({
                    "model": model, "task": f"{source}{number}", "source": source, "prompt": f"{source} {number}?",
                    "answer": "1", "completion": "1", "outcome": "correct" if good else "incorrect",
                }) + "\n")  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(lines))
    figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
    taught = {"pass@1": figure, "maj@k": {"k": 4, **figure}, "kept_all": figure, "bits_per_byte": {"text": bits}}
    models = {"base": {"pass@1": {**figure, "value": 0.0}}, "sft": taught}
    (folder / "results.json").write_text(json.dumps({"models": models}))


def released(
    folder: Path, run: str, learning_rate: float, right: set[str], value: float, bits: float, digest: str = "a"
) -> Path:
    """A release folder with its line, and the evaluation that the line names."""
    evaluation(folder / "evaluate", right, value, bits)
    stages: list[dict[str, Any]] = [
        {"id": "examples", "kind": "corpus", "digest": "c" * 64, "seconds": 2.0,
         "config": {"id": "examples", "kind": "corpus", "output": "examples", "sources": [{"name": "gsm8k"}],
                    "decontaminate": []}},
        {"id": "sft", "kind": "sft", "digest": digest * 64, "seconds": 60.0, "metrics": {"sft/tokens_per_s": 700.0},
         "config": {"id": "sft", "kind": "sft", "data": ["examples"], "learning_rate": learning_rate, "epochs": 2.0}},
        {"id": "evaluate", "kind": "evaluate", "digest": digest.upper() * 64, "folder": str(folder / "evaluate"),
         "metrics": {"evaluate/base/pass@1": 0.0, "evaluate/sft/pass@1": value},
         "verifiers": {"judge": {"name": "math", "version": "2", "source": "f" * 64}},
         "config": {"id": "evaluate", "kind": "evaluate", "models": ["base", "sft"],
                    "tasks": [{"name": "gsm8k", "split": "test"}]}},
    ]  # fmt: skip
    about = {"run": run, "recipe": "math/made-up", "seed": 3, "base": {"name": "Qwen/Qwen2.5-0.5B", "revision": "r1"}}
    out = folder / "release"
    out.mkdir()
    (out / "lineage.json").write_text(json.dumps({**about, "stages": stages}))
    return out


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    few = {"sums0", "sums1", "words0"}
    more = {"sums0", "sums2", "sums3", "words0", "words1"}
    return (
        released(tmp_path / "a", "run-a", 1e-5, few, 0.3, 1.25),
        released(tmp_path / "b", "run-b", 2e-5, more, 0.5, 1.2, digest="b"),
    )


def test_the_difference_is_that_over_the_same_problems(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    found = compare.compare(Store(str(tmp_path / "store")), *map(str, pair))
    # Of ten problems the second has three that the first has not, and lacks one that it has: (3 - 1) / 10.
    assert found.gains["all"]["value"] == pytest.approx(0.2) and found.gains["all"]["num"] == 10
    assert found.gains["sums"]["value"] == pytest.approx((2 - 1) / 6)
    assert found.gains["words"]["value"] == pytest.approx(1 / 4)
    assert found.gains["all"]["low"] < 0.2 < found.gains["all"]["high"]
    assert found.settings == [("sft.learning_rate", 1e-5, 2e-5)]
    assert [(name, state) for name, state, _ in found.stages] == [
        ("examples", "same"), ("sft", "other"), ("evaluate", "other")]  # fmt: skip
    assert ("bits per byte, text", "1.250", "1.200", "-0.050") in compare.rows(found)
    figure = dict(zip(("first", "second"), compare.rows(found)[0][1:3], strict=True))
    for name in ("maj@k", "kept tasks"):
        assert (name, figure["first"], figure["second"], "") in compare.rows(found)
    assert found.first.model == "sft"


def test_without_answers_no_difference_is_claimed(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b" / "evaluate" / "samples.jsonl").unlink()
    assert main(["compare", *map(str, pair), "--store", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert "no paired difference" in said and "30.0% [20.0, 40.0]" in said and "50.0% [40.0, 60.0]" in said
    assert "points" not in said and "sft.learning_rate" in said


def test_problems_that_were_asked_otherwise_are_not_paired(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    path = tmp_path / "b" / "evaluate" / "samples.jsonl"
    path.write_text(path.read_text().replace("sums 0?", "sums zero?"))
    found = compare.compare(Store(str(tmp_path / "store")), *map(str, pair))
    assert found.gains["all"]["num"] == 9


def test_a_torn_file_of_answers_is_named(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    path = tmp_path / "b" / "evaluate" / "samples.jsonl"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match="samples.jsonl: .*build the evaluation again"):
        compare.compare(Store(str(tmp_path / "store")), *map(str, pair))


def test_a_line_is_told_back_to_its_base(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lineage", str(pair[0]), "--svg", str(tmp_path / "line.svg"), "--store", str(tmp_path / "s")]) == 0
    said = capsys.readouterr().out
    assert "base Qwen/Qwen2.5-0.5B at r1" in said
    assert "sft (sft) aaaaaaaaaaaa  <- base, examples  built in 1 min 00 s" in said
    assert "verifier math 2 ffffffffffff" in said and "pass@1: base 0.0%, sft 30.0%" in said
    picture = (tmp_path / "line.svg").read_text()
    assert picture.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in picture
    assert "sft reads examples" in picture and picture.count("<circle") == 4
    assert main(["lineage", str(pair[0].parent), "--json", "--store", str(tmp_path / "s")]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["reads"]["evaluate"] == ["base", "sft"] and plain["run"] == "run-a"


def test_what_is_no_release_is_refused_with_the_reason(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["lineage", str(tmp_path / "empty"), "--store", str(tmp_path / "s")]) == 2
    assert "has no lineage.json; give a folder that a release stage wrote" in capsys.readouterr().err
    (pair[0] / "lineage.json").write_text('{"stages": [{"id": 3}]}')
    assert main(["compare", *map(str, pair), "--store", str(tmp_path / "s")]) == 2
    assert "cannot be read as a lineage" in capsys.readouterr().err
    shutil.rmtree(pair[1])
    assert main(["lineage", str(pair[1]), "--store", str(tmp_path / "s")]) == 2
    assert "there are no runs" in capsys.readouterr().err
    assert main(["lineage", "x", "--svg", str(tmp_path / "none" / "x.svg"), "--store", str(tmp_path / "s")]) == 2


def test_settings_of_another_version_leave_the_line_without_arcs(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    path = pair[0] / "lineage.json"
    given = json.loads(path.read_text())
    given["stages"][1]["config"]["of_another_version"] = 1
    path.write_text(json.dumps(given))
    line = lineage.find(Store(str(tmp_path / "s")), str(pair[0]))
    assert line.reads["sft"] == () and "sft (sft)" in lineage.tree(line)


def test_what_is_released_counts_and_what_it_stands_on(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """Also where another model is asked last, and where another evaluation comes later."""
    path = pair[0] / "lineage.json"
    given = json.loads(path.read_text())
    later = {**given["stages"][2], "id": "later", "folder": str(tmp_path / "nowhere")}
    given["stages"][2]["config"]["models"] = ["sft", "base"]
    path.write_text(json.dumps({**given, "stages": [*given["stages"], later]}))
    store = Store(str(tmp_path / "store"))
    assert compare.compare(store, *map(str, pair)).first.model == "base"
    given["released"] = {"model": "sft", "evaluation": "evaluate"}
    path.write_text(json.dumps({**given, "stages": [*given["stages"], later]}))
    found = compare.compare(store, *map(str, pair))
    assert found.first.model == "sft" and found.gains["all"]["value"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("release/lineage.json", "[]", "holds no list of stages"),
        ("release/lineage.json", '{"stages": [3]}', "stages.0. has no id"),
        ("release/lineage.json", '{"base": "x", "stages": []}', "base of the line is a str"),
        ("release/lineage.json", '{"stages": [{"id": "a", "kind": "sft", "config": []}]}', "config of stages"),
        ("release/lineage.json", "[" * 100_000, "cannot be read as a lineage"),
        ("release/lineage.json", '{"stages": [], "run": "\\ud800"}', "cannot be read as a lineage"),
        ("evaluate/results.json", '{"models": {"sft": 1}}', "cannot be read as an evaluation"),
        ("evaluate/results.json", '{"models": {"sft": {"by_task": []}}}', "cannot be read as an evaluation"),
        ("evaluate/results.json", '{"mod', "cannot be read as an evaluation"),
        ("evaluate/samples.jsonl", "3\n", "build the evaluation again"),
    ],
)
def test_foreign_and_torn_files_are_named_in_one_line(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], name: str, content: str, said: str
) -> None:
    (tmp_path / "a" / name).write_text(content)
    assert main(["compare", *map(str, pair), "--store", str(tmp_path / "s")]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and name.partition("/")[2] in error and error.count("\n") == 1


def test_a_figure_without_an_interval_and_a_prompt_in_brackets_are_shown(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "a" / "evaluate" / "results.json"
    results.write_text(json.dumps({"models": {"sft": {"pass@1": {"value": 0.3, "low": 0.2}, "maj@k": "x"}}}))
    path = pair[0] / "lineage.json"
    given = json.loads(path.read_text())
    given["stages"][1]["config"]["system"] = "[/INST] [bold]answer"
    path.write_text(json.dumps(given))
    assert main(["compare", *map(str, pair), "--store", str(tmp_path / "s")]) == 0
    said = capsys.readouterr().out
    assert "30.0% " in said and "[/INST] [bold]answer" in said
    assert main(["lineage", str(pair[0]), "--svg", str(tmp_path), "--store", str(tmp_path / "s")]) == 2
    assert "is a folder; give the path of a file" in capsys.readouterr().err
