"""Layers cut over ranks train as whole ones do, and a checkpoint goes from any mesh of ranks to any other.

`python -m tests.equivalence.test_training_tensor FOLDER NUM`, once per rank under the launcher, is the ranks' side.
A mesh is written data x tensor.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from configs.errors import UserError
from configs.settings.machine import Machine
from configs.settings.training import Lora
from configs.stage import StageFile, read_progress
from derivatives import dpo, pretrain, sft
from derivatives.training import attention
from derivatives.training.attention import leak_probe
from derivatives.training.loop import Trainer
from derivatives.training.lora import add_adapters
from derivatives.training.model import load_model
from derivatives.training.preference import REFERENCE_FILE
from derivatives.training.ranks import Ranks
from derivatives.training.recompute import recompute_layers
from derivatives.training.spread import open_spread, two_layers
from derivatives.training.tensor_parallel import cut
from tests.equivalence.test_training_leak import MIXED, PRECISIONS, Reaching
from tests.equivalence.test_training_ranks import (
    DEADLINE_S,
    ROOT,
    Killed,
    assert_close,
    corpus_file,
    curve,
    dpo_file,
    weights,
    write_pairs,
    write_uneven,
)
from tests.training_fixtures import sft_file, write_checkpoint

VOCABULARY = 275
"""No multiple of 2 or 4, as the last rows of the embedding are shared by all ranks."""
PLAIN = ("fp32", "untied", "selective", "lora", "pretrain", "dpo", "bf16")
TOLERANCES = {"dpo": 1e-3, "bf16": 2e-2}
"""Relative, of losses and gradient norms; 1e-4 for all others."""
CHAIN = ((3, "1x1"), (5, "2x2"), (7, "4x1"), (9, "1x2"), (11, "1x1"))
"""One run through several meshes: up to which step each goes; the checkpoint before that is what the next one finds."""
pytestmark = pytest.mark.timeout(4 * DEADLINE_S)

Stage = tuple[Callable[[StageFile, Path], None], StageFile]


def stages(folder: Path) -> dict[str, Stage]:
    """What is run by one process and by several: 6 steps of sft, 5 of others, a checkpoint after each second one."""
    base, uneven = folder / "base", folder / "uneven.jsonl"
    common: dict[str, Any] = {"micro_batch_tokens": 160, "learning_rate": 1e-3}
    adapters = {"rank": 4, "dropout": 0.0}
    return {
        "fp32": (sft.run, sft_file(base, uneven, **common)),
        "bf16": (sft.run, sft_file(base, uneven, precision="bf16", recompute="selective", **common)),
        "untied": (sft.run, sft_file(folder / "untied", uneven, **common)),
        "full": (sft.run, sft_file(base, uneven, recompute="full", **common)),
        "selective": (sft.run, sft_file(base, uneven, recompute="selective", **common)),
        "lora": (sft.run, sft_file(base, uneven, lora=adapters, recompute="selective", **common)),
        "dropout": (sft.run, sft_file(base, uneven, lora={**adapters, "dropout": 0.3}, **common)),
        "dpo": (dpo.run, dpo_file(base, folder / "pairs.jsonl")),
        "pretrain": (pretrain.run, corpus_file(base, folder / "corpus")),
        "chain": (sft.run, sft_file(base, uneven, epochs=2.0, **common)),
    }


def on_mesh(given: StageFile, mesh: str) -> StageFile:
    num_data, tensor = map(int, mesh.split("x"))
    machine = Machine(name="cpu", num_processes=num_data * tensor, tensor_parallel=tensor, num_threads=1)
    return given.model_copy(update={"machine": machine})


def run_on(folder: Path, name: str, mesh: str) -> None:
    run, given = stages(folder)[name]
    out = folder / f"{name}-{mesh}"
    out.mkdir(exist_ok=True)
    run(on_mesh(given, mesh), out)


def run_until(folder: Path, name: str, mesh: str, out: Path, step: int) -> None:
    """Run, but stop dead after a step, if it is not the last."""
    run, given = stages(folder)[name]
    out.mkdir(exist_ok=True)
    record = Trainer.record

    def stop(trainer: Trainer, **quantities: float) -> None:
        record(trainer, **quantities)
        if trainer.step == step < trainer.total:
            raise Killed

    Trainer.record = stop  # type: ignore[method-assign]
    try:
        run(on_mesh(given, mesh), out)
    except Killed:
        pass
    finally:
        Trainer.record = record  # type: ignore[method-assign]


def in_ranks(folder: Path, num: int) -> None:
    """What each rank does."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=DEADLINE_S))
    if num == 2:
        run_on(folder, "fp32", "1x2")
        run_until(folder, "fp32", "1x2", folder / "killed-1x2", 5)
        dist.barrier()
        run_until(folder, "fp32", "1x2", folder / "killed-1x2", 100)
        fail_together(folder, "2x1", on_mesh(stages(folder)["fp32"][1], "1x2"), folder / "odd")
    else:
        for name in (*PLAIN, "full", "dropout"):
            run_on(folder, name, "2x2")
        for name in ("fp32", "dropout"):
            run_until(folder, name, "2x2", folder / f"killed-{name}", 5)
            dist.barrier()
            run_until(folder, name, "2x2", folder / f"killed-{name}", 100)
        probe_leaks(folder)
    for step, mesh in CHAIN:
        if on_mesh(stages(folder)["fp32"][1], mesh).machine.num_processes == num:
            run_until(folder, "chain", mesh, folder / f"chain-{num}", step)
            dist.barrier()
    dist.destroy_process_group()


