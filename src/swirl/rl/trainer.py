"""Step-wise RL: sample actions in fixed offline states, let the reward model judge each, follow the policy gradient.

Paper: arXiv 2504.04736, section 3.2. No golden label is read here, and no tool runs, unless a reward of the
user's own runs one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from swirl.comb.combs import Comb, chosen_of, group_by_budget, split_states, tokens_of, within
from swirl.comb.gradients import recomputing
from swirl.comb.logprobs import project, tooth_states, unflatten
from swirl.comb.sampling import Sampled, Sampling
from swirl.comb.teeth import UnsampledComb, sample_teeth
from swirl.comb.trunks import Trunks
from swirl.core.distributed import ALONE, Processes
from swirl.core.flights import Flight
from swirl.core.seeds import derive
from swirl.core.threads import spread
from swirl.core.types import ActionKind, SubTrajectory
from swirl.models import adapters
from swirl.models.flops import Work, matrix_flops
from swirl.models.masters import Masters
from swirl.models.sharding import whole
from swirl.rl.drawn_actions import (
    Group,
    Ids,
    combs_of,
    groups_of,
    reward_metrics,
    states_of,
    stored_of,
    tooth_metrics,
    weights_of,
    with_stored,
)
from swirl.rl.objective import Estimator, KlGradient, Pulls, advantages, surrogate, token_statistics
from swirl.rl.summed_gradients import summed_gradients
from swirl.rollout.engine import Policy
from swirl.rollout.reading import AnyReader, reader_for
from swirl.tools.actions import DEFAULT_TAGS

if TYPE_CHECKING:
    from torch import Tensor

SAMPLED_AT_ONCE = 4
"""How many times as many tokens sampling may hold as a forward pass of training: keys and values, no activations."""


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
    """Sampled actions that are cut at `sampling.max_tokens`: left out of the gradient, or of reward 0; never judged.

    What is then left follows the objective of the actions that are not cut.
    """
    compared: Literal["all", "kind"] = "all"
    """Whose rewards an action's is compared with: all of its state's, or those of its kind."""
    kl_gradient: KlGradient = "sequence"
    imitation: float = 0.0
    """Weight of log pi of each state's stored action, in reward per nat; 0: the stored actions are not read."""
    iterations: int = 1
    """Optimiser's steps on each batch's actions; after the first, the actions are those of an older policy."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for sampling that the gradient is not for."""
        drawn = self.sampling
        if drawn.temperature <= 0 or drawn.top_p < 1 or drawn.top_k:
            raise ValueError(
                f"temperature {drawn.temperature}, top_p {drawn.top_p}, top_k {drawn.top_k}: the gradient, KL and "
                "entropy are of the whole distribution at a temperature above 0, and actions must be drawn from that"
            )


class ActionScorer(Protocol):
    """A reward model: R(a | s) in [0, 1], or NaN where it gives no verdict."""

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth of every comb; each tooth is just an action, without the judge's question."""


