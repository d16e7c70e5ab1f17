"""The objective, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from swirl.rl.objective import Estimator, Pulls, advantages, surrogate, token_statistics

NAN = math.nan


@pytest.mark.parametrize(
    ("estimator", "rewards", "expected"),
    [
        # the other five: 1 - 2.5/5, 0 - 3.5/5, 0.5 - 3/5
        ("reinforce", [[1, 0, 1], [0.5, 0.5, 0.5]], [[0.5, -0.7, 0.5], [-0.1, -0.1, -0.1]]),
        # 1 - (0 + 1)/2, 0 - (1 + 1)/2, 1 - (1 + 0)/2
        ("rloo", [[1, 0, 1], [0.5, 0.5, 0.5]], [[0.5, -1, 0.5], [0, 0, 0]]),
        # mean 0.5, standard deviation of (1, 0, 1, 0) with n - 1 is 1/sqrt(3)
        ("grpo", [[1, 0, 1, 0]], [[0.5 / (3**-0.5 + 1e-4), -0.5 / (3**-0.5 + 1e-4)] * 2]),
        # all equal: no signal, and no division by zero
        ("grpo", [[1, 1, 1]], [[0, 0, 0]]),
        # a missing verdict enters neither baseline nor loss: the rest is as if its action had not been sampled
        ("reinforce", [[1, NAN], [0, 1]], [[0.5, 0], [-1, 0.5]]),
        ("reinforce", [[NAN, 1]], [[0, 0]]),
        ("rloo", [[1, NAN, 0], [NAN, NAN, 1], [NAN, NAN, NAN]], [[1, 0, -1], [0, 0, 0], [0, 0, 0]]),
        # mean 0.5, deviation 1/sqrt(2)
        ("grpo", [[1, NAN, 0], [NAN, 1, NAN]], [[0.5 / (0.5**0.5 + 1e-4), 0, -0.5 / (0.5**0.5 + 1e-4)], [0, 0, 0]]),
        ("reinforce", [[NAN, NAN]], [[0, 0]]),
    ],
)
def test_advantages(estimator: Estimator, rewards: list[list[float]], expected: list[list[float]]) -> None:
    found = advantages(torch.tensor(rewards, dtype=torch.float64), estimator)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_actions_are_compared_with_their_kind() -> None:
    rewards = torch.tensor([[0.9, 0.7, 0.1, 0.3, 0.0], [0.9, 0.1, 0.5, NAN, 0.5]], dtype=torch.float64)
    kinds = torch.tensor([[1, 1, 0, 0, -1], [1, 0, 0, 0, 2]])
    found = advantages(rewards, "rloo", kinds)
    # searches with each other, answers with each other, the malformed one with all: 0 - 2/4; alone or unjudged: nothing
    wanted = [[0.2, -0.2, -0.2, 0.2, -0.5], [0, -0.4, 0.4, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert advantages(rewards, "rloo")[0, 1] == pytest.approx(0.7 - 1.3 / 4)  # with all, the worse search gains


def test_advantages_want_states_by_actions() -> None:
    with pytest.raises(ValueError, match=r"rewards must be \(states, actions\), not \(3,\)"):
        advantages(torch.zeros(3), "rloo")


def logits_of(*rows: tuple[float, ...]) -> torch.Tensor:
    """Logits of these probabilities, shifted by a constant that must not matter."""
    return torch.tensor(rows, dtype=torch.float64).log() + 5.0


def statistics(policy: torch.Tensor, reference: torch.Tensor, temperature: float = 1.0) -> list[list[float]]:
    """log pi of token 0, KL and entropy at each position."""
    targets = torch.zeros(len(policy), dtype=torch.long)
    return [values.tolist() for values in token_statistics(policy, reference, targets, temperature)]


def test_statistics_of_a_token() -> None:
    policy, reference = logits_of((0.5, 0.5), (0.9, 0.1)), logits_of((0.25, 0.75), (0.9, 0.1))
    logprob, kl, entropy = statistics(policy, reference)
    assert logprob == pytest.approx([math.log(0.5), math.log(0.9)], rel=1e-12)
    # 0.5 ln(0.5/0.25) + 0.5 ln(0.5/0.75) = 0.5 ln(4/3)
    assert kl == pytest.approx([0.14384103622589045, 0.0], rel=1e-12, abs=1e-15)
    assert entropy == pytest.approx([math.log(2), 0.3250829733914482], rel=1e-12)


def test_kl_is_of_the_policy_from_the_reference() -> None:
    # policy and reference swapped: 0.25 ln(0.25/0.5) + 0.75 ln(0.75/0.5)
    _, (kl,), _ = statistics(logits_of((0.25, 0.75)), logits_of((0.5, 0.5)))
    assert kl == pytest.approx(0.13081203594113694, rel=1e-12)


def test_statistics_are_at_the_sampling_temperature() -> None:
    """At temperature 2, probabilities are the square roots, normalised."""
    hot = logits_of((0.64, 0.16, 0.16, 0.04))
    warm = logits_of((0.8 / 1.8, 0.4 / 1.8, 0.4 / 1.8, 0.2 / 1.8))
    other = logits_of((0.25, 0.25, 0.25, 0.25))
    for found, expected in zip(statistics(hot, other, 2.0), statistics(warm, other), strict=True):
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("older", [0.3, 200.0])
def test_the_ratio_of_two_policies_does_not_weigh_a_stored_action(older: float) -> None:
    """Three actions of a state: drawn and stored, drawn, stored. The last one's old log pi may be anything."""
    logprob = torch.tensor([[-1.0, -0.5], [-2.0, -0.25], [-3.0, -4.0]], dtype=torch.float32, requires_grad=True)
    before = logprob.detach() - torch.tensor([[0.1], [0.2], [older]])
    pulls = Pulls(torch.tensor([0.5, -0.5, 0.0]), torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.25, 0.0, 0.25]))
    kl = torch.full_like(logprob, 0.1).detach()
    loss = surrogate(logprob, kl, pulls, torch.zeros(3, dtype=torch.long), 0.0, "sequence", before)
    assert float(loss.detach()) == pytest.approx(
        -(0.5 * math.exp(0.2) + 0.25) * -1.5 + 0.5 * math.exp(0.4) * -2.25 - 0.25 * -7.0, rel=1e-6
    )
    (gradient,) = torch.autograd.grad(loss, logprob)
    wanted = [[-0.5 * math.exp(0.2) - 0.25] * 2, [0.5 * math.exp(0.4)] * 2, [-0.25] * 2]
    torch.testing.assert_close(gradient, torch.tensor(wanted))
    assert bool(surrogate(logprob, kl, pulls, torch.zeros(3, dtype=torch.long), 0.1, "sequence", before).isfinite())


def test_gradients_of_the_statistics_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    reference, targets = torch.randn(3, 7, dtype=torch.float64), torch.tensor([4, 0, 6])

    def differentiable(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logprob, kl, entropy = token_statistics(logits, reference, targets, 0.7)
        assert not entropy.requires_grad
        return logprob, kl

    assert torch.autograd.gradcheck(differentiable, (logits,))
