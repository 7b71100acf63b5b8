"""A release as GGUF: the very weights, the same answers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from configs.errors import UserError
from derivatives.export import export_model
from derivatives.formats import gguf_file, weights
from derivatives.formats.gguf_file import write_gguf
from derivatives.training.model import save_model
from tests.training_fixtures import NUM_TOKENS, VOCABULARY, load_tokenizer, tiny_model, write_tokenizer

gguf = pytest.importorskip("gguf")
SYSTEM = "Answer in one word."


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a release stage writes it, with a system prompt and biases that matter."""
    folder = tmp_path_factory.mktemp("made")
    write_tokenizer(folder / "tokenizer")
    model = tiny_model(hidden_size=64)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.copy_(torch.linspace(0.5, 1.5, len(weight)) * (1.0 if "norm" in name else 0.3))
    save_model(model, load_tokenizer(folder / "tokenizer"), folder / "model")
    export_model(folder / "model", folder / "release", SYSTEM)
    return folder / "release"


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: tensor for tensor in reader.tensors}


def test_the_file_says_what_the_config_says_and_holds_every_weight(release: Path, tmp_path: Path) -> None:
    written = write_gguf(release, tmp_path / "m.gguf", "bf16")
    assert (written.largest_error, written.same_token) == (0.0, 1.0)
    assert written.divergence == pytest.approx(0, abs=1e-9)
    fields, tensors = read(tmp_path / "m.gguf")
    config = json.loads((release / "config.json").read_text())
    assert fields["general.architecture"] == "qwen2"
    assert fields["qwen2.block_count"] == config["num_hidden_layers"] == 2
    assert fields["qwen2.attention.head_count_kv"] == config["num_key_value_heads"] == 2
    assert fields["qwen2.context_length"] == config["max_position_embeddings"]
    assert fields["qwen2.rope.freq_base"] == pytest.approx(10_000.0)
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == VOCABULARY and tokens[NUM_TOKENS:] == [f"[PAD{n}]" for n in range(NUM_TOKENS, VOCABULARY)]
    assert set(types[NUM_TOKENS:]) == {int(gguf.TokenType.UNUSED)}
    assert tokens[fields["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert types[fields["tokenizer.ggml.eos_token_id"]] == int(gguf.TokenType.CONTROL)
    assert "<|im_start|>" in fields["tokenizer.chat_template"]
    assert len(tensors) == written.num_tensors and "output.weight" not in tensors  # tied
    bias = tensors["blk.1.attn_q.bias"]
    assert bias.tensor_type == gguf.GGMLQuantizationType.F32
    np.testing.assert_allclose(bias.data, np.linspace(0.15, 0.45, 64), rtol=4e-3)  # rounded to bf16 by the release


@pytest.mark.parametrize(("kind", "least", "most"), [("f16", 0.0, 1e-3), ("q8_0", 1e-4, 0.01), ("q4_0", 0.01, 0.12)])
def test_fewer_bits_cost_what_they_must_and_it_is_measured(
    release: Path, tmp_path: Path, kind: gguf_file.Kind, least: float, most: float
) -> None:
    written = write_gguf(release, tmp_path / "m.gguf", kind)
    assert least <= written.largest_error <= most
    assert written.divergence is not None and written.divergence < 1.0


def test_with_four_bits_the_embedding_keeps_eight(release: Path, tmp_path: Path) -> None:
    write_gguf(release, tmp_path / "m.gguf", "q4_0")
    _, tensors = read(tmp_path / "m.gguf")
    types = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    assert types["token_embd.weight"] == "Q8_0" and types["blk.0.ffn_up.weight"] == "Q4_0"


def test_its_weights_come_back_under_the_names_of_the_release(release: Path, tmp_path: Path) -> None:
    write_gguf(release, tmp_path / "m.gguf", "bf16")
    config = weights.config_of(release)
    found = dict(gguf_file.dequantised(release, tmp_path / "m.gguf"))
    wanted = dict(weights.tensors(release, config))
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert torch.equal(found[name], weight.float()), name
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be read as GGUF"):
        list(gguf_file.dequantised(release, tmp_path / "cut.gguf"))


def test_separate_embeddings_stay_separate_and_no_shard_may_be_missing(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    model = tiny_model(hidden_size=64, tie_word_embeddings=False)
    save_model(model, load_tokenizer(tmp_path / "tokenizer"), tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "release")
    sharded = AutoModelForCausalLM.from_pretrained(tmp_path / "release", dtype=torch.bfloat16)
    (tmp_path / "release" / "model.safetensors").unlink()
    sharded.save_pretrained(tmp_path / "release", max_shard_size="50KB")
    written = write_gguf(tmp_path / "release", tmp_path / "m.gguf", "bf16")
    _, tensors = read(tmp_path / "m.gguf")
    assert (written.largest_error, written.same_token) == (0.0, 1.0) and "output.weight" in tensors
    (*_, last) = sorted((tmp_path / "release").glob("model-*.safetensors"))
    last.unlink()
    with pytest.raises(UserError, match=f"{last.name} of . files of weights is missing"):
        write_gguf(tmp_path / "release", tmp_path / "n.gguf", "bf16")
    assert not list(tmp_path.glob("*n*.gguf"))


def test_a_check_that_refuses_leaves_nothing(release: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def refuse(path: Path) -> None:
        seen.append(path.stat().st_size)
        raise UserError("too much was lost")

    with pytest.raises(UserError, match="too much was lost"):
        write_gguf(release, tmp_path / "m.gguf", "q8_0", check=refuse)
    assert seen and list(tmp_path.iterdir()) == []


def test_a_file_that_lost_too_much_is_not_written(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--max-divergence: with q4_0 .* nats a token .allowed: 1e-09.; take a type"):
        write_gguf(release, tmp_path / "m.gguf", "q4_0", 1e-9)
    assert list(tmp_path.iterdir()) == []


def test_the_same_problem_gets_the_same_answer(release: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_gguf(release, tmp_path / "m.gguf", "bf16")
    tokenizer = AutoTokenizer.from_pretrained(release, local_files_only=True)
    ids = tokenizer("12 + 30 =", return_tensors="pt")["input_ids"]
    answers = [
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True, **more)
        .generate(ids, do_sample=False, max_new_tokens=12, min_new_tokens=12, eos_token_id=[], pad_token_id=0)
        .tolist()
        for folder, more in ((release, {}), (tmp_path, {"gguf_file": "m.gguf"}))
    ]
    assert answers[0] == answers[1]


def test_what_is_no_qwen2_release_is_refused(release: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match="config.json cannot be read"):
        write_gguf(other, tmp_path / "m.gguf", "bf16")
    config = json.loads((release / "config.json").read_text())
    scaled = {**config, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}}
    (other / "config.json").write_text(json.dumps(scaled))
    with pytest.raises(UserError, match="scaled by 'linear'; allowed: default and yarn"):
        write_gguf(other, tmp_path / "m.gguf", "bf16")
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 10_000.0}
    for changes, said in (
        ({"rope_parameters": {**yarn, "beta_fast": 16}}, "scaled with beta_fast 16"),
        ({"rope_parameters": {**yarn, "attention_factor": 1.0}}, "scaled with attention_factor 1.0"),
        ({"use_sliding_window": True}, "use_sliding_window"),
    ):
        (other / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError, match=said):
            write_gguf(other, tmp_path / "m.gguf", "bf16")
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="holds a 'llama' model; allowed: qwen2"):
        write_gguf(other, tmp_path / "m.gguf", "bf16")
    for path in release.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        write_gguf(other, tmp_path / "m.gguf", "bf16")
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*"))
