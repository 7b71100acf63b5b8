"""How long the stages of a run will take: by earlier runs in the store, and by `derive plan` where it needs no timing.

The forecast of a GPU profile follows from the device's figures; it takes a few seconds and what torch takes of memory,
so a process of its own makes it, once, at the lowest priority. On CPU a forecast must time parts of the stages, which
would disturb the run: there earlier runs must do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

from flows.board_facts import is_number
from flows.board_page import Expected
from flows.runs import recipe_path
from flows.source import ROOT
from flows.stages import Session

LIMIT_S = 180.0


def earlier_times(session: Session) -> dict[str, Expected]:
    """By stage id: the time of the newest finished one of this recipe and machine, scaled where steps are counted."""
    wanted = {planned.stage.id: planned.stage for planned in session.plan.stages if planned.artifact is None}
    found: dict[str, Expected] = {}
    for artifact in session.store.artifacts() if wanted else ():
        manifest = artifact.manifest
        stage, seconds = wanted.get(str(manifest.get("id"))), manifest.get("seconds")
        same = (manifest.get("recipe"), (manifest.get("machine") or {}).get("name"))
        if stage is None or same != (session.plan.recipe.name, session.machine.name) or not is_number(seconds):
            continue
        before = ((manifest.get("stage_file") or {}).get("stage") or {}).get("steps")
        now = getattr(stage, "steps", None)
        scale = now / before if is_number(before) and is_number(now) and before and now else 1.0
        found[stage.id] = Expected(float(seconds) * scale, "as in earlier runs")
    return found


class Expectations:
    """The forecast of a session's plan, while a process makes it. Safe to close at any time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._process: subprocess.Popen[bytes] | None = None
        self._answer: IO[bytes] | None = None
        self._began = 0.0
        self._over = session.machine.device != "cuda"

    def look(self) -> dict[str, Expected]:
        """By stage id, once; empty before and after."""
        if self._over:
            return {}
        if self._process is None:
            self._start()
            return {}
        if self._process.poll() is None:
            if time.monotonic() - self._began > LIMIT_S:
                self.close()
            return {}
        assert self._answer is not None
        self._answer.seek(0)
        answer = self._answer.read()
        self.close()
        return _expected(answer)

    def close(self) -> None:
        """End the process if it still runs."""
        self._over = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._answer is not None:
            self._answer.close()

    def _start(self) -> None:
        session = self._session
        recipe = recipe_path(session.store, session.record["id"])
        words = [sys.executable, "-m", "flows.cli", "plan", str(recipe), "--store", str(session.store.root)]
        words += ["--machine", session.machine.name, "--no-probe", "--json"]
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - read once the process is over
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            ["nice", "-n", "19", *words], stdin=subprocess.DEVNULL, stdout=self._answer, stderr=subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
        self._began = time.monotonic()


def _expected(answer: bytes) -> dict[str, Expected]:
    try:
        stages: Any = json.loads(answer)["stages"]
        told = [(row["id"], (row["prediction"] or {}).get("seconds")) for row in stages]
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: Expected(float(seconds), "by `derive plan`") for name, seconds in told if is_number(seconds)}
