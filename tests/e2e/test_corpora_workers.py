"""Corpus stages whose workers are killed, of this machine or of a Dask cluster, and stages that are: one digest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import derivatives
from configs.settings.corpus import CorpusStage
from configs.settings.machine import CorpusWorkers, Machine
from configs.stage import StageFile, StageInput

ROOT = Path(derivatives.__file__).parent.parent
WAIT_S = 240.0
WORDS = ("orchard", "lantern", "granite", "whistle", "harvest", "compass", "velvet", "thunder", "marble", "feather")
QUESTION = ("Martha keeps fourteen hens in three coops and sells every second egg at the market for twenty cents; how "
            "much does she earn in a week of seven days?")
MAIN = """
import itertools, sys
from corpora import build, cut, exact, regroup
from configs.stage import run_command

def in_tens(documents):
    documents = iter(documents)
    while batch := list(itertools.islice(documents, 10)):
        yield batch

# Many shards of few documents, several groups of repositories and ranges of digests: all this the stage alone says.
cut.batches, cut.SHARD_CHARS, cut.BATCH_CHARS = in_tens, 60_000, 20_000
regroup.SHARD_CHARS, exact.GROUP_RECORDS = 200_000, 400
if __name__ == "__main__":
    sys.exit(run_command("corpus", build.run, "", sys.argv[1:]))
"""


def module(i: int) -> str:
    """A small module that passes the filters for code, unlike every other number's."""
    a, b, c = WORDS[i % 10], WORDS[i // 10 % 10], WORDS[(i * 7 + 3) % 10]
    lines = [f'"""Works on the {a} of number {i} and its {b}."""', "", f"def {a}_{b}_{i}({c}, limit={i}):",
             f'    """Counts {c} number {i} up to the limit."""', f"    total = {i * 31}"]
    for k in range(8 + i % 23):
        word = WORDS[(i * 3 + k * (i % 7 + 1)) % 10]
        lines += [f"    for {word}{i}_{k} in range({c}, limit + {i * k}):", f"        total += {word}{i}_{k} * {i + k}"]
    return "\n".join([*lines, f"    return total - {i}", ""])


def rows(first: int, last: int, every: int) -> Iterator[dict[str, Any]]:
    """Modules of forty repositories; every so many rows a copy, a near-duplicate, and what else is dropped."""
    for i in range(first, last):
        row = {"id": f"m{i}", "path": f"src/m{i}.py", "repository": f"repo{i % 40}" if i % 9 else "", "licence": "MIT"}
        text = module(i)
        if i % every == 1:
            text = module(i // 2)
        elif i % every == 3:
            text = module(i // 2).replace("range(", "range( ", 1) + "\n# one more line\n"
        elif i % every == 5:
            text += f"# {QUESTION}\n"
        elif i % every == 7:
            text = "" if i % 2 else text + "def (\n"
        yield row | {"text": text}


def stage(folder: Path, kind: str) -> CorpusStage:
    """Everything at once; or a token budget, which ends the reading."""
    paths = [folder / f"{kind}{number}.jsonl" for number in range(2)]
    for number, path in enumerate(paths):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(1000 * number, 1000 * number + 900, 29)))
    bench = folder / "bench.jsonl"
    bench.write_text(json.dumps({"prompt": QUESTION, "answer": "1"}) + "\n")
    given: dict[str, Any] = {"id": "corpus", "output": "tokens", "sequence_length": 512, "subsequence": 0.6,
                             "decontaminate": [{"name": str(bench)}]}
    files, repositories = (
        {"name": str(path), "licences": ["mit"], "filters": "code", "redact": True, "fim": {}} for path in paths)
    if kind == "whole":
        return CorpusStage(**given, near_duplicates={"threshold": 0.7},
                           sources=[files, repositories | {"level": "repository"}])
    return CorpusStage(**given, num_tokens=400_000, sources=[
        {"name": "python_stdlib", "filters": "code"}, {"name": "python_stdlib", "seed": 1}, files])


def stage_file(folder: Path, kind: str, **workers: Any) -> Path:
    base = StageInput(kind="base", path=str(ROOT / "derivatives" / "seedling" / "checkpoint"))
    resolved = StageFile(recipe="test", seed=3, inputs={"base": base}, stage=stage(folder, kind),
                         machine=Machine(name="cpu", num_threads=1, corpora=CorpusWorkers(**workers)))
    path = folder / f"{kind}-{'-'.join(map(str, workers.values()))}.json".replace("/", "_")
    path.write_text(resolved.model_dump_json())
    return path


def start(path: Path, out: Path, **more: Any) -> subprocess.Popen[str]:
    (path.parent / "main.py").write_text(MAIN)
    return subprocess.Popen([sys.executable, str(path.parent / "main.py"), str(path), str(out)], text=True,
                            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, **more)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end of a stage; what it said."""
    said = process.communicate(timeout=WAIT_S)[1]
    assert process.returncode == code, said[-3000:]
    return said


def content(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((out / "data").iterdir())}


def workers_of(pid: int) -> list[int]:
    """Processes below one that do tasks."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_text()
        except OSError:
            continue
        if parent == pid and "spawn_main" in command:
            found.append(int(path.name))
    return sorted(found)


def wait_for(process: subprocess.Popen[str], out: Path, made: str, number: int) -> None:
    """Until so many artifacts are there."""
    deadline = time.monotonic() + WAIT_S
    while len(list(out.glob(f"work/*/{made}/[0-9]*"))) < number:
        assert process.poll() is None, f"the stage ended before {made} was seen: {finish(process)}"
        assert time.monotonic() < deadline, f"no {made}"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, dict[str, str]]:
    """What one process makes of both stages."""
    found = {}
    for kind in ("whole", "budget"):
        finish(start(stage_file(folder, kind, workers=1), folder / kind))
        found[kind] = content(folder / kind)
    return found


