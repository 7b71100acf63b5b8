"""Losses by chunks equal the same losses over all logits at once."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from derivatives.losses import cross_entropy
from derivatives.losses.cross_entropy import chunked_cross_entropy, chunked_log_probs


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tokens a chunk, so that ten tokens take four chunks, the last one not full; four ids a block of eleven."""
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(cross_entropy, "MIN_CHUNK_TOKENS", 3)
    monkeypatch.setattr(cross_entropy, "MAX_CHUNK_TOKENS", 3)
    monkeypatch.setattr(cross_entropy, "MIN_BLOCK", 4)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(13, 6, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(11, 6, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(9, (13,), generator=generator)
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0, 0.0, 1.0, 1.0, 0.25, 1.0, 1.0, 1.0, 0.0])
    targets[weights == 0] = -100
    return hidden, head, targets, weights


def test_two_equal_logits_cost_ln_2() -> None:
    hidden, head = torch.ones(1, 2), torch.ones(2, 2)
    loss = chunked_cross_entropy(hidden, head, torch.tensor([1]), torch.tensor([3.0]))
    assert float(loss) == pytest.approx(3 * math.log(2))
    log_prob, entropy = chunked_log_probs(hidden, head, torch.tensor([0]))
    assert float(log_prob) == pytest.approx(-math.log(2))
    assert float(entropy) == pytest.approx(math.log(2))


@pytest.mark.parametrize("num_real", [None, 9])
def test_chunked_cross_entropy_equals_full_with_its_gradients(num_real: int | None) -> None:
    hidden, head, targets, weights = inputs(torch.float32)
    loss = chunked_cross_entropy(hidden, head, targets, weights, num_real)
    gradients = torch.autograd.grad(loss * 0.7, (hidden, head))
    logits = hidden @ head[:num_real].t()
    full = (F.cross_entropy(logits, targets.clamp(min=0), reduction="none") * weights).sum()
    expected = torch.autograd.grad(full * 0.7, (hidden, head))
    torch.testing.assert_close(loss, full)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_real", [None, 9])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chunked_log_probs_and_entropy_equal_full_with_gradients(temperature: float, num_real: int | None) -> None:
    hidden, head, targets, weights = inputs(torch.float32)
    factors = torch.linspace(-1, 2, 13)

    def combine(log_probs: Tensor, entropy: Tensor) -> Tensor:
        return (log_probs * factors + entropy * factors.flip(0) * 3).sum()

    found = chunked_log_probs(hidden, head, targets, temperature, num_real)
    gradients = torch.autograd.grad(combine(*found), (hidden, head))
    every = (hidden @ head[:num_real].t() / temperature).log_softmax(-1)
    used = weights > 0
    log_probs = torch.where(used, every.gather(1, targets.clamp(min=0)[:, None])[:, 0], 0)
    entropy = torch.where(used, -(every.exp() * every).sum(1), 0)
    expected = torch.autograd.grad(combine(log_probs, entropy), (hidden, head))
    torch.testing.assert_close(found, (log_probs, entropy), rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_in_bf16_the_loss_is_that_of_the_rounded_logits() -> None:
    hidden, head, targets, weights = inputs(torch.bfloat16)
    loss = chunked_cross_entropy(hidden, head, targets, weights)
    logits = (hidden @ head.t()).float()
    full = (F.cross_entropy(logits, targets.clamp(min=0), reduction="none") * weights).sum()
    torch.testing.assert_close(loss, full)
    gradients = torch.autograd.grad(loss, (hidden, head))
    expected = torch.autograd.grad(full, (hidden, head))
    for one, other in zip(gradients, expected, strict=True):
        assert one.dtype == torch.bfloat16
        assert float((one - other).float().norm() / other.float().norm()) < 0.02


def test_nothing_to_train_on_costs_nothing() -> None:
    hidden, head, targets, weights = inputs(torch.float32)
    loss = chunked_cross_entropy(hidden, head, targets, weights * 0)
    assert float(loss.detach()) == 0
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, (hidden, head)))
    log_probs, entropy = chunked_log_probs(hidden, head, torch.full((13,), -100))
    assert not log_probs.any() and not entropy.any()


def test_without_gradients_it_works_too() -> None:
    hidden, head, targets, weights = inputs(torch.float32)
    with torch.no_grad():
        assert float(chunked_cross_entropy(hidden, head, targets, weights)) > 0
        assert chunked_log_probs(hidden, head, targets)[0].shape == (13,)
