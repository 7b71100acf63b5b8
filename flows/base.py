"""The checkpoint that a recipe starts from: found, checked, and given a digest.

`seedling` is the checkpoint that comes with the project; anything that is a folder is a local checkpoint; the
rest is a hub id, downloaded at the start of a run (planning looks only into the local cache). A local checkpoint
is known by the contents of the files that transformers reads, a hub checkpoint by its id and commit.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.stage import write_json_atomic
from flows.source import ROOT
from flows.store import Store, file_sha256

SEEDLING = ROOT / "derivatives" / "seedling" / "checkpoint"
CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin*",
)
"""What transformers reads; a checkpoint's card and logs say nothing about what it computes."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LARGE_BYTES = 64 * 1024 * 1024
"""Hashes of larger files are remembered in the store, by path, size and time of change: 15 GB take a minute."""


@dataclass(frozen=True)
class Base:
    """A resolved base. `path` is None for a hub checkpoint that is not downloaded yet (planning only)."""

    name: str
    identity: dict[str, Any]
    path: Path | None


def resolve_base(name: str, revision: str | None, store: Store, download: bool) -> Base:
    """Find the checkpoint.

    Raises:
        UserError: when it is not there, is no checkpoint, or cannot be downloaded.
    """
    if name == "seedling":
        folder: Path | None = SEEDLING
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
    else:
        folder = None
    if folder is not None:
        folder = _model_inside(name, folder)
        return Base(name, {"files": _file_digests(folder, store)}, folder)
    if not HUB_ID.fullmatch(name):
        raise UserError(
            f"base: {name!r} is no folder; allowed: seedling, a checkpoint folder, or a hub id such as "
            "Qwen/Qwen2.5-0.5B; correct --base"
        )
    path = _hub_snapshot(name, revision, download)
    commit = path.name if path is not None else (revision or "unpinned")
    return Base(name, {"hub": name, "revision": commit}, path)


def _model_inside(name: str, folder: Path) -> Path:
    """The checkpoint in a folder that is one, or that a training or release stage made."""
    for candidate in (folder, folder / "model", folder / "release"):
        if (candidate / "config.json").is_file():
            if not any(candidate.glob("*.safetensors")) and not any(candidate.glob("pytorch_model*.bin")):
                raise UserError(f"base: {candidate} holds no weights (*.safetensors); give a complete checkpoint")
            _check_files(candidate)
            return candidate
    raise UserError(f"base: {name!r}: {folder} has no config.json; give the folder of a Hugging Face checkpoint")


def _check_files(folder: Path) -> None:
    """What can be seen without torch: config and tokenizer are there and JSON, weights have the length they state."""
    if not ((folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()):
        raise UserError(f"base: {folder} has no tokenizer.json (nor vocab.json); put the checkpoint's own there")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _check_json(folder / name)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            stated, found = _stated_bytes(path), path.stat().st_size
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"base: {path} is no safetensors file ({error}); copy or download it again") from error
        if stated != found:
            raise UserError(
                f"base: {path} has {found} bytes where its header states {stated}; it is cut short or damaged: copy or "
                "download it again"
            )


def _check_json(path: Path) -> None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"base: {path} is not JSON ({error}); copy or download it again") from error
    if not isinstance(value, dict):
        raise UserError(
            f"base: {path} holds a {type(value).__name__}; allowed: a JSON object; copy or download it again"
        )


def _stated_bytes(path: Path) -> int:
    """Length that a safetensors file must have: 8 bytes, the header whose length they give, and the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("its header is cut short")
        header = json.loads(file.read(length))
    return 8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"))


def _file_digests(folder: Path, store: Store) -> dict[str, str]:
    cache_path = store.root / "cache" / "file_digests.json"
    remembered = _load(cache_path)
    known = dict(remembered)
    digests = {}
    for path in sorted({path for pattern in CHECKPOINT_FILES for path in folder.glob(pattern) if path.is_file()}):
        facts = path.stat()
        key = f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ino}"
        digests[path.name] = known[key] if key in known else file_sha256(path)
        if facts.st_size >= LARGE_BYTES:
            known[key] = digests[path.name]
    if known != remembered:
        write_json_atomic(cache_path, known)
    return digests


def _load(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _hub_snapshot(name: str, revision: str | None, download: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = list(CHECKPOINT_FILES)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        if not download:
            return None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the client raises its own, requests', and the OS's errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"base: {name!r} is no folder and cannot be downloaded ({reason}); correct the name, connect, "
            "or download it elsewhere and give its folder with --base"
        ) from error
