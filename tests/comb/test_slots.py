"""The sampler agrees with transformers token for token, however ragged the rows and whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
import torch

from swirl.comb.attention import read
from swirl.comb.sampling import Sampled, Sampling, choose, uniforms
from swirl.comb.slots import Slots
from swirl.comb.teeth import UnsampledComb, sample_teeth
from tests import tiny

PROMPTS = [(5, 6, 7), (8,), (9, 10, 11, 12, 13, 14, 15), (16, 17)]
GREEDY = Sampling(temperature=0.0, max_tokens=12)
RANDOM = Sampling(temperature=1.0, max_tokens=8)
NO_END = frozenset({tiny.VOCABULARY})
FAMILIES = pytest.mark.parametrize("family", tiny.FAMILIES.values(), ids=tiny.FAMILIES.keys())
Make = Callable[[], Any]
Act = Callable[..., list[Sampled]]


Prompt = tuple[int, ...]


def assert_logprobs(model: Any, state: Prompt, drawn: Sampled) -> None:
    """Compares log-probabilities with those of an unpadded forward; the sampler keeps them in float32."""
    expected = tiny.naive_logprobs(model, state, drawn.ids).detach()
    torch.testing.assert_close(torch.tensor(drawn.logprobs).double(), expected, rtol=1e-5, atol=1e-5)


def from_the_full_prefix(model: Any, state: Prompt, seed: int, sampling: Sampling, ends: Collection[int]) -> Prompt:
    """The slow reference: the whole conversation is read again for every token."""
    drawn: list[int] = []
    for draw in uniforms(seed, sampling.max_tokens):
        logits = tiny.naive_logits(model, [*state, *drawn])[-1:].detach().float()
        drawn.append(int(choose(logits, torch.tensor([draw], dtype=torch.float64), sampling)[0]))
        if drawn[-1] in ends:
            break
    return tuple(drawn)


def teeth(
    model: Any, states: Sequence[Prompt], seeds: Sequence[int], sampling: Sampling, ends: Collection[int]
) -> list[Sampled]:
    """One action for each state, sampled as the tooth of a trunk of its own."""
    combs = [UnsampledComb(state, ((len(state), seed),)) for state, seed in zip(states, seeds, strict=True)]
    return [tooth for (tooth,) in sample_teeth(model, combs, sampling, ends)]


def in_slots(
    model: Any, states: Sequence[Prompt], seeds: Sequence[int], sampling: Sampling, ends: Collection[int]
) -> list[Sampled]:
    """One action for each state, in a slot of its own; every other state starts two forwards late, so forwards mix."""
    slots = Slots(model, 128)
    numbers = [slots.open() for _ in states]
    draws = [uniforms(seed, sampling.max_tokens) for seed in seeds]
    ids: list[list[int]] = [[] for _ in states]
    logprobs: list[list[float]] = [[] for _ in states]
    going = set(numbers)
    for tick in range(sampling.max_tokens + 2):
        reading = [row for row in sorted(going) if tick >= 2 * (row % 2)]
        if not reading:
            break
        logits = slots.read([(row, ids[row][-1:] or states[row]) for row in reading])
        chosen = torch.tensor([draws[row][len(ids[row])] for row in reading], dtype=torch.float64)
        for row, token, logprob in zip(reading, *choose(logits, chosen, sampling), strict=True):
            ids[row].append(int(token))
            logprobs[row].append(float(logprob))
            if int(token) in ends or len(ids[row]) == sampling.max_tokens:
                going.discard(row)
    return [Sampled(tuple(i), tuple(p)) for i, p in zip(ids, logprobs, strict=True)]


WAYS = pytest.mark.parametrize("act", [teeth, in_slots])


@FAMILIES
@WAYS
def test_greedy_is_transformers_generate(family: Make, act: Act) -> None:
    model = family()
    drawn = act(model, PROMPTS, [0] * len(PROMPTS), GREEDY, {1})
    for prompt, got in zip(PROMPTS, drawn, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, eos_token_id=1
            )
        assert got.ids == tuple(whole[0, len(prompt) :].tolist())
        assert_logprobs(model, prompt, got)


@FAMILIES
@WAYS
def test_sampling_from_the_cache_is_sampling_from_the_full_prefix(family: Make, act: Act) -> None:
    model, ends, seeds = family(), range(2, 8), [11, 22, 33, 44]
    with tiny.Exact():
        drawn = act(model, PROMPTS, seeds, RANDOM, ends)
        slow = [from_the_full_prefix(model, p, s, RANDOM, ends) for p, s in zip(PROMPTS, seeds, strict=True)]
    assert [action.ids for action in drawn] == slow
    assert len(set(map(len, slow))) > 1, "actions must end at different times to test anything"


@FAMILIES
@WAYS
def test_an_action_depends_on_its_seed_and_not_on_its_neighbours(family: Make, act: Act) -> None:
    model = family()
    seeds = [11, 22, 33, 44]
    together = act(model, PROMPTS, seeds, RANDOM, {1})
    alone = [act(model, [p], [s], RANDOM, {1})[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert [action.ids for action in together] == [action.ids for action in alone]
    reordered = act(model, PROMPTS[::-1], seeds[::-1], RANDOM, {1})
    assert [action.ids for action in reordered[::-1]] == [action.ids for action in alone]
    others = act(model, PROMPTS, [s + 1 for s in seeds], RANDOM, {1})
    assert all(a.ids != b.ids for a, b in zip(together, others, strict=True))


@FAMILIES
def test_teeth_of_one_trunk_are_those_of_their_own_states(family: Make) -> None:
    """Two combs, states at several places of each trunk, several actions per state, some of which end at once."""
    model, ends = family(), set(range(2, 14))
    trunks = [tuple(range(5, 25)), tuple(range(30, 37))]
    bare = [
        UnsampledComb(trunk, tuple((sees, 100 * sees + g) for sees in seen for g in range(6)))
        for trunk, seen in zip(trunks, [(1, 4, 13, 20), (7, 2)], strict=True)
    ]
    made = sample_teeth(model, bare, RANDOM, ends)
    assert [len(of_comb) for of_comb in made] == [24, 12]
    lengths = {len(action.ids) for of_comb in made for action in of_comb}
    assert {1, 8} <= lengths
    for comb, actions in zip(bare, made, strict=True):
        for (sees, seed), action in zip(comb.teeth, actions, strict=True):
            assert action.ids == teeth(model, [comb.trunk[:sees]], [seed], RANDOM, ends)[0].ids
            assert_logprobs(model, comb.trunk[:sees], action)


@FAMILIES
def test_teeth_that_said_the_same_so_far_are_read_once(family: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what two trunks begin with is, too. At a low temperature teeth part late, and end at different times."""
    model, ends, sampling = family(), set(range(2, 8)), Sampling(temperature=0.3, max_tokens=8)
    begin = tuple(2 + n * n % 37 for n in range(33))
    trunks = [(*begin, 5, 6, 7, 8), (*begin, 9, 10), begin]
    seen = [(2, 33, 37), (20, 35), (33,)]
    bare = [
        UnsampledComb(trunk, tuple((sees, 100 * sees + g) for sees in states for g in range(8)))
        for trunk, states in zip(trunks, seen, strict=True)
    ]
    read_tokens: list[int] = []

    def counted(model: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        read_tokens.append(len(ids))
        return read(model, ids, *rest)

    monkeypatch.setattr("swirl.comb.teeth.read", counted)
    with tiny.Exact():
        made = sample_teeth(model, bare, sampling, ends)
        for comb, actions in zip(bare, made, strict=True):
            for (sees, seed), action in zip(comb.teeth, actions, strict=True):
                assert action.ids == from_the_full_prefix(model, comb.trunk[:sees], seed, sampling, ends)
    for comb, actions in zip(bare, made, strict=True):
        for (sees, _), action in zip(comb.teeth, actions, strict=True):
            assert_logprobs(model, comb.trunk[:sees], action)
    beginnings = [
        {
            (number, sees, action.ids[:count])
            for number, (comb, actions) in enumerate(zip(bare, made, strict=True))
            for (sees, _), action in zip(comb.teeth, actions, strict=True)
            if len(action.ids) > count
        }
        for count in range(1, 8)
    ]
    assert read_tokens == [33 + 4 + 2, *filter(None, map(len, beginnings))]
    assert read_tokens[1] < 48 * 0.7
    assert len({len(action.ids) for actions in made for action in actions}) > 1


def test_a_tooth_ends_where_it_is_whole() -> None:
    """Each is what its free run says, up to where it is whole."""
    model, ends = tiny.qwen3(), set(range(2, 20))
    whole = [lambda ids: sum(ids) % 3 == 0, lambda ids: False]
    bare = [UnsampledComb(PROMPTS[2], tuple((sees, seed) for sees in (3, 7) for seed in range(12)), of) for of in whole]
    made = sample_teeth(model, bare, RANDOM, ends)
    endings = set()
    for comb, actions in zip(bare, made, strict=True):
        for (sees, seed), action in zip(comb.teeth, actions, strict=True):
            free = from_the_full_prefix(model, comb.trunk[:sees], seed, RANDOM, ends)
            count = next((n for n in range(1, len(free)) if comb.complete(free[:n])), len(free))
            assert action.ids == free[:count]
            assert_logprobs(model, comb.trunk[:sees], action)
            endings.add((count < len(free), action.ids[-1] in ends))
    assert endings == {(True, False), (False, True), (False, False)}


@FAMILIES
def test_slots_go_on_are_cleared_and_moved(family: Make) -> None:
    model, slots = family(), Slots(family(), 50)

    def check(new: dict[int, Prompt], states: dict[int, Prompt]) -> None:
        """Reading `new` gives what reading the whole of `states` gives."""
        logits = slots.read(list(new.items()))
        for row, slot in zip(logits, new, strict=True):
            expected = tiny.naive_logits(model, states[slot])[-1].detach().float()
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)

    for _ in range(4):
        slots.open()
    a, b, c, d = PROMPTS
    check({0: a, 2: c}, {0: a, 2: c})
    check({1: b, 2: (20,), 0: (21, 22, 23, 24, 25, 26)}, {1: b, 2: (*c, 20), 0: (*a, 21, 22, 23, 24, 25, 26)})
    slots.clear(2)
    long = tuple(range(2, 38))
    check({2: d, 1: long, 3: a}, {2: d, 1: (*b, *long), 3: a})  # the buffers grow here
    slots.keep([3, 1])
    check({0: (9,), 1: (9,)}, {0: (*a, 9), 1: (*b, *long, 9)})
    assert slots.open() == 2
    check({2: c, 0: (10,)}, {2: c, 0: (*a, 9, 10)})


