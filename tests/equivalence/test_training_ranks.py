"""Two ranks are one: the same curve and weights as a single process, from any checkpoint of either.

`python -m tests.equivalence.test_training_ranks FOLDER`, once per rank under the launcher, is the ranks' side.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from configs.errors import UserError
from configs.load import load_machine
from configs.settings.machine import Machine
from configs.stage import StageFile, StageInput, read_progress
from derivatives import dpo, pretrain, sft
from derivatives.training import checkpoint
from derivatives.training.loop import Trainer
from derivatives.training.preference import REFERENCE_FILE
from derivatives.training.ranks import TIMEOUT_VARIABLE
from tests.training_fixtures import sft_file, stage_file, write_checkpoint

ROOT = Path(__file__).parents[2]
DEADLINE_S = 1500
"""For a machine that has much else to do; a few seconds are usual."""
KILLED_AT = 5
TOLERANCES = [
    ("fp32", 1e-4), ("untied", 1e-4), ("pretrain", 1e-4), ("full", 1e-4), ("lora", 1e-4), ("dpo", 1e-3), ("bf16", 2e-2)
]  # fmt: skip
pytestmark = pytest.mark.timeout(2 * DEADLINE_S)


class Killed(BaseException):
    """Stands for a kill between two steps."""


def write_uneven(path: Path) -> Path:
    """Every eighth example has about thirty times the trained tokens of the others; the last step has one alone."""
    lines = []
    for number in range(41):
        completion = "".join(str((number * 7 + place) % 10) for place in range(100 if number % 8 == 0 else 2))
        lines.append(json.dumps({"prompt": f"{number} =", "completion": completion}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def corpus_file(base: Path, folder: Path) -> StageFile:
    """A pretrain stage over 30 random documents of 2 to 40 tokens."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 41, size=30)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    generator.integers(0, 256, size=lengths.sum()).astype("<u4").tofile(folder / "data" / "tokens.bin")
    np.save(folder / "data" / "documents.npy", np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    given = stage_file(base, kind="pretrain", data=["corpus"], batch_tokens=300, num_tokens=1500)
    corpus = StageInput(kind="corpus", path=str(folder))
    return given.model_copy(update={"inputs": {**given.inputs, "corpus": corpus}})


def write_pairs(path: Path) -> Path:
    """13 pairs, which two ranks cannot share evenly, of very different lengths."""
    lines = []
    for number in range(13):
        pair = {"prompt": f"{number} =", "chosen": str(number), "rejected": "9" * (1 + number * 5)}
        lines.append(json.dumps(pair) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    path.with_name("text.jsonl").write_text(json.dumps({"text": "The mill stands still. " * 30}) + "\n")
    return path


def dpo_file(base: Path, pairs: Path) -> StageFile:
    """5 steps; the last has one pair, so that a rank has none."""
    given: dict[str, Any] = {"kind": "dpo", "data": [str(pairs)], "batch_pairs": 3, "heldout_pairs": [str(pairs)]}
    text = [{"name": str(pairs.with_name("text.jsonl"))}]
    return stage_file(base, **given, heldout_text=text, evaluate_every=2, micro_batch_tokens=160, learning_rate=1e-3)


Stage = tuple[Callable[[StageFile, Path], None], StageFile]


def stages(folder: Path) -> dict[str, Stage]:
    """What is run, by one process and by two. 6 steps of sft, 5 of pretrain, a checkpoint after each second one."""
    base, uneven = folder / "base", folder / "uneven.jsonl"
    common: dict[str, Any] = {"micro_batch_tokens": 160, "learning_rate": 1e-3}
    return {
        "fp32": (sft.run, sft_file(base, uneven, **common)),
        "bf16": (sft.run, sft_file(base, uneven, precision="bf16", **common)),
        "untied": (sft.run, sft_file(folder / "untied", uneven, **common)),
        "full": (sft.run, sft_file(base, uneven, recompute="full", **common)),
        "lora": (sft.run, sft_file(base, uneven, lora={"rank": 4}, recompute="selective", **common)),
        "dpo": (dpo.run, dpo_file(base, folder / "pairs.jsonl")),
        "pretrain": (pretrain.run, corpus_file(base, folder / "corpus")),
    }


def ranked(given: StageFile) -> StageFile:
    machine = Machine(name="two-cpu", num_processes=2, num_threads=1)
    return given.model_copy(update={"machine": machine})


def run_until_killed(run: Callable[[StageFile, Path], None], given: StageFile, out: Path) -> None:
    """Run, but stop dead after a step, before its checkpoint."""
    out.mkdir(exist_ok=True)
    record = Trainer.record

    def stop(trainer: Trainer, **quantities: float) -> None:
        record(trainer, **quantities)
        if trainer.step == KILLED_AT:
            raise Killed

    Trainer.record = stop  # type: ignore[method-assign]
    try:
        run(given, out)
        raise AssertionError("the run came to its end")
    except Killed:
        pass
    finally:
        Trainer.record = record  # type: ignore[method-assign]


def in_ranks(folder: Path) -> None:
    """What each of two ranks does: all stages, then those that were killed, then some that must fail."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=DEADLINE_S))
    for name, (run, given) in stages(folder).items():
        (folder / f"{name}-2").mkdir(exist_ok=True)
        run(ranked(given), folder / f"{name}-2")
    run, given = stages(folder)["fp32"]
    run(ranked(given), folder / "one-then-two")
    run_until_killed(run, ranked(given), folder / "killed")
    dist.barrier()
    if dist.get_rank() == 0:
        for other in ("two-then-one", "spoilt"):
            shutil.copytree(folder / "killed", folder / other)
        flip_a_byte(folder / "spoilt" / "checkpoints" / "step-000004" / "shard-00001.pt")
    dist.barrier()
    run(ranked(given), folder / "killed")
    run(ranked(given), folder / "spoilt")
    fail_together(folder, ranked(given))
    dist.destroy_process_group()


def fail_together(folder: Path, given: StageFile) -> None:
    """A disk that is full for one rank, and data that no rank can read; each rank writes down how it ended."""
    rank, save = int(os.environ["RANK"]), torch.save
    found: list[str] = []

    def full(state: object, path: Path) -> None:
        if rank == 1 and "step-000004" in str(path):
            raise OSError(28, "No space left on device")
        save(state, path)

    torch.save = full
    missing = sft_file(folder / "base", folder / "nowhere.jsonl")
    for out, stage in ((folder / "full", given), (folder / "missing", ranked(missing))):
        out.mkdir(exist_ok=True)
        try:
            sft.run(stage, out)
            found.append("done")
        except (UserError, OSError, SystemExit) as error:
            found.append(f"{type(error).__name__}: {error}")
        dist.barrier()
    (folder / f"failures-{rank}.json").write_text(json.dumps(found))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of both kinds, in one launch of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    write_checkpoint(folder / "base")
    write_checkpoint(folder / "untied", tie_word_embeddings=False)
    write_uneven(folder / "uneven.jsonl")
    write_pairs(folder / "pairs.jsonl")
    run, given = stages(folder)["fp32"]
    run_until_killed(run, given, folder / "one-then-two")
    command = [sys.executable, "-m", "derivatives.training.launch", "--num-processes=2"]
    command += [sys.executable, "-W", "error::UserWarning", "-m", __spec__.name, str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    (folder / "said").write_text(done.stderr)
    assert done.returncode == 0, done.stderr[-4000:]
    for name, (run, given) in stages(folder).items():
        (folder / f"{name}-1").mkdir()
        run(given, folder / f"{name}-1")
    sft.run(stages(folder)["fp32"][1], folder / "two-then-one")
    return folder


def curve(out: Path) -> list[tuple[float, ...]]:
    """Step, loss, gradient norm, tokens and trained tokens of each step."""
    names = ("loss", "grad_norm", "tokens", "trained_tokens")
    kind = next((kind for kind in ("pretrain", "dpo") if out.name.startswith(kind)), "sft")
    return [(line["step"], *(line[f"{kind}/{name}"] for name in names)) for line in read_progress(out)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    """The same curve within a relative tolerance, and weights within a few of bf16's steps (they are stored so)."""
    assert len(curve(one)) == len(curve(other)) > 4
    for line, other_line in zip(curve(one), curve(other), strict=True):
        assert line[0] == other_line[0] and line[3:] == other_line[3:]
        assert line[1:3] == pytest.approx(other_line[1:3], rel=tolerance)
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name].float(), theirs[name].float(), rtol=2**-6, atol=20 * tolerance)


