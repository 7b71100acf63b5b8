"""`derive table` over made-up evaluations: what shares a column, gains by hand, and a page that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import UserError
from derivatives.evaluation.statistics import bootstrap_mean
from flows.cli import main
from flows.table import Table, all_against_all, paired_gain
from flows.table_page import draw, standing

BASE = "b" * 64


def interval(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def accuracy(right: Sequence[bool]) -> dict[str, Any]:
    return {**interval(sum(right) / len(right)), "correct": sum(right), "total": len(right), "no_verdict": 0}


def write_evaluation(folder: Path, models: Mapping[str, tuple[str, Mapping[str, Sequence[bool]]]], more: Any = None,
                     recipe: str = "math/made-up", **config: Any) -> Path:  # fmt: skip
    """An evaluation; each model has the digest of its weights, and which problems of each set it solved."""
    folder.mkdir(parents=True)
    figures: dict[str, Any] = {}
    lines = []
    for name, (_, sets) in models.items():
        every = [right for group in sets.values() for right in group]
        figures[name] = {
            "pass@1": accuracy(every), "by_task": {key: accuracy(right) for key, right in sets.items()},
            "pass@k": None, "format": "chat", "bits_per_byte": {"prose": 1.0}, "mean_tokens": 20.0,
            "truncated_fraction": 0.0, **((more or {}).get(name) or {}),
        }  # fmt: skip
        for source, group in sets.items():
            for number, right in enumerate(group):
                outcome = "correct" if right else "incorrect"
                lines.append(json.dumps({"model": name, "task": f"{source}/{number}", "source": source,
                                         "prompt": f"{source} {number}?", "outcome": outcome}) + "\n")  # fmt: skip
    results = {"models": figures, "judge": "math", "confidence": 0.95, "gains": {}, "pairwise": {},
               **((more or {}).get("results") or {})}  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "samples.jsonl").write_text("".join(lines))
    names = list(models)
    stage = {"id": "evaluate", "kind": "evaluate", "models": names, "few_shot": 2,
             "tasks": [{"name": name} for name in models[names[0]][1]], "sampling": {"max_new_tokens": 64}, **config}
    inputs = {name: {"kind": "base" if name == "base" else "release", "path": name, "digest": digest}
              for name, (digest, _) in models.items()}  # fmt: skip
    (folder / "stage.json").write_text(json.dumps({"recipe": recipe, "seed": 0, "stage": stage, "inputs": inputs}))
    return folder


RIGHT, WRONG = True, False
BASE_SOLVED = {"sums": [RIGHT, WRONG, WRONG, WRONG], "words": [WRONG, WRONG]}
TUNED_SOLVED = {"sums": [RIGHT, RIGHT, RIGHT, WRONG], "words": [WRONG, WRONG]}


def cell_of(table: Table, label: str, task_set: str, protocol: str = "P1") -> Any:
    key = next(one.key for one in table.models if one.label == label)
    column = next(one for one in table.columns if (one.task_set, one.protocol) == (task_set, protocol))
    return table.cells.get((key, column.key))


def test_evaluations_under_one_protocol_share_columns_and_the_base_is_one_row(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", {"base": (BASE, BASE_SOLVED), "rl": ("1" * 64, TUNED_SOLVED)})
    two = write_evaluation(tmp_path / "two", {"base": (BASE, {"sums": BASE_SOLVED["sums"]}),
                                              "dpo": ("2" * 64, {"sums": [WRONG] * 4})}, recipe="coder/made-up")
    table = all_against_all([one, two])
    assert [model.label for model in table.models] == ["base", "coder/made-up dpo", "math/made-up rl"]
    assert [model.kind for model in table.models] == ["base", "coder", "math"]
    assert [(column.task_set, column.protocol, column.num_problems) for column in table.columns] == [
        ("sums", "P1", 4), ("words", "P1", 2),
    ]  # fmt: skip
    assert cell_of(table, "math/made-up rl", "sums").gain["value"] == 2 / 4  # of four problems two more
    assert cell_of(table, "coder/made-up dpo", "sums").gain["value"] == -1 / 4
    assert cell_of(table, "coder/made-up dpo", "words") is None  # not asked
    assert cell_of(table, "base", "sums").gain is None


@pytest.mark.parametrize("other", [{"few_shot": 5}, {"system": "Think."}, {"sampling": {"max_new_tokens": 65}},
                                   {"tools": {"kind": "python"}}])  # fmt: skip
def test_what_was_asked_otherwise_stands_in_another_column(tmp_path: Path, other: dict[str, Any]) -> None:
    one = write_evaluation(tmp_path / "one", {"base": (BASE, BASE_SOLVED)})
    two = write_evaluation(tmp_path / "two", {"base": (BASE, TUNED_SOLVED)}, **other)
    table = all_against_all([one, two])
    assert [(column.task_set, column.protocol) for column in table.columns] == [
        ("sums", "P1"), ("words", "P1"), ("sums", "P2"), ("words", "P2"),
    ]  # fmt: skip
    assert cell_of(table, "base", "sums", "P1").accuracy["value"] == 1 / 4
    assert cell_of(table, "base", "sums", "P2").accuracy["value"] == 3 / 4


def test_a_set_that_another_verifier_judged_stands_in_another_column(tmp_path: Path) -> None:
    own = {"results": {"judge": "each set's own"}}
    one = write_evaluation(tmp_path / "one", {"base": (BASE, {"gsm8k": [RIGHT, WRONG]})}, own)
    two = write_evaluation(tmp_path / "two", {"base": (BASE, {"gsm8k": [WRONG, WRONG]})}, own,
                           tasks=[{"name": "gsm8k", "verifier": "math_verify"}])  # fmt: skip
    table = all_against_all([one, two])
    assert [(column.judged, column.letter) for column in table.columns] == [("math", "a"), ("math_verify", "b")]
    assert len(table.cells) == 2 and "judged by math_verify" in draw(table)


def test_another_version_of_a_sets_own_verifier_makes_another_column(tmp_path: Path) -> None:
    places = []
    for name, version, right in (("one", "1", [RIGHT]), ("two", "2", [WRONG])):
        made = write_evaluation(tmp_path / name, {"base": (BASE, {"gsm8k": right})},
                                {"results": {"judge": "each set's own"}})  # fmt: skip
        release = tmp_path / f"release-{name}"
        release.mkdir()
        (release / "evaluation.json").write_text((made / "results.json").read_text())
        evaluated = {"id": "evaluate", "kind": "evaluate", "config": {"models": ["base"], "tasks": [{"name": "gsm8k"}]},
                     "verifiers": {"math": {"version": version}}}  # fmt: skip
        line = {"recipe": "math/made-up", "base": {"name": "small", "digest": BASE}, "stages": [evaluated]}
        (release / "lineage.json").write_text(json.dumps(line))
        places.append(release)
    assert sorted(column.judged for column in all_against_all(places).columns) == ["math 1", "math 2"]


def test_other_questions_of_the_same_set_stand_in_another_column(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", {"base": (BASE, {"sums": [RIGHT]})})
    two = write_evaluation(tmp_path / "two", {"base": (BASE, {"sums": [RIGHT, WRONG]})})
    table = all_against_all([one, two])
    assert [(column.letter, column.num_problems, column.protocol) for column in table.columns] == [
        ("a", 1, "P1"), ("b", 2, "P1"),
    ]  # fmt: skip


def test_a_release_and_the_evaluation_that_it_carries_are_one(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", {"base": (BASE, BASE_SOLVED), "rl": ("1" * 64, TUNED_SOLVED)})
    release = tmp_path / "release"
    release.mkdir()
    (release / "evaluation.json").write_text((one / "results.json").read_text())
    (release / "lineage.json").write_text(json.dumps({
        "recipe": "math/made-up", "base": {"name": "small", "digest": BASE},
        "stages": [{"id": "rl", "kind": "rl", "digest": "1" * 64},
                   {"id": "evaluate", "kind": "evaluate", "config": {"models": ["base", "rl"]}}],
    }))  # fmt: skip
    assert len(all_against_all([one, release]).evaluations) == 1
    table = all_against_all([release])
    assert [(model.label, model.released) for model in table.models] == [
        ("base: small", ""), ("math/made-up rl", "released"),
    ]  # fmt: skip
    assert cell_of(table, "math/made-up rl", "sums").gain is None  # its answers are not there
    line = json.loads((release / "lineage.json").read_text()) | {"released": {"model": "base"}}
    (release / "lineage.json").write_text(json.dumps(line))
    assert [model.released for model in all_against_all([release]).models] == ["released", ""], "not the last one asked"


def test_the_paired_gain_is_the_bootstrap_of_the_differences() -> None:
    differences = [1.0] * 30 + [-1.0] * 12 + [0.0] * 58
    exact = bootstrap_mean(differences, 0.95, 0)
    found = paired_gain(30, 12, 100, 0.95)
    assert found["value"] == exact["value"] == (30 - 12) / 100
    assert np.allclose([found["low"], found["high"]], [exact["low"], exact["high"]], atol=0.011)


def test_a_gain_counts_only_where_its_interval_excludes_nothing() -> None:
    assert standing(None) == ""
    assert standing({"value": -0.1, "low": -0.2, "high": -0.01}) == "worse"
    assert standing({"value": 0.0, "low": 0.0, "high": 0.0}) == "same"


def test_places_without_an_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished evaluation"):
        all_against_all([tmp_path])
    with pytest.raises(UserError, match="is no folder"):
        all_against_all([tmp_path / "absent"])
    folder = write_evaluation(tmp_path / "one", {"base": (BASE, BASE_SOLVED)})
    (folder / "samples.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"samples.jsonl.*build the evaluation again"):
        all_against_all([folder])


class Reader(HTMLParser):
    """What a page would fetch, its scripts, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "srcset", "data", "xlink:href") and value]
        self.fetched += [value for name, value in attrs if name == "href" and value and not value.startswith("#")]

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


