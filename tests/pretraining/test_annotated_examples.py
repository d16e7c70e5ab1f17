"""Training sequences from annotated rows, and a Gemma-2-shaped model that learns from them."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.benchmarks.annotations import Solution, solve
from swirl.benchmarks.oracle import label_steps
from swirl.core.checkpoints import Checkpoints
from swirl.models.chat import Chat
from swirl.pretraining.annotated_examples import Blend, examples, fitting, tokenizer_of, written
from swirl.pretraining.architectures import random_gemma2
from swirl.pretraining.training import Schedule, train, weighted_loss
from swirl.tools.actions import parse

PROMPT, JUDGE = "At most {steps} steps. {question}", "GOOD or BAD?"


def rows(count: int) -> list[Solution]:
    made = []
    for n in range(2, 2 + count):
        first, last = n + 3, 2 * n + 6
        text = f"Ada has {n}+3=<<{n}+3={first}>>{first} pens.\nTwice is <<{first}*2={last}>>{last}.\n#### {last}"
        solution = solve(f"Ada has {n} pens, gets 3, doubles them. How many?", text)
        assert isinstance(solution, Solution)
        made.append(solution)
    return made


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(tokenizer_of(rows(5), [PROMPT, JUDGE], 600, 256, 2))


def stream(chat: Chat, judged: float, count: int, copying: float = 0.0) -> list[Any]:
    blend = Blend(other=0.125, thought=0.25, judged=judged, copying=copying, changed=0.0)
    return list(islice(examples(rows(4), [], chat, PROMPT, JUDGE, 10, blend, random.Random(0)), count))


def test_small_numbers_tags_and_verdicts_are_one_token_each(chat: Chat) -> None:
    texts = [*map(str, range(100)), " <math_exp> ", " </answer>", "GOOD", "BAD"]
    assert [len(chat.reply(text)) for text in texts] == [2] * len(texts)
    assert len(chat.reply("100")) == 3


def test_an_example_weighs_calls_thoughts_and_the_rest(chat: Chat) -> None:
    example = stream(chat, 0.0, 1)[0]

    def of_weight(weight: float) -> str:
        return chat.text([i for i, its in zip(example.ids, example.weights, strict=True) if its == weight])

    assert of_weight(1.0) == " <math_exp> 5+3 </math_exp> <math_exp> 8*2 </math_exp> <answer> 16 </answer>"
    assert of_weight(0.25) == "Ada has8 pens. Twice is16."
    assert of_weight(0.125) == ("At most 10 steps. Ada has 5 pens, gets 3, doubles them. How many?5+3 -> 88*2 -> 16")
    assert sum(i in chat.end_ids for i in example.ids) == 6


def test_a_drill_repeats_numbers(chat: Chat) -> None:
    drills = [example for example in stream(chat, 0.0, 40, copying=0.5) if "Repeat" in chat.text(example.ids)]
    assert 12 <= len(drills) <= 28
    for drill in drills:
        own = chat.text([i for i, weight in zip(drill.ids, drill.weights, strict=True) if weight == 1.0])
        assert chat.text(drill.ids) == f"Repeat: {own}{own}"
        assert all(number.isdigit() for number in own.split()) and 4 <= len(own.split()) <= 12


def test_a_pass_shows_every_row_once(chat: Chat) -> None:
    assert len({example.ids for example in stream(chat, 0.0, 4)}) == 4
    assert len({example.ids for example in stream(chat, 0.0, 40)}) == 4


def test_foreign_rows_are_shown_with_other_numbers_only(chat: Chat) -> None:
    *_, first, foreign = [one.without_words() for one in rows(4)]
    blend = Blend(other=0.1, thought=1.0, judged=0.0, copying=0.0, changed=0.0)
    source = examples([first], [foreign], chat, PROMPT, JUDGE, 10, blend, random.Random(0))
    shown = [chat.text(example.ids) for example in islice(source, 60)]
    assert sum(first.question in text for text in shown) >= 30  # every second one, in every pass
    assert not [text for text in shown if foreign.question in text]
    assert len(set(shown)) > 5


def test_rows_are_shown_with_other_numbers_as_often_as_asked(chat: Chat) -> None:
    own = [one.without_words() for one in rows(4)]
    blend = Blend(other=0.1, thought=1.0, judged=0.0, copying=0.0, changed=0.5)
    source = examples(own, [], chat, PROMPT, JUDGE, 10, blend, random.Random(0))
    shown = [chat.text(example.ids) for example in islice(source, 200)]
    assert 70 < sum(any(one.question in text for one in own) for text in shown) < 140


def test_a_judged_example_weighs_the_verdict_alone(chat: Chat) -> None:
    verdicts = []
    for example in stream(chat, 1.0, 60):
        own = [i for i, weight in zip(example.ids, example.weights, strict=True) if weight]
        verdicts.append(chat.text(own))
        assert example.ids[-2:] == tuple(own)
    assert set(verdicts) == {"GOOD", "BAD"}
    assert 20 <= verdicts.count("BAD") <= 40


def test_without_rows_there_are_no_examples(chat: Chat) -> None:
    with pytest.raises(ValueError, match="no solution"):
        next(examples([], [], chat, PROMPT, JUDGE, 10, Blend(0.2, 1.0, 0.0, 0.0, 0.0), random.Random(0)))


def test_rows_that_a_policy_could_not_act_out_are_left_out(chat: Chat) -> None:
    row = rows(1)
    assert fitting(row, chat, PROMPT, 3, 64, 256) == row
    assert fitting(row, chat, PROMPT, 2, 64, 256) == []
    assert fitting(row, chat, PROMPT, 3, 4, 256) == []
    assert fitting(row, chat, PROMPT, 3, 64, 20) == []


def test_written_conversations_are_labelled_by_the_oracle() -> None:
    row = rows(1)[0]
    good = written(row, PROMPT, 10, False, random.Random(0))
    assert good.prompt == "At most 10 steps. Ada has 2 pens, gets 3, doubles them. How many?"
    assert label_steps(good.derivation, [parse(turn.action) for turn in good.turns]) == [True, True, True]
    spoilt = [written(row, PROMPT, 10, True, random.Random(seed)) for seed in range(30)]
    last = [label_steps(item.derivation, [parse(turn.action) for turn in item.turns])[-1] for item in spoilt]
    assert last.count(False) >= 25


def test_a_fresh_gemma2_has_its_family_traits_and_learns(chat: Chat, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model = random_gemma2(chat.tokenizer, 32, 2, 4, 64, 256, 16, "eager", 0)
    config = model.config
    assert (config.model_type, config.sliding_window, config.num_key_value_heads) == ("gemma2", 16, 2)
    assert config.layer_types == ["sliding_attention", "full_attention"]
    assert config.attn_logit_softcapping and config.final_logit_softcapping
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    losses: list[float] = []
    source = examples(rows(4), [], chat, PROMPT, JUDGE, 10, Blend(0.2, 1.0, 0.1, 0.1, 0.0), random.Random(0))
    train(
        model,
        Schedule(30, 1e-2, 6e-3, warmup=5),
        lambda _: list(islice(source, 4)),
        lambda batch: weighted_loss(model, batch),
        lambda _, metrics: losses.append(metrics["loss"]),
        "no",
        1,
        Checkpoints(tmp_path / "c", "print"),
    )
    assert losses[0] > 5.5
    assert losses[-1] < 2.5
