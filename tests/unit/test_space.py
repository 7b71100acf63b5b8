"""`derive gc`: what nothing needs goes, what something needs stays, and nothing that is being built is touched."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.stage import write_json_atomic
from flows.cli import main
from flows.runs import process_start
from flows.space import carry_out, pin, pins, plan_space
from flows.store import Store

DAY = 86_400


def digest_of(letter: str) -> str:
    return letter * 64


def publish(store: Store, letter: str, num_bytes: int = 40_000, age_d: float = 0.0) -> None:
    with store.build(digest_of(letter), {}) as build:
        (build.folder / "product").write_bytes(b"x" * num_bytes)
        folder = build.publish({"recipe": "math/tiny", "stage_file": {}, "id": "sft"}).folder
    os.utime(folder, (time.time() - age_d * DAY,) * 2)


def record(store: Store, name: str, day: int, letters: str, status: str = "completed", **more: Any) -> str:
    """A run of some day before today whose stages have these digests; `R` at the end is a release."""
    stages = [{"id": "s", "kind": "sft", "status": "completed", "reused": False, "digest": digest_of(letter)}
              for letter in letters]  # fmt: skip
    run = f"{name}-{day}"
    write_json_atomic(store.root / "runs" / f"{run}.json", {
        "id": run, "recipe": name, "created": f"2026-01-{31 - day:02d}", "status": status, "seconds": 1.0,
        "metrics": {}, "process": {}, "release": None, "report": None, "error": None, "stages": stages, **more,
    })  # fmt: skip
    when = time.time() - day * DAY
    os.utime(store.root / "runs" / f"{run}.json", (when, when))
    return run


def going(store: Store, **asked: Any) -> str:
    return "".join(sorted(folder.path.name[0] for folder in plan_space(store, **asked).going))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Artifacts a to f: run 1 used a and b, run 2 b and c, run 3 d, a run that failed long ago e, none f."""
    store = Store(tmp_path / "store")
    for letter, age in zip("abcdef", (9, 8, 7, 6, 5, 4), strict=True):
        publish(store, letter, age_d=age)
    record(store, "one", 3, "ab")
    record(store, "one", 2, "bc")
    record(store, "two", 1, "d")
    record(store, "two", 8, "e", status="failed")
    return store


def test_the_newest_completed_runs_of_each_recipe_keep_what_they_used(store: Store) -> None:
    assert going(store, keep_runs=3) == "ef"
    assert going(store, keep_runs=1) == "aef"
    assert going(store, keep_runs=0) == "abcdef"


def test_a_pin_keeps_a_run_or_a_folder_and_says_why(store: Store) -> None:
    pin(store, digest_of("f"), "for the paper")
    pin(store, "one-3", "the first")
    plan = plan_space(store, keep_runs=1)
    assert [folder.path.name[0] for folder in plan.going] == ["e"]
    kept = {folder.path.name[0]: folder.keep for folder in plan.folders}
    assert kept["f"] == "pinned: for the paper" and kept["a"] == "pinned with run one-3: the first"
    pin(store, digest_of("f"), None)
    assert pins(store) == {"one-3": "the first"} and going(store, keep_runs=1) == "ef"


def test_a_release_and_what_a_run_that_goes_on_will_use_stay_also_under_a_quota_of_nothing(store: Store) -> None:
    path = store.root / "runs" / "one-3.json"
    changed = json.loads(path.read_text())
    changed["stages"][0]["kind"] = "release"
    path.write_text(json.dumps(changed))
    process = {"host": os.uname().nodename, "pid": os.getpid(), "started": process_start(os.getpid())}
    record(store, "three", 0, "", status="running", planned=[digest_of("f")], process=process)
    plan = plan_space(store, quota=0)
    assert sorted(folder.path.name[0] for folder in plan.folders if not folder.goes) == ["a", "f"]


def test_a_quota_takes_what_was_used_longest_ago(store: Store) -> None:
    plan = plan_space(store)
    each = plan.folders[0].bytes
    assert plan.bytes_now == 6 * each and plan.bytes_then == 4 * each
    asked = plan_space(store, quota=2 * each)
    # a was last used by the run of three days ago, b and c by that of two days ago, d yesterday.
    assert "".join(sorted(folder.path.name[0] for folder in asked.going)) == "abef"
    assert [folder.goes for folder in asked.going if folder.path.name[0] == "a"] == ["quota: run one-3"]


