"""The release stage on the embedded seedling: what it writes opens as anybody's transformers would open it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from configs.errors import UserError
from configs.settings.evaluation import Gate, Keep, ReleaseStage
from configs.stage import StageFile, StageInput
from derivatives import release
from derivatives.export import export_model

SEEDLING = Path(release.__file__).parent / "seedling" / "checkpoint"
SYSTEM = 'Answer with "one" number {{ no braces %} <b>\nSecond line: 数学.'


def results() -> dict[str, Any]:
    def row(value: float, no_verdict: int = 0) -> dict[str, Any]:
        return {
            "value": value,
            "low": value - 0.02,
            "high": value + 0.02,
            "correct": round(1000 * value),
            "no_verdict": no_verdict,
            "total": 1000,
            "low_bound": value,
            "high_bound": value + no_verdict / 1000,
        }

    def model(value: float, bits: float) -> dict[str, Any]:
        return {
            "pass@1": row(value, no_verdict=2),
            "by_task": {"reasoning_gym/chain_sum": row(value)},
            "pass@k": None,
            "format": "chat",
            "bits_per_byte": {"python_stdlib": bits},
            "mean_tokens": 31.5,
            "truncated_fraction": 0.03,
        }

    return {
        "models": {"base": model(0.05, 2.0), "rl": model(0.25, 2.2)},
        "floor": {"best_constant": {"reasoning_gym/chain_sum": {"answer": "7", "value": 0.031}}, "value": 0.031},
        "gains": {"rl": {"pass@1": {"value": 0.20, "low": 0.17, "high": 0.23}}},
        "pairwise": {"base->rl": {"pass@1": {"value": 0.20, "low": 0.17, "high": 0.23}}},
        "overlap": {"train_questions": 9000, "shared": 0},
        "confidence": 0.95,
        "judge": "puzzles",
    }


NOTHING_KEPT = Keep(tasks="none", bits_per_byte="none")


def stage_file(
    folder: Path, gates: tuple[Gate, ...], evaluation: dict[str, Any], checkpoint: Path = SEEDLING
) -> StageFile:
    """A line of base, a corpus, rl (the seedling itself stands for its model) and evaluate, written under `folder`."""
    shutil.copytree(checkpoint, folder / "rl" / "model", dirs_exist_ok=True)
    (folder / "evaluate").mkdir(exist_ok=True)
    (folder / "evaluate" / "results.json").write_text(json.dumps(evaluation))
    (folder / "evaluate" / "stage.json").write_text(
        json.dumps(
            {
                "stage": {"models": ["base", "rl"], "judge": "puzzles", "sampling": {"max_new_tokens": 24}},
                "inputs": {"rl": {"digest": "d1"}},
            }
        )
    )
    (folder / "evaluate" / "samples.jsonl").write_text(
        json.dumps({
            "model": "rl", "outcome": "correct", "prompt": "What is `5` + 'six'?\n", "source": "reasoning_gym/chain_sum"
        }) + "\n"
    )
    (folder / "corpus" / "data").mkdir(parents=True, exist_ok=True)
    (folder / "corpus" / "data" / "report.json").write_text(
        json.dumps(
            {
                "sources": {
                    "python_stdlib": {"documents": 600, "tokens": 12345, "achieved_share": 0.25, "licence": "PSF-2.0"},
                    "notes|odd": {"documents": 10, "tokens": 37035, "achieved_share": 0.75, "licence": "CC-BY-4.0"},
                },
                "dropped": {"exact_duplicate": 12},
                "contamination": {"checked": ["gsm8k"], "overlap": 0},
            }
        )
    )
    lineage = {
        "stages": [
            {
                "id": "corpus",
                "kind": "corpus",
                "digest": "c" * 64,
                "config": {"output": "tokens"},
                "seconds": 3.0,
                "metrics": {"corpus/documents": 610},
                "folder": str(folder / "corpus"),
            },
            {
                "id": "rl",
                "kind": "rl",
                "digest": "d1",
                "config": {"loss": "grpo", "verifier": "math", "steps": 8, "group_size": 4},
            },
        ],
        "base": {"name": "seedling"},
        "commit": "abc123",
        "overrides": ["rl.steps=8"],
    }
    return StageFile(
        recipe="math/tiny",
        model="rl",
        lineage=lineage,
        stage=ReleaseStage(
            id="release", evaluation="evaluate", gates=gates, name="Seedling Math", system=SYSTEM, keep=NOTHING_KEPT
        ),
        inputs={
            "base": StageInput(kind="base", path=str(SEEDLING)),
            "rl": StageInput(kind="rl", path=str(folder / "rl"), digest="d1"),
            "evaluate": StageInput(kind="evaluate", path=str(folder / "evaluate")),
        },
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads on a busy machine wait for one another far longer than these small products take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


GATES = (Gate(metric="pass@1", min_gain=0.1), Gate(metric="bits_per_byte", min_gain=-0.5))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a release whose gates hold."""
    folder = tmp_path_factory.mktemp("line")
    torn = folder / "out" / release.PARTIAL / "model.safetensors"
    torn.parent.mkdir(parents=True)
    torn.write_text("left by a run that was killed")
    release.run(stage_file(folder, GATES, results()), folder / "out")
    return folder / "out"


