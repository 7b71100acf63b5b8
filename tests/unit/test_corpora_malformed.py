"""Bad input through the whole stage: a named reason for each document, or one clear error; never a silent loss."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import derivatives
from configs.errors import UserError
from configs.settings.corpus import CorpusSource, CorpusStage
from configs.stage import StageFile, StageInput, run_command
from corpora import sources
from corpora.build import run
from corpora.dropped import DropLog
from corpora.sources import local_files, user_jsonl
from flows.inputs import TEXT, check_jsonl

SEEDLING = Path(derivatives.__file__).parent / "seedling" / "checkpoint"
GOOD = b'{"text": "a good row"}\n'


def build(folder: Path, name: str, output: str = "tokens") -> int:
    """The stage on one source; its exit code."""
    stage = CorpusStage(id="corpus", output=output, sources=(CorpusSource(name=name, split="train"),))  # type: ignore[arg-type]
    inputs = {"base": StageInput(kind="base", path=str(SEEDLING))}
    (folder / "stage.json").write_text(StageFile(recipe="test", inputs=inputs, stage=stage).model_dump_json())
    return run_command("corpus", run, "", [str(folder / "stage.json"), str(folder / "out")])


def funnel(folder: Path) -> dict[str, Any]:
    """The only source's part of the report; its counts must add up."""
    [one] = json.loads((folder / "out" / "data" / "report.json").read_text())["sources"].values()
    assert one["read"] == one["clean"] + sum(one["dropped"].values())
    assert one["funnel"][0]["documents"] == one["read"] and one["funnel"][-1]["documents"] == one["clean"]
    lines = (folder / "out" / "data" / "dropped.jsonl").read_text().splitlines()
    reasons = [json.loads(line)["reason"] for line in lines]
    assert {reason: reasons.count(reason) for reason in reasons} == one["dropped"]
    found: dict[str, Any] = one
    return found


def test_every_bad_file_of_a_folder_has_its_reason_and_the_counts_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.txt").write_text("good\n")
    (folder / "latin.txt").write_bytes(b"Gr\xfc\xdfe\n")
    (folder / "half.py").write_bytes(b"name = '\xe2\x82'\n")
    (folder / "nul.txt").write_bytes(b"a\x00b")
    (folder / "empty.py").write_bytes(b"")
    (folder / "blank.txt").write_text(" \n\t\n")
    (folder / "large.txt").write_bytes(b"x" * 5000)
    (folder / "loop").symlink_to(folder)
    (folder / "there").symlink_to("back")
    (folder / "back").symlink_to("there")
    os.mkfifo(folder / "pipe")
    (folder / "private.txt").write_text("secret")
    load = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "private.txt":
            raise PermissionError(13, "Permission denied")
        return load(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)  # the tests may run as a user who may read everything
    monkeypatch.setattr(local_files, "MAX_FILE_BYTES", 4000)
    monkeypatch.setattr(local_files, "in_split", lambda path, split: True)
    assert build(tmp_path, f"{folder}/") == 0
    assert funnel(tmp_path)["dropped"] == {"binary": 1, "empty": 2, "not_a_file": 1, "not_text": 2, "symbolic_link": 3,
                                           "too_large": 1, "unreadable": 1}


def test_a_line_that_is_too_large_is_a_document_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_jsonl, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b'{"text": "' + b"x" * 5000 + b'"}\n' + GOOD.replace(b"good", b"fine") + b'{"text": ""}\n')
    assert build(tmp_path, str(path)) == 0
    assert funnel(tmp_path)["dropped"] == {"empty": 1, "too_large": 1}
    assert check_jsonl(path, TEXT, "source") == sources.identity(CorpusSource(name=str(path)))["sha256"]


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def zst_of(content: bytes) -> bytes:
    made: bytes = pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(content)
    return made


