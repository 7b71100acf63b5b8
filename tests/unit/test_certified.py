"""RL is refused a reward that no card certifies, and what a card says goes with the stage."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load_recipe
from flows.certified import standing
from flows.plan import Plan, make_plan
from flows.session import Request, prepare
from flows.store import Store
from tests.bad_verifiers import install
from tests.unit.test_certify_card import GOOD, card
from verifiers.certify import Card, Finding
from verifiers.certify.card import read_card

RECIPE = """
name: rewarded
base: seedling
stages:
  - {{id: rl, kind: rl, data: [{data}], steps: 2, learning_rate: 1.0e-6, verifier: {verifier}{more}}}
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with install(tmp_path, monkeypatch) as package:
        (tmp_path / "problems.jsonl").write_text('{"prompt": "What is 1 + 1?", "answer": "2"}\n')
        yield package


def asked(folder: Path, verifier: str, more: str = "") -> Request:
    text = RECIPE.format(data=folder / "problems.jsonl", verifier=verifier, more=f", {more}" if more else "")
    (folder / "rewarded.yaml").write_text(text)
    return Request(str(folder / "rewarded.yaml"), store=str(folder / "store"), machine="cpu")


def plan(folder: Path, verifier: str, more: str = "") -> Plan:
    return make_plan(load_recipe(asked(folder, verifier, more).preset), Store(folder / "store"))


def keep(folder: Path, made: Card) -> None:
    made.write(folder / "store" / "cards" / f"{made.name}.json")


def test_a_reward_without_a_card_is_refused_with_both_ways_on(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        prepare(asked(tmp_path, "good"))
    assert str(raised.value) == (
        "rl.verifier: 'good' gives the reward and has no card; run `derive verifiers certify good`, or set "
        "rl.allow_uncertified=true to train on it as it is"
    )
    assert prepare(asked(tmp_path, "good", "allow_uncertified: true")).plan.stages


def test_a_stale_card_and_a_failed_one_certify_nothing(tmp_path: Path) -> None:
    made = card("good")
    keep(tmp_path, dataclasses.replace(made, identity={**made.identity, "source": "0" * 64}))
    with pytest.raises(UserError, match="has changed since its card was made .*run `derive verifiers certify good`"):
        prepare(asked(tmp_path, "good"))
    failing = (*made.findings[:3], Finding(made.findings[3].check, "failed", "it accepts all"), *made.findings[4:])
    keep(tmp_path, dataclasses.replace(made, findings=failing))
    with pytest.raises(UserError, match="failed its certificate .near_misses: it accepts all"):
        prepare(asked(tmp_path, "good"))
    (tmp_path / "store" / "cards" / "good.json").write_text('{"format": 1')
    with pytest.raises(UserError, match="good.json: not whole JSON"):
        prepare(asked(tmp_path, "good"))
    keep(tmp_path, made)
    assert prepare(asked(tmp_path, "good")).plan.stages


def test_every_reward_needs_a_card_and_a_second_opinion_does_not(tmp_path: Path) -> None:
    keep(tmp_path, card("good"))
    with pytest.raises(UserError, match="rl.verifier: 'leaks' gives the reward and has no card"):
        prepare(asked(tmp_path, "good", "more_rewards: [{verifier: leaks, weight: 0.5}]"))
    found = prepare(asked(tmp_path, "good", "audit: {verifier: leaks}")).plan.stages[0].ingredients["cards"]
    assert found["leaks"] == {"digest": "", "certified": False, "labelled": []}
    assert found["good"]["digest"] == card("good").digest


def test_the_card_is_recorded_and_neither_it_nor_the_permission_changes_the_digest(tmp_path: Path) -> None:
    without = plan(tmp_path, "good").stages[0]
    allowed = plan(tmp_path, "good", "allow_uncertified: true").stages[0]
    assert without.digest == allowed.digest and "allow_uncertified" not in without.ingredients["config"]
    keep(tmp_path, card("good"))
    certified = plan(tmp_path, "good").stages[0]
    assert certified.digest == without.digest, "a card says what is known of a verifier, not what a stage makes"
    assert certified.ingredients["cards"]["good"]["labelled"] == [
        {"data": "sums by hand", "recall": GOOD.recall, "false_positive_rate": GOOD.false_positives}
    ]
    keep(tmp_path, dataclasses.replace(card("good"), made="later", seconds=1.0, latency={}))
    assert plan(tmp_path, "good").stages[0].digest == certified.digest, "certified again, with the same result"


def test_a_stage_that_is_there_already_is_not_asked_again(tmp_path: Path) -> None:
    made = plan(tmp_path, "good")
    from flows.certified import refuse_uncertified
    from flows.store import Artifact

    made.stages[0].artifact = Artifact(made.stages[0].digest, tmp_path, {})
    refuse_uncertified(made, Store(tmp_path / "store"))


def test_other_stages_have_no_cards(tmp_path: Path) -> None:
    recipe = load_recipe("math/smoke")
    found = make_plan(recipe, Store(tmp_path / "store"))
    assert {planned.stage.kind for planned in found.stages if "cards" in planned.ingredients} == {"rl"}


def test_the_built_in_card_counts_for_any_store(tmp_path: Path) -> None:
    packaged = read_card("math")
    assert packaged is not None
    found = standing("math", Store(tmp_path / "store"))
    assert found.card is not None and found.card.digest == packaged.digest


def test_a_plan_shows_who_is_certified_and_refuses_who_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.cli import main

    words = [asked(tmp_path, "good").preset, "--no-probe", "--store", str(tmp_path / "store"), "--machine", "cpu"]
    assert main(["plan", *words, "--json"]) == 2
    shown = json.loads(capsys.readouterr().out)
    mine = next(check for check in shown["checks"] if check["name"] == "verifier")
    assert mine["state"] == "refused" and "good has no card" in mine["text"]
    assert mine["remedy"] == "or set rl.allow_uncertified=true"
    main(["plan", *words, "--json", "--set", "rl.allow_uncertified=true"])
    mine = next(check for check in json.loads(capsys.readouterr().out)["checks"] if check["name"] == "verifier")
    assert mine["state"] == "warning"
    keep(tmp_path, card("good"))
    main(["plan", *words])
    assert "rl: good is certified, card" in capsys.readouterr().out


def test_a_release_names_the_cards_that_its_rewards_had() -> None:
    from derivatives import release
    from derivatives.card import certificate

    brief = {"digest": "ab" * 32, "certified": True, "labelled": [
        {"data": "sums", "recall": GOOD.recall, "false_positive_rate": GOOD.false_positives}]}  # fmt: skip
    rl = {
        "kind": "rl",
        "config": {"verifier": "math", "more_rewards": [{"verifier": "format"}], "audit": {"verifier": "exact"}},
        "verifiers": {name: {"name": name, "version": "1", "source": "s"} for name in ("math", "format", "exact")},
        "cards": {"math": brief, "format": {"digest": "", "certified": False, "labelled": []}},
    }
    found = release.verifier_identities((rl,), {"judge": "puzzles"}, {"judge": "puzzles"})
    assert [one["name"] for one in found["reward"]] == ["math", "format"]
    assert [one["name"] for one in found["audit"]] == ["exact"]
    assert [certificate(one.get("card")) for role in ("reward", "audit") for one in found[role]] == [
        ["`abababababab`", "sums: 90.0% [59.6, 98.2]", "sums: 0.0% [0.0, 16.1]"],
        ["**not certified**", "", ""],
        ["none", "", ""],
    ]
