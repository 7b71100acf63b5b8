"""A recipe through the real store, supervisor and processes, with stage commands that only go through the motions."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from flows.plan import make_plan
from flows.runs import all_runs
from flows.session import conduct, prepare
from flows.stages import StageFailed
from flows.store import Store
from tests.e2e.flow_fixtures import MODULES, request, runs, start_driver, starts, until


@pytest.fixture(autouse=True)
def noted_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STAGE_STARTS", str(tmp_path / "starts"))
    monkeypatch.setenv("FAKE_STAGE", "")


def digests(folder: Path, *overrides: str) -> dict[str, str]:
    return {planned.stage.id: planned.digest for planned in prepare(request(folder, *overrides)).plan.stages}


def test_a_run_builds_every_stage_once_and_a_second_run_reuses_all(tmp_path: Path) -> None:
    first = conduct(prepare(request(tmp_path)))
    second = conduct(prepare(request(tmp_path)))
    assert starts(tmp_path) == ["problems", "sft", "rl", "evaluate", "release"]
    assert [entry["reused"] for entry in first["stages"]] == [False] * 5
    assert [entry["reused"] for entry in second["stages"]] == [True] * 5
    assert first["release"] == second["release"] and Path(first["release"], "config.json").is_file()
    assert first["metrics"]["gains"]["rl"]["pass@1"]["value"] == 0.25
    # inputs: problems none; sft base; rl sft and problems; evaluate base, sft, rl, problems; release rl, base, evaluate, problems
    assert [entry["metrics"]["inputs"] for entry in first["stages"]] == [0, 1, 2, 4, 4]


def test_changing_the_rl_verifier_runs_only_rl_and_what_follows(tmp_path: Path) -> None:
    conduct(prepare(request(tmp_path)))
    record = conduct(prepare(request(tmp_path, "rl.verifier=format")))
    assert {entry["id"]: entry["reused"] for entry in record["stages"]} == {
        "problems": True, "sft": True, "rl": False, "evaluate": False, "release": False}


def test_the_digest_ignores_machine_stage_id_and_path_of_data_but_not_its_content(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert digests(here) == digests(there)
    renamed = (there / "recipe.yaml").read_text().replace("id: problems", "id: other").replace("data: [problems]", "data: [other]")
    (there / "recipe.yaml").write_text(renamed)
    assert digests(there)["other"] == digests(here)["problems"]
    assert digests(there)["rl"] == digests(here)["rl"]
    (there / "examples.jsonl").write_text(json.dumps({"prompt": "1 + 1", "completion": "two"}) + "\n")
    assert digests(there)["sft"] != digests(here)["sft"]
    assert digests(there)["other"] == digests(here)["problems"]


def test_the_seed_and_the_weights_of_the_base_are_part_of_the_digest(tmp_path: Path) -> None:
    before = digests(tmp_path)
    assert digests(tmp_path, "seed=1")["sft"] != before["sft"]
    (tmp_path / "base" / "README.md").write_text("a card computes nothing")
    assert digests(tmp_path) == before
    (tmp_path / "base" / "model.safetensors").write_bytes(b"other weights")
    after = digests(tmp_path)
    assert after["sft"] != before["sft"] and after["problems"] == before["problems"]


def test_the_manifest_says_what_went_in_and_what_came_out(tmp_path: Path) -> None:
    record = conduct(prepare(request(tmp_path)))
    folder = Path(record["stages"][1]["folder"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["stage_file"]["stage"]["learning_rate"] == 0.1
    assert manifest["environment"]["python"] and manifest["num_threads"] == 2
    assert {"model/config.json", "metrics.json", "stage.json", "stage.log"} <= manifest["files"].keys()
    assert Store(tmp_path / "store").problems(folder, full=True) == []
    assert not list((tmp_path / "store").rglob("*.partial"))


def test_release_gets_the_lineage_of_all_stages_before_it(tmp_path: Path) -> None:
    record = conduct(prepare(request(tmp_path)))
    given = json.loads((Path(record["stages"][-1]["folder"]) / "stage.json").read_text())
    assert [stage["id"] for stage in given["lineage"]["stages"]] == ["problems", "sft", "rl", "evaluate"]
    assert given["lineage"]["stages"][2]["verifiers"]["math"]["name"] == "math"
    assert given["inputs"]["problems"]["kind"] == "corpus"
    assert given["lineage"]["base"]["files"].keys() == {"config.json", "model.safetensors"}


def test_a_rejected_input_is_told_in_one_line_and_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STAGE", "sft:user_error")
    with pytest.raises(UserError, match="^sft.learning_rate: 3.0 is too high; allowed: below 1; lower it$"):
        conduct(prepare(request(tmp_path)))
    assert all_runs(Store(tmp_path / "store"))[-1]["status"] == "failed"
    assert not list((tmp_path / "store").rglob("*.partial"))


def test_a_crash_tells_the_end_of_the_log_and_the_next_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STAGE", "rl:crash")
    with pytest.raises(StageFailed, match="(?s)exit code 1.*RuntimeError: the fake crashed"):
        conduct(prepare(request(tmp_path)))
    monkeypatch.setenv("FAKE_STAGE", "")
    assert conduct(prepare(request(tmp_path)))["status"] == "completed"
    assert starts(tmp_path) == ["problems", "sft", "rl", "rl", "evaluate", "release"]


def test_exit_code_75_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STAGE", "sft:retry_once")
    session = prepare(request(tmp_path))
    session.retry_delays_s = (0.01,)
    assert conduct(session)["status"] == "completed"
    assert starts(tmp_path)[:3] == ["problems", "sft", "sft"]


def test_kill_minus_9_of_the_flow_leaves_no_process_and_the_stage_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    flow = start_driver(tmp_path, "rl:count")
    assert until(lambda: list((tmp_path / "store").rglob("checkpoints/step")) != [])
    time.sleep(0.5)
    pid = int((tmp_path / "starts").read_text().split()[-1])
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert until(lambda: not runs(pid), 10)
    assert all_runs(Store(tmp_path / "store"))[-1]["status"] == "interrupted"
    done = int(next((tmp_path / "store").rglob("checkpoints/step")).read_text())
    assert 0 < done < 10
    assert start_driver(tmp_path, "rl:count").wait(60) == 0
    record = all_runs(Store(tmp_path / "store"))[-1]
    folder = Path(record["stages"][2]["folder"])
    steps = [json.loads(line)["step"] for line in (folder / "progress.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 11))
    assert not (folder / "checkpoints").exists()


def test_an_interrupt_ends_the_whole_tree_and_the_record_says_cancelled(tmp_path: Path) -> None:
    flow = start_driver(tmp_path, "sft:hang")
    assert until(lambda: [path for path in (tmp_path / "store").rglob("grandchild") if path.read_text()] != [])
    grandchild = int(next((tmp_path / "store").rglob("grandchild")).read_text())
    began = time.monotonic()
    flow.send_signal(signal.SIGINT)
    flow.wait(30)
    assert time.monotonic() - began < 10
    assert not runs(grandchild)
    assert all_runs(Store(tmp_path / "store"))[-1]["status"] == "cancelled"


def test_two_runs_of_the_same_recipe_build_each_stage_once(tmp_path: Path) -> None:
    flows = [start_driver(tmp_path, "sft:count"), start_driver(tmp_path, "sft:count")]
    assert [flow.wait(90) for flow in flows] == [0, 0]
    assert sorted(starts(tmp_path)) == ["evaluate", "problems", "release", "rl", "sft"]


def test_a_damaged_artifact_is_put_aside_and_built_again(tmp_path: Path) -> None:
    first = conduct(prepare(request(tmp_path)))
    with (Path(first["stages"][1]["folder"]) / "model" / "config.json").open("a") as file:
        file.write("damage")
    second = conduct(prepare(request(tmp_path)))
    assert [entry["reused"] for entry in second["stages"]] == [True, False, True, True, True]
    assert len(list((tmp_path / "store").rglob("*.damaged-*"))) == 1


def test_planning_writes_nothing(tmp_path: Path) -> None:
    session = prepare(request(tmp_path))
    make_plan(session.plan.recipe, Store(tmp_path / "store"), MODULES)
    assert not (tmp_path / "store").exists()
    assert os.listdir(tmp_path) != []
