"""What fewer bits cost: the figures, the limits, what is written down, and the commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import SafetensorError

from configs.errors import UserError
from configs.settings.common import Sampling, TaskSource
from configs.settings.corpus import CorpusSource
from configs.settings.evaluation import EvaluateStage
from derivatives.evaluation.answers import Answer
from derivatives.export import export_model
from derivatives.formats.quality import (
    DEFAULT_LIMITS,
    Answered,
    Asked,
    Limits,
    evaluation_of,
    form_of,
    in_turn,
    quality,
    questions_of,
)
from derivatives.formats.record import HEADING, append_to_card, keep, side_by_side
from derivatives.seedling import SEEDLING_PATH
from flows.cli import main
from flows.export_command import allowed_losses
from verifiers.api import Outcome, Task

pytest.importorskip("compressed_tensors")
SETS = ("reasoning_gym/chain_sum", "reasoning_gym/leg_counting")


def answered(right: Sequence[bool], bits: Sequence[float]) -> Answered:
    """Answers that are right or not, and documents of 100 bytes that cost these bits."""
    outcomes = [(Outcome.CORRECT if one else Outcome.INCORRECT).value for one in right]
    answers = [
        Answer(f"\\boxed{{{int(one)}}}", str(int(one)), outcome, "", 3, False)
        for one, outcome in zip(right, outcomes, strict=True)
    ]
    return Answered(answers, {"text": [(100, one) for one in bits]})


def asked_of(count: int) -> Asked:
    tasks = [Task(str(n), f"question {n}", "1", source="a" if n % 2 else "b") for n in range(count)]
    return Asked(tasks, {"text": [""]})


def test_a_small_loss_passes_and_a_large_one_names_what_is_over() -> None:
    before = answered([True] * 900 + [False] * 100, [100.0, 200.0, 300.0])
    limits = DEFAULT_LIMITS["int4"]
    same = quality(asked_of(1000), before, before, "int4", limits, 1.0)
    assert same.exceeded == [] and same.same_answers == 1.0 and same.pass_at_1["difference"]["low"] == 0.0
    worse = answered([True] * 800 + [False] * 200, [104.0, 208.0, 312.0])
    found = quality(asked_of(1000), before, worse, "int4", limits, 1.0)
    assert found.pass_at_1["difference"]["value"] == pytest.approx(-0.1)
    assert found.texts["text"]["rise"]["value"] == pytest.approx(0.04)
    assert found.texts["text"]["release"] == pytest.approx(2.0)  # 600 bits over 300 bytes
    first, second = found.exceeded
    assert "pass@1 on 1000 problems changed by -10.0 points" in first and "must exceed -5" in first
    assert "bits per byte of text rose by 4.00%" in second and "allowed: 3.00%" in second
    allowed = quality(asked_of(1000), before, worse, "int4", Limits(0.15, 0.05), 1.0)
    assert allowed.exceeded == [] and allowed.loosened == {"pass@1": 0.05, "bits_per_byte": 0.03}


def test_few_problems_do_not_show_that_little_was_lost() -> None:
    before = answered([True] * 20, [100.0, 100.0])
    after = answered([True] * 19 + [False], [100.0, 100.0])
    assert quality(asked_of(20), before, after, "int8", DEFAULT_LIMITS["int8"], 1.0).exceeded


@pytest.mark.parametrize(("kind", "too_few", "enough"), [("int8", 188, 189), ("int4", 72, 73)])
def test_problems_of_which_none_changed_must_be_many(kind: str, too_few: int, enough: int) -> None:
    """Wilson's upper end of 0 of n is z^2 / (n + z^2): below 2% from 189 on, below 5% from 73 on."""
    limits = DEFAULT_LIMITS[kind]
    for count, refused in ((1, True), (too_few, True), (enough, False)):
        same = answered([True] * count, [100.0, 100.0])
        found = quality(asked_of(count), same, same, kind, limits, 1.0)
        assert found.pass_at_1["difference"]["low"] == 0.0, "resampling says nothing of what was not asked"
        assert bool(found.exceeded) is refused, count
    assert "1 problems are too few to show it" in quality(
        asked_of(1), answered([True], [1.0]), answered([True], [1.0]), kind, limits, 1.0
    ).exceeded[0]


