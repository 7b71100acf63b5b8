"""A recipe through the real store, supervisor and processes, with stage commands that only go through the motions."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import flows.plan
import flows.stages
from configs.errors import UserError
from flows.adopt import adopt_stage
from flows.plan import make_plan
from flows.runs import all_runs
from flows.session import conduct, prepare
from flows.source import closure
from flows.stages import StageFailed
from flows.store import Store
from tests.e2e.flow_fixtures import MODULES, request, runs, start_driver, starts, until


@pytest.fixture(autouse=True)
def noted_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STAGE_STARTS", str(tmp_path / "starts"))
    monkeypatch.setenv("FAKE_STAGE", "")


@pytest.fixture(scope="session")
def a_finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with recipe, data and a store in which every stage is built, and the run's record."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_STAGE_STARTS", str(folder / "starts"))
        patch.setenv("FAKE_STAGE", "")
        return folder, conduct(prepare(request(folder)))


@pytest.fixture
def finished(a_finished_run: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of it, to change. Digests do not depend on the path."""
    shutil.copytree(a_finished_run[0] / "store", tmp_path / "store")
    return tmp_path


def digests(folder: Path, *overrides: str) -> dict[str, str]:
    return {planned.stage.id: planned.digest for planned in prepare(request(folder, *overrides)).plan.stages}


def test_a_run_builds_every_stage_once_in_order(a_finished_run: tuple[Path, dict[str, Any]]) -> None:
    folder, record = a_finished_run
    assert starts(folder) == ["problems", "sft", "rl", "evaluate", "release"]
    assert record["status"] == "completed" and [entry["reused"] for entry in record["stages"]] == [False] * 5
    assert Path(record["release"], "config.json").is_file()
    assert record["metrics"]["gains"]["rl"]["pass@1"]["value"] == 0.25
    assert list(record["metrics"]["pass@1"]) == ["base", "sft", "rl"] and list(record["metrics"]["gains"]) == [
        "sft",
        "rl",
    ]
    # What each reads: nothing; base; sft, problems; base, sft, rl, problems; rl, base, evaluate, problems.
    assert [entry["metrics"]["inputs"] for entry in record["stages"]] == [0, 1, 2, 4, 4]


def test_a_second_run_reuses_every_stage(finished: Path) -> None:
    record = conduct(prepare(request(finished)))
    assert starts(finished) == [] and [entry["reused"] for entry in record["stages"]] == [True] * 5
    assert record["release"] == str(next((finished / "store").glob("*/*/release")))


def test_until_a_stage_builds_only_what_it_reads_and_the_rest_goes_on_from_there(tmp_path: Path) -> None:
    asked = dataclasses.replace(request(tmp_path), until=("rl",))
    record = conduct(prepare(asked))
    assert [(entry["id"], entry["reused"]) for entry in record["stages"]] == [
        ("problems", False), ("sft", False), ("rl", False),
    ]  # fmt: skip
    assert record["status"] == "completed" and record["release"] is None and record["command"].endswith("--until rl")
    whole = conduct(prepare(request(tmp_path)))
    assert [entry["id"] for entry in whole["stages"] if entry["reused"]] == ["problems", "sft", "rl"]
    assert [entry["id"] for entry in conduct(prepare(dataclasses.replace(asked, until=("sft",))))["stages"]] == ["sft"]
    with pytest.raises(UserError, match="--until: 'sfd' is no stage of fake; did you mean 'sft'"):
        prepare(dataclasses.replace(asked, until=("sfd",)))


def test_changing_the_rl_verifier_runs_only_rl_and_what_follows(finished: Path) -> None:
    conduct(prepare(request(finished, "rl.verifier=format")))
    assert starts(finished) == ["rl", "evaluate", "release"]


def test_the_digest_ignores_machine_stage_id_and_path_of_data_but_not_its_content(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert digests(here) == digests(there)
    renamed = (
        (there / "recipe.yaml")
        .read_text()
        .replace("id: problems", "id: other")
        .replace("data: [problems]", "data: [other]")
    )
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
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"c")
    after = digests(tmp_path)
    assert after["sft"] != before["sft"] and after["problems"] == before["problems"]


