"""The documents hold together: tables have the columns of their heads, and links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("verifiers/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def lines_outside_code(page: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that stand in no fenced block."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def columns(row: str) -> int:
    """Cells of a table's row; a bar in code or behind a backslash parts none."""
    return len(re.sub(r"`[^`]*`|\\\|", "", row.strip().strip("|")).split("|"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_row_of_a_table_has_the_columns_of_its_head(page: Path) -> None:
    head = None
    for number, line in lines_outside_code(page):
        if not line.startswith("|"):
            head = None
            continue
        head = columns(line) if head is None else head
        assert columns(line) == head, f"{page.name}:{number}: {columns(line)} columns under a head of {head}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_to_files(page: Path) -> None:
    for number, line in lines_outside_code(page):
        for target in LINK.findall(line):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name}:{number}: no file {target}"