@pytest.mark.parametrize(("name", "tolerance"), TOLERANCES)
def test_two_ranks_train_as_one_process_does(folder: Path, name: str, tolerance: float) -> None:
    """Were losses averaged by rank, the uneven steps would differ by tens of percents."""
    assert_close(folder / f"{name}-1", folder / f"{name}-2", tolerance)
    names = sorted(path.name for path in (folder / f"{name}-1").rglob("*") if path.is_file())
    assert names == sorted(path.name for path in (folder / f"{name}-2").rglob("*") if path.is_file())


def test_some_steps_are_very_uneven_and_the_last_leaves_a_rank_without_rows(folder: Path) -> None:
    trained = [line[4] for line in curve(folder / "fp32-2")]
    assert len(trained) == 6 and trained[-1] in (3.0, 101.0)
    assert max(trained[:-1]) > 100


def test_a_run_of_two_ranks_resumes_bit_for_bit(folder: Path) -> None:
    assert curve(folder / "killed") == curve(folder / "fp32-2")
    ours, straight = weights(folder / "killed"), weights(folder / "fp32-2")
    assert all(torch.equal(ours[name], straight[name]) for name in straight)


def test_two_ranks_measure_the_pairs_that_one_process_does(folder: Path) -> None:
    heldout = ("heldout_loss", "heldout_margin", "heldout_accuracy", "heldout_bits/text.jsonl", "forgetting")
    for names in (("loss", "margin", "accuracy"), heldout):
        one, two = (
            [[line.get(f"dpo/{name}", 0.0) for name in names] for line in read_progress(folder / f"dpo-{num}")]
            for num in (1, 2)
        )
        assert len(one) == 5
        for ours, theirs in zip(one[1:], two[1:], strict=True):  # the first margins are 0 but for rounding
            assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-3)


