"""Four ranks are one, checkpoints go from any number of ranks to any other, and what is read and written is the same.

`python -m tests.equivalence.test_training_more_ranks FOLDER PHASE`, once per rank under the launcher, is their side.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from configs.errors import UserError
from configs.settings.machine import Machine
from configs.stage import StageFile
from derivatives import sft
from derivatives.training import spread
from derivatives.training.model import load_model, save_model
from derivatives.training.ranks import Ranks
from derivatives.training.sharding import shard
from derivatives.training.spread import open_spread, read_rows, write_spread
from tests.equivalence.test_training_ranks import (
    DEADLINE_S,
    ROOT,
    assert_close,
    curve,
    run_until_killed,
    weights,
    write_uneven,
)
from tests.training_fixtures import sft_file, write_checkpoint

VOCABULARY = 275
"""No multiple of 2 or 4: the last rank's share of the embedding is shorter."""
PHASES = ((2, "two"), (4, "four"), (2, "back"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * DEADLINE_S)]


def given_file(folder: Path, name: str, num: int = 1) -> StageFile:
    machine = Machine(name=f"{num}-cpu", num_processes=num, num_threads=1)
    given = sft_file(folder / f"base-{name}", folder / "uneven.jsonl", micro_batch_tokens=160, learning_rate=1e-3)
    return given.model_copy(update={"machine": machine})


def in_ranks(folder: Path, phase: str) -> None:
    """What each rank does. `two`: runs, and one that is killed. `four`: goes on with that, runs, is killed. `back`."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=DEADLINE_S))
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    num = ranks.num
    if phase == "back":
        sft.run(given_file(folder, "tied", 2), folder / "4-then-2")
    else:
        through_files(folder, ranks)
        for name in ("tied", "untied"):
            (folder / f"{name}-{num}").mkdir(exist_ok=True)
            sft.run(given_file(folder, name, num), folder / f"{name}-{num}")
        run_until_killed(sft.run, given_file(folder, "tied", num), folder / f"killed-{num}")
        dist.barrier()
        if ranks.first:
            for other in {2: (1, 4), 4: (1, 2)}[num]:
                shutil.copytree(folder / f"killed-{num}", folder / f"{num}-then-{other}")
        dist.barrier()
        if phase == "four":
            sft.run(given_file(folder, "tied", 4), folder / "2-then-4")
    dist.destroy_process_group()


def through_files(folder: Path, ranks: Ranks) -> None:
    """Read each base in rows, note what a rank holds, write it again; then bases that are not whole."""
    for name in ("tied", "untied", "parts"):
        out = folder / f"again-{name}-{ranks.num}"
        out.mkdir(exist_ok=True)
        model, tokenizer = open_spread(folder / f"base-{name}", "bf16", "cpu")
        shard(model, "cpu", ranks)
        read_rows(model, folder / f"base-{name}", "bf16", ranks)
        held = {name: list(weight.to_local().shape) for name, weight in model.named_parameters()}  # type: ignore[operator]
        (out / f"held-{ranks.rank}.json").write_text(json.dumps(held))
        save_file({"inv_freq": model.base_model.rotary_emb.inv_freq}, out / f"rotary-{ranks.rank}.safetensors")
        with pytest.MonkeyPatch.context() as patch:
            if name == "parts":
                patch.setattr(spread, "FILE_BYTES", 10_000)
            write_spread(model, tokenizer, out, None, "bf16", ranks)
    found = []
    for name in ("lacking", "misshapen", "cut", "nan"):
        model, _ = open_spread(folder / f"base-{name}", "bf16", "cpu")
        shard(model, "cpu", ranks)
        try:
            read_rows(model, folder / f"base-{name}", "bf16", ranks)
            found.append("read")
        except UserError as error:
            found.append(str(error))
    (folder / f"errors-{ranks.num}-{ranks.rank}.json").write_text(json.dumps(found))


def write_bases(folder: Path) -> None:
    write_checkpoint(folder / "base-tied", vocab_size=VOCABULARY)
    write_checkpoint(folder / "base-untied", vocab_size=VOCABULARY, tie_word_embeddings=False)
    write_checkpoint(folder / "base-parts", vocab_size=VOCABULARY)
    whole = load_file(folder / "base-parts" / "model.safetensors")
    for number in range(2):  # as the larger Qwen2.5 come: several files
        part = {name: tensor for place, (name, tensor) in enumerate(sorted(whole.items())) if place % 2 == number}
        save_file(part, folder / "base-parts" / f"model-{number + 1:05d}-of-00002.safetensors", {"format": "pt"})
    (folder / "base-parts" / "model.safetensors").unlink()
    for name in ("lacking", "misshapen", "cut", "nan"):
        shutil.copytree(folder / "base-tied", folder / f"base-{name}")
    path = "model.safetensors"
    norm = "model.layers.1.mlp.down_proj.weight"
    tied = load_file(folder / "base-tied" / path)
    save_file({name: tensor for name, tensor in tied.items() if name != norm}, folder / "base-lacking" / path)
    save_file({**tied, norm: tied[norm][:, :-1].contiguous()}, folder / "base-misshapen" / path)
    spoilt = {**tied, norm: torch.full_like(tied[norm], float("nan"))}
    save_file(spoilt, folder / "base-nan" / path)
    content = (folder / "base-tied" / path).read_bytes()
    (folder / "base-cut" / path).write_bytes(content[: len(content) // 2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three launches, then one process alone."""
    folder = tmp_path_factory.mktemp("more")
    write_bases(folder)
    write_uneven(folder / "uneven.jsonl")
    for num, phase in PHASES:
        command = [sys.executable, "-m", "derivatives.training.launch", f"--num-processes={num}"]
        command += [sys.executable, "-W", "error::UserWarning", "-m", __spec__.name, str(folder), phase]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
    for name in ("tied", "untied"):
        (folder / f"{name}-1").mkdir()
        sft.run(given_file(folder, name), folder / f"{name}-1")
    for out in ("2-then-1", "4-then-1"):
        sft.run(given_file(folder, "tied"), folder / out)
    return folder


