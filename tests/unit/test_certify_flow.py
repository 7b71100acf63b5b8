"""The form that certifies a verifier: what it takes, and what a run of it says and shows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from flows import certify_flow
from verifiers.certify import Card, Finding
from verifiers.certify.checks import CHECK_NAMES

CASE = '{"completion": "7", "answer": "7", "expect": "correct"}'


def a_card(name: str, *failed: str) -> Card:
    findings = tuple(
        Finding(check, "failed" if check in failed else "passed", f"{check} was looked at") for check in CHECK_NAMES
    )
    about = {"gold": 1, "near_misses": 0, "sha256": ""}
    identity = {"name": name, "version": "1", "source": "ab" * 32}
    return Card(identity, about, findings, limits={"deadline_s": 1.0, "memory_mb": 512.0})


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the flow handed to Prefect and to the certificate, by name."""
    kept: dict[str, Any] = {"cases": [], "failed": ()}

    def certify(name: str, cases: Path | None, progress: Any) -> Card:
        kept["cases"].append(None if cases is None else cases.read_text(encoding="utf-8", errors="surrogatepass"))
        return a_card(name, *kept["failed"])

    monkeypatch.setattr(certify_flow, "certify", certify)
    monkeypatch.setattr(certify_flow, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(certify_flow, "create_table_artifact", lambda **given: kept.update(table=given))
    monkeypatch.setattr(certify_flow, "create_markdown_artifact", lambda **given: kept.update(page=given))
    return kept


def test_a_certified_verifier_completes_the_run_and_its_card_is_a_table_and_a_page(shown: dict[str, Any]) -> None:
    state = certify_flow.certify_verifier.fn("code_hidden")
    assert state.is_completed() and state.name == "Certified"
    assert state.message is not None and state.message.startswith("code_hidden is certified: card ")
    assert shown["cases"] == [None]  # those that come with the verifier
    assert shown["table"]["key"] == "card-code-hidden-checks" and shown["page"]["key"] == "card-code-hidden"
    assert [row["what"] for row in shown["table"]["table"]] == list(CHECK_NAMES)
    assert "code_hidden 1: certified" in shown["page"]["markdown"]


def test_failed_checks_fail_the_run_with_their_sentences(shown: dict[str, Any]) -> None:
    shown["failed"] = CHECK_NAMES[1:3]
    state = certify_flow.certify_verifier.fn("exact", cases=f"\n{CASE}\n\n")
    told = "; ".join(f"{name}: {name} was looked at" for name in CHECK_NAMES[1:3])
    assert state.is_failed() and (state.name, state.message) == ("NotCertified", f"exact is not certified: {told}")
    assert shown["cases"] == [CASE + "\n"]
    assert shown["page"]["description"] == "exact: not certified"  # the card is shown all the same


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"verifier": "maths"}, "verifier: 'maths' is no verifier; did you mean 'math'?"),
        ({"cases_file": "no/such.jsonl"}, "cases_file: 'no/such.jsonl' is no file on the machine that runs this"),
        ({"cases_file": "a\0b"}, "cases_file: 'a\\x00b' is no file"),
        ({"cases_file": "/"}, "cases_file: '/' is no file"),
        ({"cases_file": "a.jsonl", "cases": CASE}, "cases: lines were pasted and cases_file names 'a.jsonl'"),
        ({"cases": "x" * 400_001}, "cases: 400,001 characters were pasted; allowed: 400,000"),
    ],
)
def test_what_cannot_be_certified_is_told_in_a_sentence_that_names_the_field(
    shown: dict[str, Any], given: dict[str, Any], said: str
) -> None:
    state = certify_flow.certify_verifier.fn(**{"verifier": "exact", **given})
    assert state.is_failed() and state.message is not None and state.message.startswith(said)
    assert shown["cases"] == [] and "page" not in shown


def test_pasted_text_that_is_no_case_is_told_with_the_field_and_the_line(
    monkeypatch: pytest.MonkeyPatch, shown: dict[str, Any], tmp_path: Path
) -> None:
    from verifiers.cases import read_cases

    monkeypatch.setattr(certify_flow, "certify", lambda name, cases, progress: read_cases(cases))
    for text in ("not json", CASE + "\n[]", "\ud800"):
        state = certify_flow.certify_verifier.fn("exact", cases=text)
        assert state.is_failed() and state.message is not None
        assert state.message.startswith(f"cases:{1 + text.count(chr(10))}"), state.message
