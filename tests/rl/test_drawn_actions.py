"""Metrics of drawn actions, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from swirl.rl.drawn_actions import tooth_metrics


def test_the_loss_is_a_mean_over_all_draws_and_the_rest_over_those_that_count() -> None:
    """Four draws, of which one is left out; a stored action that nobody drew has imitation's weight 0.5."""
    none = math.nan
    known = torch.tensor(
        [
            [0.6, -0.6, 0.0, 0.0],  # weight
            [2.0, 1.0, 0.0, 0.0],  # draws
            [0.0, 0.0, 0.0, 0.5],  # imitation
            [3.0, 5.0, 8.0, 2.0],  # length
            [-1.0, -2.0, none, -4.0],  # log pi
            [0.3, 0.9, none, 0.7],  # KL
            [1.2, 2.0, none, 0.1],  # entropy
        ],
        dtype=torch.float64,
    )
    pulled = 0.1 * (2 * 0.3 + 0.9) - (0.6 * -1.0 + -0.6 * -2.0) - 0.5 * -4.0
    assert tooth_metrics(known, 0.1, 4.0) == pytest.approx({
        "action_tokens": (2 * 3 + 5) / 3, "loss": pulled / 4, "kl": (2 * 0.3 + 0.9) / 3,
        "entropy": (2 * 1.2 + 2.0) / (2 * 3 + 5), "stored_logprob": -4.0,
    })  # fmt: skip
