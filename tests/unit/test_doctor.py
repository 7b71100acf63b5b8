"""The doctor on good and bad surroundings."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from configs.errors import UserError
from flows import doctor
from flows.store import Store


def state(checks: list[doctor.Check], topic: str) -> str:
    return next(check.state for check in checks if check.topic == topic)


def test_the_oldest_versions_are_those_of_the_project_file() -> None:
    project = tomllib.loads((Path(doctor.__file__).parent.parent / "pyproject.toml").read_text())["project"]
    declared = {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}
    for package, oldest in doctor.REQUIRED.items():
        assert f">={oldest}" in str(declared[package].specifier).split(","), package


def test_a_package_that_is_too_old_or_missing_fails_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", {"torch": "99.0", "no-such-package": "1.0"})
    checks = doctor.check_versions()
    assert [state(checks, "torch"), state(checks, "no-such-package")] == ["fail", "fail"]
    assert next(check.remedy for check in checks if check.topic == "torch") == "pip install 'torch>=99.0'"


def test_what_a_check_raises_is_its_failure_and_not_the_doctors() -> None:
    def raises(error: Exception) -> list[doctor.Check]:
        raise error

    assert doctor.guarded("x", lambda: raises(UserError("gates: too few"))) == [
        doctor.Check("x", "fail", "gates: too few", "do as the message says")
    ]
    assert doctor.guarded("x", lambda: raises(RuntimeError("boom")))[0].detail == "RuntimeError: boom"


def test_the_pool_judges_right_and_wrong_and_replaces_a_worker_that_stands_still() -> None:
    (check,) = doctor.check_pool()
    assert check.state == "ok" and "was replaced" in check.detail


def test_every_registered_verifier_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_pool", lambda: [])
    assert {check.topic for check in doctor.check_verifiers()} >= {
        "verifier math",
        "verifier format",
        "verifier puzzles",
    }


def test_a_damaged_artifact_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    digest = store.digest({"a": 1})
    with store.build(digest, {"id": "corpus", "kind": "corpus"}) as build:
        (build.folder / "results.json").write_text("whole")
        build.publish({"id": "corpus"})
    assert state(doctor.check_store(str(store.root)), "artifacts") == "ok"
    (store.folder(digest) / "results.json").write_text("torn")
    damaged = next(check for check in doctor.check_store(str(store.root)) if check.topic == "artifacts")
    assert (
        damaged.state == "warn"
        and "1 published, 0 begun; 1 damaged" in damaged.detail
        and "results.json" in damaged.detail
    )


def test_a_store_that_is_not_there_yet_is_fine_and_is_not_made(tmp_path: Path) -> None:
    assert state(doctor.check_store(str(tmp_path / "new" / "store")), "store") == "ok"
    assert list(tmp_path.iterdir()) == []


def test_the_mirror_is_looked_through_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DERIVE_DATA", raising=False)
    assert doctor.check_data()[0].state == "ok"
    monkeypatch.setenv("DERIVE_DATA", str(tmp_path / "nowhere"))
    assert doctor.check_data()[0].state == "fail"
    monkeypatch.setenv("DERIVE_DATA", str(tmp_path))
    assert doctor.check_data()[0].state == "warn"
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("{}\n")
    (check,) = doctor.check_data()
    assert check.state == "ok" and "gsm8k (test)" in check.detail and "math500" in check.detail.split("from the hub")[1]


def test_a_prefect_server_that_is_away_is_a_warning_only_when_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert doctor.check_prefect(str(tmp_path))[0].state == "ok"
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert doctor.check_prefect(str(tmp_path))[0].state == "warn"


def test_the_exit_code_is_1_only_when_a_check_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        "check_versions",
        "check_packages",
        "check_devices",
        "check_model",
        "check_verifiers",
        "check_sandbox",
        "check_store",
        "check_data",
    ):
        monkeypatch.setattr(doctor, name, lambda *_: [])
    monkeypatch.setattr(
        doctor, "check_prefect", lambda *_: [doctor.Check("prefect server", "warn", "[away]", "start it")]
    )
    assert doctor.main() == 0
    assert "[away]" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "check_data", lambda: [doctor.Check("data mirror", "fail", "no folder")])
    assert doctor.main(json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False and [check["state"] for check in told["checks"]] == ["fail", "warn"]


@pytest.mark.slow
def test_this_machine_passes_with_the_real_model_and_attention(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert doctor.main(json=True, store=str(tmp_path)) == 0
    topics = {check["topic"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert topics["attention"]["detail"].endswith("leak between documents 0") and topics["seedling"]["state"] == "ok"