@pytest.mark.parametrize("num", [2, 4])
@pytest.mark.parametrize("name", ["tied", "untied"])
def test_any_number_of_ranks_trains_as_one_process_does(folder: Path, name: str, num: int) -> None:
    assert_close(folder / f"{name}-1", folder / f"{name}-{num}", 1e-4)


@pytest.mark.parametrize("name", ["2-then-1", "2-then-4", "4-then-1", "4-then-2"])
def test_a_checkpoint_of_some_ranks_is_read_by_any_other_number(folder: Path, name: str) -> None:
    assert_close(folder / name, folder / "tied-1", 1e-4)
    assert curve(folder / name)[:4] == curve(folder / f"tied-{name[0]}")[:4]


@pytest.mark.parametrize("num", [2, 4])
@pytest.mark.parametrize("name", ["tied", "untied"])
def test_what_ranks_read_and_write_again_are_the_files_of_one_process(folder: Path, name: str, num: int) -> None:
    ours, base = folder / f"again-{name}-{num}" / "model", folder / "ordinary"
    save_model(*load_model(folder / f"base-{name}", "bf16"), base)
    assert sorted(path.name for path in ours.iterdir()) == sorted(path.name for path in base.iterdir())
    for path in base.iterdir():
        assert (ours / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("num", [2, 4])
def test_large_models_are_read_from_and_written_to_several_files(folder: Path, num: int) -> None:
    out = folder / f"again-parts-{num}" / "model"
    index = json.loads((out / "model.safetensors.index.json").read_text())
    whole = weights(folder / f"again-tied-{num}")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    assert index["weight_map"].keys() == whole.keys() and len(set(index["weight_map"].values())) > 3
    for name, file in index["weight_map"].items():
        with safe_open(out / file, framework="pt") as opened:
            assert torch.equal(opened.get_tensor(name), whole[name])
    model, _ = load_model(out, "bf16")
    assert torch.equal(model.state_dict()["model.embed_tokens.weight"], whole["model.embed_tokens.weight"])


@pytest.mark.parametrize("num", [2, 4])
def test_a_rank_holds_its_rows_and_the_rotation_of_the_model(folder: Path, num: int) -> None:
    model, _ = load_model(folder / "base-untied", "bf16")
    held: list[dict[str, Any]] = []
    for rank in range(num):
        out = folder / f"again-untied-{num}"
        held.append(json.loads((out / f"held-{rank}.json").read_text()))
        frequencies = load_file(out / f"rotary-{rank}.safetensors")["inv_freq"]
        assert torch.equal(frequencies, model.base_model.rotary_emb.inv_freq)
    for name, weight in model.named_parameters():
        assert sum(one[name][0] for one in held) == len(weight)
        assert max(one[name][0] for one in held) == -(-len(weight) // num)


@pytest.mark.parametrize("num", [2, 4])
def test_a_checkpoint_that_is_not_whole_is_named(folder: Path, num: int) -> None:
    told = ["lacks 1 tensors of the right shape (model.layers.1.mlp.down_proj.weight, ...)"] * 2
    told += ["the file is damaged or cut short", "model.layers.1.mlp.down_proj.weight in"]
    for rank in range(num):
        found = json.loads((folder / f"errors-{num}-{rank}.json").read_text())
        assert len(found) == len(told)
        assert all(text in error for text, error in zip(told, found, strict=True))


if __name__ == "__main__":
    in_ranks(Path(sys.argv[1]), sys.argv[2])
