"""A release that is cut short at any point: the former one stays as it was, the new one is whole or is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.settings.evaluation import Gate
from tests.e2e.test_release_opens import results, stage_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
DRIVER = """
import errno, hashlib, json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from configs.errors import UserError
from configs.stage import load_stage_file
from derivatives import export, release
from flows.store import Store
folder, how = Path(sys.argv[1]), sys.argv[2]
store, described = Store(folder / "store"), load_stage_file(folder / "stage.json")

def attempt(point):
    passed = [0]
    def watched(real, name):
        def call(*given, **named):
            passed[0] += 1
            if passed[0] == point and how == "kill":
                os._exit(137)
            if passed[0] == point:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.root))
            return real(*given, **named)
        return call
    with store.build(store.digest("new"), {"digest": store.digest("new")}) as build:
        if build.existing is None:
            for name in ("replace", "rename", "fsync"):
                setattr(os, name, watched(getattr(os, name), name))
            release.run(described, build.folder)
            build.publish({"id": "release", "kind": "release"})
    (folder / "passed").write_text(str(passed[0]))

def in_a_child(point):  # forked, so that torch is imported once
    child = os.fork()
    if child == 0:
        try:
            attempt(point)
            os._exit(0)
        except (OSError, UserError) as error:
            os._exit(3)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def contents(where):
    return {path.relative_to(where).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(where.rglob("*")) if path.is_file()}

def published():
    return [path.parent for path in store.root.glob("*/*/manifest.json") if "." not in path.parent.name]

assert in_a_child(0) == 0
num_points = int((folder / "passed").read_text())
(new,) = published()
expected = contents(new / "release")
former = new.with_name("f" * 64)  # the release that is there from before: another artifact of the same store
new.rename(former)
manifest = json.loads((former / "manifest.json").read_text())
(former / "manifest.json").write_text(json.dumps({**manifest, "digest": former.name}))
before = contents(former)
told = []
for point in sorted({2, num_points // 2, num_points - 3, num_points - 1, num_points}):
    code = in_a_child(point)
    new = [one for one in published() if one != former]
    told.append([point, code, contents(former) == before, all(contents(one / "release") == expected for one in new)])
last = in_a_child(0)
(made,) = [one for one in published() if one != former]
print(json.dumps({"points": num_points, "told": told, "last": last, "whole": contents(made / "release") == expected,
                  "former": contents(former) == before}))
"""
"""Every place where something is moved or made durable is one where a kill or a full disk may strike."""


@pytest.mark.parametrize(("how", "code"), [("kill", 137), ("full disk", 3)])
def test_a_release_that_is_cut_short_leaves_the_former_one_and_no_half_of_the_new(
    tmp_path: Path, how: str, code: int
) -> None:
    gates = (Gate(metric="pass@1", min_gain=0.1),)
    (tmp_path / "stage.json").write_text(stage_file(tmp_path, gates, results()).model_dump_json())
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", DRIVER, str(tmp_path), how]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["points"] >= 10
    # Once it has its name, a cut comes too late: the next attempt finds it whole, and there is nothing to cut.
    assert {each[1] for each in found["told"]} <= {code, 0} and found["told"][0][1] == code
    assert all(former and new for _, _, former, new in found["told"])
    assert found["last"] == 0 and found["whole"] and found["former"]
