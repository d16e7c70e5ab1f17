"""Step-wise RL and its parts: packed equals plain, equal seeds give equal bytes, and what is rewarded is learned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.comb.combs import Comb
from swirl.comb.sampling import Sampling
from swirl.comb.teeth import UnsampledComb, sample_teeth
from swirl.core.checkpoints import Checkpoints
from swirl.core.types import SubTrajectory
from swirl.models.flops import Work, matrix_flops
from swirl.models.masters import Masters
from swirl.rl.guard import Limits, Look, stop_reason
from swirl.rl.objective import advantages
from swirl.rl.supervised import _deal, supervised_gradients, supervised_loss
from swirl.rl.trainer import Settings, Trainer
from swirl.rollout.engine import Policy
from swirl.rollout.reading import Reader
from tests import taught, tiny

CHAT = tiny.chat()
CHAT.end_ids = frozenset({CHAT.end_id, *range(8, 16)})  # so many that hardly any action is cut
WANTED = 7
SETTINGS = Settings(
    states=4,
    samples=6,
    sampling=Sampling(max_tokens=8),
    lr=1e-3,
    warmup=0,
    estimator="rloo",
    kl_coefficient=0.1,
    clip=1.0,
    packed=True,
    token_budget=4096,
    workers=1,
    seed=3,
)


class Rewards:
    """An `ActionScorer` that looks at the action's first token alone."""

    def __init__(self, of: Callable[[int], float]) -> None:
        self._of = of

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        return [[self._of(tooth.ids[0]) for tooth in comb.teeth] for comb in combs]


def steps(count: int, name: str = "t") -> list[SubTrajectory]:
    """One trajectory of `count` states, each a prefix of the next."""
    trunk = tuple(5 + (7 * i + len(name) + ord(name[-1])) % 11 for i in range(4 * count))
    return [
        SubTrajectory(name, "q", "b", k, trunk[: 3 * k + 2], (6 + k, 9, CHAT.end_id)[-(k % 3 + 1) :], 0.5)
        for k in range(count)
    ]


BATCH = [steps(3, "a"), steps(1, "b"), steps(4, "c")]


def trainer(settings: Settings = SETTINGS, rewards: Callable[[int], float] = lambda token: token / 16) -> Trainer:
    """A trainer of a fresh tiny policy in float32, with another model as the reference."""
    model, reference = (tiny.qwen3(16, seed=seed).float() for seed in (0, 1))
    return Trainer(Policy("p", model, CHAT, 128), reference.requires_grad_(False), Rewards(rewards), settings)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0.0, atol=atol)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("token_budget", [4096, 40])
def test_packed_and_plain_give_the_same_weights(workers: int, token_budget: int) -> None:
    made = {}
    for packed in (True, False):
        parts = {"packed": packed, "workers": workers, "token_budget": token_budget}
        learner = trainer(dataclasses.replace(SETTINGS, seed=5, **parts))
        learner.policy.model.double(), learner.reference.double()
        before = weights(learner.policy.model)
        with tiny.Exact():
            made[packed] = (learner.update(0, BATCH), weights(learner.policy.model))
        moved = max(float((made[packed][1][name] - old).abs().max()) for name, old in before.items())
        assert moved > 5e-4, "an update that moves nothing compares nothing"
    assert made[True][0] == pytest.approx(made[False][0], rel=1e-4, abs=1e-5)
    # Threads of workers compute softmax in float32 again, which Adam enlarges where a gradient is next to nothing.
    assert_equal(made[True][1], made[False][1], atol=1e-8 if workers == 1 else 2e-5)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    def three_updates(seed: int) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
        learner = trainer(dataclasses.replace(SETTINGS, seed=seed))
        return [learner.update(number, BATCH) for number in range(3)], weights(learner.policy.model)

    first, again, other = three_updates(3), three_updates(3), three_updates(4)
    assert first[0] == again[0]
    assert_equal(first[1], again[1])
    assert first[0] != other[0]


