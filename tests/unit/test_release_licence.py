"""Licence arithmetic on combinations whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from derivatives.licence import checkpoint_licence, combine_licences, normalise_licence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("apache license 2.0", "apache-2.0"),
        ("MIT License", "mit"),
        ("PSF", "psf-2.0"),
        ("BSD", "bsd"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("ODC-By", "odc-by"),
        ("none", None),
        ("", None),
        (None, None),
    ],
)
def test_licences_in_free_text_are_recognised_or_unknown(text: str | None, expected: str | None) -> None:
    assert normalise_licence(text) == expected


def test_among_permissive_ones_the_bases_licence_stays() -> None:
    assert combine_licences("apache-2.0", {"stdlib": "PSF-2.0", "sympy": "BSD-3-Clause"}).identifier == "apache-2.0"


def test_the_most_restrictive_licence_counts() -> None:
    assert combine_licences("apache-2.0", {"a": "mit", "b": "cc-by-4.0"}).identifier == "cc-by-4.0"
    shared = combine_licences("mit", {"a": "cc-by-sa-4.0", "b": "cc-by-4.0"})
    assert shared.identifier == "cc-by-sa-4.0" and shared.sentence.endswith("it is that of a.")
    assert combine_licences("mit", {"a": "cc-by-nc-4.0", "b": "cc-by-sa-4.0"}).identifier == "cc-by-nc-4.0"


def test_a_research_base_stays_a_research_model_under_a_name_that_the_hub_takes() -> None:
    result = combine_licences("qwen-research", {"a": "mit"})
    assert (result.identifier, result.name) == ("other", "qwen-research")


def test_an_unknown_licence_makes_the_result_other_and_names_its_source() -> None:
    result = combine_licences("apache-2.0", {"mine.jsonl": None, "web": "ask the author"})
    assert (result.identifier, result.name) == ("other", "unknown")
    assert "mine.jsonl (none stated); web (ask the author)" in result.sentence


def test_two_binding_licences_cannot_become_one() -> None:
    result = combine_licences("apache-2.0", {"a": "cc-by-sa-4.0", "b": "gpl-3.0"})
    assert result.identifier == "other" and "a: cc-by-sa-4.0, b: gpl-3.0" in result.sentence


def test_a_checkpoints_licence_is_read_from_its_card_or_its_licence_file(tmp_path: Path) -> None:
    assert checkpoint_licence(tmp_path) is None
    (tmp_path / "LICENSE").write_text("   Apache License\n   Version 2.0, January 2004\n")
    assert checkpoint_licence(tmp_path) == "apache-2.0"
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: qwen-research\ntags: [a]\n---\n# Qwen\n")
    assert checkpoint_licence(tmp_path) == "qwen-research"
