"""What a card says to somebody who doubts it, from hand-made facts."""

from __future__ import annotations

import doctest
import json
import pkgutil
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.judges import READERS
from configs.settings.evaluation import Keep
from derivatives import card, licence, release
from derivatives.card import conditions, figures, header, judging, limits, origin
from derivatives.export import Exported
from derivatives.gates import GateResult, check_gates
from verifiers.registry import BUILT_IN


def accuracy(value: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "total": 100, **more}


def results(**changes: Any) -> dict[str, Any]:
    models = {
        "base": {"pass@1": accuracy(0.2), "by_task": {"reasoning_gym/gcd": accuracy(0.3), "gsm8k": accuracy(0.1)}},
        "rl_control_random": {"pass@1": accuracy(0.35)},
        "rl": {"pass@1": accuracy(0.4), "by_task": {"reasoning_gym/gcd": accuracy(0.6), "gsm8k": accuracy(0.1)}},
    }
    pairs = {
        "base->rl": {"pass@1": {"value": 0.2, "low": 0.15, "high": 0.25}},
        "rl_control_random->rl": {"pass@1": {"value": 0.05, "low": 0.01, "high": 0.09}},
    }
    return {"models": models, "pairwise": pairs, "gains": {"rl": pairs["base->rl"]}, "confidence": 0.95, **changes}


def facts(**changes: Any) -> card.Facts:
    given: dict[str, Any] = {
        "name": "Made Up", "recipe": "math/tiny", "released": "rl", "base": {"name": "Qwen/Qwen2.5-0.5B"},
        "licence": licence.combine_licences("apache-2.0", {}), "results": results(), "model_order": ("base", "rl"),
        "gates": (), "exported": Exported(10**9, 8, 8, True, 0.0, 1),
    }  # fmt: skip
    return card.Facts(**{**given, **changes})


def test_the_front_matter_is_what_the_hub_reads_as_results() -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with transformers")
    corpora = {"examples": {"sources": {"gsm8k": {}, "mine.jsonl": {}, "reasoning_gym/gcd": {}}}}
    text = card.render_card(facts(corpora=corpora))
    data = hub.ModelCard(text).data
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", "Qwen/Qwen2.5-0.5B", ["openai/gsm8k"])
    assert data.model_name == "Made Up"
    found = {one.dataset_name: (one.metric_type, one.metric_value) for one in data.eval_results}
    assert found == {"gsm8k": ("pass@1", 10.0), "reasoning_gym/gcd": ("pass@1", 60.0)}
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["name"].endswith("95% interval 5.0 to 15.0")


def test_a_base_that_is_no_model_of_the_hub_is_not_named_as_one() -> None:
    assert "base_model" not in header.front_matter(facts(base={"name": "seedling"}))


def test_the_gain_over_each_control_stands_beside_that_over_the_base() -> None:
    control = {"of": "rl", "arm": "random", "stage": "rl_control_random"}
    lineage = ({"id": "rl", "kind": "rl"}, {"id": "rl_control_random", "kind": "rl", "seconds": 61.0})
    said = conditions.controls(facts(controls=(control,), stages=lineage))
    assert "| base | where it started | +20.0 [+15.0, +25.0] |" in said
    assert "| rl_control_random | rl paid by a coin | +5.0 [+1.0, +9.0] |  |  | 61 |" in said
    unasked = conditions.controls(facts(controls=({"of": "rl", "arm": "format", "stage": "form"},), stages=lineage))
    assert "| form | rl paid for the form of an answer alone; not asked by the evaluation |" in unasked
    short = header.in_short(facts(controls=(control,)))
    assert short == (
        "Solves 40.0% [35.0, 45.0] of 100 held-out problems where the base solves 20.0% [15.0, 25.0] (greedy, 95% "
        "intervals). Over its strongest control (`rl_control_random`): +5.0 [+1.0, +9.0] points.\n"
    )


def test_a_card_without_controls_says_what_is_then_not_known() -> None:
    assert "The recipe has none" in conditions.controls(facts(stages=({"id": "rl", "kind": "rl"},)))
    assert conditions.controls(facts(stages=({"id": "sft", "kind": "sft"},))) == ""


