"""Licences: which one a file carries, which ones a recipe admits, and which one a model made from them may carry.

A file's licence is what its own header says (an SPDX tag, or the opening of a common licence), else what its
repository's LICENSE file says, else what the source states, else unknown. Licences are known by the hub's ids, in lower
case (`apache-2.0`).

Arithmetic: the most restrictive licence counts, along public domain < permissive < attribution < share-alike <
restricted use. A licence that is not known, or two that cannot be met together, make the result `other` with a sentence
that says why. This is bookkeeping, not legal advice: it compares names, and reads no licence text beyond recognising
it. Whether a model is a derivative work of its training data at all is not for this file to say; the arithmetic takes
it that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from corpora.document import Document

CLASSES = ("public domain", "permissive", "attribution", "share-alike", "restricted use")
PERMISSIVE, ATTRIBUTION, SHARE_ALIKE, RESTRICTED = 1, 2, 3, 4

_BY_CLASS = (
    "cc0-1.0 unlicense pddl public-domain 0bsd wtfpl mit-0",
    "mit apache-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsd-4-clause isc psf-2.0 cdla-permissive-2.0 zlib "
    "bsl-1.0 ncsa postgresql artistic-2.0 ms-pl afl-3.0 blueoak-1.0.0 upl-1.0 hpnd x11 curl libpng ofl-1.1 cnri-python "
    "mit-cmu",
    "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 odc-by cdla-permissive-1.0",
    "cc-by-sa-2.0 cc-by-sa-2.5 cc-by-sa-3.0 cc-by-sa-4.0 odbl gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 agpl-3.0 mpl-1.1 "
    "mpl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 cddl-1.0 osl-3.0 gfdl cecill-2.1 ms-rl cc-by-sa-1.0 lgpl-2.0",
    "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 qwen qwen-research llama2 llama3 llama3.1 gemma openrail bigcode-openrail-m "
    "busl-1.1 sspl-1.0 elastic-2.0 commons-clause proprietary",
)
KNOWN: dict[str, int] = {name: place for place, names in enumerate(_BY_CLASS) for name in names.split()}
"""Licence id (as on the Hugging Face hub where it has one) -> place in CLASSES."""

NOT_HUB_IDS = frozenset({
    "psf-2.0", "qwen", "qwen-research", "public-domain", "bsd-4-clause", "0bsd", "mit-0", "cnri-python", "x11", "curl",
    "libpng", "hpnd", "upl-1.0", "blueoak-1.0.0", "mpl-1.1", "busl-1.1", "sspl-1.0", "elastic-2.0", "commons-clause",
    "proprietary", "cddl-1.0", "lgpl-2.0", "mit-cmu",
})  # fmt: skip
"""Names that the hub's front matter spells `other`."""

ALIASES = {
    "apache": "apache-2.0", "apache2": "apache-2.0", "apache-2": "apache-2.0", "apache-license-2.0": "apache-2.0",
    "apache2.0": "apache-2.0", "apache-software": "apache-2.0", "psf": "psf-2.0", "psfl": "psf-2.0",
    "python-2.0": "psf-2.0", "python-2.0.1": "psf-2.0", "python-software-foundation": "psf-2.0",
    "bsd-3": "bsd-3-clause", "new-bsd": "bsd-3-clause", "modified-bsd": "bsd-3-clause",
    "simplified-bsd": "bsd-2-clause", "bsd-2": "bsd-2-clause", "cc0": "cc0-1.0", "cc-by": "cc-by-4.0",
    "cc-by-sa": "cc-by-sa-4.0",
    "cc-by-nc": "cc-by-nc-4.0", "odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl",
    "tongyi-qianwen": "qwen", "qwen-license": "qwen", "the-unlicense": "unlicense", "mit-license": "mit",
    "expat": "mit", "mpl": "mpl-2.0", "gplv2": "gpl-2.0", "gplv3": "gpl-3.0", "gpl-2": "gpl-2.0", "gpl-3": "gpl-3.0",
    "lgplv3": "lgpl-3.0", "lgpl-3": "lgpl-3.0", "lgplv2.1": "lgpl-2.1", "agplv3": "agpl-3.0", "agpl-3": "agpl-3.0",
    "boost": "bsl-1.0", "boost-1.0": "bsl-1.0", "gfdl-1.3": "gfdl", "gfdl-1.2": "gfdl",
}  # fmt: skip

PERMISSIVE_ONLY = tuple(sorted(name for name, place in KNOWN.items() if place <= ATTRIBUTION))
"""The usual allow-list for code: nothing that binds what is made from it beyond naming its authors."""

HEADER_CHARACTERS = 4000
"""Where a file says whose it is: the longest common header (BSD) ends before."""


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
    name = re.sub(r"-(?:only|or-later)$|\+$", "", name)
    for candidate in (name, name.removesuffix("-license"), name.removesuffix("-licence"), name.replace(",", "")):
        candidate = ALIASES.get(candidate, candidate)
        if candidate in KNOWN:
            return candidate
    return None


