"""A longer context: what is refused, the frequencies by hand, and what config.json says of them."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoConfig, PreTrainedModel

from configs.errors import UserError
from configs.load import load_recipe
from configs.settings.training import Context, PretrainStage, SftStage
from derivatives.training import context as training_context
from derivatives.training.context import complete_config, extend, rope_parameters
from derivatives.training.model import load_model, load_tokenizer, save_model
from tests.training_fixtures import tiny_model, write_checkpoint, write_tokenizer

BASE = {"length": 8192, "rope_base": 1e6}
YARN = {"length": 8192, "yarn": {"factor": 4, "original": 2048}}


def extended(tmp_path: Path, setting: dict[str, Any], precision: Any = "fp32") -> PreTrainedModel:
    """The tiny model of 2,048 positions and 4 frequencies (head dimension 8, base 10,000), moved."""
    model, tokenizer = load_model(write_checkpoint(tmp_path / "base"), precision, "cpu")
    extend(model, tokenizer, Context.model_validate(setting))
    assert tokenizer.model_max_length == model.config.max_position_embeddings == setting["length"]
    return model


def rotary_of(model: PreTrainedModel) -> Any:
    return model.base_model.rotary_emb


def test_a_new_base_gives_its_powers(tmp_path: Path) -> None:
    rotary = rotary_of(extended(tmp_path, BASE))
    # base^(-2i / 8): 10^6 to the power of 0, -1/4, -1/2, -3/4, against 10^4 before
    expected = [1.0, 10**-1.5, 10**-3.0, 10**-4.5]
    torch.testing.assert_close(rotary.inv_freq, torch.tensor(expected), rtol=1e-6, atol=0)
    assert rotary.attention_scaling == 1.0


def test_yarn_divides_what_turns_less_than_once_and_leaves_what_turns_often(tmp_path: Path) -> None:
    rotary = rotary_of(extended(tmp_path, YARN))
    before = [1.0, 0.1, 0.01, 0.001]
    turns = [2048 * frequency / (2 * math.pi) for frequency in before]
    assert [round(number, 1) for number in turns] == [325.9, 32.6, 3.3, 0.3]
    # 32 turns happen at frequency number 8 ln(2048 / (32 * 2 pi)) / (2 ln 10000) = 1.008, cut down to 1, and one turn
    # at 2.51, taken up to 3: the ramp stands at (2 - 1) / (3 - 1) for number 2.
    expected = [1.0, 0.1, 0.5 * 0.01 + 0.5 * 0.01 / 4, 0.001 / 4]
    torch.testing.assert_close(rotary.inv_freq, torch.tensor(expected), rtol=1e-6, atol=0)
    assert rotary.attention_scaling == pytest.approx(0.1 * math.log(4) + 1)
    cos, sin = rotary(torch.zeros(1), torch.tensor([[5000]]))
    scale = 0.1 * math.log(4) + 1
    torch.testing.assert_close(cos[0, 0, 3], torch.tensor(scale * math.cos(5000 * 0.00025)))
    torch.testing.assert_close(sin[0, 0, 3], torch.tensor(scale * math.sin(5000 * 0.00025)))


def test_yarn_at_qwens_own_shape_agrees_with_the_papers_turns(tmp_path: Path) -> None:
    """64 frequencies, base 1e6, 32,768 to 131,072 tokens: the paper's bounds hold but for the rounding of the ramp."""
    old = {"rope_type": "default", "rope_theta": 1e6}
    setting = Context.model_validate({"length": 131_072, "yarn": {"factor": 4, "original": 32_768}})
    model = tiny_model(head_dim=128, rope_parameters=old, max_position_embeddings=32_768)
    write_tokenizer(tmp_path)
    before = rotary_of(model).inv_freq.clone()
    extend(model, load_tokenizer(tmp_path), setting)
    ratio, turns = rotary_of(model).inv_freq / before, 32_768 * before / (2 * math.pi)
    assert torch.equal(ratio[turns > 32 * 1.25], torch.ones(int((turns > 32 * 1.25).sum())))
    torch.testing.assert_close(ratio[turns < 0.8], torch.full((int((turns < 0.8).sum()),), 0.25))
    assert bool((ratio.diff() <= 1e-6).all()) and bool(((ratio > 0.26) & (ratio < 0.99)).any())


