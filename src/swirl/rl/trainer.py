"""Step-wise RL: sample actions in fixed offline states, let the reward model judge each, follow the policy gradient.

Paper: arXiv 2504.04736, section 3.2. No tool runs here and no golden label is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from swirl.comb.combs import Comb, group_by_budget, pack, split_teeth
from swirl.comb.gradients import accumulate, recomputing
from swirl.comb.logprobs import action_logprobs, project, tooth_states, unflatten
from swirl.comb.sampling import Sampled, Sampling
from swirl.comb.teeth import UnsampledComb, sample_teeth
from swirl.core.distributed import ALONE, Processes
from swirl.core.seeds import derive
from swirl.core.threads import spread
from swirl.core.types import SubTrajectory
from swirl.models import adapters
from swirl.models.flops import Work, matrix_flops
from swirl.rl.masters import Masters
from swirl.rl.objective import Estimator, advantages, token_statistics
from swirl.rollout.engine import Policy
from swirl.rollout.reading import Reader
from swirl.tools.actions import DEFAULT_TAGS

if TYPE_CHECKING:
    from torch import Tensor


Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of step-wise RL's updates, in the units of params.yaml."""

    states: int
    samples: int
    sampling: Sampling
    lr: float
    warmup: int
    estimator: Estimator
    kl_coefficient: float
    clip: float
    packed: bool
    token_budget: int
    """Maximum number of tokens per forward pass, unless one comb alone has more."""
    workers: int
    """Number of forward passes at the same time."""
    seed: int
    recompute: bool = False
    """Whether layers recompute their activations in the backward pass, to save memory."""
    cut_actions: Literal["ignore", "penalise"] = "penalise"
    """Sampled actions that are cut at `sampling.max_tokens`: left out of the gradient, or of reward 0; never judged."""


class ActionScorer(Protocol):
    """A reward model: R(a | s) in [0, 1], or NaN where it gives no verdict."""

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth of every comb; each tooth is just an action, without the judge's question."""