FLAG = {
    "flag": True, "decided_at": 0.6, "n": 4, "threshold": None,
    "shares": {"0.6": {"n": 4, "exact": interval(0.5), "rouge_l": interval(0.7), "answered": None}},
    "control": {"name": "twins/sums", "n": 4, "exact": interval(0.0, 0.0), "set_exact": interval(0.5),
                "excess": interval(0.5)},
}  # fmt: skip


def full_page(tmp_path: Path, label: str = "math/made-up") -> str:
    flagged = {**accuracy(BASE_SOLVED["sums"]), "contamination": FLAG}
    row = {"max_thinking_tokens": 16, "pass@1": interval(0.3), "maj@k": None, "mean_tokens": 10.0}
    tokens = {"count": 3, "mean": 20.0, "low_quartile": 10.0, "median": 18.0, "high_quartile": 30.0}
    twin = {"original": accuracy([RIGHT, RIGHT]), "twin": accuracy([RIGHT, WRONG]), "gap": interval(-0.5)}
    more = {
        "base": {"by_task": {"sums": flagged, "words": accuracy(BASE_SOLVED["words"])}},
        "rl": {"pass@k": {"k": 4, **interval(0.8), "problems": 6}, "maj@k": {"k": 4, **interval(0.7), "problems": 6},
               "budgets": [row, {**row, "max_thinking_tokens": 64, "pass@1": interval(0.6)}],
               "tokens": {"right": tokens, "wrong": None}, "bits_per_byte": {"prose": 1.05}},
        "results": {
            "twins": {"sums": {"base": twin, "rl": {**twin, "plain_gain": interval(0.4), "clean_gain": interval(0.2)}}},
            "pairwise": {"base->rl": {"pass@1": interval(0.4), "pass@k": None,
                                      "bits_per_byte": {"prose": {**interval(0.05, 0.01), "documents": 3}}}},
        },
    }  # fmt: skip
    models = {"base": (BASE, BASE_SOLVED), "rl": ("1" * 64, TUNED_SOLVED)}
    return draw(all_against_all([write_evaluation(tmp_path / "one", models, more, recipe=label)]))


