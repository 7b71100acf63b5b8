"""Data sets through the `datasets` library: the hub's code path on a local stand-in, with all that goes wrong there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow
import pyarrow.parquet as parquet
import pytest

from configs import hub
from configs.catalogue import DatasetEntry, dataset, dataset_identity, open_rows
from configs.errors import RetryableError, UserError
from configs.settings.corpus import CorpusSource
from corpora import sources
from corpora.dropped import DropLog

ROWS = [{"text": f"page {i}: " + "1 + 1 = 2. " * (i % 7), "url": f"https://example.org/{i}"} for i in range(230)]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("DERIVE_DATA", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return folder


def put(folder: Path, name: str, rows: list[dict[str, Any]], files: int = 3) -> list[Path]:
    """A snapshot as the hub has it: Parquet files of one split in a folder, several row groups each."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // files)
    paths = []
    for i in range(files):
        paths.append(folder / name / f"train-{i:05d}-of-{files:05d}.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows[i * size : (i + 1) * size]), paths[-1], row_group_size=16)
    return paths


class Unreliable:
    """A streaming data set of the library that loses its connection before the rows it is told, and then goes on."""

    def __init__(self, inner: Any, losses: list[tuple[int, Exception]]) -> None:
        self._inner, self._losses, self._given = inner, losses, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rows = iter(self._inner)
        while True:
            if self._losses and self._losses[0][0] == self._given:
                raise self._losses.pop(0)[1]
            row = next(rows, None)
            if row is None:
                return
            self._given += 1
            yield row

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self._inner.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._inner.load_state_dict(state)


def distant(folder: Path, losses: list[tuple[int, Exception]]) -> hub.Stream:
    """The stand-in's files, read as the hub's are: over something that may be lost."""
    near = hub.from_files("finemath", "HuggingFaceTB/finemath", put(folder, "finemath/train", ROWS))
    return hub.Stream("finemath", near.page, "HuggingFaceTB/finemath@e92b25a6 train", "connect to the hub", True,
                      lambda: Unreliable(near.open(), losses))


def test_a_snapshot_of_the_hub_is_a_mirror_and_gives_every_row_in_order(mirror: Path) -> None:
    put(mirror, "finemath/train", ROWS)
    found = list(open_rows("finemath", "train"))
    assert [(row["text"], row["url"]) for row in found] == [(row["text"], row["url"]) for row in ROWS]
    assert found[-1]["id"] == "finemath/train/229"
    digest = dataset_identity("finemath", "train")["splits"]["train"]["sha256"]
    put(mirror, "finemath/train", [*ROWS[:-1], {"text": "another", "url": ""}])
    assert dataset_identity("finemath", "train")["splits"]["train"]["sha256"] != digest


def test_what_is_lost_midway_is_fetched_again_from_the_very_row_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(hub.time, "sleep", pauses.append)
    losses: list[tuple[int, Exception]] = [
        (5, ConnectionError("reset by peer")), (5, TimeoutError("timed out")),
        (100, httpx.ReadError("cut")), (201, OSError("broken pipe"))]
    found = [row["text"] for _, row in hub.rows(distant(tmp_path, losses))]
    assert found == [row["text"] for row in ROWS] and not losses
    assert pauses == [hub.RETRY_DELAYS_S[i] for i in (0, 1, 0, 0)]  # a row that came starts the pauses anew


def test_a_connection_that_stays_lost_ends_with_the_row_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub.time, "sleep", lambda _: None)
    losses: list[tuple[int, Exception]] = [(42, ConnectionError("no route to host"))] * 9
    stream, found = hub.rows(distant(tmp_path, losses)), []
    with pytest.raises(RetryableError, match=r"was lost at row 42 and did not come back in 5 attempts \(no route"):
        for _, row in stream:
            found.append(row)
    assert len(found) == 42


