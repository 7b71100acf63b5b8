"""A process whose reader is gone goes on, and its console does not end it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.flow_fixtures import ROOT, until

SAYING = """
import sys, time
from pathlib import Path
from rich.console import Console
if sys.argv[2] == "watched":
    from flows.outlive import outlive_readers
    outlive_readers()
print("begun", flush=True)
while not Path(sys.argv[1] + ".gone").exists():
    time.sleep(0.02)
for console in (Console(), Console(stderr=True)):
    console.print("nobody reads this")
Path(sys.argv[1]).write_text("alive")
"""


@pytest.mark.parametrize(("how", "code"), [("watched", 0), ("unwatched", 1)])
def test_a_line_that_nobody_reads_ends_no_watched_process(tmp_path: Path, how: str, code: int) -> None:
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-c", SAYING, str(mark), how], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"begun\n"
    process.stdout.close()
    process.stderr.close()
    until(lambda: False, 0.5)  # for the thread to notice
    Path(f"{mark}.gone").touch()
    assert process.wait(60) == code
    assert mark.exists() == (code == 0)
