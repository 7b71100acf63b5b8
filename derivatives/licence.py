"""The licence of a base checkpoint, read from its folder or known by its hub id.

What follows from it and from the data is worked out in `corpora/licences.py`, whose names are passed on here.
"""

from __future__ import annotations

import re
from pathlib import Path

from corpora.licences import LicenceResult, combine_licences, normalise_licence, recognise

__all__ = ["LicenceResult", "checkpoint_licence", "combine_licences", "normalise_licence", "published_licence"]


def checkpoint_licence(folder: Path) -> str | None:
    """Licence that a checkpoint folder states: its card's front matter, else a recognised LICENSE file."""
    card = folder / "README.md"
    if card.is_file():
        front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        fields = (
            dict(re.findall(r"^(license|license_name):[ \t]*[\"']?([^\"'\n]+)", front.group(1), re.MULTILINE))
            if front
            else {}
        )
        stated = fields.get("license", "").strip()
        if stated == "other":
            stated = fields.get("license_name", "").strip() or stated
        if stated:
            return str(stated)
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
        if (folder / name).is_file():
            return recognise((folder / name).read_text(encoding="utf-8", errors="replace"))
    return None


def published_licence(hub_id: str) -> str | None:
    """Licence of a Qwen2.5 checkpoint by its hub id, as its page states it; None for any other.

    Most sizes are Apache-2.0; 3B is for research only, and 72B has Qwen's own licence (docs/release.md).

    >>> [published_licence(name) for name in ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-Coder-3B-Instruct", "me/mine-3B")]
    ['apache-2.0', 'qwen-research', None]
    """
    size = re.fullmatch(r"Qwen/Qwen2\.5(?:-Coder|-Math)?-([\d.]+)B(?:-Instruct)?", hub_id)
    if size is None:
        return None
    return {"3": "qwen-research", "72": "qwen"}.get(size.group(1), "apache-2.0")