def test_metrics_are_of_the_sampled_actions() -> None:
    learner = trainer(rewards=lambda token: 1.0 if token % 2 else math.nan)
    metrics = learner.update(0, BATCH)
    assert metrics["reward"] == 1.0  # the mean of the verdicts that exist
    assert 0.2 < metrics["unjudged"] < 0.8
    assert 1.0 < metrics["action_tokens"] < 4.0
    assert metrics["cut"] == 0.0
    assert 0.0 < metrics["entropy"] < math.log(16)
    assert metrics["kl"] > 0.1  # the reference is another model
    assert 1.0 < metrics["different_actions"] <= 6.0


@pytest.mark.parametrize("packed", [True, False])
def test_the_work_of_an_update_is_counted(packed: bool) -> None:
    made = trainer(dataclasses.replace(SETTINGS, packed=packed, samples=2, sampling=Sampling(max_tokens=3)))
    only = [SubTrajectory("a", "q", "b", k, tuple(range(5, 8 + k)), (6,), 0.5) for k in range(2)]  # 3 and 4 tokens
    made.update(0, [only])
    drawn = [group.actions for group in made.drawn[0]]
    assert [len(of_state) for of_state in drawn] == [2, 2]
    sampled = sum(len({ids[:n] for ids in of_state for n in range(1, len(ids))}) for of_state in drawn)
    teeth = [(3 + k, ids) for k, of_state in enumerate(drawn) for ids in set(of_state)]
    of_actions = sum(len(ids) for _, ids in teeth)
    read = of_actions + (4 if packed else sum(state for state, _ in teeth))
    model = made.policy.model
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name)
    vocabulary = model.get_output_embeddings().weight.numel()
    sampling = 2 * (matrices * (4 + sampled) + vocabulary * (2 + sampled))
    assert made.work == Work(read, sampling + (2 + 6) * (matrices * read + vocabulary * of_actions))


def test_sampling_may_hold_four_times_the_tokens_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunks of BATCH have 8, 2 and 11 tokens, and 18, 6 and 24 teeth of at most 8 tokens."""
    shares: list[int] = []

    def counted(model: Any, combs: Sequence[UnsampledComb], *rest: Any) -> Any:
        shares.append(sum(len(comb.trunk) + 8 * len(comb.teeth) for comb in combs))
        return sample_teeth(model, combs, *rest)

    monkeypatch.setattr("swirl.rl.trainer.sample_teeth", counted)
    for budget, expected in ((103, [405]), (55, [203, 202]), (2, [203, 152, 50])):
        shares.clear()
        trainer(dataclasses.replace(SETTINGS, token_budget=budget)).update(0, BATCH)
        assert sorted(shares, reverse=True) == expected


def test_a_frozen_matrix_costs_no_gradient_of_its_own() -> None:
    model = tiny.qwen3(16)
    every = matrix_flops(model, 10, 2, training=True)
    assert every == 3 * matrix_flops(model, 10, 2, training=False)
    model.requires_grad_(False)
    assert matrix_flops(model, 10, 2, training=True) == pytest.approx(every * 4 / 6)


def test_the_loss_is_that_of_its_actions_worked_out_one_by_one() -> None:
    """REINFORCE with one token per action: -mean(A log p) + beta mean(KL), from unpadded forwards."""
    settings = dataclasses.replace(SETTINGS, sampling=Sampling(max_tokens=1), estimator="reinforce")
    learner = trainer(settings)
    learner.policy = dataclasses.replace(learner.policy, chat=half_cut(range(16)).chat)
    states = [step for group in BATCH for step in group]
    drawn = learner._sample(0, BATCH)
    total = sum(action.ids[0] / 16 for of_state in drawn for action in of_state)
    gains, divergences = [], []
    for state, of_state in zip(states, drawn, strict=True):
        p, q = (
            torch.log_softmax(tiny.naive_logits(model, state.state_ids)[-1], -1).detach()
            for model in (learner.policy.model, learner.reference)
        )
        for action in of_state:
            reward = action.ids[0] / 16
            gains.append((reward - (total - reward) / 47) * float(p[action.ids[0]]))
            divergences.append(float((p.exp() * (p - q)).sum()))
    expected = -sum(gains) / 48 + 0.1 * sum(divergences) / 48
    assert learner.update(0, BATCH)["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kl", [0.1, 0.0])
@pytest.mark.parametrize("iterations", [1, 2])
def test_imitation_adds_the_gradient_of_the_stored_actions(packed: bool, kl: float, iterations: int) -> None:
    """With weight 0.5: half of the mean, over the batch's 8 states, of -log pi of the stored action; nothing else."""
    settings = dataclasses.replace(
        SETTINGS, packed=packed, kl_coefficient=kl, iterations=iterations, clip=1e9, lr=1e-12
    )
    made = {}
    for weight in (0.0, 0.5):
        learner = trainer(dataclasses.replace(settings, imitation=weight))
        learner.policy.model.double(), learner.reference.double()
        with tiny.Exact():
            metrics = learner.update(0, BATCH)
        made[weight] = metrics, [master.grad.clone() for master in learner.masters.tensors()]
    model = tiny.qwen3(16, seed=0).double()
    with tiny.Exact():
        total = supervised_loss(model, BATCH, False)[0]
        expected = torch.autograd.grad(0.5 * total / 8, list(model.parameters()))
    assert max(float(one.abs().max()) for one in expected) > 1e-2
    for one, with_it, without in zip(expected, made[0.5][1], made[0.0][1], strict=True):
        torch.testing.assert_close(with_it - without, one.to(with_it), rtol=0.0, atol=2e-6)
    logprob = made[0.5][0].pop("stored_logprob")
    assert logprob == pytest.approx(-float(total.detach()) / 8, rel=1e-5)
    assert made[0.5][0]["loss"] - made[0.0][0]["loss"] == pytest.approx(-0.5 * logprob, rel=1e-4)
    kept = made[0.0][0].keys() - {"gradient_norm", "loss"}
    assert {key: made[0.5][0][key] for key in kept} == pytest.approx({key: made[0.0][0][key] for key in kept}, rel=1e-6)