class Trainer:
    """A policy, its frozen reference and a reward model; `update` does one step of RL.

    With several processes, each works on its share of a batch's trajectories, and all take the same step.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Any | None,
        reward_model: ActionScorer,
        settings: Settings,
        processes: Processes = ALONE,
        tags_of: Callable[[str], Mapping[str, str]] = lambda question: DEFAULT_TAGS,
    ) -> None:
        """`tags_of` gives the tags of a question's tools by its id, so that actions end as in a rollout.

        With `reference` None, the reference is the policy without its adapter; `settings.workers` must then be 1.
        """
        import torch

        if reference is None and settings.workers != 1:
            raise ValueError("an adapter cannot be switched off in one thread alone: workers must be 1")
        self.policy, self.reference, self.reward_model, self.settings = policy, reference, reward_model, settings
        self.masters, self.processes, self._tags_of = Masters(policy.model), processes, tags_of
        self.drawn: list[list[list[Sampled]]] = []
        """Actions of the last update in this process's share: trajectory -> state -> G actions."""
        self.work = Work()
        """Tokens and FLOPs of the last update, all processes together."""
        self.optimizer = torch.optim.Adam(self.masters.tensors(), lr=settings.lr, betas=(0.9, 0.95))

    def update(self, number: int, batch: Sequence[list[SubTrajectory]]) -> dict[str, float]:
        """Sample, judge, and take one optimiser step on `batch`; returns its label-free metrics."""
        import torch

        settings, processes = self.settings, self.processes
        mine = processes.mine(batch)
        actions = self._sample(number, mine)
        sizes = [len(group) for group in mine]
        states = iter(actions)
        self.drawn = [[next(states) for _ in range(size)] for size in sizes]
        unique = [list(dict.fromkeys(drawn.ids for drawn in of_state)) for of_state in actions]
        combs = _combs(mine, unique)
        cut = self._cut(mine, unique)
        judged = self._rewards(combs, unique, actions, cut)
        # Every process gets all rewards (the baseline may be the batch's), and keeps its own states' advantages.
        rewards, halves = torch.cat(processes.merge(judged.split(sizes))).unbind(-1)
        rows = processes.mine(torch.arange(len(rewards)).split([len(group) for group in batch]))
        advantage = advantages(rewards, settings.estimator)[[int(row) for of_group in rows for row in of_group]]
        left_out = cut if settings.cut_actions == "ignore" else [frozenset[Ids]() for _ in cut]
        weight, count = _weights(unique, actions, advantage, left_out)
        statistics = self._gradients(combs, weight, count, float(rewards.numel()))
        norm = self._step(number)
        self.work = sum(processes.gather(self._work(mine, combs, actions)), Work())
        known = torch.stack([weight, count, *statistics]).split([len(comb.teeth) for comb in combs], 1)
        weight, count, logprob, kl, entropies, lengths = torch.cat(processes.merge(known), 1)
        drawn = max(1.0, float(count.sum()))
        # A reward of NaN means that there was no verdict.
        return {
            "reward": float(rewards.nanmean()),
            "unjudged": float((rewards.isnan() & (halves == 0)).float().mean()),
            "cut": float(halves.mean()),
            "kl": float((kl * count).sum()) / drawn,
            "entropy": float((entropies * count).sum() / (lengths * count).sum().clamp_min(1)),
            "action_tokens": float((lengths * count).sum()) / drawn,
            "different_actions": len(count) / len(rewards),
            "loss": float((settings.kl_coefficient * kl * count - weight * logprob).sum()) / drawn,
            "gradient_norm": norm,
        }

    def _sample(self, number: int, batch: Sequence[list[SubTrajectory]]) -> list[list[Sampled]]:
        """G actions for each state; each trajectory is read once, whatever the number of its states and actions."""
        settings = self.settings
        bare = [
            UnsampledComb(
                group[-1].state_ids,
                tuple(
                    (len(state.state_ids), derive(settings.seed, "rl", number, state.trajectory_id, state.step, g))
                    for state in group
                    for g in range(settings.samples)
                ),
                self._reader(group).complete,
            )
            for group in batch
        ]
        longest = settings.sampling.max_tokens
        shares = group_by_budget(
            [len(comb.trunk) + len(comb.teeth) * longest for comb in bare], settings.token_budget, settings.workers
        )
        model, end_ids = self.policy.model, self.policy.chat.end_ids
        drawn = spread(
            lambda share: sample_teeth(model, [bare[i] for i in share], settings.sampling, end_ids),
            shares,
            settings.workers,
        )
        of_comb: dict[int, list[Sampled]] = {}
        for share, made in zip(shares, drawn, strict=True):
            of_comb |= zip(share, made, strict=True)
        teeth = [tooth for i in range(len(bare)) for tooth in of_comb[i]]
        return [teeth[i : i + settings.samples] for i in range(0, len(teeth), settings.samples)]

    def _reader(self, group: list[SubTrajectory]) -> Reader:
        return Reader(self.policy.chat, self._tags_of(group[0].question_id))

    def _cut(self, batch: Sequence[list[SubTrajectory]], unique: Sequence[list[Ids]]) -> list[frozenset[Ids]]:
        """Of each state, the actions that are cut."""
        readers = [self._reader(group) for group in batch for _ in group]
        return [frozenset(filter(one.cut, of_state)) for one, of_state in zip(readers, unique, strict=True)]

    def _rewards(
        self,
        combs: Sequence[Comb],
        unique: Sequence[list[Ids]],
        actions: Sequence[list[Sampled]],
        cut: Sequence[frozenset[Ids]],
    ) -> Tensor:
        """R of each sampled action, and 1 if it is cut, else 0: (states, G, 2). One that is cut is not judged."""
        import torch

        whole = iter([ids not in halves for halves, of_state in zip(cut, unique, strict=True) for ids in of_state])
        kept = [(comb.trunk, [(tooth.sees, tooth.ids) for tooth in comb.teeth if next(whole)]) for comb in combs]
        shown = [pack(trunk, teeth) for trunk, teeth in kept if teeth]
        scores = iter([score for comb in self.reward_model.scores(shown) for score in comb])
        without = 0.0 if self.settings.cut_actions == "penalise" else math.nan
        rows = []
        for of_state, halves, drawn in zip(unique, cut, actions, strict=True):
            table = {ids: without if ids in halves else next(scores) for ids in of_state}
            rows.append([(table[one.ids], float(one.ids in halves)) for one in drawn])
        return torch.tensor(rows).view(len(rows), self.settings.samples, 2)

    def _gradients(self, combs: Sequence[Comb], weight: Tensor, count: Tensor, drawn: float) -> list[Tensor]:
        """Set the policy's gradients; `weight` is each tooth's summed advantage and `count` how often it was drawn.

        The loss is the mean over the `drawn` actions of all processes; each process adds the part of its own teeth.

        Returns sums over each tooth's tokens of log pi, KL to the reference, entropy and token counts, (teeth,) each,
        at the sampling temperature: the distribution that the actions were drawn from.
        """
        import torch

        settings, model = self.settings, self.policy.model
        combs = combs if settings.packed else split_teeth(combs)
        sizes = [comb.packed_size if settings.packed else comb.plain_size for comb in combs]
        shares = group_by_budget(sizes, settings.token_budget, settings.workers)
        bounds = torch.tensor([len(comb.teeth) for comb in combs]).cumsum(0).tolist()
        found: dict[int, list[Tensor]] = {}

        def loss_of(share: Sequence[int]) -> Tensor:
            chosen = [combs[i] for i in share]
            with torch.no_grad(), self._as_reference() as other:
                reference, _ = tooth_states(other, chosen, settings.packed)
            hidden, targets = tooth_states(model, chosen, settings.packed)
            temperature = settings.sampling.temperature
            models = [(model, hidden), (other, reference)]
            per_token = project(models, targets, lambda p, q, token: token_statistics(p, q, token, temperature))
            rows = [unflatten(values, chosen) for values in (*per_token, torch.ones_like(per_token[0]))]
            sums = [[of_comb.sum(1) for of_comb in statistic] for statistic in rows]
            loss = hidden.new_zeros((), dtype=per_token[0].dtype)
            for place, i in enumerate(share):
                logprob, kl = sums[0][place], sums[1][place]
                mine = slice(bounds[i] - len(combs[i].teeth), bounds[i])
                w, c = weight[mine].to(logprob), count[mine].to(logprob)
                loss = loss + (settings.kl_coefficient * c * kl - w * logprob).sum() / drawn
                found[i] = [statistic[place].detach().cpu() for statistic in sums]
            return loss

        masters = self.masters
        with recomputing(model, settings.recompute):
            accumulate(masters.parameters, shares, loss_of, settings.workers, masters.tensors())
        masters.add_up(self.processes)
        if not combs:
            return [torch.zeros(0)] * 4
        return [torch.cat([found[i][k] for i in range(len(combs))]) for k in range(4)]

    def _work(
        self, batch: Sequence[list[SubTrajectory]], combs: Sequence[Comb], actions: Sequence[list[Sampled]]
    ) -> Work:
        """Work of sampling from each trajectory's longest state, of the reference's forward pass and of the update."""
        model, packed = self.policy.model, self.settings.packed
        drawn = float(sum(len(action.ids) for of_state in actions for action in of_state))
        read, predicted = _tokens(combs, packed)
        flops = matrix_flops(model, sum(len(group[-1].state_ids) for group in batch) + drawn, drawn, training=False)
        flops += matrix_flops(model, read, predicted, training=False) + matrix_flops(model, read, predicted, True)
        return Work(read, flops)

    @contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """The reference model: a separate one, or the policy with its adapter off in this block.

        Its output layer may be used after the block, too, since no adapter is ever put on it.
        """
        if self.reference is not None:
            yield self.reference
            return
        with adapters.switched_off(self.policy.model):
            yield self.policy.model

    def _step(self, number: int) -> float:
        import torch

        settings = self.settings
        rate = settings.lr * min(1.0, (number + 1) / settings.warmup) if settings.warmup else settings.lr
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.masters.tensors(), settings.clip)
        self.optimizer.step()
        self.masters.publish()
        return float(norm)


