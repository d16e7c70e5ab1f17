"""Combs: exact masks and positions; values and gradients equal, whether packed, plain or one sequence at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from swirl.comb.attention import Scoring
from swirl.comb.combs import Comb, Tooth, chosen_of, collate_packed, collate_plain, group_by_budget, pack, within
from swirl.comb.logprobs import action_logprobs, check_packing, final_logits, final_logits_of, tooth_states
from swirl.core.errors import ModelError
from tests import tiny


def test_pack_cuts_the_trunk_behind_the_last_token_that_is_seen() -> None:
    assert pack([5, 6, 7, 8], [(1, [9]), (3, [10, 11])]) == Comb(
        trunk=(5, 6, 7), teeth=(Tooth(1, (9,)), Tooth(3, (10, 11)))
    )


def test_sizes_of_a_comb() -> None:
    comb = pack([5, 6, 7, 8], [(1, [9]), (3, [10, 11])])
    assert (comb.packed_size, max(len(t.ids) for t in comb.teeth)) == (6, 2)


@pytest.mark.parametrize(
    ("teeth", "message"),
    [
        ([], "a comb needs at least one tooth"),
        ([(0, [1])], "tooth 0 sees 0 trunk tokens; it must see 1 to 2"),
        ([(1, [1]), (3, [1])], "tooth 1 sees 3 trunk tokens; it must see 1 to 2"),
        ([(2, [])], "tooth 0 has no tokens"),
    ],
)
def test_pack_refuses_what_is_no_comb(teeth: list[tuple[int, list[int]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack([7, 8], teeth)


TWO = [pack([5, 6, 7], [(1, [9, 10]), (3, [11, 12])]), pack([4], [(1, [3])])]


def test_packed_input_is_exactly_this() -> None:
    # trunk 5 6 7, trunk 4; tooth (9 10) after 1 trunk token, tooth (11 12) after 3; then the second comb's
    reading = collate_packed(TWO)
    assert reading.input_ids.tolist() == [5, 6, 7, 4, 9, 10, 11, 12, 3]
    assert reading.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 1]
    # Each tooth's first token is predicted by the last trunk token that it sees.
    assert reading.read.tolist() == [0, 4, 2, 6, 3]
    assert reading.targets.tolist() == [9, 10, 11, 12, 3]


@pytest.mark.parametrize(
    ("window", "sees"),
    [
        (None, ["0", "01", "012", "3", "04", "045", "0126", "01267", "38"]),
        (2, ["0", "01", "12", "3", "04", "45", "26", "67", "38"]),
    ],
)
def test_a_token_sees_exactly_these(window: int | None, sees: list[str]) -> None:
    """With equal scores, attention is the mean of the values seen; every value is a different unit vector."""
    plan = collate_packed(TWO).plan
    assert plan is not None
    zeros, values = torch.zeros(1, 1, 9, 9), torch.eye(9)[None]
    out = plan.attend(0, zeros, zeros[0], values, Scoring(1.0, None, window))
    assert ["".join(map(str, row.nonzero()[:, 0].tolist())) for row in out[0, 0]] == sees


ALIKE = [pack([5, 6, 7, 8], [(4, [1, 2])]), pack([5, 6, 9], [(2, [3]), (3, [4])]), pack([5], [(1, [6])])]


def test_what_trunks_begin_with_stands_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swirl.comb.trunks.LEAST_SHARED", 2)
    reading = collate_packed(ALIKE)
    # 5 6, and what follows it in each of the first two trunks; 5 alone is too short to be shared; the teeth
    assert reading.input_ids.tolist() == [5, 6, 7, 8, 9, 5, 1, 2, 3, 4, 6]
    assert reading.position_ids.tolist() == [0, 1, 2, 3, 2, 0, 4, 5, 2, 3, 1]
    assert reading.read.tolist() == [3, 6, 1, 4, 5]
    assert collate_packed([ALIKE[0], ALIKE[0]]).input_ids.tolist() == [5, 6, 7, 8, 1, 2, 1, 2]
    for window, sees in (
        (None, ["0", "01", "012", "0123", "014", "5", "01236", "012367", "018", "0149", "5a"]),
        (2, ["0", "01", "12", "23", "14", "5", "36", "67", "18", "49", "5a"]),
    ):
        plan, zeros = collate_packed(ALIKE).plan, torch.zeros(1, 1, 11, 11)
        assert plan is not None
        out = plan.attend(0, zeros, zeros[0], torch.eye(11)[None], Scoring(1.0, None, window))
        assert ["".join("0123456789a"[n] for n in row.nonzero()[:, 0]) for row in out[0, 0]] == sees


def test_plain_input_is_exactly_this() -> None:
    reading = collate_plain(TWO)
    assert reading.input_ids.tolist() == [[5, 9, 10, 0, 0], [5, 6, 7, 11, 12], [4, 3, 0, 0, 0]]
    assert reading.position_ids.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert reading.plan is None
    assert reading.read.tolist() == [0, 1, 7, 8, 10]
    assert reading.targets.tolist() == [9, 10, 11, 12, 3]


STATES = tuple(range(10))
DRAWN = [(4, (1, 2)), (4, (3,)), (7, (4, 5)), (10, (6,)), (10, (7, 8))]
"""States of 4, 7 and 10 tokens, with three, two and three tokens of actions."""


def test_neighbouring_states_share_a_trunk_as_long_as_they_fit() -> None:
    comb = pack(STATES, DRAWN)
    assert comb.packed_size == 10 + 3 + 2 + 3
    assert within([comb], 18) == [comb]
    assert within([comb, comb], 17) == 2 * [pack(STATES[:7], DRAWN[:3]), pack(STATES, DRAWN[3:])]
    assert [part.packed_size for part in within([comb], 12)] == [7 + 3 + 2, 10 + 3]


def test_the_teeth_of_a_state_stay_together_whatever_the_budget() -> None:
    apart = [pack(STATES[:4], DRAWN[:2]), pack(STATES[:7], DRAWN[2:3]), pack(STATES, DRAWN[3:])]
    assert within([pack(STATES, DRAWN)], 1) == apart
    assert within([], 5) == []


def test_teeth_keep_their_order() -> None:
    parts = within([pack(STATES, DRAWN), Comb((1, 2), pack((1, 2), [(2, (9,))]).teeth)], 9)
    assert [(tooth.sees, tooth.ids) for part in parts for tooth in part.teeth] == [*DRAWN, (2, (9,))]


def test_chosen_teeth_and_the_trunk_that_they_need() -> None:
    comb = pack(STATES, DRAWN)
    assert chosen_of([comb, comb], [True, False, True, False, False] + [False] * 5) == [
        pack(STATES[:7], [DRAWN[0], DRAWN[2]])
    ]
    assert chosen_of([comb], [True] * 5) == [comb]


@pytest.mark.parametrize(
    ("sizes", "budget", "workers", "groups"),
    [
        ([], 100, 2, []),
        ([5], 100, 2, [[0]]),
        ([5, 3, 4, 4], 100, 1, [[0, 1, 2, 3]]),
        ([5, 3, 4, 4], 100, 2, [[0, 1], [2, 3]]),
        ([5, 3, 4, 4], 8, 1, [[0, 1], [2, 3]]),
        ([9, 1, 1], 4, 1, [[0], [1], [2]]),
        ([5, 3, 4, 4], 5, 2, [[0], [2], [3], [1]]),
    ],
)
def test_share_out(sizes: list[int], budget: int, workers: int, groups: list[list[int]]) -> None:
    assert group_by_budget(sizes, budget, workers) == groups


def ragged_combs(seed: int, combs: int, states: int, samples: int) -> list[Comb]:
    """`combs` combs of `states` states with `samples` teeth each, of 1 to 4 tokens; the first tooth has one token."""
    rng = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(2, tiny.VOCABULARY) for _ in range(count)]

    made = []
    for _ in range(combs):
        trunk = tokens(rng.randint(states + 6, states + 14))
        ends = sorted(rng.sample(range(1, len(trunk) + 1), states))
        teeth = [(sees, tokens(rng.randint(1, 4))) for sees in ends for _ in range(samples)]
        made.append(pack(trunk, [(teeth[0][0], tokens(1)), *teeth[1:]]))
    return made


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of every parameter."""
    model.zero_grad()
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return found


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal to 1e-9 of the largest entry."""
    assert a.shape == b.shape
    assert float((a - b).detach().abs().max()) <= 1e-9 * max(1e-3, float(b.detach().abs().max()))


def loss_of(batch: list[Comb], values: list[torch.Tensor]) -> torch.Tensor:
    """A loss that weights every tooth differently, as advantages do."""
    weights = torch.Generator().manual_seed(1)
    terms = [
        (torch.randn(len(comb.teeth), 1, generator=weights, dtype=torch.float64) * rows).sum()
        for comb, rows in zip(batch, values, strict=True)
    ]
    return -torch.stack(terms).sum()


@pytest.mark.parametrize("family", tiny.FAMILIES)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6), combs=st.integers(1, 3), states=st.integers(1, 10), samples=st.integers(1, 16))
@example(seed=1, combs=2, states=10, samples=16)
@example(seed=2, combs=1, states=1, samples=1)
def test_packed_equals_plain(family: str, seed: int, combs: int, states: int, samples: int) -> None:
    model, batch = tiny.FAMILIES[family](seed=seed % 7), ragged_combs(seed, combs, states, samples)
    with tiny.Exact():
        packed, plain = action_logprobs(model, batch, True), action_logprobs(model, batch, False)
        packed_loss, plain_loss = loss_of(batch, packed), loss_of(batch, plain)
        packed_gradients, plain_gradients = gradients(model, packed_loss), gradients(model, plain_loss)
    assert [tuple(rows.shape) for rows in packed] == [
        (len(comb.teeth), max(len(t.ids) for t in comb.teeth)) for comb in batch
    ]
    for a, b in zip([*packed, packed_loss], [*plain, plain_loss], strict=True):
        assert_same(a, b)
    for name, gradient in packed_gradients.items():
        assert_same(gradient, plain_gradients[name])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_packed_equals_plain_where_trunks_begin_alike(family: str) -> None:
    """Two tasks of 40 tokens, two questions of 35 more, and one trunk that ends with its task."""
    rng = random.Random(3)
    first, second, question = ([rng.randrange(2, tiny.VOCABULARY) for _ in range(n)] for n in (40, 40, 35))
    begins = [first, second, [*first, *question], first, [*first, *question], second]
    batch = [
        pack([*begin, *comb.trunk], [(len(begin) + tooth.sees, tooth.ids) for tooth in comb.teeth])
        for begin, comb in zip(begins, ragged_combs(4, 6, 2, 2), strict=True)
    ]
    batch.append(pack(first, [(40, [4, 5]), (7, [6])]))
    read = sum(len(comb.trunk) for comb in batch) - 4 * 40 - 40 - 35
    model = tiny.FAMILIES[family]()
    reading = collate_packed(batch)
    assert len(reading.input_ids) == read + len(reading.targets)
    with tiny.Exact():
        losses = [loss_of(batch, action_logprobs(model, batch, packed)) for packed in (True, False)]
        packed_gradients, plain_gradients = (gradients(model, loss) for loss in losses)
    assert_same(*losses)
    for name, gradient in packed_gradients.items():
        assert_same(gradient, plain_gradients[name])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_packed_equals_plain_in_float32(family: str) -> None:
    """Models as they are used, without `tiny.Exact`, which keeps float64 exact."""
    model, batch = tiny.FAMILIES[family]().float(), ragged_combs(8, 3, 6, 8)
    packed, plain = action_logprobs(model, batch, True), action_logprobs(model, batch, False)
    for a, b in zip(packed, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_plain_equals_one_sequence_at_a_time(family: str) -> None:
    model, batch = tiny.FAMILIES[family](), ragged_combs(5, 2, 3, 2)
    with tiny.Exact():
        plain = action_logprobs(model, batch, False)
        slow = []
        for comb in batch:
            rows = [tiny.naive_logprobs(model, comb.trunk[: tooth.sees], tooth.ids) for tooth in comb.teeth]
            slow.append(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))
        plain_gradients, slow_gradients = (
            gradients(model, loss_of(batch, plain)),
            gradients(model, loss_of(batch, slow)),
        )
    for a, b in zip(plain, slow, strict=True):
        assert_same(a, b)
    for name, gradient in plain_gradients.items():
        assert_same(gradient, slow_gradients[name])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_comparison_would_see_a_token_too_many(family: str) -> None:
    """A tooth that saw one more trunk token would differ by far more than the tolerance."""
    model = tiny.FAMILIES[family]()
    right, wrong = (action_logprobs(model, [pack(range(2, 14), [(n, [20, 21])])], True)[0] for n in (11, 12))
    assert float((right - wrong).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("family", [tiny.gemma2, tiny.mistral])
def test_the_window_binds(family: Callable[[], Any]) -> None:
    """Without an effective window the numbers differ, so the comparisons above do exercise the window."""
    comb = [pack(range(2, 14), [(11, [20, 21])])]
    narrow = action_logprobs(family(), comb, True)[0]
    wide = action_logprobs(family(window=100), comb, True)[0]
    assert float((narrow - wide).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("packed", [True, False])
def test_final_logits_are_those_before_each_last_token(packed: bool) -> None:
    model, batch = tiny.qwen3(), ragged_combs(3, 2, 3, 2)
    expected = [
        tiny.naive_logits(model, [*comb.trunk[: tooth.sees], *tooth.ids])[-2] for comb in batch for tooth in comb.teeth
    ]
    torch.testing.assert_close(final_logits(model, batch, packed), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_half_precision_log_probabilities_are_taken_in_float32() -> None:
    model, batch = tiny.llama().to(torch.bfloat16), ragged_combs(3, 1, 2, 2)
    assert tooth_states(model, batch, True)[0].dtype == torch.bfloat16
    assert action_logprobs(model, batch, True)[0].dtype == torch.float32


def test_packing_refuses_an_attention_that_it_does_not_know() -> None:
    model = tiny.llama()
    model.config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(ModelError, match="attention of kind chunked_attention, full_attention, which packing"):
        action_logprobs(model, ragged_combs(0, 1, 1, 1), True)


def test_packing_refuses_dropout() -> None:
    model = tiny.llama().train()
    for layer in model.base_model.layers:
        layer.self_attn.attention_dropout = 0.1
    with pytest.raises(ModelError, match="set attention_dropout to 0"):
        action_logprobs(model, ragged_combs(0, 1, 1, 1), True)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_model_that_was_packed_is_otherwise_what_it_was(family: str) -> None:
    model, ids = tiny.FAMILIES[family](), torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
    before = model(input_ids=ids).logits
    action_logprobs(model, ragged_combs(0, 1, 1, 1), True)
    assert torch.equal(before, model(input_ids=ids).logits)
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 10)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_self_check_passes_what_is_right(family: str) -> None:
    model, comb = tiny.FAMILIES[family](), ragged_combs(2, 1, 4, 2)[0]
    check_packing(model.float(), comb)
    check_packing(model.bfloat16(), comb)


def test_the_self_check_stops_a_packed_forward_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model, comb = tiny.qwen3().float(), ragged_combs(2, 1, 4, 2)[0]
    monkeypatch.setattr("swirl.comb.trunks.causal", lambda query, key, value, scoring: query)
    with pytest.raises(ModelError, match=r"packed log-probabilities .* cannot be used here, use another one"):
        check_packing(model, comb)


def test_the_self_check_stops_a_head_that_is_not_the_models_own() -> None:
    model, comb = tiny.qwen3().float(), ragged_combs(2, 1, 4, 2)[0]
    head = torch.nn.Linear(16, 40, bias=False)
    head.weight.data.copy_(model.get_output_embeddings().weight.detach() * 2)
    model.get_output_embeddings = lambda: head
    with pytest.raises(ModelError, match="our log-probabilities .* cannot be used here"):
        check_packing(model, comb)


@pytest.mark.parametrize(("kind", "options"), [("Granite", {"logits_scaling": 5.0}), ("Cohere", {"logit_scale": 0.2})])
def test_scaled_logits(kind: str, options: dict[str, float]) -> None:
    import transformers

    shape = {key: value for key, value in tiny._SHAPE.items() if key != "head_dim"}
    config = getattr(transformers, f"{kind}Config")(vocab_size=tiny.VOCABULARY, **shape, **options)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    check_packing(model, ragged_combs(2, 1, 4, 2)[0])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_sdpa_models_pack_alike(family: str) -> None:
    if family == "gemma2":
        pytest.skip("transformers refuses sdpa for Gemma-2")
    batch = ragged_combs(6, 2, 3, 4)
    made = []
    for name in ("eager", "sdpa"):
        model = tiny.FAMILIES[family]().float()
        model.set_attn_implementation(name)
        made += action_logprobs(model, batch, True) + action_logprobs(model, batch, False)
    for a, b in zip(made[:4], made[4:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_packing_under_autocast_is_close() -> None:
    model, batch = tiny.qwen3().float(), ragged_combs(6, 2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        half = action_logprobs(model, batch, True)
    for a, b in zip(half, action_logprobs(model, batch, True), strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=0.3)


def test_packing_refuses_positions_that_depend_on_the_batch() -> None:
    model = tiny.llama()
    model.config.rope_parameters["rope_type"] = "dynamic"
    with pytest.raises(ModelError, match="rope_type 'dynamic'"):
        action_logprobs(model, ragged_combs(0, 1, 1, 1), True)


@pytest.mark.parametrize("packed", [True, False])
def test_a_vocabulary_that_is_projected_in_pieces_gives_the_same(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny.gemma2(), ragged_combs(4, 2, 3, 2)
    whole = loss_of(batch, action_logprobs(model, batch, packed))
    expected = gradients(model, whole)
    monkeypatch.setattr("swirl.comb.logprobs.LOGITS_AT_ONCE", 5 * tiny.VOCABULARY)
    pieces = loss_of(batch, action_logprobs(model, batch, packed))
    found = gradients(model, pieces)
    assert_same(whole, pieces)
    for name, gradient in expected.items():
        assert_same(gradient, found[name])


@pytest.mark.parametrize("cap", [None, 30.0])
def test_a_few_final_logits_of_half_precision_are_exact(cap: float | None) -> None:
    """They are those of the same hidden states and weights in float32, where bfloat16 logits are rounded."""
    model = tiny.qwen3().to(torch.bfloat16)
    model.config.final_logit_softcapping = cap
    with torch.no_grad():
        model.get_output_embeddings().weight *= 4
        batch = ragged_combs(3, 2, 3, 2)
        whole, few = final_logits(model, batch, True), final_logits_of(model, batch, True, [5, 2])
    assert few.dtype == torch.float32
    assert whole.dtype == torch.bfloat16
    torch.testing.assert_close(few.to(torch.bfloat16), whole[:, [5, 2]], rtol=0.02, atol=0)
    rounded = (few.to(torch.bfloat16).float() - few).abs().max()
    assert rounded > 0.01  # what a bfloat16 logit of this size loses


def test_a_few_final_logits_of_full_precision_are_the_columns_of_all() -> None:
    model, batch = tiny.qwen3(), ragged_combs(3, 2, 3, 2)
    with torch.no_grad():
        assert torch.equal(final_logits_of(model, batch, True, [5, 2]), final_logits(model, batch, True)[:, [5, 2]])