def test_without_a_verdict_imitation_alone_is_learned() -> None:
    settings = dataclasses.replace(SETTINGS, kl_coefficient=0.0, imitation=0.5)
    learner = trainer(settings, rewards=lambda token: math.nan)
    model = tiny.qwen3(16, seed=0).float()
    before = float(supervised_loss(model, BATCH, False)[0].detach())
    for number in range(3):
        learner.update(number, BATCH)
    assert float(supervised_loss(learner.policy.model, BATCH, False)[0].detach()) < before - 0.1


def test_frozen_parameters_stay_as_they_are() -> None:
    learner = trainer()
    learner.policy.model.get_input_embeddings().weight.requires_grad_(False)
    frozen = Trainer(learner.policy, learner.reference, learner.reward_model, SETTINGS)
    before = weights(learner.policy.model)
    frozen.update(0, BATCH)
    after = weights(learner.policy.model)
    moved = {name for name, old in before.items() if not torch.equal(old, after[name])}
    assert moved == before.keys() - {"model.embed_tokens.weight"}


def test_no_verdict_at_all_teaches_nothing() -> None:
    learner = trainer(dataclasses.replace(SETTINGS, kl_coefficient=0.0), rewards=lambda token: math.nan)
    before = weights(learner.policy.model)
    assert learner.update(0, BATCH)["unjudged"] == 1.0
    assert_equal(before, weights(learner.policy.model))


def test_states_without_a_signal_are_counted_and_without_kl_not_read() -> None:
    """Only trajectory b has different rewards; the gradient is the one of an update that reads everything."""
    state = len(BATCH[1][0].state_ids)

    class OnlyOne(Rewards):
        def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
            return [[0.1 if tooth.sees != state else tooth.ids[0] / 16 for tooth in comb.teeth] for comb in combs]

    made = {}
    for kl_coefficient in (0.0, 1e-30):
        learner = trainer(dataclasses.replace(SETTINGS, kl_coefficient=kl_coefficient))
        learner.reward_model = OnlyOne(lambda token: 0.0)
        metrics = learner.update(0, [BATCH[1], steps(3, "aa")[2:]])
        made[kl_coefficient] = (metrics, learner.work.tokens, [p.grad for p in learner.masters.tensors()])
    (without, few, ours), (held, many, theirs) = made.values()
    assert without["no_signal"] == held["no_signal"] == 0.5
    assert few < many
    assert without["reward"] == held["reward"]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_without_any_signal_and_kl_nothing_is_read_and_nothing_moves(estimator: Any) -> None:
    settings = dataclasses.replace(SETTINGS, kl_coefficient=0.0, estimator=estimator)
    learner = trainer(settings, rewards=lambda token: 0.1)  # six of which do not sum to 0.6 in binary
    before = weights(learner.policy.model)
    metrics = learner.update(0, BATCH)
    assert (metrics["no_signal"], metrics["gradient_norm"], learner.work.tokens) == (1.0, 0.0, 0.0)
    assert "kl" not in metrics and "entropy" not in metrics
    assert_equal(before, weights(learner.policy.model))