def fail_together(folder: Path, name: str, given: StageFile, base: Path) -> None:
    """A model whose heads cannot be cut; each rank writes down how it ended."""
    inputs = {"base": given.inputs["base"].model_copy(update={"path": str(base)})}
    out = folder / f"fails-{name}"
    out.mkdir(exist_ok=True)
    try:
        sft.run(given.model_copy(update={"inputs": inputs}), out)
        found = "done"
    except (UserError, SystemExit) as error:
        found = f"{type(error).__name__}: {error}"
    (folder / f"fails-{name}-{dist.get_rank()}.json").write_text(json.dumps(found))


def probe_leaks(folder: Path) -> None:
    """The probe on cut layers, as a stage runs it and with a fault in one rank's heads."""
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), tensor=2)
    attention.PROBE_LENGTHS = (*attention.PROBE_LENGTHS, *MIXED)
    found: dict[str, float] = {}
    modes: list[tuple[Any, Any]] = [(precision, mode) for precision in PRECISIONS for mode in ("none", "selective")]
    for precision, recompute in modes:
        model, _ = open_spread(folder / "base", precision, "cpu")
        probed = two_layers(model, precision, "cpu")
        if recompute == "selective":
            add_adapters(probed, Lora(rank=4), 0)
        recompute_layers(probed, recompute)
        cut(probed, ranks)
        found[f"{precision} {recompute}"] = leak_probe(probed)
        right = attention.packed_attention

        def reaching(q: Any, k: Any, v: Any, packing: Any, scale: float, right: Any = right) -> Any:
            return right(q, k, Reaching.apply(v) if ranks.tensor_rank == 1 else v, packing, scale)

        attention.packed_attention = reaching
        found[f"{precision} {recompute} broken"] = leak_probe(probed)
        attention.packed_attention = right
    (folder / f"leaks-{ranks.rank}.json").write_text(json.dumps(found))