@pytest.mark.parametrize("setting", [BASE, YARN])
def test_frequencies_are_made_in_fp32_whatever_the_weights_are(tmp_path: Path, setting: dict[str, Any]) -> None:
    low, high = extended(tmp_path / "a", setting, "bf16"), extended(tmp_path / "b", setting, "fp32")
    assert low.dtype == torch.bfloat16 and rotary_of(low).inv_freq.dtype == torch.float32
    assert torch.equal(rotary_of(low).inv_freq, rotary_of(high).inv_freq)


def test_without_the_setting_nothing_changes(tmp_path: Path) -> None:
    model, tokenizer = load_model(write_checkpoint(tmp_path / "base"), "fp32", "cpu")
    rotary, config, longest = rotary_of(model), model.config.to_dict(), tokenizer.model_max_length
    extend(model, tokenizer, None)
    assert rotary_of(model) is rotary
    assert (model.config.to_dict(), tokenizer.model_max_length) == (config, longest)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"length": 8192}, "context: none was given of rope_base and yarn; allowed: exactly one"),
        ({**BASE, **YARN}, "context: both were given of rope_base and yarn; allowed: exactly one"),
        ({**YARN, "length": 8000}, r"context.length: 8000 is not yarn.factor \* yarn.original = 4 \* 2048 = 8192"),
        ({"length": 8192, "yarn": {"factor": 1, "original": 8192}}, "greater than 1"),
        ({"length": 8192, "rope_base": 0.5}, "greater than 1"),
        ({"length": 8192, "rope_base": math.inf}, "finite"),
        ({"length": 0, "rope_base": 1e6}, "greater than 0"),
    ],
)
def test_settings_that_say_nothing_or_two_things_are_refused(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Context.model_validate(setting)


def test_the_setting_is_part_of_a_recipe_and_its_error_is_one_line(tmp_path: Path) -> None:
    plain = {"id": "p", "kind": "pretrain", "data": ["c"], "num_tokens": 10, "learning_rate": 1e-3}
    assert PretrainStage.model_validate({**plain, "context": YARN}).context == Context.model_validate(YARN)
    assert PretrainStage.model_validate(plain).context is None
    assert SftStage.model_fields["context"].default is None
    recipe = load_recipe("math/tiny", ["sft.context={length: 8192, rope_base: 100000}"])
    assert recipe.stage("sft").context == Context(length=8192, rope_base=1e5)  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"context\.length: 8000 is not yarn\.factor"):
        load_recipe("math/tiny", ["sft.context={length: 8000, yarn: {factor: 4, original: 2048}}"])


@pytest.mark.parametrize(
    ("old", "setting", "named"),
    [
        ({}, {"length": 2048, "rope_base": 1e6}, r"stage.context.length: 2048 is not more than the 2048 positions"),
        ({}, {"length": 8192, "yarn": {"factor": 2, "original": 4096}}, r"stage.context.yarn.original: 4096 was given"),
        ({}, {"length": 1024, "yarn": {"factor": 2, "original": 512}}, r"stage.context.length: 1024 is not more"),
        ({"rope_type": "dynamic", "factor": 2.0}, BASE, r"rotation is of type dynamic; allowed: default, yarn"),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024}, BASE, "YaRN"),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024}, YARN, "allowed: 1024"),
    ],
)
def test_a_setting_that_does_not_fit_the_model_is_refused(
    old: dict[str, Any], setting: dict[str, Any], named: str
) -> None:
    rotation = {"rope_type": "default", "rope_theta": 1e4, **old}
    with pytest.raises(UserError, match=named):
        rope_parameters(rotation, 2048, Context.model_validate(setting))


def test_a_rotation_for_each_kind_of_layer_is_refused() -> None:
    with pytest.raises(UserError, match="one for each kind of layer"):
        rope_parameters({"full_attention": {"rope_type": "default"}}, 2048, Context.model_validate(BASE))


