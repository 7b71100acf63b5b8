"""What the release stage gathers for the card."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

from configs.settings.evaluation import ReleaseStage
from configs.stage import StageFile
from derivatives import card, licence, release
from derivatives.card import base_name, origin, table
from derivatives.export import Exported


def test_the_judge_is_named_by_the_evaluation_or_brought_by_the_task_sets() -> None:
    rl = {
        "kind": "rl",
        "config": {"verifier": "math"},
        "verifiers": {"math": {"name": "math", "version": "0", "source": "old"}},
    }
    drawn = [{"name": "reasoning_gym/chain_sum", "split": "heldout", "count": 500}]
    asked = release.verifier_identities((rl,), {"judge": "puzzles"}, {"judge": "puzzles", "tasks": drawn})
    assert asked["reward"] == ({"name": "math", "version": "0", "source": "old"},), "as recorded then, not as it is now"
    assert [one["name"] for one in asked["judge"]] == ["puzzles"]
    own = release.verifier_identities((rl,), {"judge": "each set's own"}, {"judge": None, "tasks": drawn})
    assert [one["name"] for one in own["judge"]] == release.judges_of_tasks(drawn) != []


def test_task_sets_that_do_not_load_leave_the_judge_open() -> None:
    assert release.judges_of_tasks([{"name": "nowhere.jsonl", "split": "test"}]) == []


def test_files_that_training_reads_directly_count_as_data_of_unknown_licence() -> None:
    sft = {"kind": "sft", "config": {"data": ["examples", "/home/me/secret/mine.jsonl"]}}
    corpora = {
        "examples": {"sources": {"python_stdlib": {"licence": "PSF-2.0"}, "/data/x.jsonl": {"licence": "unknown"}}}
    }
    assert release.data_licences(corpora, (sft,)) == {
        "python_stdlib": "PSF-2.0",
        "x.jsonl": "unknown",
        "mine.jsonl": None,
    }


def test_the_command_quotes_overrides_and_hides_the_folder_of_a_local_base() -> None:
    line = StageFile(
        recipe="math/7b",
        stage=ReleaseStage(id="release", evaluation="evaluate", name="x"),
        lineage={"base": {"name": "/home/me/checkpoints/mine"}, "overrides": ["release.name='A B'"]},
    )
    assert release.reproduce_command(line) == """derive run math/7b --base mine --set 'release.name='"'"'A B'"'"''"""


def test_neither_the_command_nor_the_lineage_names_a_folder_of_the_machine() -> None:
    line = StageFile(
        recipe="mine",
        stage=ReleaseStage(id="release", evaluation="evaluate", name="x"),
        lineage={"command": "derive run /home/x/mine.yaml --base /home/x/base --set 'sft.data=[~/a/b.jsonl]'"},
    )
    assert release.reproduce_command(line) == "derive run mine.yaml --base base --set 'sft.data=[b.jsonl]'"
    tasks = [{"name": "/home/x/sums.jsonl"}, {"name": "gsm8k", "count": 5}]
    assert origin.key_settings({"kind": "evaluate", "config": {"tasks": tasks}}) == "sums.jsonl x all, gsm8k x 5"


def test_a_base_is_named_by_its_hub_id_or_the_last_part_of_its_path() -> None:
    assert base_name({"name": "Qwen/Qwen2.5-0.5B"}, Path("/cache/abc")) == "Qwen/Qwen2.5-0.5B"
    assert base_name({"name": "/models/mine"}, Path("/models/mine")) == "mine"
    assert base_name({}, Path("/x/seedling/checkpoint")) == "seedling"


def test_the_example_question_is_a_short_one_that_the_released_model_solved(tmp_path: Path) -> None:
    samples = [
        {"model": "base", "outcome": "correct", "prompt": "of another model"},
        {"model": "rl", "outcome": "incorrect", "prompt": "not solved"},
        {"model": "rl", "outcome": "correct", "prompt": "x" * 400},
        {"model": "rl", "outcome": "correct", "prompt": "of a benchmark", "source": "gsm8k"},
        {"model": "rl", "outcome": "correct", "prompt": "of the user", "source": "mine.jsonl"},
        {"model": "rl", "outcome": "correct", "prompt": "7 + 8?"},
    ]
    made = ({"source": "reasoning_gym/chain_sum", **one} for one in samples)
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in made))
    assert release.sample_question(tmp_path, "rl") == "7 + 8?"
    assert release.sample_question(tmp_path / "nowhere", "rl") == "What is 12 + 30?"


def test_a_card_says_what_its_figures_do_not_show() -> None:
    results = {
        "models": {"rl": {"pass@1": {"value": 0.12, "low": 0.06, "high": 0.24}}},
        "gains": {"rl": {"pass@1": {"value": 0.06, "low": -0.04, "high": 0.17}}},
        "floor": {"value": 0.16},
    }
    whole = card.Facts(
        name="x", recipe="math/tiny", released="rl", base={}, licence=licence.combine_licences("mit", {}),
        results=results, model_order=("base", "rl"), gates=(), exported=Exported(1, 8, 8, True, 0.0, 1),
    )  # fmt: skip
    better, constant = card.unproven(whole)
    assert better == "**It is not shown to be better than base**: the gain's interval reaches -4.0."
    assert "not shown to beat the best constant answer" in constant
    results["gains"]["rl"]["pass@1"]["low"], results["floor"]["value"] = 0.01, 0.05
    assert card.unproven(whole) == []


def test_a_task_that_has_no_constant_answer_says_why_on_the_card() -> None:
    one = {"value": 0.5, "low": 0.4, "high": 0.6}
    none = {"answer": None, "value": None, "reason": "run, not read"}
    best = {"words": {"answer": "7", "value": 0.25}, "programs": none}
    results = {
        "models": {"rl": {"pass@1": one, "by_task": {"words": one, "programs": one}}},
        "floor": {"best_constant": best, "value": None},
    }
    facts = card.Facts(
        name="x", recipe="coder/tiny", released="rl", base={}, licence=licence.combine_licences("mit", {}),
        results=results, model_order=("rl",), gates=(), exported=Exported(1, 8, 8, True, 0.0, 1),
    )  # fmt: skip
    shown = card.render_card(facts)
    assert "| words | 50.0% [40.0, 60.0] | 25.0% |" in shown
    assert "| programs | 50.0% [40.0, 60.0] | none: run, not read |" in shown
    assert "| best constant answer | none: run, not read |" in shown


def test_the_examples_in_docstrings_hold() -> None:
    assert [doctest.testmod(module).failed for module in (card, licence)] == [0, 0]


def test_table_cells_cannot_break_out_of_their_table() -> None:
    assert table(["a"], [["x | y\n<b>"]]) == "| a |\n| --- |\n| x \\| y &lt;b> |\n"
