"""The objective of step-wise RL: J(theta) = E_{s ~ T, a ~ pi_theta(s)}[R(a | s)] - beta KL(pi_theta || pi_ref).

Paper: arXiv 2504.04736, section 3.2; it does not publish the estimator, the scale of KL or how rewards are normalised.
Ours: REINFORCE with a leave-one-out baseline over the G actions of a state (RLOO), KL in the loss, no normalisation by
the index of the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Estimator = Literal["reinforce", "rloo", "grpo"]


def advantages(rewards: Tensor, estimator: Estimator) -> Tensor:
    """Advantages of the G actions of each of N states, (N, G); a NaN reward (no verdict) gives advantage 0.

    With the n valid rewards r_1..r_n of one state and their mean m:

    - reinforce: A_i = r_i - (mean over all states and actions), one baseline for the batch;
    - rloo: A_i = r_i - (1/(n-1)) sum_{j != i} r_j = (n/(n-1)) (r_i - m) (Kool et al. 2019; Ahmadian et al. 2024);
    - grpo: A_i = (r_i - m) / (s + 1e-4) with s the standard deviation of r_1..r_n (Shao et al. 2024).

    A state with fewer than two valid rewards has no baseline and gives 0 (rloo, grpo).
    """
    import torch

    if rewards.ndim != 2:
        raise ValueError(f"rewards must be (states, actions), not {tuple(rewards.shape)}")
    valid = ~rewards.isnan()
    known = torch.where(valid, rewards, torch.zeros_like(rewards))
    count = valid.sum(1, keepdim=True)
    if estimator == "reinforce":
        mean = known.sum() / valid.sum().clamp_min(1)
        return torch.where(valid, rewards - mean, torch.zeros_like(rewards))
    mean = known.sum(1, keepdim=True) / count.clamp_min(1)
    centred = torch.where(valid & (count > 1), rewards - mean, torch.zeros_like(rewards))
    if estimator == "rloo":
        return centred * count / (count - 1).clamp_min(1)
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
    return centred / (deviation + 1e-4)


def exact_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(pi || pi_ref) at each position, exactly: sum_v pi(v) (log pi(v) - log pi_ref(v)).

    Both (N, V), float32 or wider; returns (N,) nats.
    """
    import torch

    log_policy = torch.log_softmax(logits, -1)
    return (log_policy.exp() * (log_policy - torch.log_softmax(reference_logits, -1))).sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """H(pi) at each position, (N, V) -> (N,) nats."""
    import torch

    log_policy = torch.log_softmax(logits, -1)
    return -(log_policy.exp() * log_policy).sum(-1)


def policy_gradient_loss(
    sequence_logprobs: Tensor, advantage: Tensor, sequence_kl: Tensor, kl_coefficient: float
) -> Tensor:
    """-(1/N) sum_i [ A_i log pi(a_i | s_i) ] + beta (1/N) sum_i KL_i over N sampled actions, all (N,).

    log pi and KL are sums over an action's tokens. On policy with one update a batch, so no importance ratio.
    """
    if not sequence_logprobs.shape == advantage.shape == sequence_kl.shape:
        raise ValueError("log-probabilities, advantages and KL must have one entry an action each")
    return -(advantage.detach() * sequence_logprobs).mean() + kl_coefficient * sequence_kl.mean()
