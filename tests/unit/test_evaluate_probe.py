"""The contamination probe: a model that memorised twenty made-up problems is flagged for these and for no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from configs.settings.common import TaskSource
from configs.settings.evaluation import EvaluateStage
from configs.settings.probe import Probe
from derivatives.evaluation.answers import Answer
from derivatives.evaluation.probe import controls, cut, excess, probe, rouge_l
from derivatives.evaluation.twins import pairs_of, twin_figures
from derivatives.training.model import load_tokenizer
from tests.training_fixtures import tiny_model, write_tokenizer
from verifiers.api import Task
from verifiers.pool import VerifierPool

NAMES = ["Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kim", "Lea", "Moe", "Ned", "Ola", "Pam",
         "Quin", "Rae", "Sam", "Tess"]  # fmt: skip
THINGS = ["pens", "cups", "nuts", "hats", "keys", "figs", "bags", "jars", "pins", "maps", "oars", "rugs", "tins",
          "toys", "urns", "vans", "webs", "yams", "zips", "bows"]  # fmt: skip


def test_a_problem_is_cut_between_words_and_always_leaves_some() -> None:
    task = Task("1", "one two  three four five", "5")
    assert (cut(task, 0.4).shown, cut(task, 0.4).rest) == ("one two", "three four five")
    assert (cut(task, 0.99).shown, cut(task, 0.99).rest) == ("one two  three four", "five")
    assert (cut(task, 0.01).shown, cut(task, 0.01).rest) == ("one", "two  three four five")


def test_rouge_l_counts_the_longest_common_subsequence() -> None:
    assert rouge_l(["a", "b", "c", "d"], ["a", "x", "c", "d"]) == 2 * 3 / 8
    assert rouge_l(["a", "b"], ["b", "a"]) == 2 * 1 / 4
    assert rouge_l([], ["a"]) == 0.0


def test_an_excess_of_nothing_over_nothing_excludes_nothing() -> None:
    # both rates are 0 of 20; Wilson's upper end is z^2 / (n + z^2), and so is the half width
    z_squared = 1.959964**2
    found = excess((0, 20), (0, 20), 0.95)
    assert found["value"] == 0.0 and found["high"] == pytest.approx(z_squared / (20 + z_squared), abs=1e-5)
    assert found["low"] == -found["high"]
    assert excess((20, 20), (0, 20), 0.95)["low"] > 0.7


def test_settings_name_a_share_that_is_asked() -> None:
    with pytest.raises(ValidationError, match="decided_at: 0.5 is none of the shares"):
        Probe(decided_at=0.5)
    stage = {"id": "evaluate", "models": ["base"], "tasks": [{"name": "gsm8k", "split": "test"}]}
    assert EvaluateStage.model_validate({**stage, "probe": True}).probe == Probe()
    assert EvaluateStage.model_validate(stage).probe is None


def test_controls_are_the_twins_that_are_asked_or_another_draw() -> None:
    params = {"min_terms": 2, "max_terms": 3}
    source = TaskSource(name="reasoning_gym/chain_sum", split="heldout", count=6, params=params)
    asked = [Task("twins/7", "made up", "1", source="twins/gsm8k", metadata={"twin_of": "7"})]
    found = controls(asked, [source, TaskSource(name="gsm8k", split="test"), TaskSource(name="math500", split="test")],
                     Probe(num_problems=4))  # fmt: skip
    assert found["gsm8k"] == asked
    assert len(found["reasoning_gym/chain_sum"]) == 4
    assert set(found) == {"gsm8k", "reasoning_gym/chain_sum"}


def answer(right: bool) -> Answer:
    return Answer("", None, "correct" if right else "incorrect", "", 1, False)


def test_twins_are_compared_on_the_pairs_that_were_both_asked() -> None:
    originals = [Task(f"g/{number}", f"q{number}", "1", source="g") for number in range(4)]
    twins = [Task(f"twins/g/{number}", f"t{number}", "2", source="twins/g", metadata={"twin_of": f"g/{number}"})
             for number in (1, 3, 9)]  # fmt: skip
    tasks = [*originals, *twins]
    assert pairs_of(tasks) == {"g": [(1, 4), (3, 5)]}
    by_heart = [answer(place < 4) for place in range(7)]  # all originals, no twin
    able = [answer(True)] * 7
    base = [answer(False)] * 7
    found = twin_figures(tasks, {"base": base, "by_heart": by_heart, "able": able}, 0.95, 0)["g"]
    assert found["by_heart"]["original"]["correct"] == 2 and found["by_heart"]["twin"]["correct"] == 0
    assert found["by_heart"]["gap"] == {"value": -1.0, "low": -1.0, "high": -1.0}
    assert found["by_heart"]["plain_gain"]["value"] == 1.0 and found["by_heart"]["clean_gain"]["value"] == 0.0
    assert found["able"]["plain_gain"]["value"] == found["able"]["clean_gain"]["value"] == 1.0
    assert "clean_gain" not in found["base"]
    assert twin_figures(originals, {"base": base[:4]}, 0.95, 0) == {}


def problems(source: str, ending: Callable[[int], str], shift: int) -> list[Task]:
    """Twenty, whose beginnings differ between shifts."""
    made = []
    for number, name in enumerate(NAMES):
        thing, count = THINGS[(number * 3 + shift) % 20], 11 + (number * 17 + shift * 5) % 80
        made.append(Task(f"{source}/{number}", f"{name} has {count} {thing}{ending(number)}", "5", source=source))
    return made


def own_ending(number: int) -> str:
    other = THINGS[(number * 7 + 3) % 20]
    return f" and {NAMES[(number * 11 + 4) % 20]} {(number * 13) % 50} {other}. How many {other} in 5 weeks?"


def same_ending(_: int) -> str:
    return " in a box. How many are left when it is shut?"


def memorise(texts: Sequence[str], folder: Path) -> torch.nn.Module:
    """A tiny model that has read these texts a few hundred times."""
    tokenizer = load_tokenizer(folder)
    model = tiny_model(hidden_size=96, intermediate_size=192, initializer_range=0.05).train()
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.03:
            break
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    yield folder


@pytest.mark.slow
def test_what_was_memorised_is_flagged_and_nothing_else(tokenizer_folder: Path) -> None:
    read = problems("read", own_ending, 0)
    unread = [replace(task, id=f"u{task.id}", source="unread", prompt=task.prompt.replace(" and ", " but "))
              for task in problems("unread", lambda number: own_ending(number + 7), 9)]  # fmt: skip
    template_read = problems("template", same_ending, 3)
    template = problems("template", same_ending, 11)  # the ending was read, these problems were not
    another_draw = problems("twins/template", same_ending, 16)
    renumbered = [replace(task, id=f"twins/{task.id}", source="twins/gsm8k", metadata={"twin_of": task.id},
                          prompt=task.prompt.replace("5 weeks", "8 weeks"))
                  for task in problems("gsm8k", own_ending, 0)]  # fmt: skip
    asked = [*read, *unread, *template, *problems("gsm8k", own_ending, 0)]  # the last are the first, by another name
    settings = Probe(answer_tokens=4, min_rest_words=3)
    unseen = {"template": another_draw, "gsm8k": renumbered}
    tokenizer = load_tokenizer(tokenizer_folder)
    model = memorise([task.prompt for task in [*read, *template_read]], tokenizer_folder)
    with VerifierPool(1) as pool:
        found = probe(model, tokenizer, asked, unseen, settings, pool, 0.95)  # type: ignore[arg-type]
        untrained = probe(tiny_model(), tokenizer, asked, unseen, settings, pool, 0.95)

    assert {name: one["flag"] for name, one in found.items()} == {
        "read": True, "unread": False, "template": False, "gsm8k": True,
    }  # fmt: skip
    assert found["read"]["shares"]["0.6"]["exact"]["value"] >= 0.9
    assert found["read"]["shares"]["0.6"]["rouge_l"]["value"] >= found["unread"]["shares"]["0.6"]["rouge_l"]["value"]
    assert found["read"]["control"] is None and found["read"]["threshold"] == 0.05
    # the template's rest comes out although its problems were never read: only the control tells
    assert found["template"]["shares"]["0.6"]["exact"]["low"] > 0.05
    assert found["gsm8k"]["control"]["exact"]["value"] <= 0.1 <= 0.9 <= found["gsm8k"]["control"]["set_exact"]["value"]
    assert found["read"]["shares"]["0.6"]["answered"]["high"] <= 1.0
    assert not any(one["flag"] for one in untrained.values())
    assert all(one["shares"]["0.6"]["exact"]["value"] == 0.0 for one in untrained.values())