def _combs(batch: Sequence[list[SubTrajectory]], unique: Sequence[list[tuple[int, ...]]]) -> list[Comb]:
    """One comb per trajectory: its longest state as the trunk, every distinct action of every state as a tooth."""
    of_state = iter(unique)
    combs = []
    for group in batch:
        teeth = [(len(state.state_ids), ids) for state in group for ids in next(of_state)]
        combs.append(pack(group[-1].state_ids, teeth))
    return combs


def _weights(
    unique: Sequence[list[Ids]],
    actions: Sequence[list[Sampled]],
    advantage: Tensor,
    left_out: Sequence[frozenset[Ids]],
) -> tuple[Tensor, Tensor]:
    """For every tooth, the summed advantages and the number of the draws that gave it; (teeth,) each.

    Both are 0 for the actions of a state that are `left_out`.
    """
    import torch

    weights: list[float] = []
    counts: list[int] = []
    for of_state, drawn, row, out in zip(unique, actions, advantage.tolist(), left_out, strict=True):
        totals = dict.fromkeys(of_state, 0.0)
        for action, value in zip(drawn, row, strict=True):
            totals[action.ids] += value
        weights += totals.values()
        counts += [0 if ids in out else sum(action.ids == ids for action in drawn) for ids in of_state]
    return torch.tensor(weights), torch.tensor(counts, dtype=torch.float32)


