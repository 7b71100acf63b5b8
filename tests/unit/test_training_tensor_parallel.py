"""What may be cut over the tensor axis, which block of a tensor a rank keeps, and how blocks are put together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from configs.errors import UserError
from configs.load import load_machine
from configs.settings.machine import Machine, require_divides
from derivatives.training.pieces import Piece, put_together, rows_of, whole_piece
from derivatives.training.ranks import Ranks
from derivatives.training.tensor_parallel import BY_INPUTS, BY_OUTPUTS, check_layers, cut, cut_dim
from tests.training_fixtures import tiny_model

SHAPE = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 24, "head_dim": 4,
}  # fmt: skip


def test_every_linear_map_of_a_layer_is_cut_and_every_norm_is_not() -> None:
    for name, weight in tiny_model().model.layers[0].named_parameters():
        assert (cut_dim(name) is None) == ("norm" in name) == (weight.ndim == 1 and "proj" not in name)
    assert {cut_dim(f"{name}.weight") for name in BY_OUTPUTS} == {0}
    assert {cut_dim(f"{name}.weight") for name in BY_INPUTS} == {1}


def test_ranks_next_to_one_another_share_layers() -> None:
    ranks = [Ranks(rank, 8, tensor=4) for rank in range(8)]
    assert [one.data_rank for one in ranks] == [0] * 4 + [1] * 4
    assert [one.tensor_rank for one in ranks] == [0, 1, 2, 3] * 2
    assert {one.num_data for one in ranks} == {2}
    assert (Ranks().num_data, Ranks().data_rank, Ranks().tensor_rank) == (1, 0, 0)


def test_a_block_is_put_together_from_blocks_of_another_cut() -> None:
    """Four by six: the middle of it out of two halves of rows, each in three parts of two columns."""
    whole = torch.arange(24).view(4, 6)
    cuts = [((row, row + 2), (column, column + 2)) for row in (0, 2) for column in (0, 2, 4)]
    parts = [(ranges, whole[Piece((4, 6), ranges).slices()]) for ranges in cuts]
    wanted = Piece((4, 6), ((1, 3), (1, 5)))
    expected = torch.tensor([[7, 8, 9, 10], [13, 14, 15, 16]])
    assert torch.equal(put_together(wanted, parts), expected)
    assert torch.equal(put_together(wanted, [*parts, *parts]), expected)  # held twice
    assert torch.equal(put_together(whole_piece(whole), parts), whole)
    empty = put_together(Piece((4, 6), ((4, 4), (0, 6))), parts)
    assert empty.shape == (0, 6)


@pytest.mark.parametrize("wrong", ["missing", "smaller", "larger"])
def test_blocks_that_are_not_the_whole_tensor_are_refused(wrong: str) -> None:
    whole = torch.arange(12).view(4, 3)
    parts = [((rows_of(4, place, 3), (0, 3)), whole[slice(*rows_of(4, place, 3))]) for place in range(3)]
    wanted = {"missing": (4, 3), "smaller": (4, 2), "larger": (5, 3)}[wrong]
    given = parts[:1] + parts[2:] if wrong == "missing" else parts
    with pytest.raises(ValueError, match="other shapes"):
        put_together(Piece(wanted, tuple((0, size) for size in wanted)), given)


def test_a_machine_whose_axes_do_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text("num_processes: 8\ntensor_parallel: 3\n")
    with pytest.raises(
        UserError, match=r"tensor_parallel: 3 does not divide num_processes = 8; allowed: 1, 2, 4, 8"
    ):
        load_machine(str(path))
    path.write_text("num_processes: 8\ntensor_parallel: 2\ncompile: true\n")
    with pytest.raises(UserError, match=r"compile: true was given with tensor_parallel = 2, .*; set compile: false"):
        load_machine(str(path))


def test_stages_of_one_process_cut_nothing() -> None:
    machine = Machine(name="pairs", num_processes=4, tensor_parallel=2, launcher=("launch",))
    for kind in ("sft", "rl", "evaluate", "sample"):
        assert machine.for_kind(kind) is machine
    for kind in ("corpus", "release"):
        alone = machine.for_kind(kind)
        assert (alone.num_processes, alone.tensor_parallel, alone.launcher) == (1, 1, ())


def test_what_does_not_divide_a_model_is_named_with_what_does() -> None:
    require_divides(2, {"num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864})
    with pytest.raises(UserError) as error:
        require_divides(4, {"num_attention_heads": 12, "num_key_value_heads": 6, "intermediate_size": 8})
    assert str(error.value).startswith(
        "machine.tensor_parallel: 4 does not divide the model's num_key_value_heads = 6; allowed: 1, 2; lower it"
    )
    check_layers(tiny_model(), 2)
    with pytest.raises(UserError, match=r"4 does not divide the model's num_key_value_heads = 2; allowed: 1, 2"):
        check_layers(tiny_model(), 4)


def test_layers_that_hold_something_else_are_refused() -> None:
    """Norms inside the cut part see a part of the gradient; a bias after a sum would be added by every rank."""
    with pytest.raises(UserError, match=r"a layer of Qwen3ForCausalLM holds self_attn\.q_norm\.weight, which is not"):
        check_layers(Qwen3ForCausalLM(Qwen3Config(**SHAPE)), 2)
    check_layers(LlamaForCausalLM(LlamaConfig(**SHAPE)), 2)
    with pytest.raises(UserError, match=r"a layer of LlamaForCausalLM holds self_attn\.o_proj\.bias, which is not cut"):
        check_layers(LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True)), 2)


def test_one_rank_cuts_nothing() -> None:
    model = tiny_model()
    before = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    cut(model, Ranks())
    assert {name: tuple(weight.shape) for name, weight in model.named_parameters()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