def test_the_manifest_says_what_went_in_and_what_came_out(a_finished_run: tuple[Path, dict[str, Any]]) -> None:
    store, folder = Store(a_finished_run[0] / "store"), Path(a_finished_run[1]["stages"][1]["folder"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["stage_file"]["stage"]["learning_rate"] == 0.1
    assert manifest["environment"]["python"] and manifest["num_threads"] == 2
    assert {"model/config.json", "metrics.json", "stage.json", "stage.log"} <= manifest["files"].keys()
    assert store.problems(folder, full=True) == []
    assert not list(store.root.rglob("*.partial"))


def test_release_gets_the_lineage_of_all_stages_before_it(a_finished_run: tuple[Path, dict[str, Any]]) -> None:
    given = json.loads((Path(a_finished_run[1]["stages"][-1]["folder"]) / "stage.json").read_text())
    assert [stage["id"] for stage in given["lineage"]["stages"]] == ["problems", "sft", "rl", "evaluate"]
    assert given["lineage"]["stages"][2]["verifiers"]["math"]["name"] == "math"
    assert given["lineage"]["released"] == {"model": "rl", "evaluation": "evaluate"}
    assert given["inputs"]["problems"]["kind"] == "corpus"
    assert given["lineage"]["base"]["files"].keys() == {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_rejected_input_is_told_in_one_line_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STAGE", "sft:user_error")
    with pytest.raises(UserError, match="^sft.learning_rate: 3.0 is too high; allowed: below 1; lower it$"):
        conduct(prepare(request(tmp_path)))
    assert all_runs(Store(tmp_path / "store"))[-1]["status"] == "failed"
    assert not list((tmp_path / "store").rglob("*.partial"))


def test_a_crash_tells_the_end_of_the_log_and_the_next_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STAGE", "rl:crash")
    with pytest.raises(StageFailed, match="(?s)exit code 1.*RuntimeError: the fake crashed"):
        conduct(prepare(request(tmp_path)))
    monkeypatch.setenv("FAKE_STAGE", "")
    assert conduct(prepare(request(tmp_path)))["status"] == "completed"
    assert starts(tmp_path) == ["problems", "sft", "rl", "rl", "evaluate", "release"]


@pytest.mark.slow
def test_what_a_silent_verifier_awaits_is_told_while_the_stage_runs(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STAGE", "rl:wait")
    session = prepare(request(tmp_path))
    told: list[str] = []
    monkeypatch.setattr(session, "note", told.append)
    assert conduct(session)["status"] == "completed"
    assert told and all(re.fullmatch(r"rl: waiting: no verdict for \d s; awaited: task 't1'", text) for text in told)


@pytest.mark.slow
def test_a_stage_without_progress_says_where_it_hangs_and_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STAGE", "sft:stall_once")
    session = prepare(request(tmp_path))
    session.machine = session.machine.model_copy(update={"stalled_after_s": 4.0, "restart_stalled": True})
    session.retry_delays_s = (0.01,)
    told: list[str] = []
    monkeypatch.setattr(session, "note", told.append)
    assert conduct(session)["status"] == "completed"
    assert starts(tmp_path)[:3] == ["problems", "sft", "sft"]
    assert re.match(r"sft: no progress for 0:00:04; what each of its threads was doing stands at the end of /", told[0])
    assert told[1] == "sft: stalled; attempt 2 in 0.01 s"
    logs = [path.read_text() for path in (tmp_path / "store").glob("*/*/stage.log")]
    stacks = [text for text in logs if "Timeout (0:00:04)!" in text]
    assert len(stacks) == 1 and 'tests/e2e/fake_stage.py", line' in stacks[0] and "in run" in stacks[0]


@pytest.mark.slow
def test_a_stage_that_stalls_each_time_fails_with_that_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STAGE", "sft:stall")
    session = prepare(request(tmp_path))
    session.machine = session.machine.model_copy(update={"stalled_after_s": 3.0, "restart_stalled": True})
    session.retry_delays_s = (0.01,)
    with pytest.raises(StageFailed, match="made no progress, also when it was started again, and was ended"):
        conduct(session)


@pytest.mark.slow
def test_exit_code_75_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STAGE", "sft:retry_once")
    session = prepare(request(tmp_path))
    session.retry_delays_s = (0.01,)
    assert conduct(session)["status"] == "completed"
    assert starts(tmp_path)[:3] == ["problems", "sft", "sft"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_runs_of_the_same_recipe_build_each_stage_once(tmp_path: Path) -> None:
    flows = [start_driver(tmp_path, "sft:count"), start_driver(tmp_path, "sft:count")]
    assert [flow.wait(90) for flow in flows] == [0, 0]
    assert sorted(starts(tmp_path)) == ["evaluate", "problems", "release", "rl", "sft"]


def test_a_damaged_artifact_is_put_aside_and_built_again(finished: Path) -> None:
    folder = prepare(request(finished)).plan.stages[1].artifact
    assert folder is not None
    with (folder.folder / "model" / "config.json").open("a") as file:
        file.write("damage")
    conduct(prepare(request(finished)))
    assert starts(finished) == ["sft"]
    assert len(list((finished / "store").rglob("*.damaged-*"))) == 1


@pytest.mark.slow
def test_a_code_change_rebuilds_a_stage_unless_its_product_is_adopted(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in MODULES:
        monkeypatch.setitem(flows.plan.STAGE_MODULES, kind, MODULES[kind])
    changed = {**closure("tests.e2e.fake_stage"), "configs.stage": "changed"}
    monkeypatch.setattr(flows.plan, "closure", lambda module: changed)
    monkeypatch.setattr(flows.stages, "closure", lambda module: changed)
    before = prepare(request(finished)).plan
    assert [planned.artifact for planned in before.stages] == [None] * 5
    said = adopt_stage(Store(finished / "store"), "sft", "only a log line", request(finished))
    assert said.endswith("changed: configs.stage")
    after = prepare(request(finished)).plan
    assert [planned.artifact is not None for planned in after.stages] == [False, True, False, False, False]
    record = conduct(prepare(request(finished)))
    assert starts(finished) == ["problems", "rl", "evaluate", "release"]
    assert record["stages"][1]["adopted"][0]["why"] == "only a log line"
    lineage = json.loads((Path(record["stages"][-1]["folder"]) / "stage.json").read_text())["lineage"]
    assert lineage["stages"][1]["adopted"][0]["changed_modules"] == ["configs.stage"]


def test_a_half_built_stage_is_adopted_and_resumed_by_the_new_code(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in MODULES:
        monkeypatch.setitem(flows.plan.STAGE_MODULES, kind, MODULES[kind])
    monkeypatch.setenv("FAKE_STAGE", "rl:crash")
    with pytest.raises(StageFailed):
        conduct(prepare(request(finished, "rl.steps=3")))
    original = closure("tests.e2e.fake_stage")
    # Only rl's code changes: problems and sft stay as they are.
    monkeypatch.setitem(flows.plan.STAGE_MODULES, "rl", "tests.e2e.flow_fixtures")
    monkeypatch.setattr(
        flows.plan, "closure", lambda module: original if module.endswith("fake_stage") else {"new": "code"}
    )
    said = adopt_stage(Store(finished / "store"), "rl", "a message", request(finished, "rl.steps=3"))
    assert "is resumed by the next run" in said
    partial = Store(finished / "store").partial(prepare_with_own_modules(finished, "rl.steps=3"))
    assert (partial / "kind.json").exists()


def test_code_that_changes_while_a_run_is_on_never_builds_under_the_old_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = prepare(request(tmp_path))
    monkeypatch.setattr(
        flows.stages, "closure", lambda module: {**closure(module), "configs.stage": "edited meanwhile"}
    )
    with pytest.raises(UserError, match="problems: configs.stage changed since the run was planned"):
        conduct(session)
    assert starts(tmp_path) == []


def prepare_with_own_modules(folder: Path, *overrides: str) -> str:
    """Digest of rl under the patched table of stage modules."""
    given = dataclasses.replace(request(folder, *overrides), modules=None)
    return prepare(given).plan.stage("rl").digest


def test_planning_writes_nothing(tmp_path: Path) -> None:
    session = prepare(request(tmp_path))
    make_plan(session.plan.recipe, Store(tmp_path / "store"), MODULES)
    assert not (tmp_path / "store").exists()
    assert os.listdir(tmp_path) != []
