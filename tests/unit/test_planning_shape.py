"""Parameters, FLOPs and cache bytes from a config.json alone, against models that are built."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.errors import UserError
from configs.settings.training import Lora
from derivatives.planning.shape import QWEN_SHAPES, Shape, from_config, read_shape, shape_of
from derivatives.training.lora import add_adapters
from derivatives.training.throughput import ModelFlops
from tests.training_fixtures import VOCABULARY, tiny_model

TINY = Shape(32, 2, 4, 2, 8, 64, VOCABULARY, tied=True)
SEEDLING = Path(__file__).parents[2] / "derivatives" / "seedling" / "checkpoint"


@pytest.mark.parametrize("size", QWEN_SHAPES)
@pytest.mark.parametrize("layers", [1, 2])
def test_parameters_are_those_of_the_model_that_transformers_builds(size: str, layers: int) -> None:
    known = QWEN_SHAPES[size]
    shape = Shape(**{**vars(known), "layers": layers})
    with torch.device("meta"):
        model = Qwen2ForCausalLM(
            Qwen2Config(
                hidden_size=known.hidden, num_hidden_layers=layers, num_attention_heads=known.heads,
                num_key_value_heads=known.kv_heads, intermediate_size=known.intermediate,
                vocab_size=known.vocabulary, tie_word_embeddings=known.tied,
            )
        )  # fmt: skip
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_published_sizes_have_as_many_parameters_as_their_names_say() -> None:
    published = {"0.5B": 0.49, "1.5B": 1.54, "3B": 3.09, "7B": 7.61, "14B": 14.7, "32B": 32.5, "72B": 72.7}
    for size, billions in published.items():
        assert QWEN_SHAPES[size].parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_training_flops_are_those_of_the_progress_log() -> None:
    lengths, trained = [10, 30, 17], 41
    squares = sum(length**2 for length in lengths)
    expected = ModelFlops(tiny_model()).of_step(lengths, trained)
    assert TINY.training_flops(sum(lengths), squares, trained) == expected


def test_training_flops_of_adapters_are_those_of_the_progress_log() -> None:
    model = tiny_model()
    add_adapters(model, Lora(rank=4), seed=0)
    expected = ModelFlops(model).of_step([10, 30], 25)
    assert TINY.training_flops(40, 1000, 25, rank=4) == expected
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert TINY.adapter_parameters(4) == trained


def test_a_token_of_the_cache_by_hand() -> None:
    # Keys and values, 28 layers, 4 heads of 128, two bytes each.
    assert QWEN_SHAPES["7B"].kv_bytes_per_token() == 2 * 28 * 4 * 128 * 2


def test_a_folder_counts_more_than_a_known_name() -> None:
    shape = shape_of("Qwen/Qwen2.5-7B", SEEDLING)
    assert (shape.hidden, shape.layers, shape.vocabulary, shape.max_positions) == (256, 6, 2048, 2048)
    assert shape.parameters == 4_069_632


def test_hub_ids_are_known_without_a_download() -> None:
    assert shape_of("Qwen/Qwen2.5-7B", None) == QWEN_SHAPES["7B"]
    assert shape_of("Qwen/Qwen2.5-Coder-7B-Instruct", None) == replace(QWEN_SHAPES["7B"], max_positions=32_768)
    with pytest.raises(UserError, match="'me/mine-7B' is not known without its files; allowed: a folder, or Qwen"):
        shape_of("me/mine-7B", None)


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("Qwen2.5-14B", 131_072), ("Qwen2.5-3B", 32_768), ("Qwen2.5-14B-Instruct", 32_768),
        ("Qwen2.5-Coder-14B", 32_768), ("Qwen2.5-Coder-32B-Instruct", 32_768),
        ("Qwen2.5-Math-1.5B", 4096), ("Qwen2.5-Math-72B-Instruct", 4096),
    ],
)  # fmt: skip
def test_positions_are_those_of_the_published_configs(name: str, positions: int) -> None:
    assert shape_of(f"Qwen/{name}", None).max_positions == positions


def test_a_config_that_cannot_be_used_is_named_with_its_field(tmp_path: Path) -> None:
    config = json.loads((SEEDLING / "config.json").read_text())
    with pytest.raises(UserError, match="hidden_size: '256' was found; allowed: a whole number"):
        from_config({**config, "hidden_size": "256"}, "here")
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(UserError, match="config.json cannot be read"):
        read_shape(tmp_path)