def test_looser_margins_and_dropped_sides_are_said_in_bold() -> None:
    measured = results()
    measured["pairwise"]["base->rl"]["kept"] = {"value": -0.05, "low": -0.07, "high": -0.03}
    keep = Keep(tasks=-0.08, bits_per_byte="none")
    said = conditions.gates(facts(gates=tuple(check_gates(measured, (), "rl", keep)), keep=keep))
    assert "**The recipe allows more to be lost than the default does**: kept: lose less than 8.0 points" in said
    assert "looser than the default 2.0 points" in said
    assert "**Nothing was required of general text** (by default the bits per byte may rise by at most 1%)" in said
    strict = GateResult("kept", "base", "rl", -0.02, True, 0.0, -0.01, 0.01, default=-0.02)
    assert "**" not in conditions.gates(facts(gates=(strict,), keep=Keep()))


def test_what_was_seen_before_is_told_by_overlap_flags_and_twins() -> None:
    measured = results(overlap={"train_questions": 900, "shared": 0})
    assert "was not probed" in figures.seen_before(facts(results=measured))
    exact = {"value": 0.5, "low": 0.4, "high": 0.6}
    measured["models"]["base"]["by_task"]["gsm8k"]["contamination"] = {
        "flag": True, "decided_at": 0.6, "n": 50, "shares": {"0.6": {"exact": exact}},
        "control": {"exact": {"value": 0.1, "low": 0.0, "high": 0.2}},
    }  # fmt: skip
    measured["twins"] = {
        "gsm8k": {
            "rl": {
                "original": accuracy(0.4), "twin": accuracy(0.3), "gap": {"value": 0.1, "low": 0.02, "high": 0.18},
                "plain_gain": None, "clean_gain": {"value": 0.15, "low": 0.05, "high": 0.25},
            }
        }
    }  # fmt: skip
    said = figures.seen_before(facts(results=measured))
    assert "Of 900 training questions, 0 are among the held-out ones.\n" in said
    read = {"id": "sft", "kind": "sft", "config": {"data": ["corpus", "/home/me/mine.jsonl"]}}
    assert "Not compared: `mine.jsonl`, which training read as it is" in figures.seen_before(
        facts(results=measured, stages=(read,))
    )
    assert "| base | gsm8k | **raised** | 60.0% | 50.0% [40.0, 60.0] | 10.0% [0.0, 20.0] | 50 |" in said
    gap = "40.0% [35.0, 45.0] | 30.0% [25.0, 35.0] | +10.0 [+2.0, +18.0]"
    assert f"| gsm8k | rl | {gap} |  | +15.0 [+5.0, +25.0] |" in said


def test_votes_thinking_budgets_and_other_domains_have_their_place() -> None:
    measured = results()
    measured["models"]["rl"] |= {
        "maj@k": {"k": 8, **accuracy(0.5)},
        "budgets": [{"max_thinking_tokens": 64, "pass@1": accuracy(0.3), "maj@k": None, "mean_tokens": 50.0,
                     "closed_fraction": 0.75}],
        "kept": {"lists": accuracy(0.2)},
    }  # fmt: skip
    measured["models"]["base"]["kept"] = {"lists": {**accuracy(0.0), "low": 0.0}}
    said = figures.evaluation(facts(results=measured))
    assert "| model | pass@1 | maj@8 | problems |" in said
    assert "| rl | 64 | 30.0% [25.0, 35.0] |  | 50.0 | 75.0% |" in said
    assert "The base solves none of lists: nothing could be lost there." in said
    assert "There were none." in said
    measured["models"]["rl"]["kept_all"] = accuracy(0.2, no_verdict=7, low_bound=0.2, high_bound=0.27)
    assert "rl, other domains: 20.0% to 27.0% (7 of 100)" in figures.evaluation(facts(results=measured))


def test_the_worst_tasks_and_those_without_a_gain_are_named() -> None:
    said = limits.worst_tasks(facts())
    assert said.index("| gsm8k | 10.0%") < said.index("| reasoning_gym/gcd | 60.0%")
    assert "No better than the base at: gsm8k." in said


