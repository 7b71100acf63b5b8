"""What a store's folders are kept for, and which may go: the plan of `derive gc`, and its execution.

A folder is kept while something needs it, in this order: a pin (its own, or its run's), a run that goes on, a release,
the newest completed runs of each recipe, and runs of the last days that did not finish and may go on. A run that is a
fork needs the stage that it goes on from, too. Whatever else lies in the store may go: products that only older runs
used, half-built folders that nobody touched for days, damaged ones that were put aside. With a quota also the products
of kept runs go, least recently used first, until the store is small enough; pins, releases and what a run that goes on
needs never do. Nothing that goes is lost for good: the same command builds it again. What is not of the store's making,
links among them, is never touched.

A folder is removed under its own lease and leaves by a rename first, so that no run ever sees half of one. Runs that
begin while a plan is carried out are safe: a plan looks again at who needs what before each folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.stage import write_json_atomic
from flows import runs
from flows.lease import Lease
from flows.store import MANIFEST, Store

NAME = re.compile(r"[0-9a-f]{64}(\..+)?")
PINS = "pins.json"
TRASH = ".trash"
DAY_S = 86_400.0


@dataclass(frozen=True)
class Folder:
    """One folder of the store.

    Attributes:
        path: Where it lies.
        what: The stage it is of, for people.
        bytes: Space that it takes on the disk.
        used: When a run last made or used it, in seconds since 1970.
        keep: What it is kept for; empty where nothing needs it.
        firm: Whether no quota moves it.
        goes: Why it goes; empty where it stays.
    """

    path: Path
    what: str
    bytes: int
    used: float
    keep: str = ""
    firm: bool = False
    goes: str = ""


@dataclass(frozen=True)
class SpacePlan:
    """All folders of a store, and which of them go."""

    folders: tuple[Folder, ...]
    quota: int | None

    @property
    def going(self) -> list[Folder]:
        return [folder for folder in self.folders if folder.goes]

    @property
    def bytes_now(self) -> int:
        return sum(folder.bytes for folder in self.folders)

    @property
    def bytes_then(self) -> int:
        return sum(folder.bytes for folder in self.folders if not folder.goes)


def plan_space(store: Store, keep_runs: int = 3, days: float = 7.0, quota: int | None = None) -> SpacePlan:
    """Decide for every folder; removes nothing.

    Args:
        store: Whose folders.
        keep_runs: Completed runs of each recipe whose products stay.
        days: Age from which half-built and damaged folders go, and what only runs that did not finish used.
        quota: Bytes that the store may take.
    """
    needs = _needs(store, keep_runs, days)
    folders = [_judged(path, needs, days) for path in _all_folders(store)]
    if quota is not None:
        too_much = sum(folder.bytes for folder in folders if not folder.goes) - quota
        for number in sorted(range(len(folders)), key=lambda number: folders[number].used):
            one = folders[number]
            if too_much > 0 and not one.goes and not one.firm:
                folders[number] = replace(one, goes=f"quota: {one.keep}")
                too_much -= one.bytes
    return SpacePlan(tuple(folders), quota)


def carry_out(store: Store, plan: SpacePlan, told: Callable[[Folder], None] = lambda folder: None) -> list[Folder]:
    """Remove what goes. Returns what stayed after all: it is being built, or a run has begun to use it.

    Args:
        store: The store that the plan is of.
        plan: What `plan_space` made.
        told: Called with each folder that is gone.
    """
    stayed = []
    for folder in plan.going:
        lease = Lease(store.folder(folder.path.name.partition(".")[0]))
        if not lease.try_acquire():
            stayed.append(replace(folder, keep="it is being built", goes=""))
            continue
        try:
            firm = _needs(store, 0, 0.0).get(folder.path.name)
            if firm is not None:
                stayed.append(replace(folder, keep=firm[0], goes=""))
                continue
            trash = folder.path
            if not trash.name.endswith(TRASH):
                trash = folder.path.with_name(folder.path.name + TRASH)
                shutil.rmtree(trash, ignore_errors=True)
                os.replace(folder.path, trash)
            shutil.rmtree(trash)
            told(folder)
        finally:
            lease.release()
    return stayed


def pins(store: Store) -> dict[str, str]:
    """Run id or digest -> why it is pinned. Raises UserError where the file cannot be read: nothing may go then."""
    path = store.root / PINS
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"--store: {path} cannot be read ({error}); mend it, or remove it with all of its pins") \
            from error  # fmt: skip
    if not isinstance(value, dict):
        raise UserError(f"--store: {path} holds no pins by name; mend it, or remove it with all of its pins")
    return {str(name): str(why) for name, why in value.items()}


def pin(store: Store, name: str, why: str | None) -> None:
    """Pin a run or a digest for a reason; None takes the pin away."""
    now = pins(store)
    now.pop(name, None)
    write_json_atomic(store.root / PINS, now if why is None else {**now, name: why})


def _needs(store: Store, keep_runs: int, days: float) -> dict[str, tuple[str, bool, float]]:
    """Name of a folder -> what it is kept for, whether that is firm, and when it was last used."""
    pinned = pins(store)
    found: dict[str, tuple[str, bool, float]] = {}
    counted: dict[str, int] = {}

    def need(digests: Iterable[str], why: str, firm: bool, when: float) -> None:
        for digest in digests:
            for name in (digest, f"{digest}.partial"):
                had = found.get(name)
                if had is None or (firm and not had[1]):
                    found[name] = (why, firm, max(when, had[2] if had else 0.0))
                else:
                    found[name] = (had[0], had[1], max(when, had[2]))

    for record in reversed(runs.all_runs(store)):
        digests = [entry["digest"] for entry in record["stages"] if entry.get("digest")]
        if isinstance(record.get("fork"), dict):
            digests.append(str(record["fork"].get("digest")))
        when = _ended(store, record)
        if record["id"] in pinned:
            need(digests, f"pinned with run {record['id']}: {pinned[record['id']]}", True, when)
        if record["status"] in ("running", "paused"):
            why = "goes on" if record["status"] == "running" else "is paused"
            need([*digests, *record.get("planned", [])], f"run {record['id']} {why}", True, when)
        if record["status"] == "completed":
            counted[record["recipe"]] = counted.get(record["recipe"], 0) + 1
            if counted[record["recipe"]] <= keep_runs:
                need(digests, f"run {record['id']}", False, when)
        elif record["status"] not in ("running", "paused") and time.time() - when < days * DAY_S:
            need(digests, f"run {record['id']} did not finish and may go on", False, when)
        releases = [entry["digest"] for entry in record["stages"] if entry["kind"] == "release" and entry.get("digest")]
        need(releases, f"release of run {record['id']}", True, when)
    need([name for name in pinned if store.folder(name).exists()], "pinned", True, 0.0)
    for name, why in pinned.items():
        if name in found and found[name][0] == "pinned":
            found[name] = (f"pinned: {why}", True, found[name][2])
    return found


def _all_folders(store: Store) -> list[Path]:
    folders = sorted(path for path in store.root.glob("[0-9a-f][0-9a-f]/*") if NAME.fullmatch(path.name))
    return [path for path in folders if path.is_dir() and not path.is_symlink()]


def _judged(path: Path, needs: Mapping[str, tuple[str, bool, float]], days: float) -> Folder:
    """The folder with what keeps it, or why it goes."""
    digest, _, state = path.name.partition(".")
    changed = path.stat().st_mtime
    manifest = _read(path / MANIFEST) or _read(path / "stage.json") or {}
    stage = manifest.get("stage", manifest)
    what = " ".join(filter(None, (str(manifest.get("recipe", "")), str(stage.get("id", "")), state)))
    one = Folder(path, what or "?", folder_bytes(path), changed)
    need = needs.get(path.name)
    if need is not None:
        one = replace(one, keep=need[0], firm=need[1], used=max(changed, need[2]))
    age_d = (time.time() - changed) / DAY_S
    if state.endswith("trash"):
        return replace(one, goes="left by a removal")
    if state.startswith("damaged"):
        return replace(one, goes="damaged, put aside") if age_d >= days else replace(one, keep="damaged, not yet old")
    if state == "partial":
        if one.firm:
            return one
        if age_d < days:
            return replace(one, keep=f"half built, {age_d:.1f} days old: a run may go on from it")
        return replace(one, keep="", goes=f"half built, untouched for {age_d:.0f} days")
    return one if one.keep else replace(one, goes="only older runs, or none, used it")


def _ended(store: Store, record: Mapping[str, Any]) -> float:
    try:
        return (store.root / "runs" / f"{record['id']}.json").stat().st_mtime
    except OSError:
        return 0.0


def folder_bytes(folder: Path) -> int:
    """Space on the disk; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                facts = os.lstat(os.path.join(root, name))
            except OSError:
                continue
            if (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                total += facts.st_blocks * 512
    return total


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
