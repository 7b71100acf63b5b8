"""Policy losses and advantages, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from derivatives.losses import cispo, dapo, dr_grpo, grpo, gspo, rloo
from derivatives.losses.advantages import group_advantages, has_spread
from derivatives.losses.clipping import Clip, clipped_loss
from derivatives.losses.kl import divergence
from derivatives.losses.overlong import overlong_penalty
from derivatives.losses.policy import PolicyTokens
from derivatives.rollout.entropy_control import EntropyControl

CLIP = Clip(0.2, 0.28)


def advantages(
    rewards: list[list[float]], known: list[list[bool]] | None = None, scale: bool = True
) -> list[list[float]]:
    rewards_PG = torch.tensor(rewards)
    known_PG = torch.ones_like(rewards_PG, dtype=torch.bool) if known is None else torch.tensor(known)
    return group_advantages(rewards_PG, known_PG, scale).tolist()


def test_advantages_are_distances_from_the_mean_in_standard_deviations() -> None:
    # Mean 1/4, variance 3/16, deviation sqrt(3)/4: (3/4) / (sqrt(3)/4) = sqrt(3), (-1/4) / (sqrt(3)/4) = -1/sqrt(3).
    assert advantages([[1.0, 0.0, 0.0, 0.0]])[0] == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3])


def test_without_scaling_they_are_distances_from_the_mean() -> None:
    assert advantages([[1.0, 0.0, 0.0, 0.0], [0.5, 1.0, 0.0, 0.5]], scale=False) == [
        [0.75, -0.25, -0.25, -0.25], [0.0, 0.5, -0.5, 0.0],
    ]  # fmt: skip


def test_a_completion_without_verdict_takes_no_part() -> None:
    # Known are 1, 0, 0: mean 1/3; the third's placeholder of 99 must not matter.
    found = advantages([[1.0, 0.0, 99.0, 0.0]], [[True, True, False, True]], scale=False)
    assert found[0] == pytest.approx([2 / 3, -1 / 3, 0.0, -1 / 3])


def test_groups_without_spread_or_with_one_verdict_or_none_get_zero() -> None:
    known = [[True, True], [True, False], [False, False], [True, True]]
    assert advantages([[0.1, 0.1], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], known) == [[0, 0], [0, 0], [0, 0], [1, -1]]
    rewards_PG = torch.tensor([[0.1, 0.1], [1.0, 0.0]])
    assert has_spread(rewards_PG, torch.ones(2, 2, dtype=torch.bool)).tolist() == [False, True]


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=16),
    st.booleans(),
)
def test_a_groups_advantages_sum_to_zero(group: list[tuple[float, bool]], scale: bool) -> None:
    (found,) = advantages([[reward for reward, _ in group]], [[known for _, known in group]], scale)
    assert abs(sum(found)) < 1e-6 * max(1.0, max(map(abs, found)))
    assert all(value == 0 for value, (_, known) in zip(found, group, strict=True) if not known)


def test_on_policy_the_loss_is_minus_the_advantage_and_its_gradient_reinforce() -> None:
    log_probs_T = torch.tensor([-1.0, -2.0], requires_grad=True)
    losses_T = clipped_loss(log_probs_T, log_probs_T.detach(), torch.tensor([0.5, -2.0]), CLIP)
    losses_T.sum().backward()
    assert losses_T.tolist() == [-0.5, 2.0]
    assert log_probs_T.grad is not None and log_probs_T.grad.tolist() == [-0.5, 2.0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.2, 1.0, -1.2, -1.2),  # inside
        (1.5, 1.0, -1.28, 0.0),  # above the upper clip, and it would gain
        (1.5, -1.0, 1.5, 1.5),  # above, and it loses: not clipped
        (0.5, -1.0, 0.8, 0.0),  # below the lower clip, and it would gain
        (0.5, 1.0, -0.5, -0.5),  # below, and it loses: not clipped
    ],
)
def test_the_ratio_is_clipped_only_where_it_would_gain(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    log_probs_T = torch.tensor([math.log(ratio)], requires_grad=True)
    losses_T = clipped_loss(log_probs_T, torch.zeros(1), torch.tensor([advantage]), CLIP)
    losses_T.sum().backward()
    assert losses_T.item() == pytest.approx(loss)
    assert log_probs_T.grad is not None and log_probs_T.grad.item() == pytest.approx(gradient)


def test_how_each_loss_weighs_completions_of_one_and_three_tokens() -> None:
    lengths, losses = [1, 3], [[4.0], [1.0, 1.0, 1.0]]

    def total(loss: object) -> float:
        weighted = sum(value * loss.token_weight(len(row), 10) for row in losses for value in row)  # type: ignore[attr-defined]
        return weighted / loss.divisor(lengths, 10)  # type: ignore[attr-defined]

    assert total(grpo) == total(gspo) == pytest.approx((4 + 1) / 2)
    assert total(dapo) == total(cispo) == pytest.approx((4 + 1 + 1 + 1) / 4)
    assert total(dr_grpo) == pytest.approx((4 + 3) / 10 / 2)  # a limit of 10 tokens
    assert total(rloo) == pytest.approx((4 + 3) / 2)


def test_dr_grpo_and_rloo_never_divide_by_the_deviation() -> None:
    rewards_PG, known_PG = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[True, True, False, True]])
    assert dr_grpo.advantages(rewards_PG, known_PG, True)[0].tolist() == pytest.approx([2 / 3, -1 / 3, 0, -1 / 3])
    # Each against the mean of the two others: 1 - 0, 0 - 1/2.
    assert rloo.advantages(rewards_PG, known_PG, True)[0].tolist() == pytest.approx([1.0, -0.5, 0.0, -0.5])
    alone = torch.tensor([[True, False, False, False]])
    assert rloo.advantages(rewards_PG, alone, True)[0].tolist() == [0.0] * 4


def packed(log_probs: list[float], old: list[float], advantages: list[float], completions: list[int]) -> PolicyTokens:
    """Tokens of completion -1 are prompts, laid into completion 0."""
    return PolicyTokens(
        torch.tensor(log_probs, requires_grad=True),
        torch.tensor(old),
        torch.tensor(advantages),
        torch.tensor([number >= 0 for number in completions]),
        torch.tensor([max(number, 0) for number in completions]),
        max(completions) + 1,
    )


def test_gspo_clips_the_geometric_mean_of_a_completions_ratios() -> None:
    # A prompt token, then a completion of two tokens with ratios 2 and 1/2 (mean ratio 1), then one of a single
    # token with ratio 3, whose advantage is positive: clipped, without gradient.
    log = math.log
    tokens = packed([9.0, log(2), log(0.5), log(3)], [0.0] * 4, [0.0, 0.7, 0.7, 1.0], [-1, 0, 0, 1])
    losses_T = gspo.token_losses(tokens, Clip(0.1, 0.2))
    assert losses_T[1:].tolist() == pytest.approx([-0.7, -0.7, -1.2])
    weights = [gspo.token_weight(2, 9)] * 2 + [gspo.token_weight(1, 9)]
    (losses_T[1:] * torch.tensor(weights)).sum().backward()
    # d(-0.7 s) with s = exp(mean of two): -0.7 * 1 / 2 for each of the two tokens; nothing for the prompt.
    assert tokens.log_probs_T.grad is not None
    assert tokens.log_probs_T.grad.tolist() == pytest.approx([0.0, -0.35, -0.35, 0.0])


def test_cispo_bounds_a_tokens_weight_and_keeps_its_gradient() -> None:
    tokens = packed([math.log(8), math.log(2)], [0.0, 0.0], [1.0, -1.0], [0, 0])
    losses_T = cispo.token_losses(tokens, Clip(1.0, 4.0))
    assert losses_T.tolist() == pytest.approx([-5 * math.log(8), 2 * math.log(2)])
    losses_T.sum().backward()
    assert tokens.log_probs_T.grad is not None
    assert tokens.log_probs_T.grad.tolist() == pytest.approx([-5.0, 2.0])  # the first is clipped at 5, not dropped


def test_estimates_of_the_divergence_and_their_gradients() -> None:
    policy, reference = [-1.0, -1.0, -1.0], torch.tensor([-1.0, 0.0, -3.0])  # d = 0, -1, 2
    found = {}
    for name in ("k1", "k2", "k3"):
        log_probs_T = torch.tensor(policy, requires_grad=True)
        values_T = divergence(log_probs_T, reference, name)  # type: ignore[arg-type]
        values_T.sum().backward()
        found[name] = (values_T.tolist(), log_probs_T.grad.tolist())  # type: ignore[union-attr]
    assert found["k1"] == (pytest.approx([0.0, -1.0, 2.0]), pytest.approx([0.0, -1.0, 2.0]))
    assert found["k2"] == (pytest.approx([0.0, 0.5, 2.0]), pytest.approx([0.0, -1.0, 2.0]))
    # exp(-d) - 1 + d and its derivative 1 - exp(-d).
    assert found["k3"][0] == pytest.approx([0.0, math.e - 2, math.exp(-2) + 1], abs=1e-6)
    assert found["k3"][1] == pytest.approx([0.0, 1 - math.e, 1 - math.exp(-2)], abs=1e-6)


def test_k2s_gradient_is_that_of_the_divergence_itself_and_k3s_of_the_other_way_round() -> None:
    # All three tokens of a vocabulary, weighed by the policy's own probabilities: the exact mean of each estimator.
    logits = torch.tensor([0.5, -0.3, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-0.2, 0.4, 0.3], dtype=torch.float64).log_softmax(0)

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    log_probs = logits.log_softmax(0)
    drawn = log_probs.exp().detach()
    exact = gradient((log_probs.exp() * (log_probs - reference)).sum())
    for name in ("k1", "k2"):
        estimate = gradient((drawn * divergence(log_probs, reference, name)).sum())  # type: ignore[arg-type]
        torch.testing.assert_close(estimate, exact)
    other_way = gradient((reference.exp() * (reference - log_probs)).sum())
    torch.testing.assert_close(gradient((drawn * divergence(log_probs, reference, "k3")).sum()), other_way)


@pytest.mark.parametrize(
    ("length", "cut", "penalty"),
    [(1, False, 0.0), (80, False, 0.0), (85, False, -0.25), (100, False, -1.0), (100, True, -1.0), (3, True, -1.0)],
)
def test_the_last_tokens_before_the_limit_cost_reward(length: int, cut: bool, penalty: float) -> None:
    assert overlong_penalty(length, 100, 20, cut) == pytest.approx(penalty)


def test_the_entropy_coefficient_grows_below_its_target_and_rests_above() -> None:
    control = EntropyControl(0.01, target=0.2)
    used = []
    for entropy in (0.1, 0.1, 0.3, 0.3, 0.3, 0.3, 0.1):
        used.append(control.coefficient)
        control.note(entropy)
    # 0.010, then +0.005 twice; two steps above the target shrink it, unused, to 0.010, 0.005, and 0 at last.
    assert used == pytest.approx([0.01, 0.015, 0.02, 0.0, 0.0, 0.0, 0.0])
    assert control.coefficient == pytest.approx(0.005)
    again = EntropyControl(0.01, target=0.2)
    again.restore(control.state())
    assert again.coefficient == control.coefficient
    constant = EntropyControl(0.3, target=None)
    constant.note(0.0)
    assert constant.coefficient == 0.3
