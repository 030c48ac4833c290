"""The arithmetic of learning from a reward, held against definitions, hand-computed numbers and brute force."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.modeling.objectives import policy


def discounted(rewards: list[float], values: list[float], gamma: float, decay: float) -> list[float]:
    """Advantages by their definition, a sum over all later surprises: O(n²)."""
    ahead = [*values[1:], 0.0]
    surprises = [r + gamma * later - now for r, later, now in zip(rewards, ahead, values, strict=True)]
    return [
        sum((gamma * decay) ** (later - at) * surprises[later] for later in range(at, len(surprises)))
        for at in range(len(surprises))
    ]


@pytest.mark.parametrize(("gamma", "decay"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_are_those_of_the_definition_for_rows_of_any_length(gamma, decay):
    random = torch.Generator().manual_seed(1)
    rewards, values = (torch.randn(5, 9, generator=random, dtype=torch.float64) for _ in range(2))
    lengths = [9, 1, 4, 8, 2]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    found, returns = policy.advantages(rewards, values, mask, gamma=gamma, decay=decay)
    for row, length in enumerate(lengths):
        wanted = discounted(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, decay)
        assert found[row, :length].tolist() == pytest.approx(wanted, abs=1e-12)
        assert returns[row, :length].tolist() == pytest.approx(
            [a + v for a, v in zip(wanted, values[row].tolist(), strict=False)], abs=1e-12
        )
        assert not found[row, length:].any()
        assert not returns[row, length:].any()


def test_what_lies_outside_the_mask_is_never_looked_at():
    rewards, values = torch.randn(2, 4), torch.randn(2, 4)
    mask = torch.tensor([[True, True, False, False], [True, True, True, False]])
    clean = policy.advantages(rewards, values, mask, gamma=1.0, decay=0.9)
    dirty = policy.advantages(
        torch.where(mask, rewards, torch.nan), torch.where(mask, values, torch.inf), mask, gamma=1.0, decay=0.9
    )
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert torch.equal(policy.whiten(torch.where(mask, values, torch.nan), mask), policy.whiten(values, mask))


def test_with_lambda_one_the_return_is_the_sum_of_what_is_still_to_come():
    rewards = torch.tensor([[0.0, 0.5, -1.0, 2.0]])
    _, returns = policy.advantages(rewards, torch.randn(1, 4), torch.ones(1, 4, dtype=torch.bool), gamma=1.0, decay=1.0)
    assert returns[0].tolist() == pytest.approx([1.5, 1.5, 1.0, 2.0], abs=1e-6)


def test_the_score_is_given_at_the_last_token_and_divergence_is_taken_off_everywhere():
    divergence = torch.tensor([[1.0, 2.0, 9.0], [0.5, -0.5, 1.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = policy.token_rewards(torch.tensor([3.0, -1.0]), divergence, mask, coefficient=0.1)
    assert found.flatten().tolist() == pytest.approx([-0.1, 2.8, 0.0, -0.05, 0.05, -1.1])


# new - old log-probability, advantage, and the loss and whether the clip of 0.2 holds, by hand from eq. 7 of the paper
CLIPPED = [
    (0.0, 2.0, -2.0, False),
    (math.log(1.1), 2.0, -2.2, False),
    (math.log(1.5), 2.0, -2.4, True),  # better already than it may become
    (math.log(0.5), 2.0, -1.0, False),  # worse than when sampled: the way back is free
    (math.log(0.5), -1.0, 0.8, True),
    (math.log(1.5), -1.0, 1.5, False),
]


@pytest.mark.parametrize(("change", "advantage", "loss", "held"), CLIPPED)
def test_the_policy_loss_is_the_pessimistic_one_and_a_clipped_token_has_no_gradient(change, advantage, loss, held):
    old = torch.tensor([-1.3])
    new = (old + change).requires_grad_()
    found = policy.clipped_policy_loss(new, old, torch.tensor([advantage]), clip=0.2)
    assert float(found.loss.detach()) == pytest.approx(loss, rel=1e-5)
    assert bool(found.clipped) is held
    found.loss.sum().backward()
    assert (float(new.grad) == 0.0) is held


def test_where_nothing_has_moved_the_gradient_is_the_policy_gradient():
    old = torch.tensor([-0.5, -2.0])
    new = old.clone().requires_grad_()
    policy.clipped_policy_loss(new, old, torch.tensor([1.5, -0.5]), clip=0.2).loss.sum().backward()
    assert new.grad.tolist() == pytest.approx([-1.5, 0.5])


@pytest.mark.parametrize(
    ("new", "old", "target", "loss"),
    [
        (1.0, 1.0, 3.0, 2.0),
        (1.1, 1.0, 3.0, 0.5 * 1.9**2),
        (2.0, 1.0, 3.0, 0.5 * 1.8**2),  # the held value, 1.2, errs more
        (0.0, 1.0, 3.0, 0.5 * 3.0**2),  # the free one does
    ],
)
def test_the_value_loss_takes_the_greater_error(new, old, target, loss):
    found = policy.clipped_value_loss(torch.tensor([new]), torch.tensor([old]), torch.tensor([target]), clip=0.2)
    assert float(found) == pytest.approx(loss, rel=1e-6)


def test_both_estimates_average_to_the_divergence_by_its_definition():
    new, reference = (torch.log_softmax(torch.tensor(v, dtype=torch.float64), -1) for v in ([0.3, -1.0, 2.0], [1.0, 0.5, 0.0]))
    exact = float((new.exp() * (new - reference)).sum())
    for estimate in (policy.divergence_k1, policy.divergence_k3):
        assert float((new.exp() * estimate(new, reference)).sum()) == pytest.approx(exact, rel=1e-9)
    assert bool((policy.divergence_k3(new, reference) >= 0).all())
    assert bool((policy.divergence_k1(new, reference) < 0).any())


def test_entropy_is_that_of_the_definition():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0], [math.log(3.0), 0.0, -1e9, -1e9]])
    wanted = [math.log(4.0), 0.0, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]
    assert policy.entropy(logits).tolist() == pytest.approx(wanted, abs=1e-6)


def test_whitened_values_have_mean_zero_and_variance_one_over_the_mask_alone():
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(2)) * 7 + 3
    mask = torch.arange(6) < torch.tensor([6, 2, 3, 1])[:, None]
    found = policy.whiten(values, mask)
    assert float(found[mask].mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(found[mask].var(unbiased=False)) == pytest.approx(1.0, abs=1e-5)
    assert not found[~mask].any()
    assert not policy.whiten(torch.full((2, 3), 5.0), torch.ones(2, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize(
    ("divergence", "wanted"),
    [(6.0, 0.1), (12.0, 0.102), (600.0, 0.102), (0.0, 0.098), (-3.0, 0.098), (6.6, 0.101)],
)
def test_the_coefficient_follows_the_divergence_two_percent_a_rollout_at_most(divergence, wanted):
    assert policy.steered(0.1, divergence, target=6.0) == pytest.approx(wanted)


def test_the_controller_finds_a_coefficient_that_holds_the_target():
    """A world in which the divergence is 3 / coefficient: the coefficient that gives 6 is 0.5."""
    coefficient = 0.1
    for _ in range(400):
        coefficient = policy.steered(coefficient, 3.0 / coefficient, target=6.0)
    assert coefficient == pytest.approx(0.5, rel=0.01)