def test_warm_up_is_linear() -> None:
    learner = trainer(dataclasses.replace(SETTINGS, warmup=4))
    rates = []
    for number in range(6):
        learner.update(number, BATCH)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])


@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "grpo"])
def test_it_learns_the_token_that_is_rewarded(estimator: Any) -> None:
    """One of 16 tokens has reward 1: its rate rises from about one in ten to nearly always, without a KL term."""
    settings = dataclasses.replace(SETTINGS, estimator=estimator, lr=1e-2, kl_coefficient=0.0, samples=16)
    learner = trainer(settings, rewards=lambda token: float(token == WANTED))
    rewards = [learner.update(number, BATCH)["reward"] for number in range(30)]
    assert sum(rewards[:3]) / 3 < 0.3
    assert sum(rewards[-3:]) / 3 > 0.9


def test_kl_alone_brings_the_policy_back_to_the_reference() -> None:
    learner = trainer(dataclasses.replace(SETTINGS, lr=1e-2, kl_coefficient=1.0), rewards=lambda token: 0.5)
    divergence = [learner.update(number, BATCH)["kl"] for number in range(30)]
    assert divergence[-1] < 0.5 * divergence[0]


@pytest.mark.parametrize("packed", [True, False])
def test_supervised_loss_is_the_mean_over_all_tokens(packed: bool) -> None:
    model = tiny.qwen3(16)
    values = torch.cat([tiny.naive_logprobs(model, s.state_ids, s.action_ids) for group in BATCH for s in group])
    assert len(values) == 14  # a mean over tokens, not over actions
    total, count = supervised_loss(model, BATCH, packed)
    assert count == 14.0
    assert float(total.detach()) / count == pytest.approx(float(-values.mean().detach()), rel=1e-5)


def test_a_restored_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    straight = trainer()
    rows = [straight.update(number, BATCH) for number in range(4)]

    killed = trainer()
    checkpoints = Checkpoints(tmp_path / "c", "print")
    for number in range(3):  # the third update is lost
        killed.update(number, BATCH)
        if number == 1:
            checkpoints.save(2, killed.masters.named, [killed.optimizer], {"series": rows[:2]})
    resumed = trainer()
    again = Checkpoints(tmp_path / "c", "print")
    assert again.newest() == 2
    assert again.restore(2, resumed.masters.named, [resumed.optimizer]) == {"series": rows[:2]}
    resumed.masters.publish()
    assert [resumed.update(number, BATCH) for number in (2, 3)] == rows[2:]
    assert_equal(weights(straight.policy.model), weights(resumed.policy.model))


