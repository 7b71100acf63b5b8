"""A card as Markdown, for docs, reports and the page of a flow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verifiers.certify.card import Card, summary_of


def card_markdown(card: Card) -> str:
    """The whole card."""
    identity = card.identity
    title = f"### {card.name} {identity['version']}: {'certified' if card.certified else 'not certified'}"
    about = (
        f"Source `{identity['source'][:12]}`, card `{card.digest[:12]}`, {card.cases['gold']} gold cases and "
        f"{card.cases['near_misses']} near misses, made {card.made} in {card.seconds:g} s on Python "
        f"{card.environment.get('python', 'unknown')}. Limits: {card.limits['deadline_s']:g} s and "
        f"{card.limits['memory_mb']:g} MB a judgement."
    )
    rows = [[row["what"], row["status"], row["sentence"]] for row in card.rows()]
    return f"{title}\n\n{about}\n\n{_table(['check', 'status', 'what was seen'], rows)}"


def cards_markdown(cards: Sequence[Card]) -> str:
    """One row for each card."""
    rows = summary_of(cards)
    headings = ["verifier", "version", "certified", "recall", "false positives", "p99", "card"]
    return _table(headings, [[row[heading] for heading in headings] for row in rows])


def _table(headings: list[str], rows: Iterable[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
