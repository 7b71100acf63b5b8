"""Taking answers apart: enclosing brackets, lists, matrices, cases, labels.

What this does not do: it compares nothing and reads no numbers.
"""

from __future__ import annotations

import re

from verifiers.answers.expression import TooComplex

MAX_PARTS = 40
"""Elements of a list or matrix."""

_NAME = r"\\?[A-Za-z]+(?:_(?:\{\s*\\?\w{1,6}\s*\}|\w{1,3}))?'?\s*(?:\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?"
ASSIGNED = re.compile(
    rf"({_NAME}|\(\s*{_NAME}(?:\s*,\s*{_NAME})+\s*\)|\\angle\s*[A-Za-z]+)\s*(=|\\in(?![a-z]))\s*(.+)", re.DOTALL)
"""A name, a function of names or a tuple of names, then `=` or `\\in`, then what it is."""
_LABEL = re.compile(rf"({_NAME}|[A-Za-z]+(?:\s[A-Za-z]+){{0,3}})\s*[=:]\s*(?![=:])(.+)", re.DOTALL)
_MATRIX = re.compile(
    r"(?P<factor>[^&]{0,80}?)[\s*]*(?P<open>\\?[(\[|{]?)\s*"
    r"\\begin\{(?P<kind>[pbvBV]?matrix|array|smallmatrix)\}\s*(?:\{[lcr|\s]*\})?(?P<cells>.*)\\end\{(?P=kind)\}"
    r"\s*\\?[)\]|}]?", re.DOTALL)
_CASES = re.compile(r"(?:\\\{\s*)?\\begin\{(cases|array)\}\s*(?:\{[lcr|\s]*\})?(.*)\\end\{\1\}\s*\.?", re.DOTALL)
_NESTED_ROWS = re.compile(r"\[\s*\[.*\]\s*\]", re.DOTALL)
_SEPARATOR = re.compile(r",\s*(?:and|or)\s|;|,|\s(?:and|or)\s|\\lor(?![a-z])|\\text\s*\{\s*(?:and|or)\s*\}")
_PAIRS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\langle": "\\rangle", "\\begin{": "\\end{"}
_CLOSING = frozenset((")", "]", "}", "\\}", "\\rangle", "\\end{"))
_BRACKET = re.compile(r"\\langle|\\rangle|\\[{}]|[(){}\[\]]")


def opened(text: str) -> tuple[str, str]:
    """The pair of brackets that encloses the whole text, and its inside; `` and the text where there is none."""
    if text[:1] not in ("(", "[", "{", "\\"):
        return "", text
    stack: list[tuple[str, int]] = []
    for match in _BRACKET.finditer(text):
        token = match.group()
        if token in _PAIRS:
            stack.append((token, match.end()))
            continue
        if not stack:
            return "", text
        opening, start = stack.pop()
        if not stack and start == len(opening) and text.startswith(opening):
            if match.end() == len(text):
                return opening + token, text[start: match.start()].strip()
            return "", text
    return "", text


def split_list(text: str) -> list[str]:
    """Parts at commas, semicolons, `and` and `or` outside all brackets."""
    if "," not in text and ";" not in text and "and" not in text and "or" not in text:
        return [text] if text else []
    depth, parts, last = 0, [], 0
    found = [*_BRACKET.finditer(text), *_SEPARATOR.finditer(text)]
    marks = sorted(found, key=lambda match: (match.start(), -match.end()))
    for match in marks:
        token = match.group()
        if token in _PAIRS:
            depth += 1
        elif token in _CLOSING:
            depth -= 1
        elif depth == 0 and match.start() >= last:
            parts.append(text[last: match.start()].strip())
            last = match.end()
    parts.append(text[last:].strip())
    if len(parts) > MAX_PARTS:
        raise TooComplex("too many parts")
    return [part for part in parts if part]


def rows_of(text: str) -> list[list[str]] | None:
    """The cells of a matrix, a factor before it multiplied into them; None where the text is no matrix."""
    if "\\begin" not in text:
        if not _NESTED_ROWS.fullmatch(text):
            return None
        lines = [opened(row) for row in split_list(opened(text)[1])]
        return [split_list(inner) for _, inner in lines] if all(kind == "[]" for kind, _ in lines) else None
    match = _MATRIX.fullmatch(text)
    if match is None or "\\begin" in match["cells"]:
        return None
    if match["kind"].startswith(("v", "V")) or match["open"] == "|":
        return None  # a determinant
    factor = match["factor"].strip()
    rows = [[cell.strip() for cell in row.split("&")] for row in re.split(r"\\\\", match["cells"]) if row.strip()]
    if sum(map(len, rows)) > MAX_PARTS:
        raise TooComplex("too many cells")
    if factor:
        factor = "-1" if factor == "-" else factor
        rows = [[f"({factor})*({cell})" for cell in row] for row in rows]
    return rows


def cases_of(text: str) -> list[tuple[str, str]] | None:
    """The (value, condition) rows of a piecewise definition; None where the text is none."""
    match = _CASES.fullmatch(text)
    if match is None:
        return None
    rows: list[tuple[str, str]] = []
    for row in re.split(r"\\\\", match[2]):
        if row.strip():
            value, mark, condition = row.partition("&")
            if not mark:
                value, _, condition = row.partition(",")
            condition = re.sub(r"\b(?:if|for|when|where)\b|\\(?:if|for)", " ", condition)
            rows.append((value.strip(" ,;."), " ".join(condition.split()).strip(" ,;.&")))
    return rows if len(rows) >= 2 and all(condition for _, condition in rows) else None


def labelled(part: str) -> tuple[str, str] | None:
    """What stands before the `=` or `:` of one element and what after it; None where it has no label."""
    match = _LABEL.fullmatch(part)
    if match is None or "=" in match[2]:
        return None
    return " ".join(match[1].split()).casefold() if " " in match[1] or len(match[1]) > 3 else match[1].strip(), match[2]
