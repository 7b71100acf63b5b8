"""When two questions are the same, and on which side of the train/held-out line a question falls.

The side is a function of the question's text alone, so that train and held-out draws of a procedural set can never
share a question, whatever their seeds, counts or settings.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

HELDOUT_SHARE = 5
"""One question in this many is held out."""

_SPACES = re.compile(r"\s+")
_AROUND_SIGNS = re.compile(r" ?([^\w\s]) ?")


def normalise_question(text: str) -> str:
    """The question without case, spacing and closing punctuation; digits, words and operators are kept.

    >>> normalise_question("What is  3 - 4 ?") == normalise_question("what is 3-4")
    True
    """
    text = _SPACES.sub(" ", text.casefold()).strip()
    return _AROUND_SIGNS.sub(r"\1", text).rstrip("?.!= ")


def question_digest(text: str) -> str:
    """16 hexadecimal digits that name a question, the same for all spellings that `normalise_question` folds."""
    return hashlib.blake2b(normalise_question(text).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def split_of(text: str) -> Literal["train", "heldout"]:
    """The side of a question: one in `HELDOUT_SHARE` is held out."""
    return "heldout" if int(question_digest(text), 16) % HELDOUT_SHARE == 0 else "train"