def test_a_set_behind_terms_says_where_to_accept_them(tmp_path: Path) -> None:
    class GatedRepoError(OSError):  # the hub client's own needs a response to be made of
        pass

    gated = "Dataset 'me/set' is a gated dataset on the Hub. Visit the page to ask for access."
    for error in (GatedRepoError("403 Client Error"), ValueError(gated)):
        def refuse(error: Exception = error) -> Any:
            raise error

        stream = hub.Stream("stack", "me/set", "me/set@0123 train", "set DERIVE_DATA", True, refuse)
        with pytest.raises(UserError, match=r"me/set asks you to accept its terms: log in at https://huggingface\.co/"
                                            r"datasets/me/set, accept them, then run `hf auth login` here or set HF_"):
            list(hub.rows(stream))
    losses: list[tuple[int, Exception]] = [(0, GatedRepoError("403 Client Error"))]
    with pytest.raises(UserError, match="asks you to accept its terms"):  # said with the first row: no further attempt
        list(hub.rows(distant(tmp_path, losses)))


def test_without_a_network_the_variable_that_forbids_it_is_named(mirror: Path) -> None:
    with pytest.raises(UserError, match="gsm8k was not fetched, as HF_HUB_OFFLINE is set; unset it, or set "):
        list(open_rows("gsm8k", "train"))


