"""The user's own folders and compressed files: every file is a document or has a reason; a torn one is an error."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from configs.settings.corpus import CorpusSource
from corpora import sources
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.sources import local_files, open_source, user_jsonl
from corpora.sources.gitignore import Ignored

MIT = ("MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this software\n")


def read(name: Path | str, **given: object) -> tuple[list[Document], dict[str, int]]:
    """Documents and drops of a source; what it says of itself must come out, too."""
    path = f"{name}/" if Path(name).is_dir() else str(name)
    source = CorpusSource(name=path, split=given.pop("split", "all"), **given)  # type: ignore[arg-type]
    sources.check("stage.sources[0]", source, "tokens")
    dropped = DropLog()
    documents = list(open_source(source, "tokens", dropped))
    return documents, dropped.by_reason()


def checkouts(root: Path) -> Path:
    """Two git checkouts, one with a licence, and a file that belongs to neither."""
    for name in ("tool", "deep/inner"):
        (root / name / ".git").mkdir(parents=True)
        (root / name / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        (root / name / "src").mkdir()
        (root / name / "src" / "a.py").write_text(f"name = {name!r}\n")
    (root / "tool" / "LICENSE").write_text(MIT)
    (root / "notes.txt").write_text("on my own\n")
    return root


def test_files_of_checkouts_know_their_repository_its_licence_and_their_place(tmp_path: Path) -> None:
    documents, dropped = read(checkouts(tmp_path / "mine"))
    assert {(one.id, one.repository, one.path, one.licence) for one in documents} == {
        ("tool/src/a.py", "mine/tool", "src/a.py", "mit"), ("tool/LICENSE", "mine/tool", "LICENSE", "mit"),
        ("deep/inner/src/a.py", "mine/deep/inner", "src/a.py", "unknown"),
        ("notes.txt", "mine", "notes.txt", "unknown")}
    assert dropped == {} and {one.source for one in documents} == {"mine"}


def test_the_folder_may_itself_be_the_checkout_and_one_file_may_be_a_source(tmp_path: Path) -> None:
    checkouts(tmp_path)
    documents, _ = read(tmp_path / "tool")
    assert {(one.repository, one.path, one.licence) for one in documents} == {
        ("tool", "src/a.py", "mit"), ("tool", "LICENSE", "mit")}
    [document], _ = read(tmp_path / "notes.txt")
    assert (document.id, document.text, document.repository) == ("notes.txt", "on my own\n", "")


def test_everything_that_cannot_be_read_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'Gr\xfc\xdfe'\r\n".encode("latin-1"))
    (folder / "bom.txt").write_bytes(b"\xef\xbb\xbftext\r\n")
    (folder / "empty.py").write_bytes(b"")
    (folder / "latin.txt").write_bytes(b"Gr\xfc\xdfe\n")
    (folder / "lies.py").write_bytes(b"# -*- coding: nonsense -*-\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\x00\x00")
    (folder / "nul.txt").write_bytes(b"a\x00b")
    (folder / "loop").symlink_to(folder)
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "huge.txt").write_bytes(b"x" * 5000)
    (folder / "locked").mkdir()
    (folder / "private.txt").write_text("secret")
    monkeypatch.setattr(local_files, "MAX_FILE_BYTES", 4000)
    scan, load = os.scandir, Path.read_bytes

    def scandir(path: Path) -> object:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    def read_bytes(path: Path) -> bytes:
        if path.name == "private.txt":
            raise PermissionError(13, "Permission denied")
        return load(path)

    monkeypatch.setattr(os, "scandir", scandir)  # the tests may run as a user who may read everything
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    documents, dropped = read(folder)
    assert {one.path: one.text for one in documents} == {
        "good.py": "# -*- coding: latin-1 -*-\nname = 'Grüße'\n", "bom.txt": "text\n", "empty.py": ""}
    assert dropped == {"not_text": 2, "binary": 2, "symbolic_link": 2, "not_a_file": 1, "too_large": 1, "unreadable": 2}


def git(folder: Path, *words: str) -> str:
    """What a command of git prints; the test is skipped with the reason where there is no git."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    known = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_ALLOW_PROTOCOL": "file"}
    named = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *named, *words], cwd=folder, capture_output=True, text=True, check=True,
                          env={**os.environ, **known})
    return done.stdout.strip()