@pytest.mark.slow
def test_the_stages_have_something_to_do_in_every_part(folder: Path, expected: dict[str, dict[str, str]]) -> None:
    report = json.loads((folder / "whole" / "data" / "report.json").read_text())
    for name in ("exact_duplicate", "near_duplicate", "contaminated:bench.jsonl", "empty", "not_parsable"):
        assert report["dropped"][name] > 10, name
    first, second = report["sources"].values()
    assert second["cuts"]["repositories"] == 40 and first["cuts"]["cut_for_fim"] > 100
    assert second["dropped"]["exact_duplicate"] > 10  # of the first source, mostly
    budget = json.loads((folder / "budget" / "data" / "report.json").read_text())
    library = budget["sources"]["python_stdlib"]
    assert not library["read_whole"] and abs(library["tokens"] - 133_000) < 2000
    assert budget["sources"]["python_stdlib#2"]["dropped"]["exact_duplicate"] > 0
    assert not (folder / "whole" / "work").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("kind", ["whole", "budget"])
def test_workers_that_are_killed_change_no_byte(
    folder: Path, tmp_path: Path, expected: dict[str, dict[str, str]], kind: str, workers: int,
) -> None:
    process = start(stage_file(folder, kind, workers=workers), tmp_path)
    for made, number in (("first/0000", 2), ("second/0000", 1)):
        wait_for(process, tmp_path, made, number)
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    finish(process)
    assert content(tmp_path) == expected[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "budget"])