def launch(folder: Path, num: int) -> None:
    command = [sys.executable, "-m", "derivatives.training.launch", f"--num-processes={num}"]
    command += [sys.executable, "-W", "error::UserWarning", "-m", __spec__.name, str(folder), str(num)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all runs start from, and those of one process that everything is compared with."""
    folder = tmp_path_factory.mktemp("tensor")
    write_checkpoint(folder / "base", vocab_size=VOCABULARY)
    write_checkpoint(folder / "untied", vocab_size=VOCABULARY, tie_word_embeddings=False)
    write_checkpoint(folder / "odd", num_key_value_heads=1)
    write_uneven(folder / "uneven.jsonl")
    write_pairs(folder / "pairs.jsonl")
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    """Two ranks that share each layer."""
    run_on(folder, "fp32", "1x1")
    run_until(folder, "chain", "1x1", folder / "chain-2", 3)
    launch(folder, 2)
    return folder


@pytest.fixture(scope="module")
def four(two: Path) -> Path:
    """Two pairs of such ranks; then the chain's other meshes."""
    for name in (*PLAIN, "chain"):
        run_on(two, name, "1x1")
    run_until(two, "chain", "1x1", two / "chain-4", 3)
    launch(two, 4)
    shutil.rmtree(two / "chain-2")
    shutil.copytree(two / "chain-4", two / "chain-2")
    launch(two, 2)
    shutil.copytree(two / "chain-2", two / "chain")
    run_until(two, "chain", "1x1", two / "chain", 11)
    return two


def test_two_ranks_that_share_each_layer_train_as_one_process_does(two: Path) -> None:
    """Losses, gradient norms, counts and weights; and the same files."""
    assert_close(two / "fp32-1x1", two / "fp32-1x2", 1e-4)
    names = sorted(path.name for path in (two / "fp32-1x1").rglob("*") if path.is_file())
    assert names == sorted(path.name for path in (two / "fp32-1x2").rglob("*") if path.is_file())


def test_a_killed_run_of_one_mesh_resumes_bit_for_bit(two: Path) -> None:
    assert curve(two / "killed-1x2") == curve(two / "fp32-1x2")
    ours, straight = weights(two / "killed-1x2"), weights(two / "fp32-1x2")
    assert all(torch.equal(ours[name], straight[name]) for name in straight)


def test_the_written_model_is_a_plain_one(two: Path) -> None:
    model, _ = load_model(two / "fp32-1x2" / "model", "bf16")
    base, _ = load_model(two / "base", "bf16")
    assert {name: weight.shape for name, weight in model.named_parameters()} == {
        name: weight.shape for name, weight in base.named_parameters()
    }


@pytest.mark.slow
def test_the_reference_of_preferences_is_that_of_one_process(four: Path) -> None:
    one, other = (load_file(four / f"dpo-{mesh}" / REFERENCE_FILE)["log_probs"] for mesh in ("1x1", "2x2"))
    assert one.shape == other.shape == (26, 2)  # 13 pairs, which are measured as well
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


def test_a_model_that_cannot_be_cut_is_named_once(two: Path) -> None:
    found = [json.loads((two / f"fails-2x1-{rank}.json").read_text()) for rank in range(2)]
    assert "SystemExit: 76" in found
    (told,) = (text.removeprefix("UserError: ") for text in found if text.startswith("UserError"))
    assert told.startswith(
        "machine.tensor_parallel: 2 does not divide the model's num_key_value_heads = 1; allowed: 1; lower it"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_two_pairs_of_ranks_train_as_one_process_does(four: Path, name: str) -> None:
    assert_close(four / f"{name}-1x1", four / f"{name}-2x2", TOLERANCES.get(name, 1e-4))


@pytest.mark.slow
def test_what_pairs_of_ranks_make_again_changes_no_bit(four: Path) -> None:
    assert curve(four / "full-2x2") == curve(four / "fp32-2x2")
    ours, plain = weights(four / "full-2x2"), weights(four / "fp32-2x2")
    assert all(torch.equal(ours[tensor], plain[tensor]) for tensor in plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp32", "dropout"])
def test_a_killed_run_of_pairs_resumes_bit_for_bit(four: Path, name: str) -> None:
    assert curve(four / f"killed-{name}")[-1] == curve(four / f"{name}-2x2")[-1]
    ours, straight = weights(four / f"killed-{name}"), weights(four / f"{name}-2x2")
    assert all(torch.equal(ours[tensor], straight[tensor]) for tensor in straight)


@pytest.mark.slow
def test_a_checkpoint_goes_from_any_mesh_to_any_other(four: Path) -> None:
    """One process, 2x2, 4x1, 1x2, one process: the curve and the weights of one that was never stopped."""
    assert_close(four / "chain", four / "chain-1x1", 1e-4)
    assert [line["step"] for line in read_progress(four / "chain")] == list(range(1, 12))


@pytest.mark.slow
def test_no_trace_of_one_document_is_in_another_where_layers_are_cut(four: Path) -> None:
    """A fault in the heads of one rank is seen by all."""
    every = [json.loads((four / f"leaks-{rank}.json").read_text()) for rank in range(4)]
    assert every[1:] == every[:-1] and len(every[0]) == 8
    for name, trace in every[0].items():
        assert (trace > 0.0) == name.endswith("broken"), name


@pytest.mark.slow
def test_adapters_of_cut_layers_are_written_whole(four: Path) -> None:
    ours, one = (load_file(four / f"lora-{mesh}" / "adapter" / "adapter_model.safetensors") for mesh in ("2x2", "1x1"))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in one.items()}
    for name, value in one.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-2, atol=1e-3)


if __name__ == "__main__":
    in_ranks(Path(sys.argv[1]), int(sys.argv[2]))
