"""The gradient of step-wise RL against autograd through its objective, over every action of a small model.

The objective is a finite sum over all actions, and the expectation of what the trainer does is a finite sum over all
draws. Both are computed here in float64, without sampling.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, product
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from swirl.comb.combs import Comb
from swirl.comb.sampling import Sampled, Sampling
from swirl.core.types import SubTrajectory
from swirl.rl.objective import Pulls, surrogate
from swirl.rl.trainer import Settings, Trainer
from swirl.rollout.engine import Policy
from tests import tiny

Ids = tuple[int, ...]
State = tuple[int, ...]
BETA = 0.3


class Actions:
    """Tokens of a small vocabulary: the last one ends a turn, the one before makes an action whole, others go on."""

    def __init__(self, vocabulary: int, longest: int) -> None:
        self.vocabulary, self.longest = vocabulary, longest
        self.whole, self.end = vocabulary - 2, vocabulary - 1
        self.chat: Any = SimpleNamespace(
            thinking=False,
            end_ids=frozenset({self.end}),
            said_by=lambda token: ">" if token == self.whole else "",
            so_far=lambda ids: "<answer> x </answer>" if self.whole in ids else "",
        )

    def every(self) -> list[Ids]:
        """All actions: ended, whole, or cut at the longest length."""
        going = list(range(self.whole))
        return [
            (*start, token)
            for length in range(1, self.longest + 1)
            for start in product(going, repeat=length - 1)
            for token in (range(self.vocabulary) if length == self.longest else (self.whole, self.end))
        ]

    def cut(self, ids: Ids) -> bool:
        return ids[-1] < self.whole


def reward(state: State, ids: Ids) -> float:
    """Something different for every action, exact in float32."""
    return (sum((place + 2) * (token + 1) for place, token in enumerate(ids)) + len(state)) % 7 / 8


class Rewards:
    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        return [[reward(comb.trunk[: tooth.sees], tooth.ids) for tooth in comb.teeth] for comb in combs]


def tokens(model: Any, state: State, ids: Ids, temperature: float) -> torch.Tensor:
    """log pi of the next token after the state and each beginning of the action, (length, V), by plain forwards."""
    logits = model(input_ids=torch.tensor([[*state, *ids]])).logits[0, len(state) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1)


def logprob(model: Any, state: State, ids: Ids, temperature: float) -> torch.Tensor:
    return tokens(model, state, ids, temperature).gather(-1, torch.tensor(ids)[:, None])[:, 0]


def objective(
    policy: Any, reference: Any, states: Sequence[State], actions: Actions, settings: Settings
) -> torch.Tensor:
    """J: the mean over the states of E[R] - beta KL, where KL = sum over actions of P(a) log(P(a) / P_ref(a))."""
    temperature, total = settings.sampling.temperature, torch.zeros((), dtype=torch.float64)
    for state in states:
        probabilities = []
        for ids in actions.every():
            own = logprob(policy, state, ids, temperature).sum()
            other = logprob(reference, state, ids, temperature).sum().detach()
            value = 0.0 if actions.cut(ids) else reward(state, ids)
            total = total + own.exp() * (value - settings.kl_coefficient * (own - other))
            probabilities.append(float(own.detach().exp()))
        assert math.fsum(probabilities) == pytest.approx(1.0, abs=1e-12)
    return total / len(states)


def draws(
    policy: Any, states: Sequence[State], actions: Actions, settings: Settings
) -> Iterator[tuple[float, list[list[Ids]]]]:
    """Every way to draw G actions in each state, in any order, with its probability."""
    temperature, every = settings.sampling.temperature, actions.every()
    chances = []
    for state in states:
        with torch.no_grad():
            of_action = {ids: float(logprob(policy, state, ids, temperature).sum().exp()) for ids in every}
        of_state = []
        for drawn in combinations_with_replacement(every, settings.samples):
            orders = math.factorial(len(drawn)) / math.prod(math.factorial(drawn.count(ids)) for ids in set(drawn))
            of_state.append((orders * math.prod(of_action[ids] for ids in drawn), list(drawn)))
        chances.append(of_state)
    for rows in product(*chances):
        yield math.prod(chance for chance, _ in rows), [drawn for _, drawn in rows]


def expectation(
    learner: Trainer, states: Sequence[State], actions: Actions, later: Any | None = None
) -> list[torch.Tensor]:
    """The expected ascent direction of an update; with `later`, of its second step, taken from that model's weights."""
    steps = [SubTrajectory("t", "q", "b", k, state, (0,), 0.5) for k, state in enumerate(states)]
    model, masters, hooked = learner.policy.model, learner.masters.tensors(), learner
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = [torch.zeros_like(p) for p in masters]
    total = 0.0
    for chance, rows in draws(model, states, actions, learner.settings):
        seen: list[list[torch.Tensor]] = []

        def step(number: int, seen: list[list[torch.Tensor]] = seen) -> float:
            seen.append([torch.zeros_like(p) if p.grad is None else p.grad for p in masters])
            if later is not None:
                model.load_state_dict(later.state_dict())
            return 0.0

        hooked._step = step  # type: ignore[method-assign]
        hooked._sample = lambda number, batch, rows=rows: [  # type: ignore[method-assign,misc]
            [Sampled(ids, (0.0,) * len(ids)) for ids in of_state] for of_state in rows
        ]
        learner.update(0, [steps])
        model.load_state_dict(weights)
        assert len(seen) == learner.settings.iterations
        for sum_, gradient in zip(found, seen[-1], strict=True):
            sum_ -= chance * gradient
        total += chance
    assert total == pytest.approx(1.0, abs=1e-9)
    return found