ROWS = b"".join(json.dumps({"text": f"row {i} " * 40}).encode() + b"\n" for i in range(3000))
ERRORS: list[tuple[str, str, Callable[[], bytes], str]] = [
    ("bytes that are not UTF-8", "rows.jsonl", lambda: GOOD + b'{"text": "Gr\xfc\xdfe"}\n',
     r"rows\.jsonl:2: byte 13 of the line is not UTF-8; allowed: UTF-8 text"),
    ("a gzip file cut short", "rows.jsonl.gz", lambda: gzip.compress(ROWS)[:-2000],
     r"rows\.jsonl\.gz: cannot be read after line \d+ .*cut short; give a whole one"),
    ("a zstandard file cut short", "rows.jsonl.zst", lambda: zst_of(ROWS)[:-200],
     r"rows\.jsonl\.zst: cannot be read after line \d+ .*cut short; give a whole one"),
    ("a Parquet file cut short", "rows.parquet", lambda: parquet_of([{"text": "a"}] * 50)[:-20],
     r"rows\.parquet: cannot be read as Parquet after row 0 .*give a whole \.parquet file"),
    ("a gzip file of nothing", "rows.jsonl.gz", lambda: gzip.compress(b""), r"rows\.jsonl\.gz: holds no row"),
    ("a table without rows", "rows.parquet", lambda: parquet_of([]),
     r"rows\.parquet: holds no row"),
    ("an empty file", "rows.jsonl", lambda: b"", r"rows\.jsonl: is empty"),
    ("blank lines alone", "rows.jsonl", lambda: b"\n  \n", r"rows\.jsonl: holds no row"),
    ("a wrong column", "rows.jsonl", lambda: GOOD + b'{"body": "b"}\n',
     r"rows\.jsonl:2: text: is missing \(keys found: body\); output tokens needs it"),
    ("a table with a wrong column", "rows.parquet", lambda: parquet_of([{"body": "a"}]),
     r"rows\.parquet:1: text: is missing \(keys found: body\)"),
    ("rows of several types", "rows.jsonl", lambda: GOOD + b'{"text": ["b"]}\n',
     r"rows\.jsonl:2: text: \['b'\] is a list; allowed: text"),
    ("a table of numbers", "rows.parquet", lambda: parquet_of([{"text": 1}]),
     r"rows\.parquet:1: text: 1 is a int; allowed: text"),
    ("a line cut short", "rows.jsonl", lambda: GOOD + b'{"text": "b',
     r"rows\.jsonl:2: not JSON at column \d+ .*the last line may be cut short"),
    ("a list for an object", "rows.jsonl", lambda: GOOD + b'["text"]\n', r"rows\.jsonl:2: holds a list"),
]


@pytest.mark.parametrize(("name", "content", "said"), [one[1:] for one in ERRORS], ids=[one[0] for one in ERRORS])
def test_what_no_document_can_be_blamed_for_is_one_error_with_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: Callable[[], bytes], said: str,
) -> None:
    (tmp_path / name).write_bytes(content())
    assert build(tmp_path, str(tmp_path / name)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
    assert re.search(said, told), told
    assert not (tmp_path / "out" / "data").exists()


def test_a_pipe_a_folder_and_a_loop_in_place_of_a_file_are_errors_and_no_endless_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    for name, said in (("pipe", "is a folder, a pipe or a device"), ("folder", "is a folder, a pipe or a device"),
                       ("loop", "cannot be read|does not exist"), ("missing", "does not exist")):
        path = tmp_path / f"{name}.jsonl"
        with pytest.raises(UserError, match=rf"{name}\.jsonl: ({said})"):
            list(sources.open_source(CorpusSource(name=str(path)), "tokens", DropLog()))
        with pytest.raises(UserError, match=rf"here: .*{name}\.jsonl (is no file|does not exist|cannot be read)"):
            check_jsonl(path, TEXT, "here")


READER = """
import resource, sys
from pathlib import Path
from configs.settings.corpus import CorpusSource
from corpora.dropped import DropLog
from corpora.sources import open_source
from flows.inputs import TEXT, check_jsonl
dropped = DropLog()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(check_jsonl(Path(sys.argv[1]), TEXT, "here")))
print([one.text for one in open_source(CorpusSource(name=sys.argv[1]), "tokens", dropped)], dropped.by_reason())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_line_of_200_megabytes_is_dropped_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b'{"text": "')
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + GOOD)
    done = subprocess.run([sys.executable, "-c", READER, str(path)], capture_output=True, text=True, check=True,
                          cwd=Path(derivatives.__file__).parent.parent)
    assert done.stdout.splitlines()[:2] == ["64", "['a good row', 'a good row'] {'too_large': 1}"]
    assert int(done.stdout.splitlines()[2]) < 150_000  # kB; the line has 200,000
