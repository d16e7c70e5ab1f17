"""The objective of step-wise RL: J(theta) = E_{s ~ T}[E_{a ~ pi(s)}[R(a | s)] - beta KL(pi(s) || pi_ref(s))].

Paper: arXiv 2504.04736, section 3.2; it does not publish the estimator, the KL coefficient or how rewards are
normalised. Ours: REINFORCE with a leave-one-out baseline over the G actions of a state (RLOO), no normalisation by the
index of the step. Both distributions are over whole actions, at the sampling temperature and over the whole vocabulary.

The divergence of an action's tokens a_1..a_T is a sum over positions, KL(pi || pi_ref) = E_a[sum_t K_t], where K_t is
the exact divergence of the next token's distributions after a_1..a_{t-1}. Its gradient has two parts,

    E_a[sum_t (grad K_t + (sum_{u > t} K_u) grad log pi(a_t | a_<t))],

because the policy chooses where the later positions are. tests/rl/test_enumeration.py compares the expectation of all
this, over every action of a small model, with autograd through J.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Estimator = Literal["reinforce", "rloo", "grpo"]
"""How rewards become advantages; see `advantages`."""

KlGradient = Literal["sequence", "token"]
"""Which gradient KL has; see `surrogate`."""


def advantages(rewards: Tensor, estimator: Estimator, kinds: Tensor | None = None) -> Tensor:
    """Advantages of the G actions of each of N states, (N, G); a NaN reward (no verdict) gives advantage 0.

    With the n valid rewards r_1..r_n of one state and their mean m:

    - reinforce: A_i = r_i - (mean of all other valid rewards of the batch), one baseline for all states;
    - rloo: A_i = r_i - (1/(n-1)) sum_{j != i} r_j = (n/(n-1)) (r_i - m) (Kool et al. 2019; Ahmadian et al. 2024);
    - grpo: A_i = (r_i - m) / (s + 1e-4) with s the standard deviation of r_1..r_n (Shao et al. 2024).

    The first two are unbiased: no reward is in its own baseline, so E[A_i grad log pi(a_i)] = grad E[R]. grpo is not.
    Its own reward in m shrinks the gradient by 1 - 1/n, and the division by s, which depends on the rewards, weights
    states by how much their samples differ: for rewards of 0 and 1, P(GOOD) = p and many samples, by
    1 / sqrt(p (1 - p)). It thus follows another objective than J, and beta means something else beside it.

    Where rloo and grpo find all valid rewards of a state equal, or fewer than two of them, every advantage is exactly
    0: the state has no signal. Where an action has no verdict, the others' expectation is that of actions with one.

    With `kinds` (N, G), what an action does as a number from 0, or below 0 for none that is well-formed, m, s and n are
    of the actions of the same kind; those below 0 are compared with all. Searches are then compared with searches and
    answers with answers: rloo's expectation is the sum over kinds of P(kind) grad E[R | kind], where the state has two
    draws of that kind. How often each kind is chosen has no reward of its own: it is left to KL, and to what is not
    well-formed.
    """
    import torch

    if rewards.ndim != 2:
        raise ValueError(f"rewards must be (states, actions), not {tuple(rewards.shape)}")
    if kinds is not None:
        found = torch.where(kinds < 0, advantages(rewards, estimator), torch.zeros_like(rewards))
        for kind in kinds[kinds >= 0].unique():
            found += advantages(torch.where(kinds == kind, rewards, math.nan), estimator)
        return found
    valid = ~rewards.isnan()
    nothing = torch.zeros_like(rewards)
    known = torch.where(valid, rewards, nothing)
    if estimator == "reinforce":
        others = (valid.sum() - 1).clamp_min(1)
        baseline = (known.sum() - known) / others
        return torch.where(valid & (valid.sum() > 1), rewards - baseline, nothing)
    count = valid.sum(1, keepdim=True)
    highest = torch.where(valid, rewards, -torch.inf).amax(1, keepdim=True)
    lowest = torch.where(valid, rewards, torch.inf).amin(1, keepdim=True)
    mean = known.sum(1, keepdim=True) / count.clamp_min(1)
    centred = torch.where(valid & (highest > lowest), rewards - mean, nothing)
    if estimator == "rloo":
        return centred * count / (count - 1).clamp_min(1)
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
    return centred / (deviation + 1e-4)


class Pulls(NamedTuple):
    """What moves the log-probability of each of the different actions of some states, (actions,) each."""

    weight: Tensor
    """The advantages of an action, summed over its draws."""
    draws: Tensor
    """How often it was drawn."""
    stored: Tensor
    """The weight of imitation, over all draws of the state, where it is the stored action; else 0."""


def surrogate(
    logprob: Tensor,
    kl: Tensor,
    pulls: Pulls,
    state: Tensor,
    kl_coefficient: float,
    kl_gradient: KlGradient,
    before: Tensor | None = None,
) -> Tensor:
    """A scalar whose gradient is the estimate of -grad J, summed over all draws of the different actions of states.

    `logprob` and `kl` are (actions, longest), log pi(a_t) and K_t, 0 after an action's end, and `state` (actions,) is
    the number of an action's state, from 0. Stored actions add their `Pulls.stored` times -log pi: imitation, which J
    does not have.

    With `kl_gradient` sequence, a token's return has the divergence of the later positions in it, less a baseline: the
    mean, position by position, of the state's other draws (equal ones too, since they were drawn on their own; 0 after
    their end). This is the gradient of J. With token, only K_t itself is differentiated, as if the policy did not
    choose where the later positions are. That is what losses of language models often do, has less variance, and is no
    gradient of J: it can have the opposite sign.

    `before` (actions, longest) are the log pi(a_t) of the policy that drew the actions, where that is not this one. The
    estimate is then weighted by the ratios of the two policies, whole ones for rewards and those of the tokens before
    each position for KL. It is unbiased for a second policy that does not depend on the draws; no ratio is clipped.
    """
    import torch

    weight, count, stored = pulls
    upto = torch.ones_like(logprob) if before is None else (logprob.detach() - before).cumsum(1).exp()
    upto = torch.where(count[:, None] > 0, upto, 1.0)  # what was not drawn has no ratio
    earlier = torch.cat([torch.ones_like(upto[:, :1]), upto[:, :-1]], 1)
    loss = (kl_coefficient * count[:, None] * earlier * kl).sum()
    loss -= ((weight * upto[:, -1] + stored) * logprob.sum(1)).sum()
    if kl_gradient == "token" or not kl_coefficient:
        return loss
    known, groups = kl.detach(), int(state.max()) + 1
    total = known.new_zeros(groups, known.shape[1]).index_add(0, state, count[:, None] * known)
    draws = known.new_zeros(groups).index_add(0, state, count)
    baseline = (total[state] - known) / (draws[state] - 1).clamp_min(1)[:, None]
    excess = earlier * (known - baseline)
    later = torch.nn.functional.pad(excess.flip(1).cumsum(1).flip(1)[:, 1:], (0, 1))
    return loss + (kl_coefficient * count[:, None] * later * logprob).sum()


def token_statistics(
    logits: Tensor, reference_logits: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """log pi(target), KL(pi || pi_ref) and H(pi) at each position, (N,) nats each, at the sampling temperature.

    Logits are (N, V) in float32 or wider. KL is the exact divergence over the vocabulary. The first two are
    differentiable in `logits`, the entropy is not.
    """
    if temperature != 1:
        logits, reference_logits = logits / temperature, reference_logits / temperature
    logprob, kl, entropy = _statistics().apply(logits, reference_logits, targets)
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