def settings_of(actions: Actions, samples: int, **changes: Any) -> Settings:
    made = Settings(
        states=1,
        samples=samples,
        sampling=Sampling(temperature=0.8, max_tokens=actions.longest),
        lr=1e-3,
        warmup=0,
        estimator="rloo",
        kl_coefficient=BETA,
        clip=1.0,
        packed=True,
        token_budget=4096,
        workers=1,
        seed=3,
    )
    return dataclasses.replace(made, **changes)


def gap(states: Sequence[State], actions: Actions, settings: Settings, second: bool = False) -> tuple[float, float]:
    """The largest difference between the expected and the exact gradient, and the largest exact one."""
    reference = tiny.qwen3(actions.vocabulary, seed=1).requires_grad_(False)
    policy = Policy("p", tiny.qwen3(actions.vocabulary, seed=0), actions.chat, 64)
    later = tiny.qwen3(actions.vocabulary, seed=0)
    if second:
        torch.manual_seed(5)
        with torch.no_grad():
            for parameter in later.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    learner = Trainer(policy, reference, Rewards(), settings)
    with tiny.Exact():
        objective(later, reference, states, actions, settings).backward()
        found = expectation(learner, states, actions, later if second else None)
    exact = [parameter.grad for parameter in later.parameters()]
    differences = [float((ours - theirs).abs().max()) for ours, theirs in zip(found, exact, strict=True)]
    return max(differences), max(float(theirs.abs().max()) for theirs in exact)


ONE: list[State] = [(0, 1, 0)]
TWO: list[State] = [(0, 1), (0, 1, 0, 0)]
WIDE, DEEP, SHORT = Actions(4, 3), Actions(3, 4), Actions(3, 2)


