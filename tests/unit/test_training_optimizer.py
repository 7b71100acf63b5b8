"""AdamW over FP32 masters, and the learning-rate schedules."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from configs.settings.training import Optimization
from derivatives.training.optimizer import MasterAdamW
from derivatives.training.schedule import learning_rate


def small(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)).to(dtype)


def loss_of(model: nn.Module, seed: int) -> Tensor:
    weight = next(model.parameters())
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)).to(weight.dtype)
    return model(inputs).float().square().sum()


def test_in_fp32_it_is_torch_adamw_with_clipping_and_no_decay_of_vectors() -> None:
    ours, plain = small(torch.float32), small(torch.float32)
    optimizer = MasterAdamW(ours, Optimization(learning_rate=1e-2, weight_decay=0.1, beta2=0.99, max_grad_norm=0.5))
    matrices = [weight for weight in plain.parameters() if weight.ndim == 2]
    vectors = [weight for weight in plain.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    for step, lr in enumerate((1e-2, 5e-3, 2e-3)):
        loss_of(ours, step).backward()
        loss_of(plain, step).backward()
        norm = optimizer.step(lr)
        assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(plain.parameters(), 0.5)))
        for group in adamw.param_groups:
            group["lr"] = lr
        adamw.step()
        adamw.zero_grad()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_updates_too_small_for_bf16_add_up_in_the_masters() -> None:
    model = nn.Linear(1, 1, bias=False).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = MasterAdamW(model, Optimization(learning_rate=1e-4))
    for step in range(1, 101):
        model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()  # a constant gradient: each step is one lr
        optimizer.step(1e-4)
        if step == 10:
            assert model.weight.item() == 1.0  # 1 - 10 * 1e-4 rounds to 1 in bf16, whose next value below is 0.996
    assert optimizer.masters[0].item() == pytest.approx(1 - 100 * 1e-4, abs=1e-5)
    assert model.weight.item() == 0.98828125  # the bf16 value nearest to 0.99


def test_working_weights_are_rewritten_in_place() -> None:
    model = small(torch.bfloat16)
    optimizer = MasterAdamW(model, Optimization(learning_rate=1e-1))
    places = [weight.data_ptr() for weight in model.parameters()]
    before = [weight.detach().clone() for weight in model.parameters()]
    loss_of(model, 0).backward()
    optimizer.step(1e-1)
    assert [weight.data_ptr() for weight in model.parameters()] == places
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_gradients_of_several_backward_passes_are_summed_in_fp32() -> None:
    model = small(torch.bfloat16)
    optimizer = MasterAdamW(model, Optimization(learning_rate=1e-3))
    expected: list[Tensor] = []
    for seed in range(3):
        gradients = torch.autograd.grad(loss_of(model, seed), list(model.parameters()))
        expected = [(expected[i] if expected else 0) + gradient.float() for i, gradient in enumerate(gradients)]
        loss_of(model, seed).backward()
    for weight, master, total in zip(model.parameters(), optimizer.masters, expected, strict=True):
        assert weight.grad is None
        assert torch.equal(master.grad, total)  # type: ignore[arg-type]


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model = small(torch.float32)
    optimizer = MasterAdamW(model, Optimization(learning_rate=1e-1))
    before = [weight.detach().clone() for weight in model.parameters()]
    (loss_of(model, 0) * float("nan")).backward()
    assert math.isnan(optimizer.step(1e-1))
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_restored_optimizer_goes_on_bit_for_bit(dtype: torch.dtype) -> None:
    straight, resumed = small(dtype), small(dtype)
    first = MasterAdamW(straight, Optimization(learning_rate=1e-2))
    state = None
    for step in range(4):
        loss_of(straight, step).backward()
        first.step(1e-2)
        if step == 1:
            state = torch.load(_saved(first.state_dict()), weights_only=True)
    second = MasterAdamW(resumed, Optimization(learning_rate=1e-2))
    assert state is not None
    second.load_state_dict(state)
    for step in (2, 3):
        loss_of(resumed, step).backward()
        second.step(1e-2)
    for one, other in zip(first.masters + first.weights, second.masters + second.weights, strict=True):
        assert torch.equal(one, other)


def _saved(state: object) -> object:
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("dim", [0, 1])
def test_a_state_in_shards_is_put_together_whatever_their_mesh(dim: int) -> None:
    """Three by two: rows as FSDP2 cuts them, where the last shards are empty, and halves of each matrix; vectors lie
    twice."""
    whole = MasterAdamW(small(torch.bfloat16), Optimization(learning_rate=1e-2, weight_decay=0.1))
    update_once(whole)
    state = whole.state_dict()

    def ranges(tensor: Tensor, rank: int, half: int) -> list[tuple[int, int]]:
        found = [(0, size) for size in tensor.shape]
        if tensor.ndim == 2:
            middle = tensor.shape[dim] // 2
            found[dim] = (half * middle, (half + 1) * middle)
        begin, end = found[0]
        per_rank = -(-(end - begin) // 3)
        found[0] = min(end, begin + rank * per_rank), min(end, begin + (rank + 1) * per_rank)
        return found

    def cut(tensor: Tensor, rank: int, half: int) -> Tensor:
        return tensor[tuple(slice(*one) for one in ranges(tensor, rank, half))]

    shards = []
    for rank, half in itertools.product(range(3), range(2)):
        moments = {
            place: {name: cut(value, rank, half) if value.ndim else value for name, value in one.items()}
            for place, one in state["adamw"]["state"].items()
        }
        masters = [cut(master, rank, half) for master in state["masters"]]
        held = [ranges(master, rank, half) for master in state["masters"]]
        shards.append({"masters": masters, "adamw": {**state["adamw"], "state": moments}, "ranges": held})
    other = MasterAdamW(small(torch.bfloat16), Optimization(learning_rate=1e-2, weight_decay=0.1))
    other.load_shards(shards)
    for one, two in zip(whole.masters + whole.weights, other.masters + other.weights, strict=True):
        assert torch.equal(one, two)
    for place, one in other.state_dict()["adamw"]["state"].items():
        assert all(torch.equal(value, state["adamw"]["state"][place][name]) for name, value in one.items())
    with pytest.raises(ValueError, match="other shapes"):
        other.load_shards(shards[:4])


def update_once(optimizer: MasterAdamW) -> None:
    """One update with gradients that differ in every entry."""
    for number, weight in enumerate(optimizer.weights):
        optimizer.masters[number].grad = torch.linspace(number, number + 1, weight.numel()).view_as(weight)
    optimizer.step(1e-2)


def test_a_state_of_another_model_is_refused() -> None:
    optimizer = MasterAdamW(small(torch.float32), Optimization(learning_rate=1e-2))
    other = MasterAdamW(nn.Linear(2, 2), Optimization(learning_rate=1e-2))
    with pytest.raises(ValueError, match="other shapes"):
        optimizer.load_state_dict(other.state_dict())


def rates(total: int, **fields: object) -> list[float]:
    config = Optimization.model_validate({"learning_rate": 1.0, "min_lr_fraction": 0.1, **fields})
    return [learning_rate(config, step, total) for step in range(1, total + 1)]


def test_cosine_rises_to_the_peak_and_falls_to_the_floor() -> None:
    found = rates(12, warmup_fraction=4 / 12)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[7] == pytest.approx(0.1 + 0.9 / 2)  # half of the 8 steps down: the middle of floor and peak
    assert found[-1] == pytest.approx(0.1)
    assert found[3:] == sorted(found[3:], reverse=True)


def test_wsd_stays_at_the_peak_and_falls_linearly_over_the_last_fifth() -> None:
    found = rates(10, schedule="wsd", warmup_fraction=0.1)
    assert found == pytest.approx([1.0] * 8 + [0.55, 0.1])  # 2 steps from 1 to 0.1


def test_constant_stays_and_no_warmup_starts_at_the_peak() -> None:
    assert rates(3, schedule="constant", warmup_fraction=0.0) == [1.0, 1.0, 1.0]
    assert rates(4, schedule="constant", warmup_fraction=1.0) == [0.25, 0.5, 0.75, 1.0]
    assert rates(1, warmup_fraction=0.05) == [1.0]
