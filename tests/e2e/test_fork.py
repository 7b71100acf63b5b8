"""`derive fork` over real stage commands: the same to the bit with nothing changed, both curves in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.stage import read_progress
from derivatives.training.model import load_tokenizer, save_model
from flows.cli import main
from tests.unit.test_rl_stage import CHECKPOINT, tiny_model
from tests.unit.test_rollout_fork import log

RECIPE = """
name: forked
title: a tiny run to fork
status: validated only
base: {folder}/model
stages:
  - {{id: problems, kind: corpus, output: problems, sources: [{{name: "{folder}/p.jsonl"}}]}}
  - {{id: rl, kind: rl, data: [problems], steps: 6, prompts_per_step: 2, group_size: 4, learning_rate: 1e-2,
     sampling: {{max_new_tokens: 8}}, checkpoint_every: 2, fork_every: 2, entropy_coefficient: 0.1}}
"""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--no-prefect", "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_forked_from_a_kept_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    save_model(tiny_model(), load_tokenizer(CHECKPOINT), tmp_path / "model")
    lines = [{"id": f"p{n}", "prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(6)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    whole = run(capsys, "run", str(tmp_path / "recipe.yaml"))
    folder = Path(whole["stages"][1]["folder"])

    same = run(capsys, "fork", whole["id"], "--at", "4")
    assert [entry["reused"] for entry in same["stages"]] == [True, False]
    assert same["fork"] == {
        "run": whole["id"], "stage": "rl", "step": 4, "digest": whole["stages"][1]["digest"], "changed": [],
    }  # fmt: skip
    twin = Path(same["stages"][1]["folder"])
    assert twin != folder and log(twin) == log(folder)
    assert (twin / "model/model.safetensors").read_bytes() == (folder / "model/model.safetensors").read_bytes()

    other = run(capsys, "fork", whole["id"], "--at", "2", "--set", "rl.loss=dapo", "--set", "rl.steps=8")
    changed = Path(other["stages"][1]["folder"])
    assert [line["step"] for line in read_progress(changed)] == list(range(1, 9))
    assert log(changed)[3:6] != log(folder)[3:6]
    page = Path(other["report"]).read_text()
    assert f"Fork of {whole['id']}" in page and "rl.loss=dapo" in page and "parted after step 2" in page
    assert "Fork of" not in Path(whole["report"]).read_text()

    about = f"--at: 3: rl of run {whole['id']} has no checkpoint of that step; allowed: 2, 4; run it with --set rl.fork"
    assert about in refused(capsys, "fork", whole["id"], "--at", "3")
    told = refused(capsys, "fork", whole["id"], "--at", "2", "--set", "problems.deduplicate=false")
    assert "--set: problems comes before rl" in told
    assert "rl.data belongs to the state" in refused(
        capsys, "fork", whole["id"], "--at", "2", "--set", "rl.data=[x.jsonl]"
    )
    assert "'sft' is no rl stage" in refused(capsys, "fork", whole["id"], "--at", "2", "--stage", "sft")