def test_the_page_shows_every_part_and_fetches_nothing(tmp_path: Path) -> None:
    page = full_page(tmp_path)
    reader = Reader()
    reader.feed(page)
    assert reader.fetched == [] and "link" not in reader.tags and "url(" not in page and "@import" not in page
    text = " ".join(" ".join(reader.text).split())
    for part in ("+50.0", "⚑ read", "maj@4", "pass@1 by thinking budget", "+5.0%", "clean gain", "questions", "P1"):
        assert part in text, part
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and page.count("<script>") == 1
    assert re.search(r'class="cell same[^"]*"[^>]*data-v="0.75"', page)


def test_names_are_data(tmp_path: Path) -> None:
    page = full_page(tmp_path, label="math/<img src=x onerror=alert(1)>\u202e")
    assert "<img" not in page and "\u202e" not in page and "&lt;img" in page


def test_the_command_writes_a_page_and_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_evaluation(tmp_path / "one", {"base": (BASE, BASE_SOLVED), "rl": ("1" * 64, TUNED_SOLVED)})
    assert main(["table", str(folder), "--out", "page.html"]) == 0
    assert "2 models, 2 task sets, 1 evaluations: page.html" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert main(["table", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["cells"]) == 4 and found["protocols"]["P1"]["max_new_tokens"] == 64
    for words, why in (
        (["--out", "page.txt"], "no .html"), (["--out", "absent/page.html"], "is no folder"),
        (["--models", "base=seedling"], "--tasks: empty"), (["--tasks", "gsm8k"], "--models: empty"),
        (["--models", "seedling", "--tasks", "reasoning_gym/gcd"], "NAME=FOLDER"),
        (["--models", "base=seedling", "--tasks", "reasoning_gym/gcd"], "at least one other"),
        (["--models", "a=seedling", "a=seedling", "--tasks", "reasoning_gym/gcd"], "given twice"),
        (["--models", "a=seedling", "b=seedling", "--tasks", "reasoning_gym/gdc"], "reasoning_gym/gcd"),
    ):  # fmt: skip
        assert main(["table", *words]) == 2
        assert why in capsys.readouterr().err, words


def test_a_file_that_was_changed_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def launched(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(command[-1])
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr("flows.table_command.subprocess.run", launched)
    path = tmp_path / "mine.jsonl"
    words = ["table", "--store", str(tmp_path / "store"), "--models", "base=seedling", "again=seedling", "--tasks",
             str(path), "--out", str(tmp_path / "page.html")]  # fmt: skip
    for question in ("1 + 1?", "1 + 1?", "1 + 2?"):
        path.write_text(json.dumps({"prompt": question, "answer": "2"}) + "\n")
        assert main(words) == 3
    first, same, other = asked
    assert first == same != other


@pytest.mark.slow
def test_models_are_asked_and_drawn_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["table", "--store", "store", "--models", "base=seedling", "again=seedling", "--tasks", "reasoning_gym/gcd",
             "--limit", "6", "--max-new-tokens", "24", "--json"]  # fmt: skip
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(cell["gain"] or {}).get("value") for cell in found["cells"]] == [None]  # the same weights are one row
    results = next((tmp_path / "store" / "tables").glob("*/results.json"))
    written = results.stat().st_mtime_ns
    assert main(words) == 0
    assert results.stat().st_mtime_ns == written  # found, not asked again
