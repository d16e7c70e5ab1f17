"""The sampler: agrees with transformers, token for token, however ragged the rows and whoever shares the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from swirl.rollout.sampler import Conversations, Sampled, Sampling, choose
from tests import tiny

PROMPTS = [(5, 6, 7), (8,), (9, 10, 11, 12, 13, 14, 15), (16, 17)]
GREEDY = Sampling(temperature=0.0, max_tokens=12)
RANDOM = Sampling(temperature=1.0, max_tokens=8)
NO_END = frozenset({tiny.VOCABULARY})
FAMILIES = pytest.mark.parametrize("family", tiny.FAMILIES.values(), ids=tiny.FAMILIES.keys())
Make = Callable[[], Any]


def assert_logprobs(model: Any, state: tuple[int, ...], drawn: Sampled) -> None:
    """Those of an unpadded forward; the sampler keeps float32."""
    expected = tiny.naive_logprobs(model, state, drawn.ids).detach()
    torch.testing.assert_close(torch.tensor(drawn.logprobs).double(), expected, rtol=1e-5, atol=1e-5)


@FAMILIES
def test_greedy_is_transformers_generate(family: Make) -> None:
    model = family()
    drawn = Conversations(model, PROMPTS).act([0] * len(PROMPTS), GREEDY, {1})
    for prompt, got in zip(PROMPTS, drawn, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, eos_token_id=1
            )
        assert got.ids == tuple(whole[0, len(prompt) :].tolist())
        assert_logprobs(model, prompt, got)


@FAMILIES
def test_read_act_read_act_equals_rereading_everything(family: Make) -> None:
    model = family()
    conversations = Conversations(model, PROMPTS)
    states = list(PROMPTS)
    for turn in range(3):
        drawn = conversations.act([100 * turn + row for row in range(len(PROMPTS))], RANDOM, range(2, 8))
        assert len({len(action.ids) for action in drawn}) > 1, "rows must end at different times to test anything"
        for state, action in zip(states, drawn, strict=True):
            assert_logprobs(model, state, action)
        new = [tuple(range(20 + turn, 21 + turn + row)) for row in range(len(PROMPTS))]
        states = [(*state, *action.ids, *more) for state, action, more in zip(states, drawn, new, strict=True)]
        conversations.read([(action.ids[-1], *more) for action, more in zip(drawn, new, strict=True)])
    last = conversations.act([0] * len(PROMPTS), GREEDY, {1})
    again = Conversations(model, states).act([0] * len(PROMPTS), GREEDY, {1})
    assert [action.ids for action in last] == [action.ids for action in again]


@FAMILIES
def test_an_action_depends_on_its_seed_and_not_on_its_neighbours(family: Make) -> None:
    model = family()
    seeds = [11, 22, 33, 44]
    together = Conversations(model, PROMPTS).act(seeds, RANDOM, {1})
    alone = [Conversations(model, [p]).act([s], RANDOM, {1})[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert [action.ids for action in together] == [action.ids for action in alone]
    reordered = Conversations(model, PROMPTS[::-1]).act(seeds[::-1], RANDOM, {1})
    assert [action.ids for action in reordered[::-1]] == [action.ids for action in alone]
    others = Conversations(model, PROMPTS).act([s + 1 for s in seeds], RANDOM, {1})
    assert all(a.ids != b.ids for a, b in zip(together, others, strict=True))


@FAMILIES
def test_select_repeats_and_reorders_rows(family: Make) -> None:
    model = family()
    conversations = Conversations(model, PROMPTS)
    rows = [2, 2, 0, 3, 2]
    conversations.select(rows)
    assert len(conversations) == 5
    seeds = [7, 8, 7, 9, 7]
    drawn = conversations.act(seeds, RANDOM, NO_END)
    for row, seed, action in zip(rows, seeds, drawn, strict=True):
        assert action.ids == Conversations(model, [PROMPTS[row]]).act([seed], RANDOM, NO_END)[0].ids
        assert_logprobs(model, PROMPTS[row], action)
    assert drawn[0].ids == drawn[4].ids != drawn[1].ids


def test_rows_selected_after_an_action_go_on_from_where_they_were() -> None:
    model = tiny.qwen3()
    conversations = Conversations(model, PROMPTS)
    drawn = conversations.act([1, 2, 3, 4], RANDOM, range(2, 20))
    conversations.select([3, 1])
    conversations.read([(drawn[3].ids[-1], 30, 31), (drawn[1].ids[-1], 30)])
    got = conversations.act([5, 6], RANDOM, NO_END)
    assert_logprobs(model, (*PROMPTS[3], *drawn[3].ids, 30, 31), got[0])
    assert_logprobs(model, (*PROMPTS[1], *drawn[1].ids, 30), got[1])


def test_an_action_ends_with_its_end_token_or_at_the_limit() -> None:
    model = tiny.llama()
    ends = set(range(2, 14))
    drawn = Conversations(model, [(5, 6)] * 40).act(range(40), RANDOM, ends)
    assert {len(action.ids) for action in drawn} >= {1, 2, 8}
    for action in drawn:
        assert len(action.logprobs) == len(action.ids) <= 8
        assert not set(action.ids[:-1]) & ends
        assert action.ids[-1] in ends or len(action.ids) == 8


def test_a_cache_that_outgrows_its_buffer_changes_nothing() -> None:
    model = tiny.qwen3()
    long = Sampling(temperature=1.0, max_tokens=90)
    drawn = Conversations(model, PROMPTS).act([1, 2, 3, 4], long, NO_END)
    for prompt, action in zip(PROMPTS, drawn, strict=True):
        assert len(action.ids) == 90
        assert_logprobs(model, prompt, action)


LOGITS = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()


def drawn_tokens(sampling: Sampling, draws: list[float]) -> list[int]:
    """What each draw gives on probabilities 0.4, 0.3, 0.2, 0.1."""
    tokens, logprobs = choose(LOGITS.expand(len(draws), -1), torch.tensor(draws, dtype=torch.float64), sampling)
    torch.testing.assert_close(logprobs, LOGITS[0, tokens])  # at temperature 1, whatever was kept
    return list(tokens.tolist())


@pytest.mark.parametrize(
    ("sampling", "draws", "tokens"),
    [
        (Sampling(temperature=0.0), [0.0, 0.99], [0, 0]),
        (Sampling(), [0.0, 0.39, 0.41, 0.69, 0.71, 0.89, 0.91, 0.9999], [0, 0, 1, 1, 2, 2, 3, 3]),
        # two tokens: 4/7, 3/7
        (Sampling(top_k=2), [0.0, 0.57, 0.58, 0.9999], [0, 0, 1, 1]),
        (Sampling(top_k=1), [0.0, 0.9999], [0, 0]),
        (Sampling(top_k=9), [0.95], [3]),
        # 0.4 + 0.3 < 0.75, so the third token is needed: 4/9, 3/9, 2/9
        (Sampling(top_p=0.75), [0.44, 0.45, 0.77, 0.78, 0.9999], [0, 1, 1, 2, 2]),
        (Sampling(top_p=0.01), [0.9999], [0]),
        # squared: 16/30, 9/30, 4/30, 1/30
        (Sampling(temperature=0.5), [0.53, 0.54, 0.83, 0.84, 0.96, 0.97], [0, 1, 1, 2, 2, 3]),
    ],
)
def test_choose(sampling: Sampling, draws: list[float], tokens: list[int]) -> None:
    assert drawn_tokens(sampling, draws) == tokens


def test_sampling_has_the_models_distribution() -> None:
    """1,000 first tokens against their probabilities, by chi-square (35 degrees or fewer: 99.9% below 67)."""
    model = tiny.qwen3()
    drawn = Conversations(model, [(5, 6, 7)] * 1000).act(range(1000), Sampling(max_tokens=1), NO_END)
    expected = torch.softmax(tiny.naive_logits(model, (5, 6, 7))[-1], -1).detach() * 1000
    seen = torch.bincount(torch.tensor([action.ids[0] for action in drawn]), minlength=tiny.VOCABULARY).double()
    common = expected >= 5
    assert 5 <= int(common.sum()) <= 36
    assert float(((seen - expected).square() / expected)[common].sum()) < 67