def test_a_missing_column_is_named_with_those_that_are_there(mirror: Path) -> None:
    put(mirror, "opc_sft2_evol/train", [{"instruction": "a", "answer": "b"}], files=1)
    with pytest.raises(UserError, match="row 0: has no column 'output'; found: answer, instruction; the file is"):
        list(open_rows("opc_sft2_evol", "train"))


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_a_damaged_file_of_a_snapshot_is_one_clear_error(mirror: Path, damage: str) -> None:
    last = put(mirror, "finemath/train", ROWS)[-1]
    whole = last.read_bytes()
    last.write_bytes({"cut": whole[: len(whole) // 2], "foreign": b"<html>not found</html>" * 9, "empty": b""}[damage])
    with pytest.raises(UserError, match="data set finemath: .*(cut short, damaged|cannot be opened)"):
        list(open_rows("finemath", "train"))


def test_lines_of_several_kinds_in_a_compressed_snapshot_are_an_error_with_the_row(mirror: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    lines = b'{"text": "a", "url": ""}\n' * 3 + b'{"text": {"no": "text"}, "url": 3}\n'
    (mirror / "finemath").mkdir()
    (mirror / "finemath" / "train.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines))
    with pytest.raises(UserError, match=r"train\.jsonl\.zst row 3: text: holds a dict, .*allowed: text or a number"):
        list(open_rows("finemath", "train"))


REPOSITORIES = [
    {"repo_path": "me/tool", "num_files": 3, "files": [
        {"content": "import b\n", "file_path": "a.py", "language": "Python", "license_type": "permissive",
         "detected_licenses": ["MIT"]},
        {"content": "x = 1\n", "file_path": "lib/b.py", "language": "Python", "license_type": "permissive",
         "detected_licenses": ["MIT", "Apache-2.0"]},
        {"content": "# no word on it\n", "file_path": "c.py", "language": "Python", "license_type": "no_license",
         "detected_licenses": []}]},
    {"repo_path": "you/other", "num_files": 1, "files": [
        {"content": "(defun f ())\n", "file_path": "f.lisp", "language": "Common Lisp", "license_type": "permissive",
         "detected_licenses": ["BSD-3-Clause"]}]},
]


def test_a_row_that_is_a_repository_gives_its_files_with_path_licence_and_language(mirror: Path) -> None:
    put(mirror, "stack_v3/train", REPOSITORIES, files=2)
    source = CorpusSource(name="stack_v3", level="repository")
    sources.check("stage.sources[0]", source, "tokens")
    documents = list(sources.open_source(source, "tokens", DropLog()))
    assert [(one.repository, one.path, one.licence, one.language) for one in documents] == [
        ("me/tool", "a.py", "mit", "python"), ("me/tool", "lib/b.py", "mit", "python"),
        ("me/tool", "c.py", "unknown", "python"), ("you/other", "f.lisp", "bsd-3-clause", "common-lisp")]
    assert len({one.id for one in documents}) == 4
    assert all(one.provenance["version"] == "HuggingFaceCode/stack-v3-train (mirror)" for one in documents)
    assert sources.collection_licence(source) == "ODC-By-1.0"


def test_a_set_without_repositories_cannot_be_read_by_them() -> None:
    with pytest.raises(UserError, match=r"stage\.sources\[0\]\.level: 'repository' was given to 'finemath'"):
        sources.check("stage.sources[0]", CorpusSource(name="finemath", level="repository"), "tokens")


def test_of_several_traces_the_first_whole_and_right_one_is_the_solution(mirror: Path) -> None:
    def row(whole: list[bool], verified: list[bool] | None, judged: list[bool] | None) -> dict[str, Any]:
        return {"problem": "2 + 2?", "answer": "4", "solution": "Four.", "generations": ["A", "B", "C"],
                "is_reasoning_complete": whole, "correctness_math_verify": verified, "correctness_llama": judged}

    put(mirror, "openr1_math_traces/train", [
        row([False, True, True], [True, True, True], None), row([True, True, True], [False, False, True], None),
        row([True, True, True], [False, False, False], [False, True, False]),
        row([True, False, False], [False, True, True], None)], files=1)
    assert [each["solution"] for each in open_rows("openr1_math_traces", "train")] == ["B", "C", "B", ""]
    dropped = DropLog()
    found = list(sources.open_source(CorpusSource(name="openr1_math_traces"), "examples", dropped))
    assert [one.completion for one in found] == ["B\n\\boxed{4}", "C\n\\boxed{4}", "B\n\\boxed{4}"]
    assert dropped.by_reason() == {"no_worked_solution": 1}


def test_a_trace_that_was_cut_at_its_length_is_no_solution(mirror: Path) -> None:
    put(mirror, "codeforces_cots/train", [
        {"prompt": "P", "generation": "<think>a</think>b", "finish_reason": "stop"},
        {"prompt": "Q", "generation": "<think>and so on", "finish_reason": "length"}], files=1)
    assert [row["solution"] for row in open_rows("codeforces_cots", "train")] == ["<think>a</think>b", ""]


def test_a_pinned_set_is_read_at_its_commit_and_says_so_in_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DERIVE_DATA", raising=False)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "train.jsonl").write_text(json.dumps({"problem": "Q?", "solution": "So \\boxed{2}."}) + "\n")
    entry: DatasetEntry = dataset("math").model_copy(update={"hub": str(tmp_path / "hub")})
    stream = hub.from_hub("math", entry.hub, None, "train", entry.revision, "connect")
    assert [(place.rsplit("@")[-1], row["problem"]) for place, row in hub.rows(stream)] == [
        ("0530c786 train row 0", "Q?")]


def test_a_folder_worked_for_one_commit_refuses_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DERIVE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record, out = hub.revisions_file(), tmp_path / "out"
    record.parent.mkdir(parents=True)
    out.mkdir()
    given = (CorpusSource(name="asdiv", split="test"), CorpusSource(name="python_stdlib"))
    sources.record_commits(out, given)  # no network, no commit yet
    for commit in ("a" * 40, "a" * 40):
        record.write_text(json.dumps({"EleutherAI/asdiv": commit}))
        sources.record_commits(out, given)
    assert json.loads((out / "commits.json").read_text()) == {"EleutherAI/asdiv": "a" * 40}
    record.write_text(json.dumps({"EleutherAI/asdiv": "b" * 40}))
    with pytest.raises(UserError, match=r"sources\[0\].*was begun at commit aaaaaaaa, now it is bbbbbbbb; put "):
        sources.record_commits(out, given)