LIMITS = Limits(max_kl=1.0, max_step_growth=1.5, max_malformed=0.2, max_reward_drop=0.1, max_unjudged=0.5)
START = Look(reward=0.5, kl=0.0, steps=2.0, malformed=0.1)


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ([Look(0.5, 1.0, 3.0, 0.2)], ""),  # at every limit
        ([Look(0.8, 0.0, 2.0, 0.0), Look(0.75, 0.0, 2.0, 0.0)], ""),
        ([Look(0.9, 1.1, 2.0, 0.1)], "KL to the reference is 1.100 nats per action, above 1.0"),
        ([Look(0.9, 0.1, 3.1, 0.1)], "steps a trajectory grew from 2.00 to 3.10, above x 1.5"),
        ([Look(0.9, 0.1, 2.0, 0.21)], "21.0% of actions are malformed or cut, above 20.0%"),
        ([Look(0.39, 0.1, 2.0, 0.1)], "the mean reward fell from 0.500 to 0.390, more than 0.1"),
        ([Look(0.8, 0, 2, 0), Look(0.6, 0, 2, 0)], "the mean reward fell from 0.800 to 0.600, more than 0.1"),
        ([Look(0.3, 0, 2, 0), Look(0.6, 0, 2, 0)], ""),  # only the last look counts
        ([Look(None, 0.1, 2.0, 0.1)], ""),  # no verdicts: the guard cannot use the reward
        ([Look(None, 1.1, 2.0, 0.1)], "KL to the reference is 1.100 nats per action, above 1.0"),
        ([Look(None, 0.1, 2.0, 0.21)], "21.0% of actions are malformed or cut, above 20.0%"),
        ([Look(0.5, 0.1, 2.0, 0.1, 0.5)], ""),
        ([Look(0.5, 0.1, 2.0, 0.1, 0.51)], "the reward model gave no verdict on 51.0% of the actions, above 50.0%"),
    ],
)
def test_guard(then: list[Look], reason: str) -> None:
    assert stop_reason([START, *then], LIMITS) == reason


def test_without_development_questions_the_guard_has_kl_and_verdicts() -> None:
    start = Look(None, 0.0, None, None)
    assert stop_reason([start, Look(None, 1.0, None, None, 0.5)], LIMITS) == ""
    assert stop_reason([start, Look(None, 1.1, None, None)], LIMITS).startswith("KL to the reference is 1.100 nats")
    assert "no verdict on 51.0%" in stop_reason([start, Look(None, 0.1, None, None, 0.51)], LIMITS)
    assert "not a finite number" in stop_reason([start, Look(None, math.nan, None, None)], LIMITS)


def test_guard_allows_the_malformed_rate_that_it_started_with() -> None:
    start = dataclasses.replace(START, malformed=0.4)
    assert stop_reason([start, dataclasses.replace(start, malformed=0.4)], LIMITS) == ""
    assert "malformed" in stop_reason([start, dataclasses.replace(start, malformed=0.41)], LIMITS)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("packed", [True, False])
def test_recomputing_activations_changes_no_number(packed: bool, workers: int) -> None:
    """Each layer runs once more in the backward pass, and nowhere else: sampling and the reference cost no more."""
    made, calls = {}, {}
    for recompute in (False, True):
        settings = dataclasses.replace(SETTINGS, packed=packed, workers=workers, token_budget=40, recompute=recompute)
        learner = trainer(settings)
        seen: list[int] = []
        learner.policy.model.model.layers[1].mlp.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        made[recompute] = (learner.update(0, BATCH), weights(learner.policy.model))
        calls[recompute] = len(seen)
    assert made[True][0] == made[False][0]
    assert_equal(made[True][1], made[False][1])
    shares = calls[True] - calls[False]
    assert 1 < shares < calls[False]


def test_a_bfloat16_model_learns_by_its_float32_masters(tmp_path: Path) -> None:
    """A single Adam step of 2e-6 is lost when rounded to bfloat16; the sum of 200 of them in the masters is not."""
    settings = dataclasses.replace(SETTINGS, lr=2e-6)
    model, reference = (tiny.qwen3(16).to(torch.bfloat16) for _ in range(2))
    learner = Trainer(Policy("p", model, CHAT, 128), reference, Rewards(lambda token: token / 16), settings)
    before, masters = weights(model), {n: m.detach().clone() for n, m in learner.masters.named.items()}
    assert {m.dtype for m in masters.values()} == {torch.float32}
    learner.update(0, BATCH)
    large = {name for name, old in before.items() if float(old.abs().min()) > 1e-3}
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items() if name in large)
    steps = [float((m.detach() - masters[n]).abs().max()) for n, m in learner.masters.named.items()]
    assert 1e-6 < max(steps) < 3e-6
    checkpoints = Checkpoints(tmp_path / "c", "print")
    checkpoints.save(1, learner.masters.named, [learner.optimizer], {})
    kept = [learner.update(number, BATCH) for number in (1, 2)], learner.masters.tensors()
    kept_values = [value.detach().clone() for value in kept[1]]
    for _ in range(200):
        learner.optimizer.step()
    learner.masters.publish()
    assert any(not torch.equal(value, before[name]) for name, value in weights(model).items())
    for value, master in zip(weights(model).values(), learner.masters.tensors(), strict=True):
        assert torch.equal(value, master.to(torch.bfloat16))
    checkpoints.restore(1, learner.masters.named, [learner.optimizer])
    learner.masters.publish()
    assert [learner.update(number, BATCH) for number in (1, 2)] == kept[0]
    assert all(torch.equal(a, b) for a, b in zip(learner.masters.tensors(), kept_values, strict=True))


