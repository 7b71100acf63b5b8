"""English prose about software: the descriptions of the Python packages that are installed beside this project.

What a distribution's metadata say of it (its README, as a rule) without code blocks, lists of links, tables and
headings: paragraphs of sentences alone. Meant as held-out text for what a model knows beside code and mathematics; it
is the most general prose that every installation has, and not very general. The licence is the distribution's.

Distributions come in a seeded order. Half of them, by the hash of the name, are held out for evaluation: there are few.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Literal

from configs.settings.corpus import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.order import shuffled
from corpora.sources.python_packages import distributions, licence_of, version

__all__ = ["LICENCE", "read", "version"]

LICENCE = "mixed"
MIN_CHARACTERS, MIN_WORDS = 300, 8
"""Of a document, and of a paragraph that is a sentence rather than a label."""
MIN_LETTERS = 0.75
"""Share of a paragraph's characters that are letters or spaces; less is code, a table or a list of links."""
_BLOCK = re.compile(r"^(```|~~~).*?^\1|<!--.*?-->|^\.\. [a-z-]+::.*?(?=^\S|\Z)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]\n]{0,200})\]\([^()\s]{0,400}\)|`([^`<\n]{1,200}) ?<[^>\n]{1,400}>`_{1,2}")
_TAG = re.compile(r"<[^<>\n]{1,400}>|https?://\S+")


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Descriptions of the split in the order of `source.seed`. One of too little prose is `too_short`."""
    listed = [name for name in sorted(distributions()) if source.split in ("all", split_of(name))]
    found = distributions()
    for i in shuffled(len(listed), source.seed, "package_readmes"):
        name = listed[i]
        one = found[name]
        described = one.metadata.get_payload() or one.metadata.get("Description") or ""  # type: ignore[attr-defined]
        document = Document(name, source.name, licence_of(one) or "unknown", name, text=prose(str(described)),
                            provenance={"version": f"{name} {one.version}"})  # fmt: skip
        if len(document.text) < MIN_CHARACTERS:
            dropped.add(document, "too_short")
        else:
            yield document


def split_of(name: str) -> Literal["train", "heldout"]:
    """The part that a distribution belongs to, by its normalised name."""
    return "heldout" if hashlib.blake2b(name.encode(), digest_size=1).digest()[0] % 2 else "train"


def prose(description: str) -> str:
    """The paragraphs of sentences in a README, each on a line of its own.

    >>> prose("# Title\\n\\nThis reads the [tables](http://a.b) that other packages\\nwrite.\\n\\nTo install it, say:")
    'This reads the tables that other packages write.\\n'
    """
    text = _BLOCK.sub("\n\n", description.replace("\r\n", "\n"))
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph[:1] in "#|=-*+>. \t":
            continue
        line = " ".join(_TAG.sub("", _LINK.sub(lambda match: match[1] or match[2] or "", paragraph)).split())
        letters = sum(character.isalpha() or character == " " for character in line)
        is_prose = len(line.split()) >= MIN_WORDS and letters >= MIN_LETTERS * len(line)
        if is_prose and line.endswith((".", "!", "?")):
            kept.append(line)
    return "".join(f"{line}\n" for line in kept)
