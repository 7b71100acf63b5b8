"""Checks before a run: what is ok, what a person should know, what would not run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from configs.settings.corpus import CorpusStage
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.settings.training import SftStage
from derivatives.planning.amounts import Amount
from derivatives.planning.checks import (
    check_base,
    check_disk,
    check_licence,
    check_positions,
    disk_bytes,
    facts_of,
)
from derivatives.planning.devices import device_of, own_memory
from derivatives.planning.predict import Asked, load_of
from derivatives.planning.shape import QWEN_SHAPES, read_shape
from derivatives.planning.speed import TrainWork

SEEDLING = Path(__file__).parents[2] / "derivatives" / "seedling" / "checkpoint"
CPU = device_of(Machine(name="cpu"))


def sft(**fields: object) -> SftStage:
    return SftStage.model_validate({"id": "sft", "kind": "sft", "data": ["x.jsonl"], "learning_rate": 1e-5, **fields})


def states(folder: Path) -> dict[str, tuple[str, str]]:
    found = check_base("base", folder, read_shape(folder), facts_of(folder))
    return {check.name: (check.state, check.text) for check in found}


def test_the_seedling_passes_with_padding_and_both_ends_told() -> None:
    found = states(SEEDLING)
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["vocabulary"][1] == "2,048 rows for 2,040 tokens, 8 of them padding that is never drawn"
    assert found["tied embeddings"][1] == "embeddings are tied, as config.json says"
    assert found["chat template"][1] == "its own"
    assert "drawing stops at 2033 and 2031" in found["stop tokens"][1]


def test_a_checkpoint_without_template_gets_chatml(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SEEDLING, tmp_path / "base"))
    (folder / "chat_template.jinja").unlink()
    assert states(folder)["chat template"] == ("ok", "none; plain ChatML is taken and written")


def test_what_a_stage_would_end_with_is_refused_with_the_same_line(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SEEDLING, tmp_path / "base"))
    (folder / "tokenizer.json").write_text('{"model": {"type": "none of these"}}')
    state, text = states(folder)["base"]
    assert state == "refused"
    assert text.startswith(f"model: the tokenizer in {folder} cannot be read")


def test_a_tokenizer_larger_than_the_embedding_is_refused() -> None:
    facts = {**facts_of(SEEDLING), "num_real_tokens": 3000}
    found = {check.name: check for check in check_base("base", SEEDLING, read_shape(SEEDLING), facts)}
    assert found["vocabulary"].state == "refused"
    assert found["vocabulary"].text == "the tokenizer has 3,000 tokens, the embedding 2,048 rows"


def test_a_base_that_is_not_here_is_judged_by_what_is_published() -> None:
    found = check_base("Qwen/Qwen2.5-7B", None, QWEN_SHAPES["7B"], None)
    assert {check.name: check.text for check in found}["vocabulary"].startswith("152,064 rows for 151,665 tokens, 399")


def test_documents_beyond_the_positions_are_a_warning_and_completions_a_refusal() -> None:
    rl = RlStage.model_validate(
        {"id": "rl", "kind": "rl", "data": ["x.jsonl"], "learning_rate": 1e-6, "steps": 1,
         "sampling": {"max_new_tokens": 4096}}
    )  # fmt: skip
    found = check_positions([sft(max_length=4096), rl], read_shape(SEEDLING))
    assert [(check.state, check.text) for check in found] == [
        ("warning", "sft: sft.max_length 4,096 exceeds the 2,048 positions of the model"),
        ("refused", "rl: rl.sampling.max_new_tokens 4,096 exceeds the 2,048 positions of the model"),
    ]
    assert [check.state for check in check_positions([sft()], read_shape(SEEDLING))] == ["ok"]


def test_the_licence_is_what_base_and_data_come_to() -> None:
    corpus = CorpusStage.model_validate(
        {"id": "examples", "kind": "corpus", "output": "examples", "sources": [{"name": "gsm8k"}]}
    )
    found = check_licence("Qwen/Qwen2.5-7B", None, [corpus])
    assert (found.state, found.text.partition(" ")[0]) == ("ok", "apache-2.0")
    assert check_licence("Qwen/Qwen2.5-3B", None, [corpus]).state == "warning"
    own = check_licence("Qwen/Qwen2.5-7B", None, [sft()])
    assert own.state == "warning" and "x.jsonl" in own.text


def asked() -> Asked:
    stage, amount = sft(), Amount(steps=1, train=TrainWork(1000, 500, 100))
    return Asked(stage, amount, load_of(stage, QWEN_SHAPES["0.5B"], CPU, amount), CPU)


def test_the_disk_holds_three_checkpoints_and_the_model() -> None:
    parameters = QWEN_SHAPES["0.5B"].parameters
    found = disk_bytes([asked()], downloads=True)
    assert found == {"checkpoints": 3 * 12 * parameters, "models": 2 * parameters, "download": 2 * parameters}


def test_a_disk_that_is_too_small_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    found = check_disk([asked()], tmp_path / "not" / "there", downloads=False)
    assert found.state == "refused"
    assert found.text.endswith(f"1 GB free in {tmp_path}")
    assert check_disk([], tmp_path, downloads=False).state == "ok"


def test_a_profile_describes_its_device_or_names_a_known_one() -> None:
    assert device_of(Machine(name="a", device="cuda", gpu="A100")).memory == 80e9
    own = Machine(name="b", device="cuda", gpu="X1", memory_gb=48, memory_bandwidth_gb_s=900, peak_tflops=200)
    assert (device_of(own).memory, device_of(own).bandwidth, device_of(own).peak) == (48e9, 900e9, 200e12)
    from configs.errors import UserError

    with pytest.raises(UserError, match="machine.gpu: 'X1' is not known; allowed: B200, H200, H100"):
        device_of(Machine(name="c", device="cuda", gpu="X1"))
    assert device_of(Machine(name="cpu", memory_gb=3)).memory == 3e9
    assert CPU.memory == own_memory() > 0