def test_a_model_with_yarn_can_go_on_to_a_larger_factor() -> None:
    old = {
        "rope_type": "yarn", "type": "yarn", "rope_theta": 1e4, "factor": 2.0, "attention_factor": 1.07,
        "original_max_position_embeddings": 1024,
    }  # fmt: skip
    setting = Context.model_validate({"length": 8192, "yarn": {"factor": 8, "original": 1024}})
    assert rope_parameters(old, 2048, setting) == {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 1024,
    }  # fmt: skip


def test_a_config_that_says_more_than_was_trained_takes_yarn_over_what_was() -> None:
    """As those of some Qwen2.5 sizes, which say 131,072."""
    old = {"rope_type": "default", "rope_theta": 1e6}
    setting = Context.model_validate({"length": 131_072, "yarn": {"factor": 4, "original": 32_768}})
    assert rope_parameters(old, 131_072, setting)["original_max_position_embeddings"] == 32_768


@pytest.mark.parametrize(("setting", "theta"), [(BASE, 1e6), (YARN, 1e4)])
def test_the_written_config_says_it_in_both_spellings(tmp_path: Path, setting: dict[str, Any], theta: float) -> None:
    save_model(extended(tmp_path, setting), load_tokenizer(tmp_path / "base"), tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    written = json.loads(path.read_text())
    assert written["max_position_embeddings"] == 8192
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == theta
    scaling = {"rope_type": "yarn", "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    assert written.get("rope_scaling") == (None if setting is BASE else scaling)
    whole = dict(AutoConfig.from_pretrained(tmp_path / "out").rope_parameters)
    del written["rope_parameters"]  # transformers 4 never wrote it, and reads the rest
    path.write_text(json.dumps(written))
    older = dict(AutoConfig.from_pretrained(tmp_path / "out").rope_parameters)
    assert whole == older
    assert whole["rope_theta"] == theta and whole["rope_type"] == ("default" if setting is BASE else "yarn")


VLLM_KEYS = {
    "default": {"rope_type", "rope_theta"},
    "yarn": {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"},
}
"""What vLLM 0.32 (model_executor/layers/rotary_embedding) is given; other keys would change what it computes."""


def vllm_cache(rope: dict[str, Any], head_dim: int, num_positions: int) -> torch.Tensor:
    """Cosines and sines as vLLM (`base.py`, `yarn_scaling_rope.py`) makes them once for all positions."""
    powers = rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim)
    frequencies, scale = 1 / powers, 1.0
    if rope["rope_type"] == "yarn":
        factor, original = rope["factor"], rope["original_max_position_embeddings"]
        ends = [
            head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope["rope_theta"]))
            for turns in (32, 1)
        ]
        low, high = max(math.floor(ends[0]), 0), min(math.ceil(ends[1]), head_dim - 1)
        ramp = ((torch.arange(head_dim // 2, dtype=torch.float) - low) / (high - low)).clamp(0, 1)
        frequencies = ramp / (factor * powers) + (1 - ramp) / powers
        num_positions, scale = int(original * factor), 0.1 * math.log(factor) + 1
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float), frequencies)
    return torch.cat((angles.cos(), angles.sin()), dim=-1) * scale


@pytest.mark.parametrize("setting", [BASE, YARN])
def test_the_written_config_is_what_vllm_turns_by(tmp_path: Path, setting: dict[str, Any]) -> None:
    """vLLM takes the context from `max_position_embeddings` and the rest from transformers' `rope_parameters`."""
    save_model(extended(tmp_path, setting), load_tokenizer(tmp_path / "base"), tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    rope = dict(config.rope_parameters)
    assert set(rope) == VLLM_KEYS[rope["rope_type"]] and rope.get("type", rope["rope_type"]) == rope["rope_type"]
    cache = vllm_cache(rope, head_dim=8, num_positions=config.max_position_embeddings)
    assert len(cache) == config.max_position_embeddings == 8192  # further positions would be read past its end
    model, _ = load_model(tmp_path / "out", "fp32", "cpu")
    cos, sin = rotary_of(model)(torch.zeros(1), torch.arange(8192)[None])
    torch.testing.assert_close(torch.cat((cos[0, :, :4], sin[0, :, :4]), dim=-1), cache, rtol=0, atol=2e-3)


def test_a_config_without_rotation_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "gpt2"}')
    complete_config(path)
    assert json.loads(path.read_text()) == {"model_type": "gpt2"}


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(training_context) == (0, 5)
