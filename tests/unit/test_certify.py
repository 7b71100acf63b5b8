"""Certifying bad verifiers: each is refused by the check that is there for it, with a sentence that helps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import UserError
from tests.bad_verifiers import install
from verifiers.certify import Card, Finding, Limits, certify

FAST = Limits(deadline_s=0.5, memory_mb=512, memory_calls=1_200, memory_s=60.0, latency_calls=50, repeat_s=0.5)


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with install(tmp_path, monkeypatch) as package:
        yield package


def checked(name: str, *only: str, limits: Limits = FAST) -> dict[str, Finding]:
    return {finding.check: finding for finding in certified(name, *only, limits=limits).findings}


def certified(name: str, *only: str, limits: Limits = FAST) -> Card:
    card = certify(name, only=only, limits=limits)
    assert not card.certified  # a part of the checks certifies nothing
    return card


def test_who_accepts_everything_is_told_by_its_near_misses_its_mutations_and_the_pack() -> None:
    found = checked("accepts_everything", "mutations", "adversarial")
    assert found["gold"].status == "passed"
    assert {found[name].status for name in ("near_misses", "mutations", "adversarial")} == {"failed"}
    assert "all 12 near misses are judged correct" in found["near_misses"].sentence
    assert "seems to accept whatever it is given: compare the completion's answer" in found["near_misses"].sentence
    assert found["adversarial"].evidence["completion"] == ""  # the smallest of all
    assert "the answer removed" in found["mutations"].sentence


def test_who_hangs_is_killed_and_nothing_else_is_run() -> None:
    found = checked("hangs", "memory", "threads")
    assert found["gold"].status == "failed"
    assert "took longer than the limit of 0.5 s and was killed" in found["gold"].sentence
    assert found["memory"].status == found["near_misses"].status == "skipped"
    assert found["memory"].sentence == "not run: gold must pass first"


@pytest.mark.slow
def test_who_hangs_on_huge_input_alone_is_told_on_which() -> None:
    found = checked("hangs_on_brackets", "huge")["huge"]
    assert found.status == "failed" and "was killed" in found.sentence and "100,000" in found.sentence
    assert str(found.evidence["completion"]).endswith("characters)")


@pytest.mark.parametrize("name", ["leaks", pytest.param("keeps_completions", marks=pytest.mark.slow)])
def test_who_leaks_is_told_how_much(name: str) -> None:
    limits = Limits(deadline_s=5.0, memory_mb=512, memory_calls=6_000, memory_s=60.0)
    found = checked(name, "memory", limits=limits)["memory"]
    assert found.status == "failed" and "memory grows by" in found.sentence and "bound its caches" in found.sentence
    expected = 10.0 if name == "leaks" else 2.0  # a page of words on every second call
    assert 0.8 * expected < found.measured["kb_per_call"] < 2 * expected


def test_who_depends_on_the_order_is_told_on_which_case() -> None:
    found = checked("depends_on_order", "order")
    assert found["order"].status == "failed"
    assert "depends on what was judged before" in found["order"].sentence
    assert found["order"].evidence["one"][0] != found["order"].evidence["other"][0]


def test_who_raises_on_empty_input_is_told_what_was_raised_and_on_what() -> None:
    found = checked("raises_on_empty", "adversarial")["adversarial"]
    assert found.status == "failed" and found.evidence["what"] == "nothing"
    assert "it raised IndexError: list index out of range: catch it and return incorrect" in found.sentence


def test_who_obeys_an_injected_instruction_is_told_which_one() -> None:
    found = checked("is_fooled", "adversarial")["adversarial"]
    assert found.status == "failed"
    assert "an order to ignore the rubric" in found.sentence and "speaks to the judge" in found.sentence
    assert "add the case {" in found.sentence


def test_who_gives_no_verdict_is_told_that_it_masks() -> None:
    found = checked("returns_nothing", "adversarial")["adversarial"]
    assert found.status == "failed" and "verify_returned: None" in found.sentence and "masks" in found.sentence


@pytest.mark.slow
def test_who_ends_its_process_is_told_so() -> None:
    found = checked("ends_the_process", "determinism")
    assert found["gold"].status == "failed" and "it ended its process" in found["gold"].sentence


@pytest.mark.slow
def test_who_judges_by_chance_and_who_uses_signals_are_told_so() -> None:
    assert "no chance" in checked("judges_by_chance", "determinism")["determinism"].sentence
    found = checked("uses_signals", "threads")["threads"]
    assert found.status == "failed" and "use no signals" in found.sentence


def test_a_good_plain_verifier_is_certified() -> None:
    told: list[str] = []
    card = certify("good", progress=told.append, limits=FAST)
    assert card.failed == () and card.certified
    assert len(told) == len(card.findings) == 17 and told[0].startswith("[1/17] loading: passed")
    assert {finding.check for finding in card.findings if finding.status == "skipped"} <= {"rewrites"}
    assert card.cases["gold"] == card.cases["near_misses"] == 12 and card.latency["p99_ms"] < 500


@pytest.mark.slow
def test_certifying_again_gives_the_same_digest() -> None:
    first, again = certify("good", limits=FAST), certify("good", limits=FAST)
    assert again.digest == first.digest and again.latency != first.latency, "times and memory are no part of it"


def test_no_cases_too_few_and_one_sided_ones_are_refused(package: Path) -> None:
    lines = (package / "cases.jsonl").read_text().splitlines()
    (package / "cases.jsonl").unlink()
    none = checked("good", "adversarial")
    assert none["cases"].status == "failed" and "write one JSON object a line" in none["cases"].sentence
    assert none["adversarial"].sentence == "not run: cases must pass first"
    few = package / "few.jsonl"
    few.write_text("\n".join(lines[:8]))
    found = {each.check: each for each in certify("good", cases=few, only=["mutations"], limits=FAST).findings}
    assert found["cases"].sentence == "4 gold cases and 4 near misses"
    few.write_text("\n".join(lines[:7]))
    found = {each.check: each for each in certify("good", cases=few, only=["mutations"], limits=FAST).findings}
    assert found["cases"].status == "failed" and "too few" in found["cases"].sentence
    assert found["mutations"].status == "passed"


def test_unknown_verifiers_and_checks_are_named() -> None:
    with pytest.raises(UserError, match="did you mean 'good'"):
        certify("goodd")
    with pytest.raises(UserError, match="--only: 'memry' is no check; did you mean 'memory'"):
        certify("good", only=["memry"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "check"),
    [("accepts_everything", "near_misses"), ("hangs", "gold"), ("leaks", "memory"), ("depends_on_order", "order"),
     ("raises_on_empty", "adversarial"), ("is_fooled", "adversarial")],
)  # fmt: skip
def test_the_whole_certificate_refuses_each_and_names_the_check(name: str, check: str) -> None:
    card = certify(name)
    assert not card.certified and check in [finding.check for finding in card.failed]
