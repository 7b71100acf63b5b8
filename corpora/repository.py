"""Repository-level documents: the files of one repository in Qwen2.5-Coder's format, dependencies first.

    <|repo_name|>NAME
    <|file_sep|>PATH
    CONTENT
    <|file_sep|>PATH
    <|fim_prefix|>...<|fim_suffix|>...<|fim_middle|>...<|endoftext|>

The format is that of Qwen2.5-Coder (arXiv 2409.12186 figure 3, and its README); only the last file may be cut for
fill-in-the-middle. That files come after those that they depend on is DeepSeek-Coder's way (arXiv 2401.14196 section
2.2), as is to break a circle of imports at the file with the fewest dependencies left.

Dependencies are read with patterns: `import` and `from` of Python, `#include "..."` of C, relative `import`/`require`
of JavaScript and TypeScript. A name counts where it leads to a file of the same repository. Files of other languages
keep the order of their paths. The order does not depend on that in which files are given.

A file is never split between two documents here. What is longer than the limit goes on in a next document with the
repository's name, each file of it whole; a file longer than the limit stands alone, and the packer splits it.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from corpora import fim
from corpora.document import Document
from corpora.fim import Mark, Segment

_PYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]{0,4000}\)|[^\n#;]{1,1000})"
    r"|import[ \t]+([\w., \t]{1,1000}))",
    re.MULTILINE,
)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]+\"([^\"\n]{1,300})\"", re.MULTILINE)
_SCRIPT_IMPORT = re.compile(r"(?:\bfrom|\brequire\(|\bimport\(?)[ \t]{0,4}['\"](\.{1,2}/[^'\"\n]{1,300})['\"]")
_SCRIPT_ENDINGS = ("", ".js", ".ts", ".jsx", ".tsx", ".mjs", "/index.js", "/index.ts")
_C = frozenset({".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu", ".cuh"})
_SCRIPTS = frozenset({".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts"})


def assemble(
    name: str, documents: Iterable[Document], settings: fim.Settings | None, seed: int, max_characters: int
) -> list[list[Segment]]:
    """The repository as one document or several.

    Args:
        name: Name of the repository.
        documents: Its files; `path` is relative to its root. None may spell a mark (`fim.check`).
        settings: How the last file of each document is cut; None leaves it whole.
        seed: Seed of the run.
        max_characters: Characters in one document, headers included; only a single file may exceed them.
    """
    header: list[Segment] = [Mark.REPOSITORY, name + "\n"]
    groups: list[list[Document]] = []
    room = 0
    for document in in_order(list(documents)):
        length = len(document.path) + len(document.text) + 2
        if not groups or length > room:
            groups.append([])
            room = max_characters - len(name) - 1
        groups[-1].append(document)
        room -= length
    return [[*header, *_files(group, settings, seed)] for group in groups]


def _files(documents: Sequence[Document], settings: fim.Settings | None, seed: int) -> list[Segment]:
    segments: list[Segment] = []
    for document in documents:
        last = document is documents[-1]
        segments += [Mark.FILE, document.path + "\n"]
        if last and settings is not None:
            segments += fim.transform(document, settings, seed)
        else:
            segments.append(document.text if last or document.text.endswith("\n") else document.text + "\n")
    return _joined(segments)


def _joined(segments: list[Segment]) -> list[Segment]:
    """Texts that follow one another as one, so that an encoder sees no seam between a path and its content."""
    joined: list[Segment] = []
    for segment in segments:
        if isinstance(segment, str) and joined and isinstance(joined[-1], str):
            joined[-1] += segment
        elif segment != "":
            joined.append(segment)
    return joined


def in_order(documents: list[Document]) -> list[Document]:
    """The files with those that others depend on before them; else by path.

    The next file is always the first by path among those with the fewest dependencies that have not come yet, none at
    best, more only inside of a circle.
    """
    by_path = {document.path: document for document in sorted(documents, key=lambda document: document.path)}
    assert len(by_path) == len(documents), "two files of one repository have one path"
    missing = {path: set(dependencies(document, by_path)) for path, document in by_path.items()}
    dependents: dict[str, list[str]] = {path: [] for path in by_path}
    for path, needed in missing.items():
        for one in needed:
            dependents[one].append(path)
    heap = [(len(needed), path) for path, needed in missing.items()]
    heapq.heapify(heap)
    ordered: list[Document] = []
    done: set[str] = set()
    while heap:
        count, path = heapq.heappop(heap)
        if path in done or count != len(missing[path]):
            continue  # counted again since
        done.add(path)
        ordered.append(by_path[path])
        for dependent in dependents[path]:
            if dependent not in done:
                missing[dependent].discard(path)
                heapq.heappush(heap, (len(missing[dependent]), dependent))
    return ordered


def dependencies(document: Document, paths: Iterable[str]) -> list[str]:
    """Paths of the repository's files that this one names, sorted, without itself."""
    known = paths if isinstance(paths, dict | set | frozenset) else set(paths)
    ending = PurePosixPath(document.path).suffix
    if ending in (".py", ".pyi"):
        found = _python(document, known)
    elif ending in _C:
        found = _included(document, known)
    elif ending in _SCRIPTS:
        found = _scripts(document, known)
    else:
        return []
    return sorted(found - {document.path})


Known = dict[str, Document] | set[str] | frozenset[str]


def _python(document: Document, known: Known) -> set[str]:
    folder = PurePosixPath(document.path).parent
    found: set[str] = set()
    for dots, module, names, plain in _PYTHON_IMPORT.findall(document.text):
        if plain:
            for one in plain.split(","):
                found |= _module(_bases(folder), (one.split() or [""])[0].split("."), known)
            continue
        bases = [_up(folder, len(dots) - 1)] if dots else _bases(folder)
        parts = module.split(".") if module else []
        for one in names.strip("()").split(","):
            name = (one.split() or [""])[0]
            found |= _module(bases, [*parts, name], known) or _module(bases, parts, known)
    return found


def _bases(folder: PurePosixPath) -> list[PurePosixPath]:
    """Where an absolute import may begin: the file's folder and all above it, the nearest first (`src/` layouts)."""
    return [folder, *folder.parents]


def _up(folder: PurePosixPath, levels: int) -> PurePosixPath:
    for _ in range(levels):
        folder = folder.parent
    return folder


def _module(bases: Sequence[PurePosixPath], parts: Sequence[str], known: Known) -> set[str]:
    if not parts or not all(parts):
        return set()
    for base in bases:
        stem = base.joinpath(*parts).as_posix()
        for path in (f"{stem}.py", f"{stem}/__init__.py", f"{stem}.pyi"):
            if path in known:
                return {path}
    return set()


def _included(document: Document, known: Known) -> set[str]:
    folder = PurePosixPath(document.path).parent
    found = set()
    for name in _INCLUDE.findall(document.text):
        for base in (folder, *folder.parents, PurePosixPath("include"), PurePosixPath("src")):
            path = _normal(base / name)
            if path in known:
                found.add(path)
                break
    return found


def _scripts(document: Document, known: Known) -> set[str]:
    folder = PurePosixPath(document.path).parent
    found = set()
    for name in _SCRIPT_IMPORT.findall(document.text):
        stem = _normal(folder / name)
        found |= {stem + ending for ending in _SCRIPT_ENDINGS if stem + ending in known}
    return found


def _normal(path: PurePosixPath) -> str:
    """The path with `..` and `.` worked out; what leads out of the repository is in no repository."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
