"""Opening and writing checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from configs.errors import UserError
from derivatives.training import model as training_model
from derivatives.training.batch import Row, pack
from derivatives.training.forward import hidden_states
from derivatives.training.model import (
    QWEN_ADDED_TOKENS,
    head_weight,
    load_model,
    load_tokenizer,
    num_real_tokens,
    save_model,
    stop_ids,
)
from tests.training_fixtures import NUM_TOKENS, VOCABULARY, tiny_model, write_checkpoint, write_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


def test_a_checkpoint_opens_in_the_asked_precision_with_tied_embeddings(folder: Path) -> None:
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        model, tokenizer = load_model(folder, precision, "cpu")  # type: ignore[arg-type]
        assert model.dtype == dtype
        assert head_weight(model) is model.get_input_embeddings().weight
        assert num_real_tokens(tokenizer) == NUM_TOKENS < model.config.vocab_size == VOCABULARY


def test_what_is_saved_opens_in_plain_transformers_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(folder, "bf16", "cpu")
    save_model(model, tokenizer, tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert plain.dtype == torch.bfloat16
    for name, tensor in model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor), name
    assert plain.generation_config.eos_token_id == stop_ids(tokenizer) == [258, 256]
    assert plain.generation_config.pad_token_id == 256
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == tokenizer.chat_template is not None


def test_an_fp32_model_is_saved_as_bf16_and_without_a_second_copy_of_tied_embeddings(tmp_path: Path) -> None:
    from safetensors import safe_open

    folder = write_checkpoint(tmp_path / "base")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (not a mapping)
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_saving_replaces_a_model_whole_and_leaves_nothing_else_behind(folder: Path) -> None:
    (folder / "left_over").write_text("")
    save_model(tiny_model(seed=1), load_tokenizer(folder), folder)
    assert not (folder / "left_over").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["base"]


def test_a_save_that_fails_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "model.safetensors").read_bytes()

    def fail(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_model, "sync_folder", fail)
    with pytest.raises(KeyboardInterrupt):
        save_model(tiny_model(seed=1), load_tokenizer(folder), folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["base"]


def test_the_end_of_text_learns_although_it_is_the_padding_token(tmp_path: Path) -> None:
    model, _ = load_model(write_checkpoint(tmp_path / "base", pad_token_id=256), "fp32", "cpu")
    (batch,) = pack([Row([256, 5])], 8)
    hidden_states(model, batch).sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient[256].abs().sum() > 0


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_model(tmp_path / "nowhere")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"\x10", b"x" * 5000])
def test_weights_that_are_damaged_are_named(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="the weights in .* cannot be read"):
        load_model(folder)


def test_weights_that_are_cut_short_or_of_another_shape_or_missing_are_named(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=3, layer_types=["full_attention"] * 3)
    with pytest.raises(UserError, match="lacks 12 tensors"):
        load_model(folder)
    edit_config(folder, num_hidden_layers=2, layer_types=["full_attention"] * 2, intermediate_size=48)
    with pytest.raises(UserError, match="cannot be read|lacks"):
        load_model(folder)
    cut(folder / "model.safetensors")
    with pytest.raises(UserError, match="damaged, cut short"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \.safetensors file"):
        load_model(folder)


def test_other_architectures_are_refused(folder: Path) -> None:
    edit_config(folder, architectures=["Qwen2ForSequenceClassification"])
    with pytest.raises(UserError, match="Qwen2ForSequenceClassification, which is not a causal language model"):
        load_model(folder)
    edit_config(folder, architectures=["Qwen2ForCausalLM"], layer_types=["full_attention", "sliding_attention"])
    with pytest.raises(UserError, match="sliding windows"):
        load_model(folder)


def test_a_tokenizer_that_does_not_fit_is_refused(folder: Path) -> None:
    write_tokenizer(folder, special=("<|endoftext|>", "<|im_start|>"))
    with pytest.raises(UserError, match=r"lacks <\|im_end\|>"):
        load_model(folder)
    write_tokenizer(folder, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<{n}>" for n in range(20))))
    with pytest.raises(UserError, match="272 embedding rows and a tokenizer of 279 tokens"):
        load_model(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        load_model(folder)


def test_a_config_with_a_field_of_the_wrong_type_is_named(folder: Path) -> None:
    edit_config(folder, hidden_size="big")
    with pytest.raises(UserError, match=r"config\.json cannot be read .*'hidden_size' expected int, got str"):
        load_model(folder)


def test_weights_that_do_not_fit_the_config_are_told_in_our_words_alone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_config(folder, intermediate_size=48)
    with pytest.raises(UserError, match="of another shape|of the right shape"):
        load_model(folder)
    assert capfd.readouterr().err == ""


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 5] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{name} in .* holds values that are not finite"):
        load_model(folder)


def test_a_chat_template_that_cannot_be_used_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for message in %}")
    with pytest.raises(UserError, match="the chat template in .* cannot be used .*Expected an expression"):
        load_model(folder)


def test_a_tokenizer_config_that_is_no_object_is_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match="the tokenizer in .* cannot be read"):
        load_model(folder)


def test_a_bare_qwen_vocabulary_gets_its_added_tokens_at_their_published_ids(tmp_path: Path, data_mirror: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(data_mirror / "qwen2.5-tokenizer" / name, tmp_path / name)
    tokenizer = load_tokenizer(tmp_path)
    whole = load_tokenizer(data_mirror / "qwen2.5-tokenizer")
    for one in (tokenizer, whole):
        assert one.convert_tokens_to_ids(list(QWEN_ADDED_TOKENS)) == list(range(151_643, 151_665))
        assert num_real_tokens(one) == 151_665
        assert stop_ids(one) == [151_645, 151_643]
    text = "<|im_start|>user\n12 + 345<|im_end|>"
    assert tokenizer.encode(text) == whole.encode(text)
    assert "You are Qwen" in str(whole.chat_template) and "You are Qwen" not in str(tokenizer.chat_template)