def test_a_stage_that_is_killed_goes_on_with_other_workers_and_the_same_bytes(
    folder: Path, tmp_path: Path, expected: dict[str, dict[str, str]], kind: str,
) -> None:
    parts = [("first/0000", 2), ("near/signed", 1), ("second/0000", 1), ("second/0001", 1)] if kind == "whole" else [
        ("first/0000", 2), ("second/0000", 1), ("first/0001", 1), ("second/0002", 1)]
    for made, number in parts:
        process = start(stage_file(folder, kind, workers=2), tmp_path)
        wait_for(process, tmp_path, made, number)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert process.stderr is not None
        process.stderr.close()
        assert not (tmp_path / "data").exists() and not (tmp_path / "metrics.json").exists()
    finish(start(stage_file(folder, kind, workers=4), tmp_path))
    assert content(tmp_path) == expected[kind] and not (tmp_path / "work").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_nothing_is_lost(
    folder: Path, tmp_path: Path, expected: dict[str, dict[str, str]],
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for size in ("1m", "3m", "6m"):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], check=False,
                          capture_output=True).returncode:
            pytest.skip("a small disk needs the right to mount one")
        try:
            said = finish(start(stage_file(folder, "whole", workers=2), small / "out"), 2)
            assert said.startswith("error: ") and said.count("\n") == 1 and "the disk is full; free space" in said
            assert not (small / "out" / "data").exists()
            shutil.copytree(small / "out", tmp_path / "out", dirs_exist_ok=True)
        finally:
            subprocess.run(["umount", str(small)], check=True)
    finish(start(stage_file(folder, "whole", workers=2), tmp_path / "out"))
    assert content(tmp_path / "out") == expected["whole"]


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_line(folder: Path, tmp_path: Path) -> None:
    path = stage_file(folder, "budget", workers=1)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(tmp_path)], check=False,
                      capture_output=True).returncode:
        pytest.skip("a folder that cannot be written needs the right to mount one")
    try:
        said = finish(start(path, tmp_path / "out"), 2)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert said.startswith("error: ") and said.count("\n") == 1 and "Read-only file system" in said


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def start_scheduler(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A scheduler of this machine, and its address."""
    file = folder / "scheduler.json"
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1",
                                  "--port", "0", "--no-dashboard", "--scheduler-file", str(file)], **QUIET)
    deadline = time.monotonic() + WAIT_S
    while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    return scheduler, json.loads(file.read_text())["address"]


def worker_command(address: str, scratch: Path) -> list[str]:
    return [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "2", "--no-nanny",
            "--no-dashboard", "--local-directory", str(scratch)]


# --- Dask -----------------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "budget"])
def test_a_dask_cluster_whose_worker_is_killed_makes_the_same_bytes(
    folder: Path, tmp_path: Path, expected: dict[str, dict[str, str]], kind: str,
) -> None:
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    process = start(stage_file(folder, kind, executor="dask", workers=3), tmp_path)
    for made, number in (("first/0000", 3), ("second/0000", 1)):
        wait_for(process, tmp_path, made, number)
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    finish(process)
    assert content(tmp_path) == expected[kind]
    timings = json.loads((tmp_path / "timings.json").read_text())
    assert timings["executor"] == "dask" and timings["num_workers"] == 3 and timings["processor_seconds_of_workers"] > 1


@pytest.mark.slow
def test_a_running_scheduler_is_used_and_left_running_also_when_the_stage_is_killed(
    folder: Path, tmp_path: Path, expected: dict[str, dict[str, str]],
) -> None:
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    scheduler, address = start_scheduler(tmp_path)
    workers = [subprocess.Popen(worker_command(address, tmp_path / f"worker{i}"), env=environment, **QUIET)
               for i in range(3)]
    try:
        path, out = stage_file(folder, "whole", executor="dask", address=address), tmp_path / "out"
        process = start(path, out)
        wait_for(process, out, "first/0000", 3)
        workers[0].kill()  # nobody starts it again
        wait_for(process, out, "second/0000", 1)
        process.kill()
        process.communicate()
        finish(start(path, out))
        assert content(out) == expected["whole"]
        assert scheduler.poll() is None and all(worker.poll() is None for worker in workers[1:])
    finally:
        for one in (*workers, scheduler):
            one.kill()
            one.wait()


@pytest.mark.slow
def test_a_worker_that_does_not_share_the_folder_is_found_before_anything_is_done(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    alone = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a worker that does not see the folder needs the right to mount over it")
    scheduler, address = start_scheduler(tmp_path)
    worker = subprocess.Popen([*alone, *worker_command(address, tmp_path / "worker")],
                              env={**os.environ, "PYTHONPATH": str(ROOT)}, **QUIET)
    try:
        said = finish(start(stage_file(folder, "budget", executor="dask", address=address), tmp_path / "out"), 2)
    finally:
        for one in (worker, scheduler):
            one.kill()
            one.wait()
    assert said.startswith("error: machine.corpora.address: the worker ") and "does not share the folder" in said
    assert not list(tmp_path.glob("out/work/*/first/0000/*"))


@pytest.mark.slow
def test_a_scheduler_that_is_lost_ends_the_stage_and_processes_go_on_with_its_work(
    folder: Path, tmp_path: Path, expected: dict[str, dict[str, str]],
) -> None:
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    scheduler, address = start_scheduler(tmp_path)
    worker = subprocess.Popen(worker_command(address, tmp_path / "worker"),
                              env={**os.environ, "PYTHONPATH": str(ROOT)}, **QUIET)
    try:
        process = start(stage_file(folder, "whole", executor="dask", address=address), tmp_path / "out")
        wait_for(process, tmp_path / "out", "first/0000", 3)
        scheduler.kill()
        said = finish(process, 75)
    finally:
        for one in (worker, scheduler):
            one.kill()
            one.wait()
    assert said.startswith("retry: machine.corpora.address: the scheduler at ") and said.count("\n") == 1
    finish(start(stage_file(folder, "whole", workers=2), tmp_path / "out"))
    assert content(tmp_path / "out") == expected["whole"]


@pytest.mark.slow
def test_an_address_where_nobody_answers_is_one_line(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    said = finish(start(stage_file(folder, "budget", executor="dask", address="tcp://127.0.0.1:9"), tmp_path), 2)
    assert said.splitlines()[-1].startswith("error: machine.corpora.address: no scheduler")
