"""A recipe whose rl stage trains on the problems that a sample stage found neither solved nor hopeless."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from derivatives.rollout.stored import StoredRollouts
from flows.cli import main

RECIPE = """
title: Sums that are neither solved nor hopeless
status: validated only
base: seedling
stages:
  - {id: picked, kind: sample, data: [p.jsonl], verifier: exact, num_samples: 4, sampling: {max_new_tokens: 64}}
  - id: rl
    kind: rl
    data: [picked]
    verifier: exact
    steps: 2
    prompts_per_step: 4
    group_size: 4
    learning_rate: 1e-4
    sampling: {max_new_tokens: 64}
    pass_rates: {stage: picked, between: [0.2, 0.8]}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_only_problems_between_the_bounds_are_trained_on_and_the_rest_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("name: one\ndevice: cpu\nnum_threads: 1\nnum_verifier_workers: 1\n")
    sums = [(a, b) for a in range(1523, 9997, 1131) for b in range(1113, 4970, 1213)]
    lines = [{"id": f"{a}+{b}", "prompt": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in sums]
    lines += [{"id": f"no {n}", "prompt": f"Name a number other than {n}.", "answer": "none"} for n in range(3)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "r.yaml").write_text(RECIPE)
    words = ["run", "r.yaml", "--machine", "one.yaml", "--no-prefect", "--json"]
    assert main(words) == 0, capsys.readouterr().err
    record = json.loads(capsys.readouterr().out)
    picked, rl = (Path(entry["folder"]) for entry in record["stages"])
    measured = [json.loads(line) for line in (picked / "data" / "pass_rates.jsonl").read_text().splitlines()]
    rates = {one["id"]: one["pass_rate"] for one in measured}
    within = {name for name, rate in rates.items() if 0.2 <= rate <= 0.8}
    metrics = json.loads((rl / "metrics.json").read_text())
    assert metrics["rl/problems"] == len(within) >= 4
    assert metrics["rl/left_out_too_hard"] == sum(rate < 0.2 for rate in rates.values()) >= 3
    assert metrics["rl/left_out_too_easy"] == sum(rate > 0.8 for rate in rates.values()) >= 1
    stored = StoredRollouts(rl)
    assert {one.task.id for step in stored.steps for one in stored.step(step)} <= within
    page = Path(record["report"]).read_text()
    assert f"too_hard {metrics['rl/left_out_too_hard']}" in page
    # Other bounds draw nothing anew.
    assert main([*words, "--set", "rl.pass_rates.between=[0.2, 1.0]"]) == 0, capsys.readouterr().err
    again = json.loads(capsys.readouterr().out)["stages"]
    assert again[0]["reused"] and not again[1]["reused"]
