"""What an evaluation has finished, kept until all of it is done, so that a killed run goes on after it.

A model's questions are asked in parts (`examination.PARTS`); each is written as soon as it is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.stage import write_text_atomic


class Partial:
    """`OUT/checkpoints/evaluated-NAME.json`: one model's finished parts."""

    def __init__(self, out: Path, name: str, run: str) -> None:
        self.path, self.run = out / "checkpoints" / f"evaluated-{name}.json", run

    def read(self) -> dict[str, Any]:
        """The parts that are there and of this very run, by name."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict) or content.get("fingerprint") != self.run:
            return {}
        parts = content.get("parts")
        return parts if isinstance(parts, dict) else {}

    def write(self, parts: dict[str, Any]) -> None:
        """Keep these parts, all that are finished."""
        write_text_atomic(self.path, json.dumps({"fingerprint": self.run, "parts": parts}) + "\n")

    def holds(self, names: Sequence[str]) -> bool:
        """Whether all these parts are there."""
        return set(names) <= self.read().keys()

    @staticmethod
    def drop_all(out: Path) -> None:
        """Forget the partial results."""
        for path in (out / "checkpoints").glob("evaluated-*.json"):
            path.unlink()
        if (out / "checkpoints").is_dir():
            (out / "checkpoints").rmdir()
