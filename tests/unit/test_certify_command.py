"""`derive verifiers certify`: exit codes, what is said, and where the card goes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import certify_command
from flows.certified import standing
from flows.cli import main
from flows.store import Store
from tests.bad_verifiers import install
from tests.unit.test_certify import FAST
from verifiers.certify import bench, load_card


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(bench.Limits, "__init__", lambda self: self.__dict__.update(vars(FAST)))  # smaller defaults
    monkeypatch.delenv("DERIVE_DATA", raising=False)
    with install(tmp_path, monkeypatch) as package:
        yield package


def test_a_certified_verifier_ends_with_0_and_its_card_lies_in_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hand = tmp_path / "hand.jsonl"
    hand.write_text('{"completion": "\\\\boxed{4}", "answer": "4", "correct": true}\n')
    store = tmp_path / "store"
    assert main(["verifiers", "certify", "good", "--labelled", str(hand), "--store", str(store)]) == 0
    said = capsys.readouterr()
    assert said.err.count(": passed") == 17 and "error" not in said.err
    card = load_card(store / "cards" / "good.json")
    assert f"good: certified in {card.seconds:g} s; card {card.digest[:12]}" in said.out
    assert "accepted 1 of 1 right completions" in said.out
    assert standing("good", Store(store)).problem == ""


def test_a_refused_one_ends_with_2_and_a_sentence_for_each_failed_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "card.json"
    words = ["verifiers", "certify", "hangs", "--out", str(out), "--json", "--store", str(tmp_path / "store")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "error: hangs: gold: on gold case cases.jsonl:" in said.err and "was killed: bound the size" in said.err
    shown = json.loads(said.out)
    assert shown["certified"] is False and shown["digest"] == load_card(out).digest
    assert not (tmp_path / "store").exists()


def test_some_checks_alone_certify_nothing_and_keep_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verifiers", "certify", "good", "--store", str(tmp_path / "store"), "--only", "malformed"]
    assert main(words) == 0
    assert "; only some checks were run, leave --only out for a certificate" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()
    assert main([*words, "--only", "nonsense"]) == 2
    assert "--only: 'nonsense' is no check" in capsys.readouterr().err
    assert main(["verifiers", "certify", "goood"]) == 2
    assert "did you mean 'good'" in capsys.readouterr().err


def test_the_function_takes_what_a_form_gives(tmp_path: Path, package: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join((package / "cases.jsonl").read_text().splitlines()[:6]))
    told: list[str] = []
    card = certify_command.certify("good", few, None, told.append, Store(tmp_path / "store"), ("malformed",))
    assert [finding.check for finding in card.failed] == ["cases"] and told[1].startswith("[2/17] cases: failed")
