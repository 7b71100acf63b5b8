"""The rollout store: what is written is read back, whole or not at all, and can be judged again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import derivatives.seedling
from configs.errors import UserError
from configs.settings.reinforcement import RlStage
from configs.stage import StageFile, StageInput
from derivatives.rollout.engine import Completion, text_of
from derivatives.rollout.judged import Judged, Rolled
from derivatives.rollout.store import RolloutStore, read_problems, steps_of
from derivatives.rollout.stored import StoredRollouts, rescore
from derivatives.training.model import load_tokenizer
from flows.cli import main
from verifiers.api import Outcome, Task, Verdict, correct, incorrect, no_verdict

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
TOKENIZER = load_tokenizer(CHECKPOINT)
STOP = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
TASKS = [
    Task("a", "What is 1 + 1?", "2", metadata={"family": "x"}),
    Task("b", "½ of 8?", "4", "exact"),
    Task("c", "3 + 3?", "6"),
]


def drawn(text: str, verdict: Verdict, *more: Verdict, audit: Verdict | None = None, cut: bool = False) -> Judged:
    ids = [*TOKENIZER.encode(text, add_special_tokens=False), *([] if cut else [STOP])]
    reason = "length" if cut else "stop"
    log_probs = [-0.125 * place for place in range(len(ids))]
    return Judged(Completion(ids, log_probs, reason, text_of(TOKENIZER, ids, reason)), verdict, more, audit)


ROLLED = Rolled(
    [1, 0],
    [
        [
            drawn("so \\boxed{4}", correct("4", "same_number"), correct(), audit=correct("4", "same")),
            drawn("it is 4", incorrect("no_box", "½", 0.25), incorrect("format")),
        ],
        [
            drawn("and on and on", incorrect("truncated"), incorrect("truncated"), cut=True),
            drawn("\\boxed{2.0}", no_verdict("worker_died"), correct()),
        ],
    ],
    [0],
)
REWARDS = [[1.5, 0.25], [-1.0, None]]


def write(out: Path, *steps: int) -> RolloutStore:
    store = RolloutStore(out, "run", ["math", "format"], "exact")
    store.write_problems(TASKS)
    for step in steps:
        store.write(step, ROLLED, REWARDS)
    return store


def write_stage(out: Path) -> None:
    stage = RlStage(id="rl", data=("p.jsonl",), steps=2, learning_rate=1e-3)
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    (out / "stage.json").write_text(StageFile(recipe="t", stage=stage, model="base", inputs=inputs).model_dump_json())


def test_a_step_comes_back_as_it_was(tmp_path: Path) -> None:
    store = write(tmp_path, 3)
    assert store.read(3, [1, 0], TOKENIZER) == ROLLED
    assert read_problems(tmp_path / "rollouts") == TASKS


def test_a_step_of_other_problems_or_another_run_is_not_given_back(tmp_path: Path) -> None:
    store = write(tmp_path, 3)
    assert store.read(3, [1], TOKENIZER) == ROLLED  # what came after the first was put in its place
    assert store.read(3, [0, 1], TOKENIZER) is None and store.read(4, [1, 0], TOKENIZER) is None
    assert RolloutStore(tmp_path, "another", ["math"]).read(3, [1, 0], TOKENIZER) is None


@pytest.mark.parametrize("length", [0, 100, 1000, -1])
def test_a_file_that_was_cut_is_as_good_as_none(tmp_path: Path, length: int) -> None:
    store = write(tmp_path, 3)
    store.path(3).write_bytes(store.path(3).read_bytes()[:length])
    assert store.read(3, [1, 0], TOKENIZER) is None


def test_equal_rollouts_are_equal_bytes_whatever_the_judging_took(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", 1), write(tmp_path / "b")
    slow = [[Judged(o.completion, Verdict(**{**vars(o.verdict), "seconds": 9.0}), o.more, o.audit) for o in group]
            for group in ROLLED.groups]  # fmt: skip
    second.write(1, Rolled(ROLLED.problems, slow, ROLLED.trained), REWARDS)
    assert first.path(1).read_bytes() == second.path(1).read_bytes()


def test_what_a_kill_left_half_written_is_no_step(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "rollouts" / ".step-000002.npz.77.partial").write_bytes(b"half")
    assert steps_of(tmp_path / "rollouts") == [1]
    write(tmp_path)
    assert not list((tmp_path / "rollouts").glob(".*"))


def test_steps_are_dropped_evenly_but_none_that_a_checkpoint_needs(tmp_path: Path) -> None:
    store = write(tmp_path, *range(1, 11))
    store.drop(before=7, keep=4, num_steps=10)  # every third
    assert steps_of(store.folder) == [1, 4, 7, 8, 9, 10]
    store.drop(before=11, keep=4, num_steps=10)
    assert steps_of(store.folder) == [1, 4, 7, 10]
    store.drop(before=11, keep=0, num_steps=10)
    assert steps_of(store.folder) == []


def test_a_reader_has_problems_texts_verdicts_and_rewards(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    write_stage(tmp_path)
    stored = StoredRollouts(tmp_path)
    found = list(stored.completions(first=2))
    assert stored.steps == [1, 2] and len(found) == 4
    row = found[0].row()
    assert (row["prompt"], row["answer"], row["completion"]) == ("½ of 8?", "4", "so \\boxed{4}")
    assert (row["outcome"], row["more"]["format"]["outcome"], row["audit"]["reason"]) == ("correct", "correct", "same")
    assert [one.reward for one in found] == [1.5, 0.25, -1.0, None]
    assert [one.trained for one in found] == [True, True, False, False]
    assert found[2].row(tokens=True)["token_ids"] == ROLLED.groups[1][0].completion.token_ids
    json.dumps([one.row(True) for one in found])


def test_a_folder_without_a_store_and_a_damaged_step_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no rollout store .* name a run with an rl stage"):
        StoredRollouts(tmp_path)
    store = write(tmp_path, 1)
    write_stage(tmp_path)
    store.path(1).write_bytes(b"PK")
    with pytest.raises(UserError, match="step-000001.npz: cannot be read"):
        list(StoredRollouts(tmp_path).completions())


def test_another_verifier_judges_all_but_what_was_cut(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write_stage(tmp_path)
    again = [(one.sample, verdict.outcome) for one, verdict in rescore(StoredRollouts(tmp_path), "exact", 1)]
    # `2.0` is not `2` to the letter, `it is 4` has no box, and the cut one is not asked.
    assert again == [(0, Outcome.CORRECT), (1, Outcome.INCORRECT), (1, Outcome.INCORRECT)]


def test_the_command_exports_lines_that_can_be_judged_and_counts_changed_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 1)
    write_stage(tmp_path)
    lines, changed = tmp_path / "lines.jsonl", tmp_path / "changed.jsonl"
    assert main(["rollouts", "export", str(tmp_path), str(lines), "--steps", "1:1"]) == 0
    assert len(lines.read_text().splitlines()) == 4
    assert main(["verifiers", "judge", "math", str(lines), str(tmp_path / "judged.jsonl"), "--workers", "1"]) == 0
    judged = [json.loads(line)["outcome"] for line in (tmp_path / "judged.jsonl").read_text().splitlines()]
    assert judged[0] == judged[3] == "correct"  # to the math verifier 2.0 is 2
    capsys.readouterr()
    words = ["rollouts", "rescore", str(tmp_path), "exact", "--workers", "1", "--out", str(changed), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["completions"], found["changed"]) == (3, 1)
    assert {"was": "no_verdict", "is": "incorrect", "count": 1} in found["labels"]
    assert json.loads(changed.read_text())["exact"]["reason"] == "other_text"
    assert main(["rollouts", "export", str(tmp_path), str(lines)]) == 2
    assert "lines.jsonl exists" in capsys.readouterr().err


def test_steps_that_make_no_range_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["rollouts", "export", "x", "y.jsonl", "--steps", "9:3"])
    assert "'9:3'; allowed: FIRST:LAST" in capsys.readouterr().err