def test_wrong_answers_are_shown_whole_but_no_text_of_a_public_benchmark_is(tmp_path: Path) -> None:
    lines = [
        {"model": "rl", "source": "gsm8k", "task": "gsm8k/7", "prompt": "Secret text?", "extracted": "9", "answer": "8",
         "outcome": "incorrect", "reason": "other"},
        {"model": "rl", "source": "reasoning_gym/gcd", "task": "g/1", "prompt": "gcd of 4, 6?\n```", "answer": "2",
         "completion": "It is \\boxed{3}", "outcome": "incorrect", "reason": "other_number", "truncated": False},
        {"model": "rl", "source": "reasoning_gym/gcd", "outcome": "correct"},
        {"model": "base", "source": "reasoning_gym/lcm", "outcome": "incorrect"},
    ]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    wrong = release.wrong_answers(tmp_path, "rl")
    assert [one["source"] for one in wrong] == ["gsm8k", "reasoning_gym/gcd"], "the worst set first"
    said = limits.wrong_answers(facts(wrong=wrong))
    assert "Secret text" not in said and "problem `gsm8k/7`: answered `9`" in said
    assert "    gcd of 4, 6?\n    ```\n    >>> It is \\boxed{3}" in said, "indented, so that nothing in it ends it"


def test_a_judge_that_shares_the_rewards_code_is_told_in_bold() -> None:
    def sentence(reward: str, judge: str, **more: Any) -> str:
        used = {role: ({"name": name, "source": "s"},) for role, name in (("reward", reward), ("judge", judge))}
        return judging.judge_sentence(facts(verifiers=used, **more))

    assert sentence("think_math", "math").startswith("**The judge math also gave the reward, or shares its code")
    assert "`allow_same_judge`" in sentence("math", "math", same_judge_allowed=True)
    assert sentence("math", "math_verify").startswith("The judge is not the verifier")
    assert "never paid for" in sentence("code", "code_hidden")
    assert "both find the answer in a text by the same code" in sentence("math", "puzzles")
    assert sentence("think_math", "exact").endswith("does not judge by its code.")


def test_verifiers_that_read_alike_are_those_that_share_the_code_which_reads() -> None:
    def reads(name: str) -> bool:
        text = Path(str(find_spec(BUILT_IN[name].partition(":")[0]).origin)).read_text(encoding="utf-8")
        taken = re.findall(r"from verifiers\.answers\.extract import (.*)", text)
        return bool({"extract", "last_boxed"} & {one for names in taken for one in names.split(", ")})

    assert {name for name in BUILT_IN if reads(name)} == READERS


def test_samples_that_a_verifier_chose_are_told_beside_rewards() -> None:
    stages = (
        {"id": "drawn", "kind": "sample", "config": {"verifier": "code"}},
        {"id": "unused", "kind": "sample", "config": {"verifier": "exact"}},
        {"id": "dpo", "kind": "dpo", "config": {"data": ["drawn"]}},
    )
    found = release.verifier_identities(stages, {"judge": "code"}, {"judge": "code", "tasks": []})
    assert [one["name"] for one in found["selection"]] == ["code"] and "reward" not in found
    assert judging.judge_sentence(facts(verifiers=found)).startswith("**The judge code also gave the reward")


def test_what_was_written_over_and_how_long_it_took_is_told() -> None:
    sources = {"web": {"redactions": {"email": 3}}, "more": {"documents": 1, "redactions": {"email": 2}}}
    report = {"sources": sources, "near_duplicates": {"clusters": 4, "dropped": 6}}
    said = origin.data(facts(corpora={"corpus": report}))
    assert "near-duplicates looked for (4 clusters, 6 dropped); written over: email 5" in said
    assert "took 2.0 hours in all" in origin.reproduce(facts(stages=({"seconds": 3600.0}, {"seconds": 3600.0})))


def test_the_examples_in_docstrings_hold() -> None:
    modules = [import_module(f"derivatives.card.{one.name}") for one in pkgutil.iter_modules(card.__path__)]
    assert len(modules) >= 8 and [doctest.testmod(module).failed for module in modules] == [0] * len(modules)