def comb_of(group: Sequence[SubTrajectory]) -> Comb:
    """A trajectory's stored actions as teeth on its longest state."""
    return pack(group[-1].state_ids, [(len(step.state_ids), step.action_ids) for step in group])


def supervised_loss(model: Any, batch: Sequence[list[SubTrajectory]], packed: bool) -> tuple[Tensor, float]:
    """Summed negative log-likelihood of the stored actions' tokens given their states, and their number (for SFT)."""
    import torch

    combs = [comb_of(group) for group in batch]
    total = -torch.stack([rows.sum() for rows in action_logprobs(model, combs, packed)]).sum()
    return total, float(sum(len(tooth.ids) for comb in combs for tooth in comb.teeth))


def _tokens(combs: Sequence[Comb], packed: bool) -> tuple[float, float]:
    """How many tokens a model reads for these combs, and how many it predicts."""
    read = sum(comb.packed_size if packed else comb.plain_size for comb in combs)
    return float(read), float(sum(len(tooth.ids) for comb in combs for tooth in comb.teeth))


def supervised_work(model: Any, batch: Sequence[list[SubTrajectory]], packed: bool) -> Work:
    """Tokens and FLOPs of `supervised_gradients`, all processes together."""
    read, predicted = _tokens([comb_of(group) for group in batch], packed)
    return Work(read, matrix_flops(model, read, predicted, training=True))


def supervised_gradients(
    model: Any,
    masters: Masters,
    batch: Sequence[list[SubTrajectory]],
    packed: bool,
    token_budget: int,
    workers: int,
    processes: Processes = ALONE,
) -> float:
    """Set the gradients to those of the mean negative log-likelihood per token of `batch`, and return this mean."""
    mine = processes.mine(batch)
    combs = [comb_of(group) for group in mine]
    count = _deal([comb.packed_size if packed else comb.plain_size for comb in combs], token_budget, workers)
    tokens: dict[int, float] = {}

    def loss_of(number: int) -> Tensor:
        total, tokens[number] = supervised_loss(model, mine[number::count], packed)
        return total

    shares = range(min(count, len(mine)))
    total = accumulate(masters.parameters, shares, loss_of, workers, masters.tensors())
    masters.add_up(processes)
    losses, numbers = zip(*processes.gather((total, sum(tokens.values()))), strict=True)
    weight = sum(numbers)
    for master in masters.tensors():
        if master.grad is not None:
            master.grad /= weight
    return float(sum(losses) / weight)


def _deal(sizes: Sequence[int], token_budget: int, workers: int) -> int:
    """The smallest multiple of `workers` shares, dealt out in turn, that keeps each share within the token budget.

    A share of a single item may exceed it.
    """
    count = workers
    while any(len(dealt := sizes[n::count]) > 1 and sum(dealt) > token_budget for n in range(count)):
        count += workers
    return count