class Trainer:
    """A policy, its frozen reference and a reward model; `update` does one step of RL.

    With several processes, each works on its share of a batch's trajectories, dealt out by their tokens, and all take
    the same step. Policy and reference may be sharded over them (`swirl.models.sharding`).
    """

    def __init__(
        self,
        policy: Policy,
        reference: Any | None,
        reward_model: ActionScorer,
        settings: Settings,
        processes: Processes = ALONE,
        reader_of: Callable[[str], AnyReader] | None = None,
        flight: Flight | None = None,
    ) -> None:
        """`reader_of` gives what reads the actions on a question by its id, so that they end as in a rollout; None:
        one for the built-in tools.

        `flight` is how many tokens sampling holds at once; None: `SAMPLED_AT_ONCE` times the token budget. With
        `reference` None, the reference is the policy without its adapter.
        """
        import torch

        self.policy, self.reference, self.reward_model, self.settings = policy, reference, reward_model, settings
        self.masters, self.processes = Masters(policy.model), processes
        self._reader_of = reader_of or (lambda question: reader_for(self.policy.chat, DEFAULT_TAGS))
        self._flight = flight or Flight("train.sampled_tokens", SAMPLED_AT_ONCE * settings.token_budget)
        self.deal = processes.deal([])
        """Which process had which trajectories of the last update."""
        self.drawn: list[list[Group]] = []
        """What the last update drew in this process's share: trajectory -> state."""
        self.work = Work()
        """Tokens and FLOPs of the last update, all processes together."""
        self.optimizer = torch.optim.Adam(self.masters.tensors(), lr=settings.lr, betas=(0.9, 0.95))

    def update(self, number: int, batch: Sequence[list[SubTrajectory]]) -> dict[str, float]:
        """Sample, judge, and take the optimiser's steps on `batch`; returns its label-free metrics."""
        import torch

        settings, processes = self.settings, self.processes
        self.deal = processes.deal([self._size(group) for group in batch])
        mine = self.deal.mine(batch)
        actions = self._sample(number, mine)
        sizes = [len(group) for group in mine]
        unique = [list(dict.fromkeys(drawn.ids for drawn in of_state)) for of_state in actions]
        combs = combs_of(mine, unique)
        cut = self._cut(mine, unique)
        judged = self._rewards(combs, unique, actions, cut, self._kinds(batch, mine, unique))
        # Every process gets all rewards (the baseline may be the batch's), and keeps its own states' advantages.
        rewards, is_cut, kinds = torch.cat(self.deal.merge(judged.split(sizes))).unbind(-1)
        every = advantages(rewards, settings.estimator, kinds if settings.compared == "kind" else None)
        rows = self.deal.mine(torch.arange(len(rewards)).split([len(group) for group in batch]))
        advantage = every[[int(row) for of_group in rows for row in of_group]]
        self.drawn = groups_of(mine, actions, judged, advantage)
        left_out = cut if settings.cut_actions == "ignore" else [frozenset[Ids]() for _ in cut]
        taught = unique
        if settings.imitation:
            taught = with_stored(mine, unique)
            combs = combs_of(mine, taught)
        weight, count = weights_of(taught, actions, advantage, left_out)
        stored = settings.imitation * settings.samples * stored_of(mine, taught)
        read = (weight != 0) | (stored != 0) | bool(settings.kl_coefficient)  # the rest has no gradient
        combs = chosen_of(combs, read.tolist())
        pulls = Pulls(weight[read], count[read], stored[read])
        drawn = float(rewards.numel())
        statistics, norm = self._learn(number, combs, pulls, drawn)
        self.work = sum(processes.gather(self._work(mine, combs, actions)), Work())
        lengths = torch.tensor([float(len(ids)) for of_state in taught for ids in of_state]).double()
        known = torch.full((7, len(weight)), math.nan, dtype=torch.float64)  # its rows: `tooth_metrics`
        known[:4] = torch.stack([weight, count, stored, lengths])
        known[4:, read] = torch.stack(statistics).to(known)
        of_group = iter(taught)
        split = [sum(len(next(of_group)) for _ in group) for group in mine]
        known = torch.cat(self.deal.merge(known.split(split, 1)), 1)
        different = sum(processes.gather(sum(map(len, unique)))) / len(rewards)
        metrics = tooth_metrics(known, settings.kl_coefficient, drawn) | reward_metrics(rewards, is_cut, every)
        return metrics | {"different_actions": different, "gradient_norm": norm}

    def _learn(self, number: int, combs: Sequence[Comb], pulls: Pulls, drawn: float) -> tuple[list[Tensor], float]:
        """Take the optimiser's steps; returns the statistics of the first, of the policy that drew the actions.

        They are sums over each tooth's tokens of log pi, KL to the reference and entropy, (teeth,) each, at the
        sampling temperature: the distribution that the actions were drawn from. Also returns the mean gradient norm.
        """
        import torch

        packed, budget = self.settings.packed, self.settings.token_budget
        combs = within(combs, budget) if packed else split_states(combs)
        norms: list[float] = []
        first: list[list[Tensor]] = []
        for _ in range(self.settings.iterations):
            before = [logprob for logprob, *_ in first] if first else None
            made = self._gradients(combs, pulls, drawn, before)
            first = first or made
            norms.append(self._step(number))
        sums = [[statistic.sum(1) for statistic in of_comb] for of_comb in first]
        statistics = [torch.cat(column) for column in zip(*sums, strict=True)] or [torch.zeros(0)] * 3
        return statistics, sum(norms) / len(norms)

    def _size(self, group: list[SubTrajectory]) -> int:
        """The most tokens that a trajectory's longest state and the actions that are sampled in its states can have."""
        return len(group[-1].state_ids) + len(group) * self.settings.samples * self.settings.sampling.max_tokens

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
        sizes = [self._size(group) for group in batch]
        model, end_ids = self.policy.model, self.policy.chat.end_ids

        def drawn(tokens: int) -> dict[int, list[Sampled]]:
            shares = group_by_budget(sizes, tokens, settings.workers)
            made = spread(
                lambda share: sample_teeth(model, [bare[i] for i in share], settings.sampling, end_ids),
                shares,
                settings.workers,
            )
            return dict(pair for pairs in map(zip, shares, made) for pair in pairs)

        with whole(model):
            of_comb = self._flight.run(drawn)
        teeth = [tooth for i in range(len(bare)) for tooth in of_comb[i]]
        return [teeth[i : i + settings.samples] for i in range(0, len(teeth), settings.samples)]

    def _reader(self, group: list[SubTrajectory]) -> AnyReader:
        return self._reader_of(group[0].question_id)

    def _cut(self, batch: Sequence[list[SubTrajectory]], unique: Sequence[list[Ids]]) -> list[frozenset[Ids]]:
        """Of each state, the actions that are cut."""
        readers = [self._reader(group) for group in batch for _ in group]
        return [frozenset(filter(one.cut, of_state)) for one, of_state in zip(readers, unique, strict=True)]

    def _kinds(
        self, batch: Sequence[list[SubTrajectory]], mine: Sequence[list[SubTrajectory]], unique: Sequence[list[Ids]]
    ) -> list[dict[Ids, float]]:
        """Of each of my states, what its actions do: 0 for an answer, 1 and on for calls and thoughts, -1 if faulty.

        A kind has one number in the whole batch, in all processes. Where kinds do not count, they are all 0.
        """
        if self.settings.compared == "all":
            return [dict.fromkeys(of_state, 0.0) for of_state in unique]
        tools = [kind for group in batch for kind in self._reader(group).tags.values()]
        numbers = {
            kind: float(number)
            for number, kind in enumerate(dict.fromkeys((ActionKind.ANSWER, *tools, ActionKind.THINK)))
        }
        readers = [self._reader(group) for group in mine for _ in group]
        return [
            {ids: numbers.get(one.read(ids).kind, -1.0) for ids in of_state}
            for one, of_state in zip(readers, unique, strict=True)
        ]

    def _rewards(
        self,
        combs: Sequence[Comb],
        unique: Sequence[list[Ids]],
        actions: Sequence[list[Sampled]],
        cut: Sequence[frozenset[Ids]],
        kinds: Sequence[Mapping[Ids, float]],
    ) -> Tensor:
        """R of each sampled action, 1 if it is cut, else 0, and its kind: (states, G, 3). A cut one is not judged."""
        import torch

        uncut = [ids not in cut_here for cut_here, of_state in zip(cut, unique, strict=True) for ids in of_state]
        shown = chosen_of(combs, uncut)
        scores = iter([score for comb in self.reward_model.scores(shown) for score in comb])
        without = 0.0 if self.settings.cut_actions == "penalise" else math.nan
        rows = []
        for of_state, cut_here, does, drawn in zip(unique, cut, kinds, actions, strict=True):
            table = {ids: without if ids in cut_here else next(scores) for ids in of_state}
            rows.append([(table[one.ids], float(one.ids in cut_here), does[one.ids]) for one in drawn])
        return torch.tensor(rows, dtype=torch.float64).view(len(rows), self.settings.samples, 3)

    def _gradients(
        self, combs: Sequence[Comb], pulls: Pulls, drawn: float, before: Sequence[Tensor] | None
    ) -> list[list[Tensor]]:
        """Set the policy's gradients, by what pulls each of the combs' teeth.

        The loss is the mean over the `drawn` actions of all processes; each process adds the part of its own teeth. All
        teeth of a state must stand in one comb. `before` is log pi of each comb under the policy that drew the actions,
        if that was another one.

        Returns log pi, KL to the reference and entropy of each comb's tokens, (teeth, longest) each, 0 where padded.
        """
        import torch

        settings, model = self.settings, self.policy.model
        sizes = [comb.packed_size if settings.packed else comb.plain_size for comb in combs]
        shares = group_by_budget(sizes, settings.token_budget, settings.workers)
        split = [values.split([len(comb.teeth) for comb in combs]) for values in pulls]
        references = self._references(combs, shares)
        found: dict[int, list[Tensor]] = {}

        def loss_of(number: int) -> Tensor:
            share = shares[number]
            chosen = [combs[i] for i in share]
            other, reference = self.reference or model, references[number]  # no adapter is ever on the output layer
            hidden, targets = tooth_states(model, chosen, settings.packed)
            temperature = settings.sampling.temperature
            models = [(model, hidden), (other, reference)]
            per_token = project(models, targets, lambda p, q, token: token_statistics(p, q, token, temperature))
            rows = [unflatten(values, chosen) for values in per_token]
            for place, i in enumerate(share):
                found[i] = [statistic[place].detach().cpu() for statistic in rows]
            losses = []
            for place, i in enumerate(share):
                logprob, kl, _ = (statistic[place] for statistic in rows)
                of_comb = Pulls(*(values[i].to(logprob) for values in split))
                old = None if before is None else before[i].to(logprob)
                state = states_of(combs[i]).to(logprob.device)
                beta, form = settings.kl_coefficient, settings.kl_gradient
                losses.append(surrogate(logprob, kl, of_comb, state, beta, form, old))
            return torch.stack(losses).sum() / drawn

        masters = self.masters
        with recomputing(model, settings.recompute):
            summed_gradients(model, masters, range(len(shares)), loss_of, settings.workers, self.processes)
        return [found[i] for i in range(len(combs))]

    def _work(
        self, batch: Sequence[list[SubTrajectory]], combs: Sequence[Comb], actions: Sequence[list[Sampled]]
    ) -> Work:
        """Work of sampling from each trajectory's longest state, of the reference's forward pass and of the update."""
        model, packed = self.policy.model, self.settings.packed
        going = [{one.ids[:n] for one in of_state for n in range(1, len(one.ids))} for of_state in actions]
        drawn = float(sum(map(len, going)))  # what actions of a state begin with is read once
        trunks = float(len(Trunks([group[-1].state_ids for group in batch]).ids))
        read, predicted = tokens_of(combs, packed)
        flops = matrix_flops(model, trunks + drawn, drawn + len(actions), training=False)
        once = matrix_flops(model, read, predicted, training=False) + matrix_flops(model, read, predicted, True)
        return Work(self.settings.iterations * read, flops + self.settings.iterations * once)

    def _references(self, combs: Sequence[Comb], shares: Sequence[Sequence[int]]) -> list[Tensor]:
        """The reference's `tooth_states` of each share: a separate model's, or the policy's with its adapter off.

        The switch is in the model, so all shares are read before the policy reads any of them.
        """
        import torch

        model = self.reference or self.policy.model

        def states(share: Sequence[int]) -> Tensor:
            with torch.no_grad():
                return tooth_states(model, [combs[i] for i in share], self.settings.packed)[0]

        with whole(model), nullcontext() if self.reference is not None else adapters.switched_off(model):
            return spread(states, shares, self.settings.workers)

    def _step(self, number: int) -> float:
        settings = self.settings
        rate = settings.lr * min(1.0, (number + 1) / settings.warmup) if settings.warmup else settings.lr
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = self.masters.clip(settings.clip)
        self.optimizer.step()
        self.masters.publish()
        return norm