def test_two_ranks_give_pairs_the_reference_that_one_process_does(folder: Path) -> None:
    """Of a model that is spread over both."""
    one, two = (load_file(folder / f"dpo-{num}" / REFERENCE_FILE)["log_probs"] for num in (1, 2))
    assert one.shape == (26, 2)  # 13 pairs, to train on and to measure
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)


def test_what_ranks_make_again_changes_no_bit(folder: Path) -> None:
    assert curve(folder / "full-2") == curve(folder / "fp32-2")
    ours, plain = weights(folder / "full-2"), weights(folder / "fp32-2")
    assert all(torch.equal(ours[tensor], plain[tensor]) for tensor in plain)


@pytest.mark.parametrize("name", ["one-then-two", "two-then-one"])
def test_a_checkpoint_is_read_by_another_number_of_ranks(folder: Path, name: str) -> None:
    assert_close(folder / name, folder / "fp32-1", 1e-4)
    before = "fp32-1" if name == "one-then-two" else "fp32-2"
    assert curve(folder / name)[:4] == curve(folder / before)[:4]


def test_a_shard_that_is_spoilt_on_one_rank_takes_all_back_to_the_step_before(folder: Path) -> None:
    assert "step-000004 cannot be read (the digest of shard-00001.pt is wrong)" in (folder / "said").read_text()
    assert curve(folder / "spoilt") == curve(folder / "fp32-2")


