"""Artifacts appear whole or not at all, under one builder, and are found by what went into them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from flows import lease as leases
from flows.lease import Lease
from flows.store import Build, Store, canonical_json

ROOT = Path(__file__).parents[2]


def publish(store: Store, digest: str, text: str = "product") -> Path:
    with store.build(digest, {"digest": digest}) as build:
        (build.folder / "data").mkdir()
        (build.folder / "data" / "product.txt").write_text(text)
        return build.publish({"kind": "corpus"}).folder


def test_a_digest_does_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.digest({"a": 1, "b": [2]}) == store.digest({"b": [2], "a": 1}) != store.digest({"a": 1, "b": [3]})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"learning_rate": float("nan")})


def test_a_published_folder_has_its_files_with_size_and_digest_and_no_checkpoints(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.build("ab12", {}) as build:
        (build.folder / "checkpoints").mkdir()
        (build.folder / "checkpoints" / "state").write_text("large")
        (build.folder / "metrics.json").write_text("{}")
        (build.folder / ".torn.1.partial").write_text("half a wr")
        artifact = build.publish({"kind": "sft"})
    assert sorted(path.name for path in artifact.folder.iterdir()) == ["manifest.json", "metrics.json"]
    # sha256 of the two characters {}
    assert artifact.manifest["files"] == {
        "metrics.json": {"bytes": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    }
    assert sorted(path.name for path in artifact.folder.parent.iterdir()) == ["ab12", "ab12.lock"]


def test_readers_see_nothing_of_a_folder_that_is_being_built(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.build("ab12", {}) as build:
        (build.folder / "manifest.txt").write_text("half")
        assert store.find("ab12") is None and list(store.artifacts()) == []


def test_without_publication_the_folder_stays_for_the_next_builder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.build("ab12", {}) as build:
        (build.folder / "checkpoint").write_text("step 7")
        raise RuntimeError("killed")
    with store.build("ab12", {}) as build:
        assert (build.folder / "checkpoint").read_text() == "step 7"


def test_a_file_that_changed_size_hides_the_artifact_and_a_changed_content_is_found_by_the_full_check(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    folder = publish(store, "ab12", "product")
    (folder / "data" / "product.txt").write_text("PRODUCT")
    assert store.find("ab12") is not None and store.problems(folder) == []
    assert "its content is not what was published" in store.problems(folder, full=True)[0]
    (folder / "data" / "product.txt").write_text("more of it")
    assert store.find("ab12") is None
    assert "10 bytes, 7 when it was published" in store.problems(folder)[0]


def test_a_damaged_artifact_makes_way_and_is_kept_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (publish(store, "ab12") / "data" / "product.txt").unlink()
    with store.build("ab12", {}) as build:
        assert "missing; put aside as ab12.damaged-" in build.warnings[0]
    assert publish(store, "ab12").name == "ab12"
    assert len(list(tmp_path.rglob("*.damaged-*"))) == 1


def test_a_publication_that_was_cut_short_is_finished_by_the_next_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):

        def power_cut(_build: Build) -> None:
            raise OSError("power cut")

        patch.setattr(Build, "_move_into_place", power_cut)
        publish(store, "ab12")
    assert store.find("ab12") is None
    with store.build("ab12", {}) as build:
        assert build.existing is not None
        assert (build.existing.folder / "data" / "product.txt").read_text() == "product"


def test_a_second_builder_waits_and_finds_the_first_ones_product(tmp_path: Path) -> None:
    store = Store(tmp_path)
    waited: list[str] = []
    found: list[Path] = []

    def second() -> None:
        with Store(tmp_path).build("ab12", {}, waited.append) as build:
            assert build.existing is not None
            found.append(build.existing.folder)

    with store.build("ab12", {}) as build:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        assert not found
        (build.folder / "x").write_text("x")
        folder = build.publish({}).folder
    thread.join(10)
    assert found == [folder] and waited == [f"process {os.getpid()} on {leases.socket.gethostname()}"]


def test_the_lock_of_a_killed_builder_falls_at_once_but_not_while_a_process_that_inherited_it_lives(
    tmp_path: Path,
) -> None:
    script = (
        "import subprocess, sys, time; from flows.lease import Lease; from pathlib import Path\n"
        "lease = Lease(Path(sys.argv[1])); lease.acquire()\n"
        "child = subprocess.Popen(['sleep', '60'], pass_fds=[lease.file_descriptor])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    builder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "ab12")], stdout=subprocess.PIPE, cwd=ROOT)
    assert builder.stdout is not None
    child = int(builder.stdout.readline())
    builder.kill()
    builder.wait()
    builder.stdout.close()
    lease = Lease(tmp_path / "ab12")
    assert not lease.try_acquire()
    os.kill(child, 9)
    deadline = time.monotonic() + 10
    while not lease.try_acquire():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lease.release()


def test_another_machines_lease_counts_while_its_heartbeat_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "ab12.lease"
    theirs = {"host": "elsewhere", "pid": 1, "token": "theirs", "heartbeat": time.time()}
    path.write_text(json.dumps(theirs))
    lease = Lease(tmp_path / "ab12")
    assert not lease.try_acquire()
    path.write_text(json.dumps({**theirs, "heartbeat": time.time() - 2 * leases.LEASE_LIFE_S}))
    assert lease.try_acquire()
    lease.release()
    assert not path.exists()


def test_a_builder_notices_that_its_lease_was_taken_over_and_does_not_publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.05)
    store = Store(tmp_path)
    with store.build("ab12", {}) as build:
        build.lease.lease_path.write_text(
            json.dumps({"host": "elsewhere", "pid": 1, "token": "theirs", "heartbeat": time.time()})
        )
        assert build.lease.lost.wait(5)
        with pytest.raises(RuntimeError, match="another machine took over"):
            build.publish({})
    assert build.lease.lease_path.exists()


def test_an_adopted_artifact_is_found_under_both_digests_and_keeps_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish(store, "ab12")
    store.adopt("cd34", "ab12", {"why": "a comment"})
    found = store.find("cd34")
    assert found is not None and found.digest == "ab12"
    assert found.adopted is not None and found.adopted["why"] == "a comment"


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--store: .*file is a file; give a folder"):
        Store(tmp_path / "file")


def test_the_root_is_the_option_then_the_variable_then_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DERIVE_STORE", raising=False)
    assert Store().root == tmp_path / ".derive"
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "named"))
    assert Store().root == tmp_path / "named"
    assert Store(tmp_path / "given").root == tmp_path / "given"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("files", ['{"data/product.txt": 7}', '{"data/product.txt": {"bytes": 7}}', "[]", "null"])
def test_a_manifest_that_is_not_ours_is_a_damaged_folder(tmp_path: Path, files: str) -> None:
    store = Store(tmp_path)
    folder = publish(store, "ab12")
    (folder / "manifest.json").write_text(f'{{"files": {files}}}')
    assert store.find("ab12") is None and len(store.problems(folder)) == 1
    publish(store, "ab12", "again")
    assert (folder / "data" / "product.txt").read_text() == "again"
