"""Preference losses by hand."""

from __future__ import annotations

import math

import pytest
import torch

from derivatives.losses.dpo import losses, margins

POLICY = torch.tensor([[-1.0, -5.0], [-4.0, -3.0]])
REFERENCE = torch.tensor([[-2.0, -4.0], [-4.0, -3.0]])
# First pair: (-1 + 5) - (-2 + 4) = 2; second: (-4 + 3) - (-4 + 3) = 0.


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_margin_is_what_the_policy_gained_over_the_reference() -> None:
    assert margins(POLICY, REFERENCE).tolist() == [2.0, 0.0]


def test_the_sigmoid_loss_and_its_gradient() -> None:
    h = torch.tensor([2.0, 0.0], requires_grad=True)
    found = losses(h, "sigmoid", beta=0.5)
    assert found.tolist() == pytest.approx([-math.log(sigmoid(0.5 * 2.0)), math.log(2)])
    found.sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == pytest.approx([-0.5 * sigmoid(-1.0), -0.5 * 0.5])


def test_label_smoothing_adds_the_loss_of_the_turned_pair() -> None:
    h = torch.tensor([2.0])
    wanted = -0.9 * math.log(sigmoid(1.0)) - 0.1 * math.log(sigmoid(-1.0))
    assert losses(h, "sigmoid", beta=0.5, label_smoothing=0.1).tolist() == pytest.approx([wanted])


def test_ipo_draws_the_margin_to_half_of_one_over_beta() -> None:
    assert losses(torch.tensor([2.0, 5.0, 0.0]), "ipo", beta=0.1).tolist() == pytest.approx([9.0, 0.0, 25.0])


def test_a_margin_that_is_far_off_gives_finite_numbers() -> None:
    h = torch.tensor([-1e4, 1e4], requires_grad=True)
    found = losses(h, "sigmoid", beta=1.0)
    found.sum().backward()
    assert found.tolist() == [1e4, 0.0]
    assert h.grad is not None and h.grad.tolist() == [-1.0, 0.0]
