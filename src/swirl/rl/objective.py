"""The objective of step-wise RL: J(theta) = E_{s ~ T, a ~ pi_theta(s)}[R(a | s)] - beta KL(pi_theta || pi_ref).

Paper: arXiv 2504.04736, section 3.2; it does not publish the estimator, the KL coefficient or how rewards are
normalised. Ours: REINFORCE with a leave-one-out baseline over the G actions of a state (RLOO), KL in the loss, no
normalisation by the index of the step.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

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


def token_statistics(
    logits: Tensor, reference_logits: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """log pi(target), KL(pi || pi_ref) and H(pi) at each position, (N,) nats each, at the sampling temperature.

    Logits are (N, V) in float32 or wider. KL is the exact divergence over the vocabulary. The first two are
    differentiable in `logits`, the entropy is not.
    """
    logprob, kl, entropy = _statistics().apply(logits / temperature, reference_logits / temperature, targets)
    return logprob, kl, entropy


@cache
def _statistics() -> Any:
    """The autograd function: one softmax per model, and a gradient in closed form.

    With p = pi, d = log pi - log pi_ref and K = sum p d: d log p_t / d z = 1_t - p, and dK / d z = p (d - K).
    """
    import torch

    class TokenStatistics(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, logits: Tensor, reference: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            log_policy = torch.log_softmax(logits, -1)
            policy = log_policy.exp()
            logprob = log_policy.gather(-1, targets[:, None])[:, 0]
            entropy = -_dot(policy, log_policy)
            difference = log_policy - torch.log_softmax(reference, -1)
            kl = _dot(policy, difference)
            ctx.save_for_backward(policy, difference, kl, targets)
            ctx.mark_non_differentiable(entropy)
            return logprob, kl, entropy

        @staticmethod
        def backward(ctx: Any, grad_logprob: Tensor, grad_kl: Tensor, _: Any) -> tuple[Tensor, None, None]:
            policy, difference, kl, targets = ctx.saved_tensors
            gradient = difference - kl[:, None]
            gradient.mul_(grad_kl[:, None]).sub_(grad_logprob[:, None]).mul_(policy)
            gradient.scatter_add_(1, targets[:, None], grad_logprob[:, None])
            return gradient, None, None

    return TokenStatistics


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Dot products over the last axis: (N, V) and (N, V) -> (N,)."""
    return (a[:, None] @ b[:, :, None])[:, 0, 0]
