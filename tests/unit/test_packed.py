"""Releases with 8 and 4 bits: what is packed and what stays, that transformers opens it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from configs.errors import UserError
from derivatives.export import export_model
from derivatives.formats.packed import Bits, write_packed
from derivatives.formats.quality import put
from derivatives.formats.weights import config_of, exported, read_packed, tensors
from derivatives.training.model import load_model, save_model
from tests.training_fixtures import load_tokenizer, tiny_model, write_tokenizer

pytest.importorskip("compressed_tensors")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a release stage writes it, 64 wide."""
    folder = tmp_path_factory.mktemp("made")
    write_tokenizer(folder / "tokenizer")
    save_model(tiny_model(hidden_size=64), load_tokenizer(folder / "tokenizer"), folder / "model")
    export_model(folder / "model", folder / "release")
    (folder / "release" / "README.md").write_text("# card\n")
    return folder / "release"


def names_in(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return set(file.keys())


@pytest.mark.parametrize(("kind", "least", "most"), [("int8", 1e-4, 0.02), ("int4", 0.02, 0.2)])
def test_projections_are_packed_and_all_else_is_as_it_was(
    release: Path, tmp_path: Path, kind: Bits, least: float, most: float
) -> None:
    out = tmp_path / kind
    written = write_packed(release, out, kind)
    assert least < written.largest_error < most
    assert (written.num_packed, written.num_tensors) == (7 * 2, len(list(tensors(release, config_of(release)))))
    assert written.divergence is not None and written.divergence < 1.0
    found, own = dict(read_packed(out)), dict(tensors(release, config_of(release)))
    assert found.keys() == own.keys()
    packed = {name for name in own if "_proj.weight" in name}
    for name in own.keys() - packed:
        assert torch.equal(found[name], own[name]), name
    bits = {"int8": 8, "int4": 4}[kind]
    with safe_open(out / "model.safetensors", framework="pt") as file:
        words = file.get_tensor("model.layers.0.mlp.up_proj.weight_packed")
        scales = file.get_tensor("model.layers.0.mlp.up_proj.weight_scale")
    rows, width = own["model.layers.0.mlp.up_proj.weight"].shape
    assert words.shape == (rows, width * bits // 32) and words.dtype == torch.int32
    assert scales.shape == (rows, 1 if kind == "int8" else width // 32) and scales.dtype == torch.bfloat16
    assert "lm_head.weight" not in names_in(out), "tied embeddings stay tied"
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors" and config["tie_word_embeddings"]
    assert (out / "chat_template.jinja").is_file() and (out / "generation_config.json").is_file()


def test_a_weight_is_its_whole_number_times_its_scale(release: Path, tmp_path: Path) -> None:
    write_packed(release, tmp_path / "int4", "int4")
    name = "model.layers.1.self_attn.q_proj"
    own = dict(tensors(release, config_of(release)))[f"{name}.weight"].float()
    found = dict(read_packed(tmp_path / "int4"))[f"{name}.weight"].float()
    with safe_open(tmp_path / "int4" / "model.safetensors", framework="pt") as file:
        scale = file.get_tensor(f"{name}.weight_scale").float().repeat_interleave(32, dim=1)
    whole = (found / scale).round()
    assert whole.min() >= -8 and whole.max() <= 7
    torch.testing.assert_close(found, (whole * scale).bfloat16().float(), rtol=0, atol=0)
    inside = whole < 7  # the largest weight of a group is 7.5 scales and has to give way
    assert ((found - own).abs() <= scale * 0.52)[inside].all()  # half a step, and bf16's rounding of the product


def test_transformers_opens_what_our_engine_evaluates(release: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    write_packed(release, tmp_path / "int4", "int4")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "int4", dtype="auto", local_files_only=True)
    ours, tokenizer = load_model(release, "bf16")
    put(ours, exported(release, tmp_path / "int4"))
    ids = torch.tensor([tokenizer("12 + 30 = 42, and so on")["input_ids"]])
    with torch.inference_mode():
        logits = [model(input_ids=ids, use_cache=False).logits.float() for model in (ours, theirs)]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0.02)


def test_this_projects_own_commands_open_it_as_a_plain_model(release: Path, tmp_path: Path) -> None:
    write_packed(release, tmp_path / "int8", "int8")
    model, _ = load_model(tmp_path / "int8", "bf16")
    found = dict(model.named_parameters())
    for name, weight in read_packed(tmp_path / "int8"):
        assert torch.equal(found[name], weight), name
    assert getattr(model.config, "quantization_config", None) is None, "what is trained from it is plain again"
    config = json.loads((tmp_path / "int8" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq"}
    (tmp_path / "int8" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="fewer bits by 'awq'; allowed"):
        load_model(tmp_path / "int8")


def test_what_cannot_be_packed_is_refused_and_leaves_nothing(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is 64 wide, which 128 does not divide; allowed here: 32, 64"):
        write_packed(release, tmp_path / "out", "int4", group_size=128)
    with pytest.raises(UserError, match="--max-divergence: with int4"):
        write_packed(release, tmp_path / "out", "int4", max_divergence=1e-9)

    def refuse(folder: Path) -> None:
        raise UserError(f"{len(list(folder.iterdir())) > 4}")

    with pytest.raises(UserError, match="True"):
        write_packed(release, tmp_path / "out", "int8", check=refuse)
    assert list(tmp_path.iterdir()) == []
    write_packed(release, tmp_path / "int8", "int8")
    with pytest.raises(UserError, match="exists; give a new folder"):
        write_packed(release, tmp_path / "int8", "int8")
    with pytest.raises(UserError, match="has fewer bits already"):
        write_packed(tmp_path / "int8", tmp_path / "again", "int4")


def test_weights_of_another_model_are_not_put_into_this_one(release: Path) -> None:
    model, _ = load_model(release, "bf16")
    with pytest.raises(UserError, match="is no weight of the release in this shape"):
        put(model, iter([("model.norm.weight", torch.ones(3))]))
    with pytest.raises(UserError, match="is missing in it"):
        put(model, iter([("model.norm.weight", torch.ones(64))]))