def test_half_built_and_damaged_folders_go_when_they_are_old(store: Store) -> None:
    for name, age in (("1" * 64 + ".partial", 8), ("2" * 64 + ".partial", 1), ("3" * 64 + ".damaged-17", 8),
                      ("4" * 64 + ".trash", 0)):  # fmt: skip
        folder = store.root / name[:2] / name
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
        os.utime(folder, (time.time() - age * DAY,) * 2)
    assert going(store) == "134ef"


@pytest.mark.parametrize("status", ["failed", "cancelled", "interrupted"])
def test_what_an_unfinished_run_made_stays_for_as_long_as_a_half_built_folder(store: Store, status: str) -> None:
    record(store, "three", 2, "f", status=status)
    assert going(store) == "e" and going(store, days=2.0) == "ef" and going(store, quota=0) == "abcdef"
    assert carry_out(store, plan_space(store, quota=0)) == []


def test_a_fork_needs_what_it_goes_on_from(store: Store) -> None:
    fork = {"fork": {"run": "two-8", "digest": digest_of("e"), "step": 4}}
    record(store, "three", 0, "f", **fork)
    assert going(store) == "" and going(store, keep_runs=0) == "abcdef"
    process = {"host": os.uname().nodename, "pid": os.getpid(), "started": process_start(os.getpid())}
    record(store, "three", 0, "", status="running", process=process, **fork)
    assert going(store, quota=0) == "abcdf"


def test_what_is_not_of_the_stores_making_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (store.root / "cc" / digest_of("c")).rename(tmp_path / "elsewhere" / "c")
    (store.root / "cc" / digest_of("c")).symlink_to(tmp_path / "elsewhere" / "c")
    (store.root / "dd" / "notes").mkdir()
    plan = plan_space(store, keep_runs=0)
    assert "".join(folder.path.name[0] for folder in plan.going) == "abdef" and carry_out(store, plan) == []
    assert store.find(digest_of("c")) is not None and (store.root / "dd" / "notes").is_dir()


@pytest.mark.parametrize("content", ["{", "[]", "\"all\""])
def test_pins_that_cannot_be_read_stop_everything(store: Store, content: str) -> None:
    plan = plan_space(store, keep_runs=0)
    (store.root / "pins.json").write_text(content)
    for act in (lambda: plan_space(store), lambda: pin(store, "f", "why"), lambda: carry_out(store, plan)):
        with pytest.raises(UserError, match="pins.json"):
            act()
    assert all(store.find(digest_of(letter)) for letter in "abcdef")


def test_what_goes_is_gone_and_what_is_being_built_stays(store: Store) -> None:
    plan = plan_space(store)
    with store.build(digest_of("e"), {}):
        stayed = carry_out(store, plan)
    assert [folder.keep for folder in stayed] == ["it is being built"]
    assert store.find(digest_of("e")) is not None and store.find(digest_of("f")) is None
    assert not list(store.root.rglob("*.trash"))
    assert carry_out(store, plan_space(store)) == [] and store.find(digest_of("e")) is None
    assert all(store.find(digest_of(letter)) for letter in "abcd")


def test_a_run_that_begins_between_plan_and_removal_keeps_its_folder(store: Store) -> None:
    plan = plan_space(store)
    process = {"host": os.uname().nodename, "pid": os.getpid(), "started": process_start(os.getpid())}
    record(store, "late", 0, "", status="running", planned=[digest_of("e")], process=process)
    assert [folder.keep for folder in carry_out(store, plan)] == ["run late-0 goes on"]
    assert store.find(digest_of("e")) is not None


def test_the_command_shows_first_and_removes_when_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--store", str(store.root)]) == 0
    shown = capsys.readouterr().out
    assert "only older runs, or none, used it" in shown and "--yes removes what goes" in shown
    assert store.find(digest_of("f")) is not None
    assert main(["pin", "fff", "--why", "mine", "--store", str(store.root)]) == 0
    assert main(["gc", "--yes", "--json", "--store", str(store.root)]) == 0
    told = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert told["removed"] and [Path(one["path"]).name[0] for one in told["folders"] if one["goes"]] == ["e"]
    assert store.find(digest_of("e")) is None and store.find(digest_of("f")) is not None
    assert main(["pin", "fff", "--off", "--store", str(store.root)]) == 0 and pins(store) == {}


REFUSED = [["gc", "--quota", "much"], ["gc", "--keep", "-1"], ["pin", "zz"], ["pin", "x", "--off"]]


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused(words: list[str], store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([*words, "--store", str(store.root)])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2 and "error: " in capsys.readouterr().err
