"""The drawn actions of a batch: from states and samples to combs, weights and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swirl.comb.combs import Comb, pack
from swirl.comb.sampling import Sampled
from swirl.core.types import SubTrajectory

if TYPE_CHECKING:
    from torch import Tensor

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A state and the G actions that an update drew there."""

    state: SubTrajectory
    actions: tuple[Ids, ...]
    rewards: tuple[float, ...]
    """NaN without a verdict."""
    cut: tuple[bool, ...]
    advantages: tuple[float, ...]
    logprobs: tuple[float, ...]
    """log pi(action | state) of the policy that drew them, at temperature 1."""


def combs_of(batch: Sequence[list[SubTrajectory]], unique: Sequence[list[Ids]]) -> list[Comb]:
    """One comb per trajectory: its longest state as the trunk, every distinct action of every state as a tooth."""
    of_state = iter(unique)
    combs = []
    for group in batch:
        teeth = [(len(state.state_ids), ids) for state in group for ids in next(of_state)]
        combs.append(pack(group[-1].state_ids, teeth))
    return combs


def with_stored(batch: Sequence[list[SubTrajectory]], unique: Sequence[list[Ids]]) -> list[list[Ids]]:
    """Of each state, its different actions and, last, the stored one, if it is not among them."""
    states = [state for group in batch for state in group]
    return [list(dict.fromkeys([*one, state.action_ids])) for one, state in zip(unique, states, strict=True)]


def stored_of(batch: Sequence[list[SubTrajectory]], unique: Sequence[list[Ids]]) -> Tensor:
    """(teeth,) 1 for a state's stored action, 0 for the others."""
    import torch

    states = [state for group in batch for state in group]
    same = [ids == state.action_ids for one, state in zip(unique, states, strict=True) for ids in one]
    return torch.tensor(same, dtype=torch.float64)


def weights_of(
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
    return torch.tensor(weights, dtype=torch.float64), torch.tensor(counts, dtype=torch.float64)


def states_of(comb: Comb) -> Tensor:
    """(teeth,) number of each tooth's state in its comb, from 0."""
    import torch

    seen = {sees: number for number, sees in enumerate(dict.fromkeys(tooth.sees for tooth in comb.teeth))}
    return torch.tensor([seen[tooth.sees] for tooth in comb.teeth])


def groups_of(
    batch: Sequence[list[SubTrajectory]], actions: Sequence[list[Sampled]], judged: Tensor, advantage: Tensor
) -> list[list[Group]]:
    """The drawn actions of every state, by trajectory."""
    rows = zip(actions, judged.tolist(), advantage.tolist(), strict=True)
    groups = []
    for group in batch:
        of_group = []
        for state in group:
            drawn, scores, values = next(rows)
            rewards, cut, _ = zip(*scores, strict=True)
            ids, logprobs = zip(*((one.ids, sum(one.logprobs)) for one in drawn), strict=True)
            of_group.append(Group(state, ids, rewards, tuple(map(bool, cut)), tuple(values), logprobs))
        groups.append(of_group)
    return groups


def tooth_metrics(known: Tensor, kl_coefficient: float, drawn: float) -> dict[str, float]:
    """Metrics of the teeth of all processes; `known` is (7, teeth), `drawn` the number of all draws.

    Its rows are weight, draws and imitation (as in `objective.Pulls`), length, log pi, KL and entropy. The last three
    are NaN for teeth that were not read. KL and entropy are missing where none was; without imitation so is
    `stored_logprob`, the mean over stored actions of their log pi. `loss` has imitation's part and is the mean over all
    draws, as the gradient is, the others over those that are not left out; all are at the sampling temperature.
    """
    weight, count, stored, lengths = known[:4]
    found = {"action_tokens": float((lengths * count).sum()) / max(1.0, float(count.sum())), "loss": 0.0}
    read = known[:, ~known[4].isnan() & (count > 0)]
    if read.shape[1]:
        weight, count, _, lengths, logprob, kl, entropy = read
        found["kl"] = float((kl * count).sum() / count.sum())
        found["entropy"] = float((entropy * count).sum() / (lengths * count).sum())
        found["loss"] = float((kl_coefficient * kl * count - weight * logprob).sum()) / drawn
    if (stored > 0).any():
        shown = known[4, stored > 0]
        found["stored_logprob"] = float(shown.mean())
        found["loss"] -= float((stored[stored > 0] * shown).sum()) / drawn
    return found


def reward_metrics(rewards: Tensor, is_cut: Tensor, advantage: Tensor) -> dict[str, float]:
    """Metrics of the rewards of all processes, (states, G); `is_cut` is 1 for actions that are cut."""
    return {
        "reward": float(rewards.nanmean()),  # NaN: no verdict
        "unjudged": float((rewards.isnan() & (is_cut == 0)).float().mean()),
        "cut": float(is_cut.mean()),
        "no_signal": float((advantage == 0).all(1).float().mean()),
    }
