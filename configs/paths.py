"""Texts that go to other people without the folders of this machine."""

from __future__ import annotations

import re

PART = r"[^/\s'\"`,;:=|<>()\[\]{}]"
OPENS = r"(?:(?<=file://)|(?<![\w./~<-]))"
"""What stands before a path and not before the rest of an address, of a relative path, or of a closing tag."""
MACHINE_PATH = re.compile(rf"{OPENS}~?/(?!/)(?:{PART}+/)+({PART}*)")


def without_folders(text: str) -> str:
    """A text with every absolute path in it cut to its last part; hub ids, addresses and relative paths stay.

    >>> without_folders("derive run /home/me/x.yaml --set 'sft.data=[/data/s/b.jsonl]' --base Qwen/Qwen2.5-0.5B")
    "derive run x.yaml --set 'sft.data=[b.jsonl]' --base Qwen/Qwen2.5-0.5B"
    """
    return MACHINE_PATH.sub(r"\1", text)