def checkout(folder: Path, files: dict[str, str]) -> str:
    """A real checkout with these files committed; its commit."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def test_a_checkout_tells_its_commit_also_when_packed_and_its_submodule_is_a_repository_of_its_own(
    tmp_path: Path,
) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    first = checkout(inner, {"b.py": "y = 2\n", "LICENSE": MIT})
    checkout(outer, {"a.py": "x = 1\n"})
    git(outer, "submodule", "--quiet", "add", str(inner), "lib/inner")
    git(outer, "commit", "-q", "-m", "two")
    second = git(outer, "rev-parse", "HEAD")
    git(outer, "pack-refs", "--all")
    documents, dropped = read(outer)
    assert {(one.repository, one.path, one.licence, one.provenance["commit"]) for one in documents} == {
        ("outer", "a.py", "unknown", second), ("outer", ".gitmodules", "unknown", second),
        ("outer/lib/inner", "b.py", "mit", first), ("outer/lib/inner", "LICENSE", "mit", first)}
    assert dropped == {} and {one.language for one in documents if one.path.endswith(".py")} == {"python"}


def test_what_git_ignores_is_dropped_by_that_reason_a_folder_as_one(tmp_path: Path) -> None:
    checkout(tmp_path / "mine", {"a.py": "x = 1\n", ".gitignore": "*.log\n/build/\n!keep.log\n",
                                 "docs/.gitignore": "draft*\n"})
    for path in ("run.log", "keep.log", "build/out.py", "build/deep/more.py", "docs/draft1.md", "docs/final.md"):
        (tmp_path / "mine" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / path).write_text("text\n")
    documents, dropped = read(tmp_path / "mine")
    assert {one.path for one in documents} == {"a.py", ".gitignore", "docs/.gitignore", "keep.log", "docs/final.md"}
    assert dropped == {"ignored_by_git": 3}  # run.log, build/ and docs/draft1.md


PATTERNS = st.lists(st.sampled_from([
    "*.py", "a", "a/", "/a", "b/*", "b/**", "**/c", "a/**/c", "!c", "!b/c", "a?c", "[ab]", "[!a]", "d\\ ", "#x", "b/c/",
    "*", "!*/", "ab*", "  ", "\\!c", "c.py ", "**"]), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=PATTERNS)
def test_the_patterns_mean_what_git_says(tmp_path: Path, patterns: list[str]) -> None:
    root = tmp_path / "rules"
    if not root.exists():
        root.mkdir()
        git(root, "init", "-q")
        for path in ("a/c", "a/b/c", "b/a", "b/c/d", "c.py", "abc", "d", "e/ab/x.py"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text("")
    (root / ".gitignore").write_text("\n".join(patterns) + "\n")
    visible = set(git(root, "ls-files", "--others", "--exclude-standard").splitlines())
    rules = Ignored(root)

    def kept(path: str) -> bool:
        folders = [path[:i] for i, letter in enumerate(path) if letter == "/"]
        return not any(rules.ignores(folder, True) for folder in folders) and not rules.ignores(path, False)

    paths = [str(one.relative_to(root)) for one in root.rglob("*") if one.is_file() and ".git/" not in str(one)]
    assert {path for path in paths if kept(path)} == visible


def test_a_bare_repository_is_named_and_one_among_checkouts_is_dropped_as_one(tmp_path: Path) -> None:
    checkout(tmp_path / "all" / "tool", {"a.py": "x = 1\n"})
    git(tmp_path, "clone", "-q", "--bare", str(tmp_path / "all" / "tool"), str(tmp_path / "all" / "mirror.git"))
    documents, dropped = read(tmp_path / "all")
    assert [one.path for one in documents] == ["a.py"] and dropped == {"bare_repository": 1}
    with pytest.raises(UserError, match="is a bare git repository, which has no files; check it out with `git clone`"):
        read(tmp_path / "all" / "mirror.git")


def test_a_socket_and_a_loop_of_links_are_dropped_and_end(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a\n")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "one").symlink_to("two")
    (tmp_path / "in" / "two").symlink_to("one")
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(tmp_path / "in")  # a socket's path may not be long
        try:
            made.bind("s")
        finally:
            os.chdir(here)
        documents, dropped = read(tmp_path / "in")
    assert [one.path for one in documents] == ["a.txt"] and dropped == {"symbolic_link": 3, "not_a_file": 1}


def test_at_level_repository_each_comes_whole_and_in_a_drawn_order(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"r{i:02d}" / ".git").mkdir(parents=True)
        for j in range(5):
            (tmp_path / f"r{i:02d}" / f"{j}.py").write_text(f"x = {i}{j}\n")
    orders = []
    for seed in (1, 2):
        documents, _ = read(tmp_path, level="repository", seed=seed)
        names = [one.repository for one in documents]
        orders.append(list(dict.fromkeys(names)))
        assert len(documents) == 60 and len(orders[-1]) == 12
        assert sum(a != b for a, b in zip(names, names[1:], strict=False)) == 11  # none is begun twice
    assert orders[0] != orders[1]


def test_the_order_is_drawn_and_one_file_in_twenty_is_held_out(tmp_path: Path) -> None:
    for i in range(200):
        (tmp_path / f"{i}.txt").write_text(f"number {i}\n")
    first, again, other = (read(tmp_path, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again != other and {one.id for one in first} == {one.id for one in other}
    train, heldout = ({one.id for one in read(tmp_path, split=split)[0]} for split in ("train", "heldout"))
    assert train | heldout == {one.id for one in first} and not train & heldout and 2 <= len(heldout) <= 25


def test_the_identity_is_that_of_names_and_contents(tmp_path: Path) -> None:
    source = CorpusSource(name=f"{tmp_path}/")
    (tmp_path / "a.txt").write_text("one")
    first = sources.identity(source)
    assert sources.identity(source) == first
    (tmp_path / "a.txt").write_text("two")
    second = sources.identity(source)
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert len({one["sha256"] for one in (first, second, sources.identity(source))}) == 3


@pytest.mark.parametrize(("name", "said"), [
    ("nowhere/", "is neither a file nor a folder"), ("./nowhere.txt", "is neither a file nor a folder"),
    ("empty/", "is an empty folder"),
])
def test_a_path_with_nothing_to_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=said):
        sources.check("stage.sources[0]", CorpusSource(name=name), "tokens")


ROWS = b"".join(json.dumps({"text": f"row {i} " * 50}).encode() + b"\n" for i in range(2000))


def compressed(ending: str) -> bytes:
    if ending == ".gz":
        return gzip.compress(ROWS[:9000 * 8]) + gzip.compress(ROWS[9000 * 8:])
    zstandard = pytest.importorskip("zstandard")
    compress = zstandard.ZstdCompressor(write_checksum=True).compress  # as the command zstd does by default
    made: bytes = compress(ROWS[:9000 * 8]) + compress(ROWS[9000 * 8:])
    return made


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_is_read_like_a_plain_one(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(compressed(ending))
    documents, _ = read(path)
    assert [one.text for one in documents] == [f"row {i} " * 50 for i in range(2000)]
    assert sources.plain_name(CorpusSource(name=str(path))) == path.name


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "changed", "foreign"])
def test_a_damaged_compressed_file_is_one_clear_error(tmp_path: Path, ending: str, damage: str) -> None:
    whole = compressed(ending)
    path = tmp_path / f"rows.jsonl{ending}"
    half = len(whole) // 2
    path.write_bytes({"cut": whole[:-3], "changed": whole[:half] + bytes(64) + whole[half + 64:],
                      "foreign": ROWS}[damage])
    with pytest.raises(UserError, match=rf"rows\.jsonl{ending}: cannot be read after line \d+ .*cut short"):
        read(path)


def test_a_line_that_is_too_large_is_dropped_and_those_after_it_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "rows.jsonl"
    long = json.dumps({"text": "x" * 5000})
    path.write_text('{"text": "a"}\n' + long + '\n{"text": "b"}\n' + long)
    monkeypatch.setattr(user_jsonl, "MAX_LINE_BYTES", 1000)
    documents, dropped = read(path)
    assert [one.text for one in documents] == ["a", "b"] and dropped == {"too_large": 2}
    assert [one.provenance["line"] for one in documents] == [1, 3]


def test_a_row_may_say_where_its_text_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "path": "src/a.c", "repo_name": "me/tool", "license": "mit", "language": "C"}\n'
                    '{"text": "b", "path": 3, "license": ["mit"]}\n')
    documents, _ = read(path)
    assert [(one.path, one.repository, one.licence, one.language) for one in documents] == [
        ("src/a.c", "me/tool", "mit", "c"), ("rows.jsonl", "", "unknown", "")]


def test_a_table_is_read_row_by_row_and_a_broken_one_is_named(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"text": ["a", "b"], "license": ["mit", None], "n": [1, 2]}), path)
    documents, _ = read(path)
    assert [(one.text, one.licence, one.id) for one in documents] == [
        ("a", "mit", "rows.parquet:1"), ("b", "unknown", "rows.parquet:2")]
    with pytest.raises(UserError, match=r"rows\.parquet:1: prompt: is missing \(keys found: text, license, n\)"):
        list(open_source(CorpusSource(name=str(path)), "examples", DropLog()))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"rows\.parquet: cannot be read as Parquet after row 0"):
        read(path)
