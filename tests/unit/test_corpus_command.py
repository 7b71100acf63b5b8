"""`derive corpus`: what it builds, that a whole run takes it over, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.load import load_recipe
from flows.cli import main
from flows.corpus_command import chosen
from flows.plan import make_plan
from flows.store import Store

RECIPE = """
title: Two corpora of one file
base: seedling
stages:
  - {id: words, kind: corpus, output: tokens, sequence_length: 64, sources: [{name: "FILE", filters: {line_shape: {
       min_characters: 0, min_words: 4, min_lines: 0}}}]}
  - {id: pretrain, kind: pretrain, data: [words], num_tokens: 64, batch_tokens: 64, learning_rate: 1e-4}
  - {id: tasks, kind: corpus, output: problems, sources: [{name: reasoning_gym/gcd, count: 3}]}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DERIVE_MACHINE", "cpu")
    rows = [{"text": f"a row of words, number {i}"} for i in range(9)]
    rows += [rows[0], {"text": " "}, {"text": "too few words"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("FILE", str(tmp_path / "rows.jsonl")))
    return path


def test_only_the_corpora_are_built_and_the_whole_run_would_take_them_over(
    recipe: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["corpus", str(recipe), "--no-prefect", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["stages"]
    assert list(told) == ["words", "tasks"] and not any(one["reused"] for one in told.values())
    source = told["words"]["sources"]["rows.jsonl"]
    assert (source["read"], source["clean"]) == (12, 9)
    assert source["dropped"] == {"empty": 1, "exact_duplicate": 1, "too_few_words": 1}
    assert Path(told["words"]["report"]).is_file() and Path(told["words"]["product"]).stat().st_size == \
        4 * told["words"]["tokens"]
    plan = make_plan(load_recipe(str(recipe)), Store(None))
    found = {planned.stage.id: planned.artifact for planned in plan.stages}
    assert found["pretrain"] is None
    for name, one in told.items():
        artifact = found[name]
        assert artifact is not None and str(artifact.folder) == one["folder"]

    assert main(["corpus", str(recipe), "--no-prefect", "--stage", "words"]) == 0
    shown = capsys.readouterr().out
    assert "exact_duplicate" in shown and "; reused" in shown and told["words"]["report"] in shown
    assert "tasks" not in shown


def test_a_stage_that_is_no_corpus_is_refused_with_those_that_are(
    recipe: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["corpus", str(recipe), "--stage", "word"]) == 2
    assert capsys.readouterr().err == \
        "error: --stage: 'word' is no corpus stage of recipe; did you mean 'words'?; allowed: words, tasks\n"
    assert main(["corpus", str(recipe), "--set", "words.sources[0].filters=[encoded_dat]"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: words.sources[0].filters: 'encoded_dat' is no filter; did you mean 'encoded_data'")
    assert chosen(load_recipe(str(recipe)), ["tasks", "words"]) == ("words", "tasks")  # the recipe's order


def test_a_recipe_without_a_corpus_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    path = tmp_path / "sft.yaml"
    path.write_text("title: One stage\nbase: seedling\nstages:\n  - {id: sft, kind: sft, learning_rate: 1e-4, "
                    f"data: [{tmp_path / 'rows.jsonl'}]}}\n")
    assert main(["corpus", str(path)]) == 2
    assert "PRESET: 'sft' has no corpus stage; allowed: a recipe with one" in capsys.readouterr().err