def test_a_verdict_that_is_missing_on_the_release_hides_no_loss() -> None:
    before, after = (answered([True] * 900 + [False] * 100, [100.0, 200.0]) for _ in range(2))
    missing = [replace(one, outcome=Outcome.NO_VERDICT.value) for one in before.answers[900:]]
    before = Answered([*before.answers[:900], *missing], before.costs)
    same = quality(asked_of(1000), before, after, "int4", DEFAULT_LIMITS["int4"], 1.0)
    assert same.exceeded == [] and same.pass_at_1["difference"]["low"] == 0.0, "the same text has the same verdict"
    written = [replace(one, completion="other") for one in after.answers[900:]]
    other = Answered([*after.answers[:900], *written], after.costs)
    found = quality(asked_of(1000), before, other, "int4", DEFAULT_LIMITS["int4"], 1.0)
    assert found.pass_at_1["difference"]["low"] == pytest.approx(-0.1)
    assert "100 missing verdicts on the release count as right" in found.exceeded[0]


def test_a_stricter_limit_is_not_called_loosened() -> None:
    same = answered([True] * 1000, [100.0, 100.0])
    found = quality(asked_of(1000), same, same, "int8", Limits(0.01, 0.02), 1.0)
    assert found.loosened == {"bits_per_byte": 0.01} and not found.exceeded


def test_problems_are_taken_from_every_set_in_turn() -> None:
    tasks = [Task(str(n), "", "", source="a" if n < 8 else "b") for n in range(10)]
    assert in_turn(tasks, 4) == [0, 1, 8, 9]
    assert in_turn(tasks, None) == list(range(10))


