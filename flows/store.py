"""The content-addressed store: one folder per stage, named by the digest of all that went into it.

    ROOT/ab/ab12.../            a published stage: its product, stage.log, progress.jsonl, manifest.json
    ROOT/ab/ab12....partial/    being built, or left by a crash and resumed by the next run
    ROOT/ab/ab12....lock .lease who builds it (`flows/lease.py`)
    ROOT/ab/ab12....adopted.json  another artifact stands for this digest (`derive adopt`)
    ROOT/runs/                  run records (`flows/runs.py`)
    ROOT/prefect/               Prefect's own database and log

ROOT is `--store`, else $DERIVE_STORE, else `.derive` in the current directory: beside the work it belongs
to, seen by `ls -a`, gone with it. What goes into a digest is decided in `flows/identity.py`; here a digest
is only a name. A folder appears under its name complete and synced to disk, or not at all.

Nothing is deleted here but checkpoints of finished stages and the remains of rejected ones; `flows/space.py` frees
space. What is missing is built again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.stage import write_json_atomic
from flows.lease import Lease
from flows.supervisor import kill_leftovers

MANIFEST = "manifest.json"
BEGUN = ".begun.json"
"""In a partial folder: the ingredients it was begun with, so that `derive adopt` can find it."""
CHECKPOINTS = "checkpoints"
READ_BYTES = 1 << 20


def default_root() -> Path:
    """$DERIVE_STORE, else `.derive` in the current directory."""
    return Path(os.environ.get("DERIVE_STORE") or ".derive").expanduser().resolve()


def canonical_json(value: Any) -> str:
    """The one way in which a value is written for hashing: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A published stage. `digest` is its own, also when it was found through an adoption."""

    digest: str
    folder: Path
    manifest: dict[str, Any]
    adopted: dict[str, Any] | None = None


class Store:
    """The folder of all artifacts."""

    def __init__(self, root: Path | str | None = None) -> None:
        """`root` is not created before something is built."""
        self.root = Path(root).expanduser().resolve() if root else default_root()
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"--store: {self.root} is a file; give a folder, or leave it out for {default_root()}")

    def digest(self, ingredients: Any) -> str:
        """The name of what these ingredients make."""
        return hashlib.sha256(canonical_json(ingredients).encode()).hexdigest()

    def folder(self, digest: str) -> Path:
        """Where the artifact with this digest is, or would be."""
        return self.root / digest[:2] / digest

    def partial(self, digest: str) -> Path:
        """Where the artifact with this digest is built."""
        return self.folder(digest).with_name(digest + ".partial")

    def find(self, digest: str) -> Artifact | None:
        """The published artifact that this digest names, if it is there and whole (names and sizes of its files)."""
        found = self._load(digest)
        if found is not None:
            return found
        record = _read_json(self._adoption_path(digest))
        target = self._load(str(record["stands_for"])) if record else None
        return None if target is None else Artifact(target.digest, target.folder, target.manifest, record)

    def problems(self, folder: Path, full: bool = False) -> list[str]:
        """What differs between a folder and its manifest: names and sizes, and with `full` also the contents."""
        manifest = _read_json(folder / MANIFEST)
        if manifest is None or not isinstance(manifest.get("files"), dict):
            return [f"{folder}: no readable {MANIFEST}"]
        found = []
        for name, facts in manifest["files"].items():
            path = folder / name
            if not isinstance(facts, dict) or not {"bytes", "sha256"} <= facts.keys():
                found.append(f"{folder / MANIFEST}: {name}: no size and digest")
            elif not path.is_file():
                found.append(f"{path}: missing")
            elif path.stat().st_size != facts["bytes"]:
                found.append(f"{path}: {path.stat().st_size} bytes, {facts['bytes']} when it was published")
            elif full and file_sha256(path) != facts["sha256"]:
                found.append(f"{path}: its content is not what was published")
        return found

    def artifacts(self) -> Iterator[Artifact]:
        """All whole published artifacts, oldest first."""
        folders = [
            path.parent for path in self.root.glob(f"[0-9a-f][0-9a-f]/*/{MANIFEST}") if "." not in path.parent.name
        ]
        for folder in sorted(folders, key=lambda each: (each / MANIFEST).stat().st_mtime):
            artifact = self._load(folder.name)
            if artifact is not None:
                yield artifact

    def partials(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Folders that were begun and not finished, each with what it was begun with."""
        for path in sorted(self.root.glob(f"[0-9a-f][0-9a-f]/*.partial/{BEGUN}")):
            begun = _read_json(path)
            if begun is not None:
                yield path.parent, begun

    def adopt(self, digest: str, stands_for: str, record: dict[str, Any]) -> None:
        """From now on the artifact `stands_for` is found under `digest` too."""
        write_json_atomic(self._adoption_path(digest), {**record, "digest": digest, "stands_for": stands_for})

    @contextmanager
    def build(
        self, digest: str, begun: dict[str, Any], on_wait: Callable[[str], None] | None = None
    ) -> Iterator[Build]:
        """Hold the one right to build `digest`, with its partial folder ready.

        When somebody else published it while we waited, `Build.existing` is set and there is nothing to do.
        Without `publish`, the partial folder stays for the next run to resume.
        """
        lease = Lease(self.folder(digest))
        with full_disk_is_the_users(self.root):
            lease.acquire(on_wait)
        try:
            existing = self.find(digest)
            build = Build(self, digest, lease, existing)
            if existing is None:
                with full_disk_is_the_users(self.root):
                    build.prepare(begun)
            yield build
        finally:
            lease.release()

    def _load(self, digest: str) -> Artifact | None:
        folder = self.folder(digest)
        manifest = _read_json(folder / MANIFEST)
        if manifest is None or self.problems(folder):
            return None
        return Artifact(digest, folder, manifest)

    def _adoption_path(self, digest: str) -> Path:
        return self.folder(digest).with_name(digest + ".adopted.json")


