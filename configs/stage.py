"""The contract of a stage command: `python -m derivatives.sft STAGE.json OUT/`.

A stage reads one resolved stage file and writes one folder. It runs by hand, under `accelerate launch`, or
as a Prefect task. This module holds what all stage commands share: the stage file, the progress log,
atomic writes, and the exit codes (0 done, 2 user's error with one line on stderr, 75 retry, else a crash).

A stage's folder: `stage.json` (a copy of its stage file), `progress.jsonl`, `metrics.json`, `checkpoints/`
(while it runs), and its product: `model/` (pretrain, sft, dpo, rl), `data/` (corpus), `results.json` and
`samples.jsonl` (evaluate), `release/` (release).
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from configs import stall
from configs.errors import EXIT_RETRY, EXIT_USER_ERROR, RetryableError, UserError
from configs.schema import MODEL_KINDS, Stage
from configs.settings.common import Frozen
from configs.settings.machine import Machine
from configs.tree import check_one_tree

INTERRUPTED_EXIT = 130


class StageInput(Frozen):
    """One resolved input of a stage: where it lies, and what it is."""

    kind: Literal["base", "corpus", "pretrain", "sft", "sample", "dpo", "rl", "evaluate", "release"] = Field(
        description="What made it."
    )
    path: str = Field(description="Its folder; for base, the checkpoint folder itself.")
    digest: str = Field(default="", description="Its content address in the store.")


class StageFile(Frozen):
    """Everything one stage command needs, with no reference left to resolve."""

    recipe: str = Field(description="Name of the recipe, for messages and cards.")
    stage: Stage = Field(description="The stage's own configuration.")
    model: str | None = Field(default=None, description="Resolved name of the model that the stage starts from.")
    seed: int = Field(default=0, description="Seed of the run.")
    inputs: dict[str, StageInput] = Field(default_factory=dict, description="Stage id or `base` -> folder.")
    machine: Machine = Field(default=Machine(name="cpu"), description="How it runs.")
    lineage: dict[str, Any] = Field(default_factory=dict, description="Manifests of the whole line so far; only "
                                    "release reads it, for the card. Not part of any digest.")

    def model_folder(self, name: str | None = None) -> Path:
        """Folder of a Hugging Face checkpoint: the named input's, or the one this stage starts from."""
        key = name or self.model
        if key is None or key not in self.inputs:
            raise UserError(f"inputs: {key!r} is not among {sorted(self.inputs)}; add it to the stage file")
        given = self.inputs[key]
        return Path(given.path) / "model" if given.kind in MODEL_KINDS else Path(given.path)

    def data_folder(self, name: str) -> Path:
        """Folder of a corpus stage's product."""
        if name not in self.inputs:
            raise UserError(f"inputs: {name!r} is not among {sorted(self.inputs)}; add it to the stage file")
        return Path(self.inputs[name].path) / "data"


class Progress:
    """`progress.jsonl`: one line a step, `{"step", "total", "seconds", **metrics}`, appended and flushed.

    On resume from step n, lines after n are dropped, so that a curve never folds back. `seconds` counts
    from the first start and goes on after a resume.
    """

    def __init__(self, out: Path, resume_step: int | None = None) -> None:
        self.path = out / "progress.jsonl"
        kept = [line for line in read_progress(out) if resume_step is not None and line["step"] <= resume_step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_text_atomic(self.path, text)
        self._offset = kept[-1]["seconds"] if kept else 0.0
        self._start = time.monotonic()

    def write(self, step: int, total: int, **metrics: Any) -> None:
        """Append one line. Metrics are named stage/quantity."""
        seconds = round(self._offset + time.monotonic() - self._start, 3)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "total": total, "seconds": seconds, **metrics}) + "\n")
        stall.alive()


def read_progress(out: Path) -> list[dict[str, Any]]:
    """All whole lines of a folder's progress log; a torn last line (killed while writing) is left out."""
    path = out / "progress.jsonl"
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def write_text_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part (also after a power cut)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json_atomic(path: Path, value: Any) -> None:
    """`write_text_atomic` of indented JSON with sorted keys."""
    write_text_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def load_stage_file(path: Path) -> StageFile:
    """Read and check a stage file. Raises UserError that names the field."""
    try:
        return StageFile.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"STAGE.json: {path} does not exist; give the path of a resolved stage file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']} (got {str(first.get('input'))[:80]!r})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file; give a resolved stage file") from error


def run_command(
    kind: str, run: Callable[[StageFile, Path], None], description: str, argv: list[str] | None = None
) -> int:
    """Parse `STAGE.json OUT/`, run the stage, and turn its errors into exit codes.

    Args:
        kind: The stage kind that the command accepts.
        run: Does the work, given the stage file and the output folder.
        description: Text of `--help`, usually the stage module's docstring.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage_file", type=Path, metavar="STAGE.json",
                        help="resolved stage file (`derive plan` writes them)")
    parser.add_argument("out", type=Path, metavar="OUT/", help="folder to write; a started one is resumed")
    given = parser.parse_args(argv)
    try:
        check_one_tree()
        stage_file = load_stage_file(given.stage_file)
        if stage_file.stage.kind != kind:
            raise UserError(f"stage.kind: {stage_file.stage.kind!r} was given to the {kind} command; allowed: {kind}")
        given.out.mkdir(parents=True, exist_ok=True)
        write_json_atomic(given.out / "stage.json", stage_file.model_dump(mode="json"))
        stall.watch(stage_file.machine.stalled_after_s)
        run(stage_file, given.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except RetryableError as error:
        print(f"retry: {error}", file=sys.stderr)
        return EXIT_RETRY
    except OSError as error:
        return _said_of(error, given.out)
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    finally:
        stall.watch(None)
    return 0


def _said_of(error: OSError, out: Path) -> int:
    """Say why OUT cannot be written, and return the user's exit code; any other error of a file is a crash."""
    inside = bool(error.filename) and Path(os.fsdecode(error.filename)).absolute().is_relative_to(out.absolute())
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        said = "the disk is full; free space there and run the same command again"
    elif error.errno == errno.EROFS or (inside and error.errno in (errno.EACCES, errno.EPERM, errno.ENOTDIR)):
        said = f"cannot be written ({error.strerror}); give a folder that this user may write"
    else:
        traceback.print_exception(error)
        return 1
    print(f"error: {out}: {said}", file=sys.stderr)
    return EXIT_USER_ERROR