def test_a_disk_that_is_full_for_one_rank_leaves_the_checkpoint_before(folder: Path) -> None:
    found = [json.loads((folder / f"failures-{rank}.json").read_text())[0] for rank in range(2)]
    assert sorted(text.partition(":")[0] for text in found) == ["OSError", "SystemExit"]
    assert "SystemExit: 76" in found and any("No space left on device" in text for text in found)
    assert checkpoint.steps(folder / "full") == [2]
    assert [path.name for path in (folder / "full" / "checkpoints").iterdir()] == ["step-000002"]


def test_an_error_of_all_ranks_is_told_by_one_and_left_for_the_launcher(folder: Path) -> None:
    found = [json.loads((folder / f"failures-{rank}.json").read_text())[1] for rank in range(2)]
    assert "SystemExit: 76" in found
    (told,) = (text.removeprefix("UserError: ") for text in found if text.startswith("UserError"))
    assert told.startswith(f"data: {folder / 'nowhere.jsonl'} is no file")
    left = json.loads((folder / "missing" / "failure.json").read_text())
    assert left == {"exit_code": 2, "message": told}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "limit_s", "exit_code"), [(signal.SIGKILL, "600", 137), (signal.SIGSTOP, "20", 1)])
def test_a_rank_that_is_killed_or_hangs_ends_all_and_the_same_command_goes_on(
    tmp_path: Path, folder: Path, number: int, limit_s: str, exit_code: int
) -> None:
    """A rank that is gone ends the others at once, one that hangs after the time they wait for one another."""
    given = ranked(sft_file(folder / "base", folder / "uneven.jsonl", epochs=20.0, micro_batch_tokens=160))
    out = tmp_path / "out"
    (tmp_path / "stage.json").write_text(given.model_dump_json())
    process = start_ranks(tmp_path / "stage.json", out, limit_s)
    wait_for(lambda: len(read_progress(out)) >= 3)
    (second,) = (pid for pid in children_of(process.pid) if environment_of(pid).get("RANK") == "1")
    os.kill(second, number)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == exit_code, said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("rank ")]
    if number == signal.SIGKILL:
        assert lines[-1] == "rank 1 of 2 was killed by signal 9; the others were ended"
    else:
        assert len(lines) == 1 and lines[0].startswith("rank 0: another rank ended or did not answer")
    assert not children_of(process.pid) and not Path(f"/proc/{second}").exists()

    process = start_ranks(tmp_path / "stage.json", out, "600")
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    assert [line["step"] for line in read_progress(out)] == list(range(1, 104))  # 20 times 41 examples, 8 a step


@pytest.mark.slow
def test_accelerate_starts_ranks_too_and_their_error_reaches_the_flow(tmp_path: Path, folder: Path) -> None:
    """The launcher of eight-gpu with two processes, which find no GPU and are not asked to use one."""
    words = [word.replace("{python}", sys.executable) for word in load_machine("eight-gpu").launcher]
    words = ["--num_processes=2" if word.startswith("--num_processes") else word for word in words]
    given = stages(folder)["fp32"][1]
    missing = sft_file(folder / "base", folder / "nowhere.jsonl")
    codes = []
    for name, stage in (("good", ranked(given)), ("bad", ranked(missing))):
        (tmp_path / f"{name}.json").write_text(stage.model_dump_json())
        command = [
            *words,
            sys.executable,
            "-m",
            "derivatives.sft",
            str(tmp_path / f"{name}.json"),
            str(tmp_path / name),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        codes.append(done.returncode)
    assert codes == [0, 1], done.stderr
    assert curve(tmp_path / "good") == curve(folder / "fp32-2")
    assert done.stderr.count("is no file; give JSONL") == 1
    assert json.loads((tmp_path / "bad" / "failure.json").read_text())["exit_code"] == 2


def start_ranks(stage_json: Path, out: Path, limit_s: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "derivatives.training.launch", "--num-processes=2"]
    command += [sys.executable, "-m", "derivatives.sft", str(stage_json), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", TIMEOUT_VARIABLE: limit_s}
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(text) for text in path.read_text().split()] if path.exists() else []


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


if __name__ == "__main__":
    in_ranks(Path(sys.argv[1]))
