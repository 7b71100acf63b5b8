"""The card: written and read back, its digest, what is refused, and which of two counts."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import UserError
from tests.bad_verifiers import install
from verifiers.certify import Card, Finding, Labelled, load_card, read_card
from verifiers.certify.card import FORMAT, proportion
from verifiers.certify.checks import CHECK_NAMES
from verifiers.certify.markdown import card_markdown, cards_markdown
from verifiers.certify.renew import problem
from verifiers.registry import identity

GOOD = Labelled("sums by hand", "ab" * 32, right=10, accepted=9, wrong=20, wrongly_accepted=0)


def card(name: str = "math", **changed: object) -> Card:
    findings = tuple(Finding(check, "passed", f"{check} holds", measured={"calls": 3}) for check in CHECK_NAMES)
    made = Card(
        identity(name), {"gold": 4, "near_misses": 4, "sha256": "0" * 64}, findings, (GOOD,),
        latency={"calls": 10, "p50_ms": 0.1, "p99_ms": 0.4, "longest_ms": 0.5},
        limits={"deadline_s": 5.0, "memory_mb": 2048}, environment={"python": "3.11.1"}, made="2026-01-01T00:00:00Z",
        seconds=12.5,
    )  # fmt: skip
    return dataclasses.replace(made, **changed)


def test_a_card_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = card()
    made.write(tmp_path / "math.json")
    found = load_card(tmp_path / "math.json")
    assert found == made and found.certified and found.digest == made.digest
    assert json.loads((tmp_path / "math.json").read_text())["digest"] == made.digest


def test_the_digest_leaves_out_times_memory_and_the_machine_and_nothing_else() -> None:
    made = card()
    same = [
        {"latency": {}}, {"environment": {}}, {"made": ""}, {"seconds": 1.0},
        {"findings": tuple(dataclasses.replace(each, measured={}) for each in made.findings)},
    ]  # fmt: skip
    assert {card(**changed).digest for changed in same} == {made.digest}
    other = [
        {"identity": {**made.identity, "version": "9"}}, {"cases": {}}, {"labelled": ()}, {"labelled_note": "none"},
        {"limits": {}}, {"findings": made.findings[1:]},
        {"findings": (dataclasses.replace(made.findings[0], sentence="else"), *made.findings[1:])},
    ]  # fmt: skip
    digests = {card(**changed).digest for changed in other}
    assert len(digests) == len(other) and made.digest not in digests


def test_certified_takes_every_check_and_no_failure() -> None:
    made = card()
    failing = dataclasses.replace(made.findings[3], status="failed")
    assert made.certified
    assert not card(findings=made.findings[:-1]).certified
    assert not card(findings=(*made.findings[:3], failing, *made.findings[4:])).certified
    assert card(findings=(*made.findings[:3], failing, *made.findings[4:])).failed == (failing,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "not whole JSON, cut off or damaged"),
        (lambda text: "", "not whole JSON"),
        (lambda text: "[]", "format 'list'; allowed: 1"),
        (lambda text: text.replace(f'"format": {FORMAT}', '"format": 99'), "format 99; allowed: 1"),
        (lambda text: text.replace('"identity"', '"identities"'), "a field is missing"),
        (lambda text: text.replace('"wrongly_accepted": 0', '"wrongly_accepted": "0"'), "a field is missing"),
        (lambda text: text.replace('"accepted": 9', '"accepted": 10'), "its digest does not fit its content"),
        (lambda text: text.replace("gold holds", "gold is gold"), "its digest does not fit its content"),
    ],
)
def test_a_damaged_card_is_refused_with_what_writes_it_anew(tmp_path: Path, change: object, said: str) -> None:
    path = tmp_path / "math.json"
    card().write(path)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(UserError, match=said) as raised:
        load_card(path)
    assert "write it anew with `derive verifiers certify math`" in str(raised.value)


def test_the_stores_card_counts_if_it_fits_else_the_packaged_one(tmp_path: Path) -> None:
    store, packaged = tmp_path / "store", tmp_path / "packaged"
    assert read_card("math", store, packaged) is None
    stale = card(identity={**identity("math"), "source": "0" * 64})
    stale.write(store / "math.json")
    assert read_card("math", store, packaged) == stale, "stale, and all there is"
    card().write(packaged / "math.json")
    assert read_card("math", store, packaged) == card()
    newer = card(labelled=())
    newer.write(store / "math.json")
    assert read_card("math", store, packaged) == newer
    (store / "math.json").write_text("{")
    assert read_card("math", store, packaged) == card(), "a broken one is passed over where another fits"
    (packaged / "math.json").unlink()
    with pytest.raises(UserError, match="not whole JSON"):
        read_card("math", store, packaged)


def test_a_card_goes_stale_with_its_verifier_and_with_its_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem("math", tmp_path) == "has no card"
    card(identity={**identity("math"), "source": "0" * 64}).write(tmp_path / "math.json")
    assert problem("math", tmp_path) == "has another source than when its card was made"
    card().write(tmp_path / "math.json")
    assert problem("math", tmp_path) == "has other cases than when its card was made"


def test_shares_have_wilsons_interval() -> None:
    assert proportion(0, 0) == {"value": 0.0, "low": 0.0, "high": 1.0}
    assert proportion(0, 125) == {"value": 0.0, "low": 0.0, "high": round(3.841459 / (125 + 3.841459), 6)}
    assert proportion(125, 125)["high"] == 1.0
    assert GOOD.recall == proportion(9, 10) and GOOD.false_positives == proportion(0, 20)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with install(tmp_path, monkeypatch) as package:
        yield package


def test_a_cards_rows_and_pages_say_what_was_measured() -> None:
    made = card()
    rows = made.rows()
    assert [row["what"] for row in rows] == [*CHECK_NAMES, "sums by hand", "latency"]
    assert rows[-2]["sentence"] == (
        "recall 90.0% [59.6, 98.2]: accepted 9 of 10 right completions; "
        "false positives 0.0% [0.0, 16.1]: accepted 0 of 20 wrong ones"
    )
    assert rows[-1]["sentence"] == "p50 0.1 ms, p99 0.4 ms, longest 0.5 ms over 10 judgements"
    page = card_markdown(card(labelled=(), labelled_note="none | here"))
    assert "certified" in page and "none \\| here" in page and made.identity["source"][:12] in page
    table = cards_markdown([made])
    assert "| 90.0% [59.6, 98.2] |" in table and made.digest[:12] in table