def test_the_released_model_gives_the_sources_logits_with_tied_embeddings(released: Path) -> None:
    before, after = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16) for path in (SEEDLING, released / "release")
    )
    ids = torch.tensor([[5, 9, 300, 2033, 17]])
    with torch.inference_mode():
        assert torch.equal(before(ids).logits, after(ids).logits)
    assert after.lm_head.weight.data_ptr() == after.model.embed_tokens.weight.data_ptr()
    assert {tensor.dtype for tensor in load_file(released / "release" / "model.safetensors").values()} == {
        torch.bfloat16
    }


def test_generation_stops_at_both_ends_and_never_draws_a_padded_id(released: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(released / "release")
    model = AutoModelForCausalLM.from_pretrained(released / "release")
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    num_tokens = len(tokenizer)
    assert num_tokens < model.config.vocab_size, "the seedling's vocabulary is padded, as Qwen2.5's is"
    with torch.no_grad():  # padded rows get by far the largest logits
        hidden = model.model(torch.tensor([[5, 9, 300]])).last_hidden_state[0, -1]
        model.lm_head.weight[num_tokens:] = 100 * hidden
    inputs = tokenizer("7 + 8 =", return_tensors="pt")
    drawn = model.generate(**inputs, max_new_tokens=8)
    assert int(drawn.max()) < num_tokens


def test_the_chat_template_renders_the_default_system_prompt_verbatim(released: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(released / "release")
    turn = {"role": "user", "content": "2 + 2?"}
    expected = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True) == expected
    own = tokenizer.apply_chat_template([{"role": "system", "content": "Mine."}, turn], tokenize=False)
    assert own == "<|im_start|>system\nMine.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n"


def test_the_card_holds_the_licence_the_figures_the_data_and_the_lineage(released: Path) -> None:
    card = (released / "release" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0" and "math" in front["tags"]
    assert "base_model" not in front, "the seedling is no model of the hub"
    for expected in [
        "| **rl** (released) | 25.0% [23.0, 27.0] | 1,000 | 31.5 | 3.0% | chat |",
        "best constant answer | 3.1%",
        "rl: 25.0% to 25.2% (2 of 1000)",
        "| rl | +20.0 [+17.0, +23.0] |",
        "notes\\|odd | 10 | 37,035 | 75.0% | CC-BY-4.0",
        "dropped: exact_duplicate 12; decontaminated against gsm8k, overlap left 0",
        "loss grpo, verifier math, steps 8",
        "| bits_per_byte | base | gain -0.200 (worst text: python_stdlib) | more than -0.500 |",
        "Of 9,000 training questions, 0 are among the held-out ones.",
        "derive run math/tiny --set rl.steps=8",
        "Ids 2,040 to 2,047 are padding",
    ]:
        assert expected in card, expected
    assert str(released.parent) not in card, "no path of the machine"


def test_lineage_evaluation_and_metrics_lie_beside_the_model(released: Path) -> None:
    assert json.loads((released / "release" / "evaluation.json").read_text()) == results()
    assert json.loads((released / "release" / "lineage.json").read_text())["commit"] == "abc123"
    metrics = json.loads((released / "metrics.json").read_text())
    size = sum(path.stat().st_size for path in (released / "release").iterdir())
    assert (metrics["released"], metrics["name"], metrics["size_bytes"]) == (True, "Seedling Math", size)
    assert [gate["passed"] for gate in metrics["gates"]] == [True, True]
    assert sorted(path.name for path in released.iterdir()) == ["metrics.json", "release"]


@pytest.mark.slow
def test_the_cards_snippet_runs_with_transformers_alone(released: Path) -> None:
    card = (released / "release" / "README.md").read_text()
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", snippet.group(1)],
        cwd=released / "release",
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert eval(re.search(r'"content": (.*)}\]', snippet.group(1)).group(1)).strip() == "What is `5` + 'six'?"  # type: ignore[union-attr]


def test_a_failed_gate_exits_2_with_a_line_per_gate_and_releases_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from configs.stage import run_command

    gates = (Gate(metric="pass@1", min_gain=0.19), Gate(metric="bits_per_byte", min_gain=-0.1), Gate(metric="pass@1"))
    (tmp_path / "stage.json").write_text(stage_file(tmp_path, gates, results()).model_dump_json())
    out = tmp_path / "out"
    (out / "release").mkdir(parents=True)  # of an earlier, more lenient try
    assert run_command("release", release.run, "", [str(tmp_path / "stage.json"), str(out)]) == 2
    message = capsys.readouterr().err
    assert "2 of 3 not passed" in message
    assert (
        "gate pass@1, rl against base: gain +0.200 [+0.168, +0.230]; must exceed +0.190; not passed (2 of 1000 "
        "problems lack a verdict on base and count as solved)"
    ) in message
    assert (
        "gate bits_per_byte, rl against base: gain -0.200; must exceed -0.100; not passed (worst text: python_stdlib)"
        in message
    )
    assert not (out / "release").exists()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["released"] is False and [gate["passed"] for gate in metrics["gates"]] == [False, False, True]


def test_an_evaluation_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    line = stage_file(tmp_path, (), results())
    other = line.model_copy(
        update={"inputs": line.inputs | {"rl": StageInput(kind="rl", path=str(tmp_path / "rl"), digest="d2")}}
    )
    with pytest.raises(UserError, match="its digest is d2 but the evaluation was of d1"):
        release.run(other, tmp_path / "out")
    given = {"base": line.inputs["base"].model_copy(update={"digest": "base-now"})}
    then = {"rl": {"digest": "d1"}, "base": {"digest": "base-then"}}
    (tmp_path / "evaluate" / "stage.json").write_text(json.dumps({"inputs": then}))
    with pytest.raises(UserError, match="inputs.base: its digest is base-now but the evaluation was of base-then"):
        release.run(line.model_copy(update={"inputs": line.inputs | given}), tmp_path / "out")


def test_training_on_held_out_questions_is_refused(tmp_path: Path) -> None:
    leaked = results() | {"overlap": {"train_questions": 9000, "shared": 3}}
    with pytest.raises(UserError, match="3 training questions are among the held-out ones"):
        release.run(stage_file(tmp_path, (), leaked), tmp_path / "out")


def test_a_checkpoint_with_missing_weights_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    line = stage_file(tmp_path, (), results())
    weights = tmp_path / "rl" / "model" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"missing keys \['model.layers.3.mlp.up_proj.weight'\]"):
        release.run(line, tmp_path / "out")
    assert not (tmp_path / "out" / "release").exists()


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    line = stage_file(tmp_path, (), results())
    weights = tmp_path / "rl" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(UserError, match="does not open as a causal language model"):
        release.run(line, tmp_path / "out")


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from derivatives import export

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.safetensors").write_bytes(b"0" * 20_000_000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(UserError, match="the model needs 0.0 GB; free space there"):
        export_model(tmp_path / "source", tmp_path / "copy")


def test_separate_embeddings_stay_separate_and_fp32_becomes_bf16(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(SEEDLING, dtype=torch.float32, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.linspace(-1, 1, model.lm_head.weight.numel()).view_as(model.lm_head.weight))
    model.save_pretrained(tmp_path / "source")
    AutoTokenizer.from_pretrained(SEEDLING).save_pretrained(tmp_path / "source")
    exported = export_model(tmp_path / "source", tmp_path / "copy")
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    assert not exported.tied_embeddings and "lm_head.weight" in tensors
    assert torch.equal(tensors["lm_head.weight"], model.lm_head.weight.bfloat16())


def test_a_release_by_hand_without_lineage_still_has_a_card(tmp_path: Path) -> None:
    line = stage_file(tmp_path, (), results()).model_copy(update={"lineage": {}})
    release.run(line, tmp_path / "out")
    card = (tmp_path / "out" / "release" / "README.md").read_text()
    assert "run by hand" in card and "sets no gate" in card and "derive run math/tiny" in card


@pytest.mark.slow
def test_qwens_own_vocabulary_keeps_its_271_padded_rows_out_of_generation(data_mirror: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from derivatives.training.model import load_tokenizer, save_model

    tokenizer = load_tokenizer(data_mirror / "qwen2.5-tokenizer")
    shape = Qwen2Config(
        vocab_size=151_936,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    save_model(Qwen2ForCausalLM(shape).bfloat16(), tokenizer, tmp_path / "source")
    exported = export_model(tmp_path / "source", tmp_path / "copy", "Reason step by step.")
    assert (exported.num_tokens, exported.vocab_size, exported.tied_embeddings) == (151_665, 151_936, True)
    settings = json.loads((tmp_path / "copy" / "generation_config.json").read_text())
    assert settings["suppress_tokens"] == list(range(151_665, 151_936))
    assert settings["eos_token_id"] == [151_645, 151_643] and settings["pad_token_id"] == 151_643
    opened = AutoTokenizer.from_pretrained(tmp_path / "copy")
    text = opened.apply_chat_template([{"role": "user", "content": "2 + 2?"}], tokenize=False)
    assert text.startswith("<|im_start|>system\nReason step by step.<|im_end|>\n") and "You are Qwen" not in text