def test_exports_are_kept_beside_one_another_and_the_card_says_it_once(tmp_path: Path) -> None:
    before = answered([True] * 10, [100.0, 200.0])
    found = quality(asked_of(10), before, before, "int4", Limits(0.08, 0.03), 1.0)
    (tmp_path / "int4").mkdir()
    (tmp_path / "int4" / "README.md").write_text("---\nlicense: mit\n---\n\n# card\n")
    for _ in range(2):
        append_to_card(tmp_path / "int4", "int4", {"group_size": 32}, found)
    card = (tmp_path / "int4" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit") and card.count(HEADING) == 1
    assert "one scale for each 32 weights of a row" in card
    assert "above -8 points" in card and "**The limit was loosened by hand: pass@1 (usually 0.05).**" in card
    keep(tmp_path / "int4", {"size_bytes": 1}, found)
    path = keep(tmp_path / "m.gguf", {"size_bytes": 2}, None)
    kept = json.loads(path.read_text())
    assert kept["m.gguf"] == {"size_bytes": 2, "quality": "the same weights"}
    assert kept["int4"]["quality"]["default_limits_loosened"] == {"pass@1": 0.05}


def test_what_is_known_of_other_exports_is_not_lost_with_a_torn_file(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ('{"int8": {', "[]"):
        (tmp_path / "formats.json").write_text(content)
        assert main(["export", str(release), "--out", str(tmp_path / "m.gguf")]) == 2
        assert "formats.json" in capsys.readouterr().err
        assert (tmp_path / "formats.json").read_text() == content and not (tmp_path / "m.gguf").exists()


def test_an_exports_card_claims_no_results_of_the_release(tmp_path: Path) -> None:
    same = answered([True] * 10, [100.0, 200.0])
    found = quality(asked_of(10), same, same, "int4", Limits(0.5, 0.03), 1.0)
    front = {
        "license": "mit",
        "model-index": [{"name": "x", "results": [{"metrics": [{"name": "pass@1 " * 20, "value": 1}]}]}],
        "tags": ["model-index"],
    }
    for fields in (front, {key: front[key] for key in ("license", "tags", "model-index")}):
        text = yaml.safe_dump(fields, sort_keys=False)
        (tmp_path / "README.md").write_text(f"---\n{text}---\n\n# card\nmodel-index:\n")
        append_to_card(tmp_path, "int4", {"group_size": 32}, found)
        card = (tmp_path / "README.md").read_text()
        assert yaml.safe_load(card.split("---\n")[1]) == {"license": "mit", "tags": ["model-index"]}
        assert "# card\nmodel-index:\n" in card and HEADING in card


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError("65536 requested and 60288 written"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_with_its_place_and_leaves_nothing(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from derivatives.formats import gguf_file

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(gguf_file, "_compare", full)
    assert main(["export", str(release), "--out", str(tmp_path / "m.gguf")]) == 2
    assert f"--out: the disk of {tmp_path} is full; nothing was kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_no_modelfile_can_hold_is_told_before_any_work(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "release"
    shutil.copytree(release, other)
    (other / "chat_template.jinja").write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    (tmp_path / "out").mkdir()
    assert main(["export", str(other), "--out", str(tmp_path / "out" / "m.gguf")]) == 2
    assert "does not render ChatML" in capsys.readouterr().err and list((tmp_path / "out").iterdir()) == []


def test_what_was_released_says_which_evaluation_and_which_form(release: Path, tmp_path: Path) -> None:
    """With a second evaluation after the one that the release stands on, and a model that is not the last asked."""
    shutil.copytree(release, tmp_path / "release")
    folder = tmp_path / "release"
    line = json.loads((folder / "lineage.json").read_text())
    first = {"id": "evaluate", **line["stages"][0]}
    first["config"] = {**first["config"], "models": ["base", "sft", "rl"]}
    second = {**first, "id": "later", "config": {**first["config"], "id": "later", "judge": "math"}}
    line |= {"stages": [first, second], "released": {"model": "sft", "evaluation": "evaluate"}}
    (folder / "lineage.json").write_text(json.dumps(line))
    models = {"base": {"format": "chat"}, "sft": {"format": "few_shot"}, "rl": {"format": "chat"}}
    (folder / "evaluation.json").write_text(json.dumps({"models": models}))
    stage, _ = evaluation_of(folder)
    assert stage is not None and (stage.judge, form_of(folder)) == ("puzzles", "few_shot")


def test_answers_side_by_side_say_which_differ() -> None:
    found = side_by_side(asked_of(3), {"release": answered([1, 1, 0], []), "int4": answered([1, 0, 0], [])})
    assert found["formats"]["int4"] == {"correct": 1 / 3, "same_text": 2 / 3, "same_verdict": 2 / 3}
    assert [row["answers"]["int4"]["same_text"] for row in found["problems"]] == [True, False, True]


@pytest.mark.parametrize("given", ["pass@1", "pass@1=2", "pass@1=-0.1", "tokens=0.1", "pass@1=nan", "bits_per_byte=x"])
def test_an_allowed_loss_is_a_metric_and_a_share(given: str) -> None:
    with pytest.raises(UserError, match="--allow-loss: .*allowed: pass@1 or bits_per_byte"):
        allowed_losses([given])
    assert allowed_losses(["pass@1=0.08", "bits_per_byte=0.1"]) == {"pass@1": 0.08, "bits_per_byte": 0.1}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seedling as a release that was evaluated on two sets."""
    folder = tmp_path_factory.mktemp("made") / "release"
    export_model(SEEDLING_PATH, folder)
    tasks = tuple(TaskSource(name=name, split="heldout", count=30) for name in SETS)
    texts = folder.parent / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"def f{n}(x):\n    return x + {n}\n" * 20}) + "\n" for n in range(3)))
    stage = EvaluateStage(id="evaluate", models=("base",), tasks=tasks, judge="puzzles",
                          sampling=Sampling(max_new_tokens=24),
                          heldout_text=(CorpusSource(name=str(texts), split="all"),))  # fmt: skip
    line: dict[str, Any] = {"seed": 0, "stages": [{"kind": "evaluate", "config": stage.model_dump(mode="json")}]}
    (folder / "lineage.json").write_text(json.dumps(line))
    (folder / "evaluation.json").write_text(json.dumps({"models": {"base": {"format": "chat"}}}))
    (folder / "README.md").write_text("# seedling\n")
    return folder


def test_a_release_says_by_which_problems_it_was_judged(release: Path, tmp_path: Path) -> None:
    asked = questions_of(release, 10)
    assert [task.source for task in asked.tasks] == [SETS[0]] * 5 + [SETS[1]] * 5
    assert (asked.judge, asked.max_new_tokens, asked.form) == ("puzzles", 24, "chat")
    assert list(asked.texts) == ["texts.jsonl"] and len(asked.texts["texts.jsonl"]) == 3
    other = questions_of(release, 3, [TaskSource(name=SETS[0], split="heldout", count=3)], with_texts=False)
    assert len(other.tasks) == 3 and other.judge is None and other.texts == {}
    shutil.copyfile(release / "config.json", tmp_path / "config.json")
    with pytest.raises(UserError, match="does not say by which problems it was evaluated .*--tasks"):
        questions_of(tmp_path, 10)


@pytest.mark.slow
def test_the_command_measures_keeps_and_tells(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8"
    assert main(["export", str(release), "--to", "int8", "--out", str(out), "--problems", "6",
                 "--allow-loss", "pass@1=0.9", "--machine", "cpu"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "pass@1 on 6 held-out problems" in said and "bits per byte of texts.jsonl" in said
    assert "limits loosened by hand: pass@1" in said
    kept = json.loads((tmp_path / "formats.json").read_text())["int8"]
    assert kept["quality"]["problems"] == 6
    assert abs(kept["quality"]["bits_per_byte"]["texts.jsonl"]["rise"]["value"]) < 0.01
    assert HEADING in (out / "README.md").read_text()


@pytest.mark.slow
def test_an_export_over_its_limit_leaves_nothing(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(release), "--to", "int4", "--group-size", "64", "--out", str(tmp_path / "int4"),
                 "--problems", "2", "--allow-loss", "pass@1=0", "--max-divergence", "1"]) == 2  # fmt: skip
    said = capsys.readouterr().err
    assert "--to: int4 lost more than is allowed, so nothing was kept" in said
    assert "the lower end must exceed" in said  # no change does not exceed 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_formats_answer_the_same_problems_side_by_side(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf = pytest.importorskip("gguf")
    assert gguf is not None
    assert main(["export", str(release), "--out", str(tmp_path / "m.gguf")]) == 0  # bf16: nothing to measure
    assert "the very weights of the release" in capsys.readouterr().out
    assert json.loads((tmp_path / "formats.json").read_text())["m.gguf"]["quality"] == "the same weights"
    assert main(["formats", str(release), str(tmp_path / "m.gguf"), "--problems", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["problems"]) == 4 and found["formats"]["m.gguf"]["same_text"] == 1.0
    assert main(["formats", str(release), str(tmp_path / "m.gguf"), "--problems", "2"]) == 0
    assert "right answer" in capsys.readouterr().out
    assert main(["formats", str(release), str(tmp_path / "none")]) == 2


def test_bad_paths_are_told_before_any_work(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.gguf").touch()
    for arguments, said in (
        ([str(release), "--out", str(tmp_path / "there.gguf")], "exists"),
        ([str(release), "--out", str(tmp_path / "model.bin")], "does not end with .gguf"),
        ([str(release), "--out", str(tmp_path / "none" / "m.gguf")], "is no folder; make it"),
        ([str(tmp_path / "none")], "is no folder; give one that a release stage wrote"),
        ([str(release), "--to", "int8", "--allow-loss", "speed=1", "--out", str(tmp_path / "x")], "--allow-loss"),
    ):
        assert main(["export", *arguments]) == 2
        assert said in capsys.readouterr().err
