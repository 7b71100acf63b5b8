"""Licence arithmetic: which licence a derivative may carry, given its base's and its data's.

The most restrictive one counts, along public domain < permissive < attribution < share-alike < restricted use.
A licence that is not known, or two that cannot be met together, make the result `other` with a sentence that says
why. This is bookkeeping, not legal advice: it compares names, and reads no licence text beyond recognising it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CLASSES = ("public domain", "permissive", "attribution", "share-alike", "restricted use")
SHARE_ALIKE, RESTRICTED = 3, 4

KNOWN: dict[str, int] = {
    "cc0-1.0": 0,
    "unlicense": 0,
    "pddl": 0,
    "public-domain": 0,
    "mit": 1,
    "apache-2.0": 1,
    "bsd": 1,
    "bsd-2-clause": 1,
    "bsd-3-clause": 1,
    "isc": 1,
    "psf-2.0": 1,
    "cdla-permissive-2.0": 1,
    "cc-by-3.0": 2,
    "cc-by-4.0": 2,
    "odc-by": 2,
    "cdla-permissive-1.0": 2,
    "cc-by-sa-3.0": 3,
    "cc-by-sa-4.0": 3,
    "odbl": 3,
    "gpl-2.0": 3,
    "gpl-3.0": 3,
    "lgpl-3.0": 3,
    "agpl-3.0": 3,
    "mpl-2.0": 3,
    "cc-by-nc-3.0": 4,
    "cc-by-nc-4.0": 4,
    "cc-by-nc-sa-3.0": 4,
    "cc-by-nc-sa-4.0": 4,
    "cc-by-nd-4.0": 4,
    "cc-by-nc-nd-4.0": 4,
    "qwen": 4,
    "qwen-research": 4,
    "llama3": 4,
    "gemma": 4,
}
"""Licence id (as on the Hugging Face hub where it has one) -> place in CLASSES."""

NOT_HUB_IDS = {"psf-2.0", "qwen", "qwen-research", "public-domain"}
"""Names that the hub's front matter spells `other`."""

ALIASES = {
    "apache": "apache-2.0",
    "apache2": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "psf": "psf-2.0",
    "psfl": "psf-2.0",
    "python-2.0": "psf-2.0",
    "python-software-foundation": "psf-2.0",
    "bsd-3": "bsd-3-clause",
    "new-bsd": "bsd-3-clause",
    "cc0": "cc0-1.0",
    "cc-by": "cc-by-4.0",
    "cc-by-sa": "cc-by-sa-4.0",
    "cc-by-nc": "cc-by-nc-4.0",
    "odc-by-1.0": "odc-by",
    "tongyi-qianwen": "qwen",
    "qwen-license": "qwen",
    "the-unlicense": "unlicense",
    "mit-license": "mit",
    "mpl": "mpl-2.0",
}


@dataclass(frozen=True)
class LicenceResult:
    """The id for the card's front matter, the plain name, and one sentence that says how it came about."""

    identifier: str
    name: str
    sentence: str


def normalise_licence(text: str | None) -> str | None:
    """Id of a licence named in free text; None when it is not one of the known.

    >>> normalise_licence("Apache 2.0"), normalise_licence("CC BY-SA 4.0"), normalise_licence("ask us")
    ('apache-2.0', 'cc-by-sa-4.0', None)
    """
    if not text:
        return None
    name = re.sub(r"[\s_]+", "-", text.strip().lower()).removeprefix("license:").removeprefix("the-")
    for candidate in (name, name.removesuffix("-license"), name.removesuffix("-licence"), name.replace(",", "")):
        candidate = ALIASES.get(candidate, candidate)
        if candidate in KNOWN:
            return candidate
    return None


def combine_licences(base: str | None, data: Mapping[str, str | None]) -> LicenceResult:
    """The licence of a model made from `base`'s licence and each data source's.

    Args:
        base: Licence of the base checkpoint in free text; None or empty is unknown.
        data: Source name -> its licence in free text.
    """
    given = {"the base": base, **data}
    found = {source: normalise_licence(text) for source, text in given.items()}
    unknown = [f"{source} ({given[source] or 'none stated'})" for source, name in found.items() if name is None]
    known = {source: name for source, name in found.items() if name is not None}
    strictest = max((KNOWN[name] for name in known.values()), default=0)
    binding = {source: name for source, name in known.items() if KNOWN[name] == strictest}
    names = list(dict.fromkeys(binding.values()))
    if unknown:
        also = f" The most restrictive known one is {' and '.join(names)}." if names else ""
        return LicenceResult(
            "other",
            "unknown",
            f"The licence of {'; '.join(unknown)} is not known, so that of this model "
            f"is not either: settle it before you share it.{also}",
        )
    if len(names) > 1 and strictest >= SHARE_ALIKE:
        return LicenceResult(
            "other",
            " and ".join(names),
            "Different licences bind at once ("
            + ", ".join(f"{source}: {name}" for source, name in binding.items())
            + "): all of them must be met, or the model cannot be shared.",
        )
    name = binding.get("the base", names[0])
    sources = ", ".join(source for source, other in binding.items() if other == name)
    return LicenceResult(
        name if name not in NOT_HUB_IDS else "other",
        name,
        f"{name} ({CLASSES[strictest]}), the most restrictive among the base and the data; it is that of {sources}.",
    )


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
            return stated
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
        if (folder / name).is_file():
            return _recognise((folder / name).read_text(encoding="utf-8", errors="replace"))
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


def _recognise(text: str) -> str | None:
    head = " ".join(text[:2000].lower().split())
    if "qwen research license" in head:
        return "qwen-research"
    if "qwen license agreement" in head:
        return "qwen"
    if "apache license" in head and "version 2.0" in head:
        return "apache-2.0"
    if "permission is hereby granted, free of charge" in head:
        return "mit"
    return None
