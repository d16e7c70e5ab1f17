"""Step-wise RL: sample actions on fixed offline states, let the reward model judge each, follow the policy gradient.

Paper: arXiv 2504.04736, section 3.2. No tool runs here and no golden label is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from swirl.rl.combs import Comb, pack
from swirl.rl.logprobs import tooth_logits, unflatten
from swirl.rl.objective import Estimator, advantages, entropy, exact_kl, policy_gradient_loss
from swirl.rollout.engine import Policy
from swirl.rollout.sampler import Conversations, Sampled, Sampling
from swirl.seeds import derive, generator
from swirl.types import SubTrajectory

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Settings:
    """The optimiser's side of step-wise RL; see params.yaml for units."""

    states: int
    samples: int
    sampling: Sampling
    lr: float
    warmup: int
    estimator: Estimator
    kl_coefficient: float
    clip: float
    packed: bool
    seed: int


class ActionScorer(Protocol):
    """A reward model: R(a | s) in [0, 1], or NaN where it gives no verdict."""

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth of every comb; each tooth is a bare action on its state."""


def by_trajectory(steps: Sequence[SubTrajectory]) -> list[list[SubTrajectory]]:
    """Sub-trajectories grouped by trajectory, in the order of first appearance, steps ascending."""
    groups: dict[str, list[SubTrajectory]] = {}
    for step in steps:
        groups.setdefault(step.trajectory_id, []).append(step)
    return [sorted(group, key=lambda step: step.step) for group in groups.values()]


def state_batches(groups: Sequence[list[SubTrajectory]], states: int, seed: int) -> Iterator[list[list[SubTrajectory]]]:
    """For ever: whole trajectories with at least `states` states together, reshuffled every epoch."""
    batch: list[list[SubTrajectory]] = []
    epoch = 0
    while True:
        order = list(range(len(groups)))
        generator(seed, "epoch", epoch).shuffle(order)
        for index in order:
            batch.append(groups[index])
            if sum(map(len, batch)) >= states:
                yield batch
                batch = []
        epoch += 1


class Trainer:
    """A policy, its frozen reference and a reward model; `update` does one step of RL."""

    def __init__(self, policy: Policy, reference: Any, reward_model: ActionScorer, settings: Settings) -> None:
        import torch

        self.policy, self.reference, self.reward_model, self.settings = policy, reference, reward_model, settings
        self.optimizer = torch.optim.Adam(policy.model.parameters(), lr=settings.lr, betas=(0.9, 0.95))

    def update(self, number: int, batch: Sequence[list[SubTrajectory]]) -> dict[str, float]:
        """Sample, judge, and take one optimiser step on `batch`; returns its label-free metrics."""
        import torch

        states = [step for group in batch for step in group]
        actions = self._sample(number, states)
        unique = [list(dict.fromkeys(drawn.ids for drawn in of_state)) for of_state in actions]
        combs = _combs(batch, unique)
        rewards = self._rewards(combs, unique, actions)
        advantage = advantages(rewards, self.settings.estimator)
        logprob, kl, entropies, lengths = self._statistics(combs)
        where = torch.tensor(_positions(unique, actions))
        loss = policy_gradient_loss(
            logprob[where], advantage.flatten().to(logprob.device), kl[where], self.settings.kl_coefficient
        )
        norm = self._step(number, loss)
        # NaN means: no verdict
        return {
            "reward": float(rewards.nanmean()),
            "unjudged": float(rewards.isnan().float().mean()),
            "kl": float(kl[where].detach().mean()),
            "entropy": float(entropies[where].sum() / lengths[where].sum()),
            "action_tokens": float(lengths[where].float().mean()),
            "different_actions": sum(map(len, unique)) / len(unique),
            "loss": float(loss.detach()),
            "gradient_norm": norm,
        }

    def _sample(self, number: int, states: Sequence[SubTrajectory]) -> list[list[Sampled]]:
        """G actions for each state; each state is read once, its cache shared by its actions."""
        count = self.settings.samples
        conversations = Conversations(self.policy.model, [state.state_ids for state in states])
        conversations.select([index for index in range(len(states)) for _ in range(count)])
        seeds = [
            derive(self.settings.seed, "rl", number, state.trajectory_id, state.step, g)
            for state in states
            for g in range(count)
        ]
        drawn = conversations.act(seeds, self.settings.sampling, self.policy.chat.end_ids)
        return [drawn[i : i + count] for i in range(0, len(drawn), count)]

    def _rewards(self, combs: Sequence[Comb], unique: Sequence[list[Any]], actions: Sequence[list[Sampled]]) -> Tensor:
        """R of each sampled action, (states, G)."""
        import torch

        scores = iter([score for comb in self.reward_model.scores(combs) for score in comb])
        tables = [{ids: next(scores) for ids in of_state} for of_state in unique]
        return torch.tensor([[table[d.ids] for d in drawn] for table, drawn in zip(tables, actions, strict=True)])

    def _statistics(self, combs: Sequence[Comb]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sums over each tooth's tokens of log pi, KL to the reference and entropy, and token counts; (teeth,) each.

        All at the sampling temperature: the distribution that the actions were drawn from.
        """
        import torch

        logits, targets = tooth_logits(self.policy.model, combs, self.settings.packed)
        temperature = self.settings.sampling.temperature
        logits = logits.float() / temperature
        with torch.no_grad():
            reference, _ = tooth_logits(self.reference, combs, self.settings.packed)
        logprobs = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
        per_token = [
            logprobs,
            exact_kl(logits, reference.float() / temperature),
            entropy(logits.detach()),
            torch.ones_like(logprobs),
        ]
        sums = [torch.cat([rows.sum(1) for rows in unflatten(values, combs)]) for values in per_token]
        return sums[0], sums[1], sums[2], sums[3]

    def _step(self, number: int, loss: Tensor) -> float:
        import torch

        settings, parameters = self.settings, list(self.policy.model.parameters())
        rate = settings.lr * min(1.0, (number + 1) / settings.warmup) if settings.warmup else settings.lr
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        self.optimizer.step()
        return float(norm)


def _combs(batch: Sequence[list[SubTrajectory]], unique: Sequence[list[tuple[int, ...]]]) -> list[Comb]:
    """One comb a trajectory: its longest state as the trunk, every different action of every state as a tooth."""
    of_state = iter(unique)
    combs = []
    for group in batch:
        teeth = [(len(state.state_ids), ids) for state in group for ids in next(of_state)]
        combs.append(pack(group[-1].state_ids, teeth))
    return combs


def _positions(unique: Sequence[list[tuple[int, ...]]], actions: Sequence[list[Sampled]]) -> list[int]:
    """For each sampled action, the number of its tooth among all teeth."""
    positions, start = [], 0
    for of_state, drawn in zip(unique, actions, strict=True):
        positions += [start + of_state.index(action.ids) for action in drawn]
        start += len(of_state)
    return positions


def supervised_loss(model: Any, batch: Sequence[list[SubTrajectory]], packed: bool) -> Tensor:
    """Mean negative log-likelihood a token of the stored actions on their states: the SFT baseline."""
    import torch

    combs = [pack(group[-1].state_ids, [(len(step.state_ids), step.action_ids) for step in group]) for group in batch]
    logits, targets = tooth_logits(model, combs, packed)
    return torch.nn.functional.cross_entropy(logits.float(), targets)