@FAMILIES
def test_what_conversations_begin_with_is_read_once(family: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one forward pass, from a slot in use, and from the conversation that a slot had before."""
    model, slots = family(), Slots(family(), 128)
    begin, other = (tuple(2 + (n * n + k) % 37 for n in range(40)) for k in (0, 5))
    states: dict[int, Prompt] = {}
    counts: list[int] = []

    def counted(model: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        counts.append(len(ids))
        return read(model, ids, *rest)

    monkeypatch.setattr("swirl.comb.slots.read", counted)

    def check(new: dict[int, Prompt], count: int) -> None:
        """Reading `new` reads `count` tokens, and gives what reading whole conversations gives."""
        logits = slots.read(list(new.items()))
        for row, (slot, tokens) in zip(logits, new.items(), strict=True):
            states[slot] = (*states.get(slot, ()), *tokens)
            expected = tiny.naive_logits(model, states[slot])[-1].detach().float()
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)
        assert counts.pop() == count

    for _ in range(5):
        slots.open()
    check({0: (*begin, 5, 6), 1: (*begin, 5, 7, 8), 2: other, 3: begin}, 42 + 2 + 40 + 1)
    check({0: (9,), 1: (9, 9), 3: (4,), 2: (4,)}, 5)
    slots.clear(2)
    del states[2]
    check({4: (*begin, 5, 7, 8, 9, 9, 3), 0: (3,), 2: (*other[:38], 3, 4)}, 1 + 1 + 2)
    for slot in (0, 2):
        slots.clear(slot)
        del states[slot]
    check({0: (*begin, 5, 7), 2: begin[:31], 3: (7,)}, 1 + 31 + 1)
    slots.keep([4, 0])
    states = {0: states[4], 1: states[0]}
    assert slots.open() == 2
    check({2: (*begin, 5, 7, 8, 1), 0: (2,), 1: (2,)}, 1 + 2)


@WAYS
def test_an_action_ends_with_its_end_token_or_at_the_limit(act: Act) -> None:
    model = tiny.llama()
    ends = set(range(2, 14))
    drawn = act(model, [(5, 6)] * 40, range(40), RANDOM, ends)
    assert {len(action.ids) for action in drawn} >= {1, 2, 8}
    for action in drawn:
        assert len(action.logprobs) == len(action.ids) <= 8
        assert not set(action.ids[:-1]) & ends
        assert action.ids[-1] in ends or len(action.ids) == 8


@WAYS
def test_long_actions(act: Act) -> None:
    model = tiny.qwen3()
    long = Sampling(temperature=1.0, max_tokens=90)
    for prompt, action in zip(PROMPTS, act(model, PROMPTS, [1, 2, 3, 4], long, NO_END), strict=True):
        assert len(action.ids) == 90
        assert_logprobs(model, prompt, action)


LOGITS = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()


def drawn_tokens(sampling: Sampling, draws: list[float]) -> list[int]:
    """The token that each draw picks from probabilities 0.4, 0.3, 0.2, 0.1."""
    tokens, logprobs = choose(LOGITS.expand(len(draws), -1), torch.tensor(draws, dtype=torch.float64), sampling)
    torch.testing.assert_close(logprobs, LOGITS[0, tokens])  # those at temperature 1, whatever the sampling
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
    """Chi-square test of 1,000 first tokens (at most 35 degrees of freedom, for which 99.9% lie below 67)."""
    model = tiny.qwen3()
    drawn = teeth(model, [(5, 6, 7)] * 1000, range(1000), Sampling(max_tokens=1), NO_END)
    expected = torch.softmax(tiny.naive_logits(model, (5, 6, 7))[-1], -1).detach() * 1000
    seen = torch.bincount(torch.tensor([action.ids[0] for action in drawn]), minlength=tiny.VOCABULARY).double()
    common = expected >= 5
    assert 5 <= int(common.sum()) <= 36
    assert float(((seen - expected).square() / expected)[common].sum()) < 67