def half_cut(ends: Iterable[int] = range(6)) -> Policy:
    """A policy whose actions are cut in about half of the cases: a third of the vocabulary ends one of 2 tokens."""
    chat = tiny.chat()
    chat.end_ids = frozenset(ends)
    return Policy("p", tiny.qwen3(16, seed=0).float(), chat, 128)


@pytest.mark.parametrize("estimator", ["reinforce", "rloo"])
def test_actions_that_are_cut_are_out_of_the_gradient_or_have_reward_0(estimator: Any) -> None:
    """And are judged in neither case; the mean loss of all 48 is worked out one by one, from unpadded forwards."""
    for how in ("ignore", "penalise"):
        sampling = Sampling(max_tokens=2)
        settings = dataclasses.replace(SETTINGS, sampling=sampling, estimator=estimator, cut_actions=how)
        judged: list[tuple[int, ...]] = []

        class Judge(Rewards):
            def scores(self, combs: Sequence[Comb], judged: list[tuple[int, ...]] = judged) -> list[list[float]]:
                judged += [tooth.ids for comb in combs for tooth in comb.teeth]
                return super().scores(combs)

        policy = half_cut()
        reference = tiny.qwen3(16, seed=1).float().requires_grad_(False)
        models = (policy.model, reference)
        learner = Trainer(policy, reference, Judge(lambda token: token / 16), settings)
        states, drawn = [step for group in BATCH for step in group], learner._sample(0, BATCH)
        flat = [(k, action.ids, action.ids[-1] >= 6) for k, of_state in enumerate(drawn) for action in of_state]
        rewards = torch.tensor([(math.nan if how == "ignore" else 0.0) if cut else ids[0] / 16 for _, ids, cut in flat])
        gains = advantages(rewards.view(8, 6), estimator).flatten().tolist()
        loss = 0.0
        for (k, ids, cut), gain in zip(flat, gains, strict=True):
            if cut and how == "ignore":
                continue
            for place, token in enumerate(ids):
                seen = (*states[k].state_ids, *ids[:place])
                p, q = (torch.log_softmax(tiny.naive_logits(m, seen)[-1], -1).detach() for m in models)
                loss += 0.1 * float((p.exp() * (p - q)).sum()) - gain * float(p[token])
        metrics = learner.update(0, BATCH)
        share = sum(cut for *_, cut in flat) / 48
        assert 0.2 < share < 0.8
        assert (metrics["cut"], metrics["unjudged"]) == (pytest.approx(share), 0.0)
        assert metrics["loss"] == pytest.approx(loss / 48, rel=1e-4)
        assert judged and all(ids[-1] < 6 for ids in judged)


def test_an_update_whose_actions_are_all_cut_and_ignored_moves_nothing() -> None:
    policy = half_cut()
    policy.chat.end_ids = frozenset({17})
    before = weights(policy.model)
    settings = dataclasses.replace(SETTINGS, cut_actions="ignore")
    reference = tiny.qwen3(16, seed=1).float().requires_grad_(False)
    metrics = Trainer(policy, reference, Rewards(lambda token: 1.0), settings).update(0, BATCH)
    assert (metrics["cut"], metrics["unjudged"], metrics["loss"], metrics["gradient_norm"]) == (1.0, 0.0, 0.0, 0.0)
    assert_equal(before, weights(policy.model))


