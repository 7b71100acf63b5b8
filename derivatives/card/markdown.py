"""Markdown that no text of a data set or a recipe can break out of, and figures as a card writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; cells cannot break out of it."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell(each) for each in line) + " |\n" for line in lines)


def cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """Inline code of any text."""
    flat = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", flat)), default=0) + 1)
    return f"{fence} {flat} {fence}" if "`" in flat else f"`{flat}`"


def percent(value: Any) -> str:
    """A fraction as a percentage; empty when there is none.

    >>> percent(0.4125), percent(None)
    ('41.2%', '')
    """
    return f"{100 * value:.1f}%" if isinstance(value, (int, float)) else ""


def interval(row: Any, signed: bool = False) -> str:
    """A fraction with its interval in percent, or a gain in points.

    >>> interval({"value": 0.25, "low": 0.2, "high": 0.31})
    '25.0% [20.0, 31.0]'
    >>> interval({"value": 0.05, "low": -0.01, "high": 0.11}, signed=True)
    '+5.0 [-1.0, +11.0]'
    """
    if not isinstance(row, dict) or row.get("value") is None:
        return ""
    value, low, high = (100 * row.get(key, float("nan")) for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" if signed else f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def interval_bounds(row: Mapping[str, Any]) -> str:
    """Both bounds of a figure with no-verdicts, and how many there were."""
    ends = f"{percent(row.get('low_bound'))} to {percent(row.get('high_bound'))}"
    return f"{ends} ({row.get('no_verdict')} of {row.get('total')})"


def prompt_format(row: Mapping[str, Any]) -> str:
    """The format that counted, and what the others reached.

    >>> prompt_format({"format": "few_shot", "formats": {"chat": 0.03, "few_shot": 0.05}})
    'few_shot (chat 3.0%)'
    """
    others = [
        f"{name} {percent(share)}" for name, share in (row.get("formats") or {}).items() if name != row.get("format")
    ]
    return str(row.get("format") or "") + (f" ({', '.join(others)})" if others else "")


def total(row: Any) -> str:
    return f"{row['total']:,}" if isinstance(row, dict) and row.get("total") is not None else ""


def number(value: Any, digits: int = 1) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, (int, float)) else ""