@dataclass
class Build:
    """One stage being built, by us alone."""

    store: Store
    digest: str
    lease: Lease
    existing: Artifact | None
    warnings: list[str] = field(default_factory=list)
    adopted: list[dict[str, Any]] = field(default_factory=list)
    """Code changes accepted while it was half built (`derive adopt`)."""

    @property
    def folder(self) -> Path:
        """The partial folder."""
        return self.store.partial(self.digest)

    def prepare(self, begun: dict[str, Any]) -> None:
        """Clear the way: end orphans, finish an interrupted publication, put a damaged artifact aside."""
        for pid in kill_leftovers(self.folder):
            self.warnings.append(f"ended process {pid}, left over from an earlier run")
        target = self.store.folder(self.digest)
        if target.exists():
            aside = target.with_name(f"{self.digest}.damaged-{int(time.time())}")
            self.warnings.append(f"{self.store.problems(target)[0]}; put aside as {aside.name} and built again")
            target.rename(aside)
        if (self.folder / MANIFEST).exists():
            if not self.store.problems(self.folder, full=True):
                self.existing = self._move_into_place()
                return
            (self.folder / MANIFEST).unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.adopted = (_read_json(self.folder / BEGUN) or {}).get("adopted", [])
        write_json_atomic(self.folder / BEGUN, {**begun, "adopted": self.adopted})

    def publish(self, manifest: dict[str, Any]) -> Artifact:
        """Describe the folder in its manifest, sync it, and give it its name. Checkpoints stay out.

        Raises:
            RuntimeError: when another machine took the lease over meanwhile.
        """
        if self.lease.lost.is_set():
            raise RuntimeError(f"{self.folder}: another machine took over the building of this stage; run again")
        for torn in self.folder.rglob(".*.partial"):  # of an atomic write that a kill cut short
            torn.unlink()
        files = {}
        for path in _files(self.folder):
            files[path.relative_to(self.folder).as_posix()] = {
                "bytes": path.stat().st_size,
                "sha256": file_sha256(path),
            }
        with full_disk_is_the_users(self.store.root):
            write_json_atomic(
                self.folder / MANIFEST, {**manifest, "digest": self.digest, "adopted": self.adopted, "files": files}
            )
            return self._move_into_place()

    def discard(self) -> None:
        """Remove the partial folder: its input was rejected, there is nothing to resume."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _move_into_place(self) -> Artifact:
        # Checkpoints leave by a rename and are deleted last: a kill in between loses no work and no space for long.
        trash = self.folder.with_name(self.digest + ".trash")
        if (self.folder / CHECKPOINTS).exists():
            shutil.rmtree(trash, ignore_errors=True)
            (self.folder / CHECKPOINTS).rename(trash)
        for path in _files(self.folder):
            _sync(path)
        for path in [folder for folder in self.folder.rglob("*") if folder.is_dir()] + [self.folder]:
            _sync(path)
        target = self.store.folder(self.digest)
        self.folder.rename(target)
        _sync(target.parent)
        (target / BEGUN).unlink(missing_ok=True)
        shutil.rmtree(trash, ignore_errors=True)
        published = self.store._load(self.digest)
        assert published is not None, f"{target} differs from the manifest that was just written"
        return published


def _files(folder: Path) -> list[Path]:
    """Files that are published, in the order of their names: all but checkpoints and the store's own."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.is_file() and inside[0] != CHECKPOINTS and inside not in ((MANIFEST,), (BEGUN,)):
            found.append(path)
    return found


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def full_disk_is_the_users(root: Path) -> Iterator[None]:
    """Turn a full disk, or one that may not be written, into a UserError that names the store."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"--store: {root}: the disk is full; free space there and run the same command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(
                f"--store: {root}: {error.strerror} ({error.filename}); give a folder that you may write"
            ) from error
        raise
