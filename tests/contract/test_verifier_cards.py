"""Every built-in verifier is certified as it is now, by the card that lies beside it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from verifiers.certify.card import PACKAGED, load_card
from verifiers.certify.renew import problem
from verifiers.registry import BUILT_IN

ROOT = Path(__file__).parents[2]
RENEW = "make cards VERIFIERS={name}  (or: python -m verifiers.certify.renew {name}; DERIVE_DATA names the data mirror)"
PINNED_LIBRARY = {"puzzles": "reasoning-gym", "think_puzzles": "reasoning-gym", "think_own": "reasoning-gym"}
"""A verifier whose judgement is that of a library has its version in its own; another one there, another card."""


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_built_in_verifier_is_certified_as_it_is_now(name: str) -> None:
    library = PINNED_LIBRARY.get(name)
    if library is not None:
        pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith(library))
        if not pinned.endswith(f"=={version(library)}"):
            pytest.skip(f"{library} {version(library)} is installed, and the card was made with {pinned}")
    found = problem(name)
    assert not found, f"{name} {found}; renew it: {RENEW.format(name=name)}"


def test_no_card_is_left_of_a_verifier_that_is_gone() -> None:
    assert {path.stem for path in PACKAGED.glob("*.json")} <= set(BUILT_IN)


def test_the_cards_of_math_and_code_say_how_often_they_err() -> None:
    for name in ("math", "code"):
        card = load_card(PACKAGED / f"{name}.json")
        assert card.labelled, card.labelled_note
        assert all(one.recall["low"] > 0.8 and one.wrongly_accepted == 0 for one in card.labelled)
