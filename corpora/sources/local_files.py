"""The user's own text files: one file, or all of a folder, each a document. Git checkouts are known as repositories.

A name with a slash before or after it is read so: `./notes.txt`, `../projects/`, `/data/checkouts/`. A file belongs to
the nearest folder above it that has `.git`, else to the folder that was given; that is its repository, whose licence
files (`LICENSE`, `COPYING`, ...) say under which licence it is unless its own header does.

A submodule is a repository of its own.

Nothing is left out silently. `symbolic_link` (never followed, so that a loop is no loop), `not_a_file` (sockets,
pipes), `unreadable` (file or folder), `too_large` (above `MAX_FILE_BYTES`), `binary` (a NUL, as git has it), `not_text`
(not UTF-8; for Python files, not what they declare), `ignored_by_git` (`gitignore.py`; a folder is one) and
`bare_repository` (a folder of git's own files, without a checkout) are dropped and counted. What lies in `.git` and the
like is not part of the files. Line ends become line feeds.

Files come in a seeded order, so that a reader who stops early has an unbiased part; at level repository repositories
do, each whole. One file in twenty, by the hash of its path, is held out for evaluation.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings.corpus import CorpusSource
from corpora import licences
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.filters.languages import language_of
from corpora.order import in_split, shuffled, shuffled_groups
from corpora.sources.gitignore import Ignored

LICENCE = "unknown"
MAX_FILE_BYTES = 32 << 20
"""Largest file that is read; a document takes several times its size while it is cleaned."""
OWN_FOLDERS = frozenset({".git", ".hg", ".svn", ".bzr"})
"""Where version control keeps its own files."""


def name_of(source: CorpusSource) -> str:
    """The name of a source without the folders above it."""
    return Path(source.name).expanduser().resolve().name


def check_path(field: str, source: CorpusSource) -> None:
    """Raises UserError for a path that is neither a file nor a folder with something in it."""
    path = Path(source.name).expanduser()
    try:
        if path.is_file() or (path.is_dir() and any(path.iterdir()) and not is_bare(path)):
            return
    except OSError as error:
        raise UserError(f"{field}.name: {source.name!r} cannot be read ({error.strerror}); "
                        "give a readable one") from error
    if path.is_dir() and is_bare(path):
        raise UserError(f"{field}.name: {source.name!r} is a bare git repository, which has no files; check it out "
                        "with `git clone`, and give the folder of the checkout")
    what = "is an empty folder" if path.is_dir() else "is neither a file nor a folder"
    raise UserError(f"{field}.name: {source.name!r} {what}; give the path of a text file, or of a folder with some")


def identity(source: CorpusSource) -> dict[str, Any]:
    """SHA-256 of the paths and contents of all files that can be read."""
    root = Path(source.name).expanduser()
    digest = hashlib.sha256()
    for path, fault in _walk(root):
        digest.update(os.fsencode(path) + b"\0")
        if fault is None:
            try:
                with (root / path).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError:
                digest.update(b"unreadable")
    return {"sha256": digest.hexdigest()}


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Files of the split in the order of `source.seed`."""
    root = Path(source.name).expanduser()
    name = name_of(source)
    repositories = _Repositories(root, name)
    found = [(path, fault) for path, fault in _walk(root) if in_split(path, source.split)]
    order = shuffled(len(found), source.seed, "local_files").tolist()
    if source.level == "repository":
        order = shuffled_groups([repositories.top(path) for path, _ in found], source.seed, "local_files")
    for i in order:
        path, fault = found[i]
        shown = os.fsencode(path or name).decode("utf-8", "backslashreplace")  # a name need not be text
        repository, licence, inside, provenance = repositories.of(path, shown)
        text, fault = ("", fault) if fault else read_text(root / path)
        document = Document(shown, name, licence, inside, text=text, repository=repository, provenance=provenance,
                            language=language_of(inside, text))
        if fault:
            dropped.add(document, fault)
        else:
            yield document


def read_text(path: Path) -> tuple[str, str | None]:
    """A file's text and None, or nothing and the reason why it has none."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return "", "too_large"
        content = path.read_bytes()
    except OSError:
        return "", "unreadable"
    return decode(content, path.suffix in (".py", ".pyi"))


def decode(content: bytes, is_python: bool) -> tuple[str, str | None]:
    """Text of a file's bytes and None, or nothing and `binary` or `not_text`."""
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(content).readline)[0] if is_python else "utf-8-sig"
        text = content.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        return "", "binary" if b"\0" in content[:8000] else "not_text"
    if "\0" in text:
        return "", "binary"
    return text.replace("\r\n", "\n").replace("\r", "\n"), None


