"""The page of a corpus shows its packing, what was split or left out, and which repositories were copies."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from corpora.page import CLUSTERS_SHOWN, MEMBERS_SHOWN, write_page

PACKING = {"sequence_length": 1000, "sequences": 12, "tokens": 9_000, "padding": 3_000, "padding_share": 0.25, "cut": 0,
           "concatenated_and_cut": {"sequences": 9, "padding": 450, "cut": 7}}
LEDGER = {"code": {"split": 3, "pieces": 11, "split_tokens": 7_654, "cut_off_tokens": 0, "left_out_tokens": 1_234},
          "prose": {"split": 0, "pieces": 0, "split_tokens": 0, "cut_off_tokens": 0, "left_out_tokens": 0}}


def page(folder: Path, repositories: list[dict[str, Any]] | None = None, **given: Any) -> str:
    """The words of the page of a finished stage with two sources; tags are taken out."""
    source = {"version": "1", "read": 2, "clean": 2, "dropped": {}, "clean_bytes": 20, "achieved_share": 0.5,
              "documents": 2, "tokens": 4_500, "passes": 1, "licence": "MIT", "licences": {"MIT": 2}, "languages": {},
              "read_whole": True, "distinct_documents": 2, "cuts": {}, "redactions": {}, "lengths": {},
              "funnel": [{"step": "read", "documents": 2, "bytes": 20, "dropped": {}}]}
    report = {"sources": {"code": source, "prose": source}, "source_names": ["prose", "code"], "dropped": {},
              "documents": 4, "tokens": 9_000, "output": "tokens", "asked_tokens": None, "shortfalls": {},
              "licence_of_data": {"name": "MIT", "sentence": ""}, "near_duplicates": None,
              "contamination": {"questions": {}}, **given}
    (folder / "data").mkdir()
    (folder / "data" / "report.json").write_text(json.dumps(report))
    (folder / "stage.json").write_text(json.dumps({"stage": {"id": "corpus"}, "recipe": "test", "seed": 1}))
    if repositories is not None:
        (folder / "data" / "repositories.jsonl").write_text("".join(json.dumps(one) + "\n" for one in repositories))
    write_page(folder)
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", (folder / "report.html").read_text()))


def test_packing_stands_beside_what_cutting_would_do_and_the_ledger_names_the_sources_that_it_touched(
    tmp_path: Path
) -> None:
    text = page(tmp_path, packing=PACKING, truncation=LEDGER)
    assert "sequences of 1,000" in text and "packed (this product) 12 3,000 25.0% 0" in text
    assert "one after the other 9 450 5.0% 7" in text
    ledger = text[text.index("Truncation ledger"):text.index("goes on in further pieces")]
    assert "code 3 11 7,654 0 1,234" in ledger and "prose" not in ledger


def test_tokens_that_were_cut_off_are_marked(tmp_path: Path) -> None:
    page(tmp_path, packing=None, truncation={**LEDGER, "prose": {**LEDGER["prose"], "cut_off_tokens": 56}})
    assert re.search(r'class="bad">56<', (tmp_path / "report.html").read_text())


def test_copied_repositories_are_listed_with_their_shares_those_with_most_copies_first(tmp_path: Path) -> None:
    copies = [{"repository": f"fork-{i}/<b>", "files": 2, "bytes": 1_500, "share": 0.9 - i / 100} for i in range(12)]
    found = [{"repository": f"origin/{i:02d}", "files": 3, "bytes": 2_000, "copies": copies[:1]} for i in range(12)]
    found[5]["copies"] = copies
    text = page(tmp_path, found, duplicate_repositories={"threshold": 0.7, "dropped": 23, "kept": 12})
    assert "23 were dropped as copies of 12 others, that hold at least 70.0% of their bytes" in text
    assert text.index("origin/05 3 2.0 kB 12 fork-0/&lt;b&gt; 1.5 kB 90.0%") < text.index("origin/00 3 2.0 kB 1 fork-0")
    assert text.count("origin/") == CLUSTERS_SHOWN and text.count("fork-") == MEMBERS_SHOWN + CLUSTERS_SHOWN - 1


@pytest.mark.parametrize("given", [{}, {"packing": None, "truncation": {}, "duplicate_repositories": None}])
def test_a_corpus_without_them_says_nothing_of_them(tmp_path: Path, given: dict[str, Any]) -> None:
    text = page(tmp_path, **given)
    assert not any(word in text for word in ("Packing", "Truncation", "Copied repositories"))