def test_a_sampled_action_ends_with_its_call_as_in_a_rollout() -> None:
    """A model whose turn does not end there: what it says after the call of a tool that there is, is no action."""
    chat, settings = tiny.chat(), dataclasses.replace(SETTINGS, sampling=Sampling(temperature=0.01, max_tokens=8))
    chat.end_ids = frozenset({len(chat.tokenizer)})  # so that it speaks on after <|end|>
    state = SubTrajectory("a", "q", "b", 0, chat.prompt("what is born"), (6,), 0.5)
    drawn = {}
    for tags in ({"search_query": "search"}, {"math_exp": "calculate"}):
        policy = Policy("p", taught.model(), chat, 128)
        reader = Reader(chat, tags)
        learner = Trainer(policy, taught.model(), Rewards(lambda token: 0.0), settings, reader_of=lambda _, r=reader: r)
        drawn[next(iter(tags))] = {action.ids for action in learner._sample(0, [[state]])[0]}
    assert drawn["search_query"] == {chat.encode(taught.FIND)}
    assert {ids[: len(chat.reply(taught.FIND))] for ids in drawn["math_exp"]} == {chat.reply(taught.FIND)}
    assert {len(ids) for ids in drawn["math_exp"]} == {8}


def test_a_kind_has_one_number_in_the_whole_batch() -> None:
    """Whatever tools a question has, and whatever share of the batch a process has."""
    tags = {"sums": {"math_exp": "calculate"}, "facts": {"search_query": "search"}}
    settings = dataclasses.replace(SETTINGS, estimator="reinforce", compared="kind")
    policy, texts = Policy("p", tiny.qwen3(16), tiny.chat(), 128), (taught.SUM, taught.FIND, taught.SAY, "Ada")
    learner = Trainer(policy, None, Rewards(float), settings, reader_of=lambda name: Reader(policy.chat, tags[name]))
    batch = [[SubTrajectory(name, name, "b", 0, (5,), (6,), 0.5)] for name in tags]
    ids = [policy.chat.reply(text) for text in texts]
    sums, facts = ([1.0, -1.0, 0.0, -1.0], [-1.0, 2.0, 0.0, -1.0])
    assert [list(one.values()) for one in learner._kinds(batch, batch, [ids, ids])] == [sums, facts]
    assert [list(one.values()) for one in learner._kinds(batch, batch[1:], [ids])] == [facts]
    learner = Trainer(
        policy, None, Rewards(float), settings, reader_of=lambda name: Reader(policy.chat, tags[name], thoughts=True)
    )
    assert list(learner._kinds(batch, batch[1:], [ids])[0].values()) == [3.0, 2.0, 0.0, 3.0], "thoughts are a kind"


@pytest.mark.parametrize(
    ("sizes", "budget", "workers", "count"),
    [
        ([], 10, 2, 2),
        ([3, 3, 3, 3], 12, 1, 1),
        ([3, 3, 3, 3], 11, 1, 2),
        ([3, 3, 3, 3], 6, 2, 2),
        ([3, 3, 3, 3], 5, 2, 4),
        ([9, 1, 9, 1], 12, 1, 3),
        ([99, 1], 10, 1, 2),
        ([99], 10, 2, 2),
    ],
)
def test_supervised_batches_are_dealt_within_the_budget(
    sizes: list[int], budget: int, workers: int, count: int
) -> None:
    assert _deal(sizes, budget, workers) == count


@pytest.mark.parametrize("packed", [True, False])
def test_the_supervised_gradient_is_that_of_the_mean_whatever_the_budget(packed: bool) -> None:
    made = {}
    for budget, workers in ((4096, 1), (20, 1), (20, 2)):
        model = tiny.qwen3(16)
        masters = Masters(model)
        loss = supervised_gradients(model, masters, BATCH, packed, budget, workers)
        made[budget, workers] = (loss, [master.grad.clone() for master in masters.tensors() if master.grad is not None])
    total, tokens = supervised_loss(tiny.qwen3(16), BATCH, packed)
    for loss, gradients in made.values():
        assert loss == pytest.approx(float(total.detach()) / tokens, rel=1e-9)
        for ours, first in zip(gradients, made[4096, 1][1], strict=True):
            torch.testing.assert_close(ours, first, rtol=1e-9, atol=1e-12)
