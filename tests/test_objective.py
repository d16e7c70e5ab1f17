"""The objective, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from swirl.rl.objective import Estimator, advantages, entropy, exact_kl, policy_gradient_loss

NAN = math.nan


@pytest.mark.parametrize(
    ("estimator", "rewards", "expected"),
    [
        # mean of all six is 3.5 / 6
        ("reinforce", [[1, 0, 1], [0.5, 0.5, 0.5]], [[2.5 / 6, -3.5 / 6, 2.5 / 6], [-0.5 / 6, -0.5 / 6, -0.5 / 6]]),
        # 1 - (0 + 1)/2, 0 - (1 + 1)/2, 1 - (1 + 0)/2
        ("rloo", [[1, 0, 1], [0.5, 0.5, 0.5]], [[0.5, -1, 0.5], [0, 0, 0]]),
        # mean 0.5, standard deviation of (1, 0, 1, 0) with n - 1 is 1/sqrt(3)
        ("grpo", [[1, 0, 1, 0]], [[0.5 / (3**-0.5 + 1e-4), -0.5 / (3**-0.5 + 1e-4)] * 2]),
        # all alike: no signal, and no division by nothing
        ("grpo", [[1, 1, 1]], [[0, 0, 0]]),
        # a missing verdict takes part in neither baseline nor loss: the others are as if it had not been drawn
        ("reinforce", [[1, NAN], [0, 1]], [[1 / 3, 0], [-2 / 3, 1 / 3]]),
        ("rloo", [[1, NAN, 0], [NAN, NAN, 1], [NAN, NAN, NAN]], [[1, 0, -1], [0, 0, 0], [0, 0, 0]]),
        # mean 0.5, deviation 1/sqrt(2)
        ("grpo", [[1, NAN, 0], [NAN, 1, NAN]], [[0.5 / (0.5**0.5 + 1e-4), 0, -0.5 / (0.5**0.5 + 1e-4)], [0, 0, 0]]),
        ("reinforce", [[NAN, NAN]], [[0, 0]]),
    ],
)
def test_advantages(estimator: Estimator, rewards: list[list[float]], expected: list[list[float]]) -> None:
    found = advantages(torch.tensor(rewards, dtype=torch.float64), estimator)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_advantages_want_states_by_actions() -> None:
    with pytest.raises(ValueError, match=r"rewards must be \(states, actions\), not \(3,\)"):
        advantages(torch.zeros(3), "rloo")


def logits_of(*rows: tuple[float, ...]) -> torch.Tensor:
    """Logits of these probabilities, shifted by a constant that must not matter."""
    return torch.tensor(rows, dtype=torch.float64).log() + 5.0


def test_exact_kl() -> None:
    policy, reference = logits_of((0.5, 0.5), (0.9, 0.1)), logits_of((0.25, 0.75), (0.9, 0.1))
    # 0.5 ln(0.5/0.25) + 0.5 ln(0.5/0.75) = 0.5 ln(4/3)
    expected = torch.tensor([0.14384103622589045, 0.0], dtype=torch.float64)
    torch.testing.assert_close(exact_kl(policy, reference), expected, rtol=1e-12, atol=1e-12)


def test_exact_kl_is_of_the_policy_from_the_reference() -> None:
    # the other way round: 0.25 ln(0.25/0.5) + 0.75 ln(0.75/0.5)
    found = exact_kl(logits_of((0.25, 0.75)), logits_of((0.5, 0.5)))
    assert float(found[0]) == pytest.approx(0.13081203594113694, rel=1e-12)


def test_entropy() -> None:
    found = entropy(logits_of((0.25, 0.25, 0.25, 0.25), (0.5, 0.25, 0.125, 0.125)))
    # ln 4 and 1.75 ln 2
    torch.testing.assert_close(
        found, torch.tensor([1.3862943611198906, 1.2130075659799042], dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_policy_gradient_loss_and_its_gradients() -> None:
    logprobs = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    kl = torch.tensor([0.2, 0.4], dtype=torch.float64, requires_grad=True)
    loss = policy_gradient_loss(logprobs, advantage, kl, 0.1)
    # -(0.5 * -1 + -1 * -2) / 2 + 0.1 * 0.3
    assert loss.item() == pytest.approx(-0.72, rel=1e-12)
    loss.backward()
    assert logprobs.grad is not None
    assert kl.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-0.25, 0.5])
    assert kl.grad.tolist() == pytest.approx([0.05, 0.05])
    assert advantage.grad is None


def test_policy_gradient_loss_wants_one_entry_an_action() -> None:
    with pytest.raises(ValueError, match="one entry an action each"):
        policy_gradient_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2, 3), 0.1)
