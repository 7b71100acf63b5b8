"""`derive sample` over the real stage command: data to train on, and the completions behind them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import main


@pytest.mark.slow
def test_a_file_of_problems_is_sampled_into_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "store"))
    (tmp_path / "one.yaml").write_text("name: one\ndevice: cpu\nnum_threads: 1\nnum_verifier_workers: 1\n")
    lines = [{"id": f"p{a}", "prompt": f"What is {a} + {4 * a}?", "answer": str(5 * a)} for a in range(1200, 1206)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["sample", str(tmp_path / "p.jsonl"), "--machine", str(tmp_path / "one.yaml"), "--no-prefect", "--json"]
    words += ["--set", "sample.verifier=exact", "--set", "sample.num_samples=4", "--out", str(tmp_path / "data")]
    assert main(words) == 0, capsys.readouterr().err
    record = json.loads(capsys.readouterr().out)
    found = {name: (tmp_path / "data" / f"{name}.jsonl").read_text().splitlines() for name in ("examples", "problems")}
    assert len(found["problems"]) == 6 and 0 < len(found["examples"]) <= 24
    answers = {line["prompt"]: line["answer"] for line in lines}
    for text in found["examples"]:
        example = json.loads(text)
        assert f"\\boxed{{{answers[example['prompt']]}}}" in example["completion"]
    assert "6 problems sampled" in Path(record["report"]).read_text()

    assert main(["rollouts", "export", record["id"], str(tmp_path / "all.jsonl")]) == 0
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 24
    capsys.readouterr()
    assert main(["rollouts", "rescore", record["id"], "math", "--json", "--workers", "1"]) == 0
    rescored = json.loads(capsys.readouterr().out)
    assert {(label["was"], label["is"]) for label in rescored["labels"]} >= {("correct", "correct")}
    assert main(words) == 2 and "--out" in capsys.readouterr().err
    assert main(words[:-2]) == 0  # the same again is there already
    assert json.loads(capsys.readouterr().out)["stages"][0]["reused"]