@pytest.mark.parametrize(
    ("states", "actions", "samples", "estimator", "kl_coefficient"),
    [
        (ONE, DEEP, 3, "rloo", BETA),
        pytest.param(TWO, SHORT, 2, "rloo", 0.0, marks=pytest.mark.slow),
        (TWO, SHORT, 2, "reinforce", BETA),
        pytest.param(ONE, DEEP, 3, "rloo", 0.0, marks=pytest.mark.slow),
        pytest.param(ONE, WIDE, 2, "rloo", BETA, marks=pytest.mark.slow),
        pytest.param(ONE, WIDE, 2, "rloo", 0.0, marks=pytest.mark.slow),
        pytest.param(TWO, SHORT, 2, "rloo", BETA, marks=pytest.mark.slow),
        pytest.param(TWO, SHORT, 2, "reinforce", 0.0, marks=pytest.mark.slow),
    ],
)
def test_the_expected_gradient_is_that_of_the_objective(
    states: list[State], actions: Actions, samples: int, estimator: Any, kl_coefficient: float
) -> None:
    lengths = {(len(ids), actions.cut(ids)) for ids in actions.every()}
    assert {length for length, _ in lengths} == set(range(1, actions.longest + 1))
    settings = settings_of(actions, samples, estimator=estimator, kl_coefficient=kl_coefficient)
    difference, size = gap(states, actions, settings)
    assert size > 0.01
    assert difference < 1e-12


@pytest.mark.parametrize("kl_coefficient", [BETA, 0.0])
@pytest.mark.parametrize("packed", [True, False])
def test_a_second_step_on_the_same_actions_follows_the_objective_too(packed: bool, kl_coefficient: float) -> None:
    """The actions are those of an older policy then."""
    settings = settings_of(SHORT, 3, iterations=2, packed=packed, kl_coefficient=kl_coefficient)
    difference, size = gap(ONE, SHORT, settings, second=True)
    assert size > 0.01
    assert difference < 1e-12


@pytest.mark.parametrize("change", [{"kl_gradient": "token"}, {"estimator": "grpo"}])
def test_what_does_not_claim_to_be_unbiased_is_not(change: dict[str, Any]) -> None:
    difference, size = gap(ONE, SHORT, settings_of(SHORT, 3, **change))
    assert difference > 0.05 * size


def test_kl_by_token_can_have_the_wrong_sign() -> None:
    """Two tokens of two words: z are the first token's logits, and the second's are fixed after each of them.

    With pi = (.3, .7) and pi_ref = (.4, .6), K_1 = .3 ln(.3/.4) + .7 ln(.7/.6) = .0216; after word 0, K_2 is 1, and
    after word 1 it is 0. Then dK_1/dz_0 = .3 (ln(.3/.4) - K_1) = -.0928, and the rest of the gradient is
    d(.3 K_2)/dz_0 = .3 x .7 x 1 = .21.
    """
    z = torch.tensor([0.3, 0.7], dtype=torch.float64).log().requires_grad_()
    logp = torch.log_softmax(z, -1)
    first = (logp.exp() * (logp - torch.tensor([0.4, 0.6], dtype=torch.float64).log())).sum()
    nothing = torch.zeros((), dtype=torch.float64)

    def gradient(drawn: tuple[int, int], kind: Any) -> torch.Tensor:
        rows = [torch.stack([logp[word], nothing]) for word in drawn]
        kl = [torch.stack([first, nothing + (1.0 if word == 0 else 0.0)]) for word in drawn]
        ones, none = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        state = torch.zeros(2, dtype=torch.long)
        pulls = Pulls(none, ones, none)
        loss = surrogate(torch.stack(rows), torch.stack(kl), pulls, state, 1.0, kind) / 2
        return torch.autograd.grad(loss, z, retain_graph=True)[0]

    for kind, expected in (("sequence", -0.0928 + 0.21), ("token", -0.0928)):
        mean = sum(
            p * gradient(drawn, kind) for drawn, p in (((0, 0), 0.09), ((0, 1), 0.21), ((1, 0), 0.21), ((1, 1), 0.49))
        )
        assert float(mean[0]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(top_p=0.95), Sampling(top_k=5), Sampling(temperature=0.0)])
def test_sampling_that_the_gradient_is_not_for_is_refused(sampling: Sampling) -> None:
    with pytest.raises(ValueError, match="whole distribution"):
        settings_of(SHORT, 2, sampling=sampling)