def _walk(root: Path) -> Iterator[tuple[str, str | None]]:
    """Paths below `root`, with forward slashes, in order; each with the reason why it cannot be read, if any."""
    if not root.is_dir():
        yield "", None
        return
    above = Ignored(root) if (root / ".git").exists() else None
    pending: list[tuple[str, str, Ignored | None]] = [("", "", above)]
    while pending:
        folder, top, rules = pending.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name, reverse=True)
        except OSError:
            yield folder, "unreadable"
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            fault = _fault(entry)
            if fault == "folder":
                if entry.name in OWN_FOLDERS:
                    continue
                if (root / path / ".git").exists():  # a checkout, or a submodule: its own rules
                    pending.append((path, path, Ignored(root / path)))
                elif rules is not None and rules.ignores(path[len(top) :].lstrip("/"), is_folder=True):
                    yield path, "ignored_by_git"
                elif is_bare(root / path):
                    yield path, "bare_repository"
                else:
                    pending.append((path, top, rules))
            elif fault is None and rules is not None and entry.name != ".git" and rules.ignores(
                    path[len(top) :].lstrip("/"), is_folder=False):
                yield path, "ignored_by_git"
            elif entry.name != ".git":  # a file of that name leads from a submodule to git's own files
                yield path, fault


def _fault(entry: os.DirEntry[str]) -> str | None:
    """Why an entry of a folder is no file to be read; `folder` for one."""
    try:
        if entry.is_symlink():
            return "symbolic_link"
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return None if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode) else "not_a_file"
    except OSError:  # gone since the folder was read
        return "unreadable"


def is_bare(folder: Path) -> bool:
    """Whether a folder holds git's own files and no checkout."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


class _Repositories:
    """Which repository a path belongs to, its licence, and where it stands."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self._facts: dict[str, tuple[str, dict[str, Any]]] = {}
        self._known: dict[str, str] = {}

    def of(self, path: str, shown: str) -> tuple[str, str, str, dict[str, Any]]:
        """Name and licence of the repository, the path within it, and what else says where the file is from."""
        if not path:
            return "", LICENCE, shown, {"folder": ""}
        top = self.top(path)
        if top not in self._facts:
            folder = self._root / top
            commit = head_commit(folder)
            provenance = {"folder": top or self._name} | ({"commit": commit} if commit else {})
            self._facts[top] = folder_licence(folder) or LICENCE, provenance
        licence, provenance = self._facts[top]
        inside = shown[len(top) + 1:] if top else shown
        return (f"{self._name}/{top}" if top else self._name), licence, inside, provenance

    def top(self, path: str) -> str:
        """The nearest folder above that holds `.git`; empty for the one that was given."""
        return self._top(path.rpartition("/")[0])

    def _top(self, folder: str) -> str:
        if not folder:
            return ""
        if folder not in self._known:
            is_top = (self._root / folder / ".git").exists()
            self._known[folder] = folder if is_top else self._top(folder.rpartition("/")[0])
        return self._known[folder]


def head_commit(folder: Path) -> str | None:
    """The commit that a checkout stands at, as its own files say it; None where they do not."""
    own = folder / ".git"
    try:
        if own.is_file():  # a submodule, or a worktree
            own = (folder / own.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
        head = (own / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head if re.fullmatch("[0-9a-f]{40,64}", head) else None
        name = head.removeprefix("ref: ")
        for place in (own, own.parent.parent):  # a worktree's branches lie in the checkout that it is of
            if (place / name).is_file():
                return (place / name).read_text(encoding="utf-8").strip()
        packed = (own / "packed-refs").read_text(encoding="utf-8") if (own / "packed-refs").is_file() else ""
    except (OSError, ValueError):
        return None
    return next((line.split(" ")[0] for line in packed.splitlines() if line.endswith(f" {name}")), None)


def folder_licence(folder: Path) -> str | None:
    """Licence by the licence files of a folder; None when it has none that is recognised."""
    texts = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return None
    for path in paths:
        if licences.is_licence_file(path.name) and path.is_file() and not path.is_symlink():
            text, fault = read_text(path)
            if fault is None:
                texts[path.name] = text
    return licences.of_repository(texts)