# --- what a file says of itself -----------------------------------------------------------------------------------

_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]{0,8}([A-Za-z0-9.+() \t-]{2,200})")
# Openings of the common texts, after white space and comment signs are taken together; the first that is found counts,
# so that a more special one stands before a more general one.
_OPENINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qwen-research", ("qwen research license",)),
    ("qwen", ("qwen license agreement",)),
    ("agpl-3.0", ("gnu affero general public license",)),
    ("lgpl-3.0", ("gnu lesser general public license", "version 3")),
    ("lgpl-2.1", ("gnu lesser general public license",)),
    ("lgpl-2.0", ("gnu library general public license",)),
    ("gpl-3.0", ("gnu general public license", "version 3")),
    ("gpl-2.0", ("gnu general public license", "version 2")),
    ("gpl-3.0", ("under the terms of the gnu general public license",)),
    ("apache-2.0", ("apache license", "version 2.0")),
    ("apache-2.0", ("apache.org/licenses/license-2.0",)),
    ("mpl-2.0", ("mozilla public license", "2.0")),
    ("mpl-1.1", ("mozilla public license", "1.1")),
    ("epl-2.0", ("eclipse public license", "2.0")),
    ("epl-1.0", ("eclipse public license",)),
    ("cc-by-nc-sa-4.0", ("creativecommons.org/licenses/by-nc-sa/4.0",)),
    ("cc-by-nc-4.0", ("creativecommons.org/licenses/by-nc/4.0",)),
    ("cc-by-sa-4.0", ("creativecommons.org/licenses/by-sa/4.0",)),
    ("cc-by-sa-3.0", ("creativecommons.org/licenses/by-sa/3.0",)),
    ("cc-by-4.0", ("creativecommons.org/licenses/by/4.0",)),
    ("cc-by-4.0", ("creative commons attribution 4.0 international",)),
    ("cc0-1.0", ("creativecommons.org/publicdomain/zero/1.0",)),
    ("cc0-1.0", ("cc0 1.0 universal",)),
    ("unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("bsl-1.0", ("boost software license", "version 1.0")),
    ("psf-2.0", ("python software foundation license version 2",)),
    ("psf-2.0", ("licensed to psf under a contributor agreement",)),
    ("isc", ("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",)),
    ("isc", ("permission to use, copy, modify, and distribute this software for any purpose with or without fee",)),
    ("zlib", ("this software is provided 'as-is', without any express", "must not be misrepresented")),
    ("mit", ("permission is hereby granted, free of charge, to any person obtaining a copy",)),
    ("bsd-4-clause", ("redistribution and use in source and binary forms", "all advertising materials")),
    ("bsd-3-clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("bsd-2-clause", ("redistribution and use in source and binary forms",)),
    ("mit", ("licensed under the mit license",)),
    ("mit", ("under the mit license",)),
    ("mit", ("license: mit",)),
    ("bsd-3-clause", ("governed by a bsd-style license",)),
    ("bsd", ("licensed under the bsd license",)),
    ("bsd", ("license: bsd",)),
    ("public-domain", ("placed in the public domain",)),
    ("proprietary", ("unauthorized copying of this file",)),
    ("proprietary", ("proprietary and confidential",)),
)  # fmt: skip
_MAY_SPEAK = re.compile(r"licen[sc]e|permission|redistribution|public domain|proprietary|unauthorized", re.IGNORECASE)
_AROUND_WORDS = re.compile(r"[\s#*/;%!\"<>-]+")
LICENCE_FILES = ("license", "licence", "copying", "unlicense", "license-mit", "license-apache", "copying.lesser")


def recognise(text: str) -> str | None:
    """Licence whose text, or whose notice, begins in the first characters of a text; None when none is known.

    >>> recognise("MIT License\\n\\nPermission is hereby granted, free of charge, to any person obtaining a copy")
    'mit'
    """
    head = text[:HEADER_CHARACTERS]
    if not _MAY_SPEAK.search(head):
        return None
    words = _AROUND_WORDS.sub(" ", head.lower())
    dashed = re.sub(r"\s+", " ", head.lower())
    return next((name for name, phrases in _OPENINGS
                 if all(phrase in words or phrase in dashed or _plain(phrase) in words for phrase in phrases)), None)


def _plain(phrase: str) -> str:
    return _AROUND_WORDS.sub(" ", phrase)


def of_header(text: str) -> str | None:
    """Licence that a file states in its header: an SPDX tag before a notice. None when it states none.

    An SPDX tag with a licence that is not known gives its text in lower case, which no allow-list has.

    >>> of_header("# SPDX-License-Identifier: GPL-3.0-or-later\\nimport os"), of_header("import os")
    ('gpl-3.0', None)
    """
    head = text[:HEADER_CHARACTERS]
    tag = _SPDX.search(head)
    if tag:
        return of_expression(tag.group(1))
    return recognise(head)


def of_expression(expression: str) -> str:
    """Id of an SPDX expression: of `A OR B` the freer one, of `A AND B` the stricter; what follows WITH is left out.

    One that is not understood comes back in lower case: it is a statement all the same.

    >>> of_expression("MIT OR GPL-2.0-only"), of_expression("(MIT AND CC-BY-4.0)"), of_expression("LicenseRef-mine")
    ('mit', 'cc-by-4.0', 'licenseref-mine')
    """
    plain = re.sub(r"\s+WITH\s+[\w.-]+", "", expression.replace("(", " ").replace(")", " ")).strip(" \t*/-")
    choices = []
    for choice in re.split(r"\s+OR\s+", plain):
        parts = [normalise_licence(part) for part in re.split(r"\s+AND\s+", choice)]
        if all(parts):
            choices.append(max((part for part in parts if part), key=lambda name: KNOWN[name]))
    return min(choices, key=lambda name: KNOWN[name]) if choices else " ".join(plain.lower().split())


def is_licence_file(name: str) -> bool:
    """Whether a file at the root of a repository says by its name that it holds the licence."""
    return name.lower().removesuffix(".txt").removesuffix(".md").removesuffix(".rst") in LICENCE_FILES


def of_repository(files: Mapping[str, str]) -> str | None:
    """Licence of a repository by its licence files (path -> text); None when there is none, or none is recognised.

    Only files at the root count. Several, as in `LICENSE-MIT` beside `LICENSE-APACHE`, are a choice: the freer counts.
    """
    found = []
    for path, text in sorted(files.items()):
        licence = recognise(text) if is_licence_file(path) else None
        if licence:
            found.append(licence)
    return min(found, key=lambda name: KNOWN[name]) if found else None


def licence_of(document: Document, repository: str | None = None) -> str | None:
    """Id of a document's licence: its header's, else its repository's, else what its source states; None if unknown.

    A header's statement that is not understood comes back as it is, in lower case: it is not overruled by the
    repository's, since the file was singled out.
    """
    return of_header(document.text) or repository or normalise_licence(document.licence)


def check(document: Document, allowed: Iterable[str], repository: str | None = None) -> str | None:
    """Why a document's licence does not do: `licence_unknown`, `licence_not_allowed:ID`, or None.

    Args:
        document: The document; only its header and its stated licence are read.
        allowed: Ids to admit (`check_allowed`), e.g. `PERMISSIVE_ONLY`.
        repository: Id of its repository's licence where one is known.
    """
    return reason_against(licence_of(document, repository), allowed)


def reason_against(licence: str | None, allowed: Iterable[str]) -> str | None:
    """Why a licence, as `licence_of` gives it, does not do; None if it is among the allowed ones."""
    if licence is None:
        return "licence_unknown"
    if licence in allowed:
        return None
    return f"licence_not_allowed:{licence}" if licence in KNOWN else "licence_unknown"


def check_allowed(names: Iterable[str]) -> frozenset[str]:
    """Ids of an allow-list given in free text. Raises ValueError for a name that is no known licence."""
    found = set()
    for name in names:
        licence = normalise_licence(name)
        if licence is None:
            raise ValueError(f"{name!r} is no known licence; allowed: {', '.join(sorted(KNOWN))}; name one of these")
        found.add(licence)
    return frozenset(found)


# --- arithmetic ---------------------------------------------------------------------------------------------------


def combine_licences(base: str | None, data: Mapping[str, str | None]) -> LicenceResult:
    """The licence of a model made from `base`'s licence and each data source's.

    Args:
        base: Licence of the base checkpoint in free text; None or empty is unknown.
        data: Source name -> its licence in free text.
    """
    return _combine({"the base": base, **data}, "the base and the data")


def combine_data(counts: Mapping[str, Mapping[str, int]]) -> LicenceResult:
    """The licence that the data ask for, before the base's is known; the arguments are those of `combine_counted`."""
    return _combine(_held(counts), "the data")


def _combine(given: Mapping[str, str | None], what: str) -> LicenceResult:
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
        f"{name} ({CLASSES[strictest]}), the most restrictive among {what}; it is that of {sources}.",
    )


def combine_counted(base: str | None, tokens: Mapping[str, Mapping[str, int]]) -> LicenceResult:
    """The same from what a corpus really holds: source -> licence -> documents (or tokens) of that licence.

    A licence of which nothing was kept does not count, so that a mixed source that was filtered carries the strictest
    licence among its kept documents, not that of its card.
    """
    return combine_licences(base, _held(tokens))


def _held(counts: Mapping[str, Mapping[str, int]]) -> dict[str, str | None]:
    data: dict[str, str | None] = {}
    for source, by_licence in counts.items():
        held = [licence for licence, count in sorted(by_licence.items()) if count]
        for licence in held:
            data[source if len(held) == 1 else f"{source} [{licence}]"] = licence
    return data
