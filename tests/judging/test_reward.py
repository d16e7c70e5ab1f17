"""The reward model against a naive reading of its probabilities, one unpadded sequence at a time."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import pytest
import torch

from swirl.comb.combs import Comb, pack
from swirl.comb.logprobs import final_logits_of
from swirl.core import flights
from swirl.core.errors import ModelError
from swirl.core.flights import OutOfMemoryError
from swirl.core.types import Action, Observation, Step, Stop, Trajectory, Verdict
from swirl.judging.reward import RewardModel
from swirl.models.chat import Chat
from swirl.pretraining.word_tokenizer import CHAT_TEMPLATE
from tests import tiny

CHAT = tiny.chat()
QUESTION = "is what right ?"


def reward_model(packed: bool = True, token_budget: int = 16384) -> RewardModel:
    return RewardModel("reward", tiny.qwen3(len(CHAT.tokenizer)), CHAT, QUESTION, packed, token_budget)


def naive_score(judge: RewardModel, state: tuple[int, ...], action: tuple[int, ...]) -> float:
    """P(GOOD) / (P(GOOD) + P(BAD)) after the judge's question; the action's turn is closed first if it was cut."""
    closing = () if action[-1] == CHAT.end_id else (CHAT.end_id,)
    turn = CHAT.prompt(QUESTION)  # <|user|> question <|end|> <|model|>
    probability = torch.softmax(tiny.naive_logits(judge.model, [*state, *action, *closing, *turn])[-1], -1)
    good, bad = CHAT.tokenizer("GOOD BAD")["input_ids"]
    return float((probability[good] / (probability[good] + probability[bad])).detach())


def trajectory(name: str, actions: list[tuple[int, ...]]) -> Trajectory:
    """A trajectory of these action tokens, with an observation after each but the last."""
    steps = [
        Step(
            index=k,
            action=Action("malformed", CHAT.text(ids), ""),
            observations=(Observation("Oslo", error=False),),
            token_ids=ids,
            logprobs=(0.0,) * len(ids),
            observation_ids=() if k == len(actions) - 1 else CHAT.turn("Oslo " * (k + 1), ids[-1] == CHAT.end_id),
        )
        for k, ids in enumerate(actions)
    ]
    return Trajectory(name, name, "b", 0, "m", 0, CHAT.prompt(f"what is {name}"), tuple(steps), Stop.STEP_LIMIT, "")


CLOSED, CUT = CHAT.reply("Ada is born"), (30, 31, 32)
TRAJECTORIES = [
    trajectory("Ada", [CLOSED, CHAT.reply("Rome"), CUT]),  # its last action was cut: no end of turn
    trajectory("Rome", [CUT, CLOSED]),
    trajectory("Oslo", [(CHAT.end_id,)]),
]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("token_budget", [16384, 1])
def test_trajectory_scores_are_the_naive_ones(packed: bool, token_budget: int) -> None:
    judge = reward_model(packed, token_budget)
    found = judge.trajectory_scores(TRAJECTORIES)
    expected = [
        [naive_score(judge, t.state_ids(k), step.token_ids) for k, step in enumerate(t.steps)] for t in TRAJECTORIES
    ]
    assert [len(row) for row in found] == [3, 2, 1]
    assert [pytest.approx(row, abs=1e-5) for row in expected] == found
    spread = [score for row in found for score in row]
    assert max(spread) - min(spread) > 0.01, "scores all alike would test nothing"


def test_a_step_that_was_cut_is_bad_whatever_the_model_says() -> None:
    judge = dataclasses.replace(reward_model(), threshold=0.0)
    known = TRAJECTORIES[1]
    half = dataclasses.replace(known.steps[0], action=Action("cut", known.steps[0].action.text, ""))
    cut = dataclasses.replace(known, steps=(half, known.steps[1]))
    (expected,) = judge.trajectory_scores([known])
    assert judge.trajectory_scores([cut]) == [[0.0, expected[1]]]
    first, second = judge.process_verdicts([cut], {})
    assert (first.good, first.score, second.good) == (False, 0.0, True)
    assert first.rationale == "cut off at the longest length of an action, so BAD without asking"


@pytest.mark.parametrize("packed", [True, False])
def test_scores_of_teeth_are_the_naive_ones(packed: bool) -> None:
    judge = reward_model(packed)
    trunk = CHAT.prompt("what is Ada is Rome")
    combs = [pack(trunk, [(len(trunk), CLOSED), (4, CUT), (4, CLOSED)]), pack((30, 31), [(1, (CHAT.end_id,))])]
    expected = [[naive_score(judge, c.trunk[: t.sees], t.ids) for t in c.teeth] for c in combs]
    assert [pytest.approx(row, abs=1e-5) for row in expected] == judge.scores(combs)


def out_of_memory_above(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let memory run out in every forward pass of more than `most` tokens."""
    monkeypatch.setattr(flights, "_smaller", [])

    def read(model: object, combs: Sequence[Comb], *rest: object) -> torch.Tensor:
        if sum(comb.packed_size for comb in combs) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return final_logits_of(model, combs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("swirl.judging.reward.final_logits_of", read)


def test_where_memory_runs_out_half_as_many_tokens_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = reward_model(token_budget=128)
    sizes = [comb.packed_size for trajectory in TRAJECTORIES for comb in judge.combs_of(trajectory)]
    assert (sizes, judge.flight.size) == ([61, 43, 19], 128)
    expected = judge.trajectory_scores(TRAJECTORIES)
    out_of_memory_above(64, monkeypatch)
    assert [pytest.approx(row, abs=1e-5) for row in expected] == judge.trajectory_scores(TRAJECTORIES)
    assert (judge.flight.size, judge.token_budget) == (64, 128)
    assert flights.smaller_flights() == {
        "judge.tokens.used": 64, "judge.tokens.asked": 128, "judge.tokens.out_of_memory": 1,
    }  # fmt: skip
    out_of_memory_above(20, monkeypatch)
    with pytest.raises(OutOfMemoryError, match="lower runtime.workers if it is above 1, or take a smaller judge"):
        judge.trajectory_scores(TRAJECTORIES)


def test_a_comb_above_the_budget_is_read_in_parts_and_one_within_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an update of RL: three states of one trajectory, with several actions each."""
    trunk = CHAT.prompt("what is Ada is Rome what is")
    states = [(sees, ids) for sees in (4, 6, len(trunk)) for ids in (CLOSED, CUT)]
    judge, read = reward_model(), list[list[int]]()

    def counted(model: object, combs: Sequence[Comb], *rest: object) -> torch.Tensor:
        read.append([comb.packed_size for comb in combs])
        return final_logits_of(model, combs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("swirl.judging.reward.final_logits_of", counted)
    (whole,) = judge.scores([pack(trunk, states)])
    ((size,),) = read
    assert dataclasses.replace(judge, token_budget=size).scores([pack(trunk, states)]) == [whole]
    assert read == [[size]] * 2
    read.clear()
    budget = size - 1
    (parts,) = dataclasses.replace(judge, token_budget=budget).scores([pack(trunk, states)])
    assert parts == pytest.approx(whole, abs=1e-6)
    assert len(read) == 2 and all(sum(sizes) <= budget for sizes in read)


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_longer_than_the_judges_context_gets_no_verdict(packed: bool) -> None:
    judge, (made, *_) = reward_model(packed), TRAJECTORIES
    sizes = [len(made.state_ids(k)) + len(judge.tooth(step.token_ids)) for k, step in enumerate(made.steps)]
    assert sizes == [22, 28, 37]
    (known,) = judge.trajectory_scores([made])
    short = dataclasses.replace(judge, context=36)
    (found,) = short.trajectory_scores([made])
    assert found[:2] == pytest.approx(known[:2], abs=1e-6)
    assert math.isnan(found[2])
    *first, last = short.process_verdicts([made], {})
    assert [verdict.good for verdict in first] == [score >= 0.5 for score in known[:2]]
    assert last == Verdict(
        "Ada", 2, None, None, "37 tokens with the judge's question do not fit into its context of 36: set "
        "runtime.context to 23 at most, or take a judge that reads more", "reward",
    )  # fmt: skip
    assert dataclasses.replace(judge, context=37).trajectory_scores([made]) == [known]


def test_a_trajectory_without_steps_has_no_scores() -> None:
    empty = dataclasses.replace(TRAJECTORIES[0], steps=(), stop=Stop.CONTEXT_FULL)
    judge = reward_model()
    assert judge.trajectory_scores([empty, TRAJECTORIES[2]]) == [[], *judge.trajectory_scores([TRAJECTORIES[2]])]


def test_the_judge_sees_nothing_after_the_step() -> None:
    judge = reward_model()
    whole, first = TRAJECTORIES[0], dataclasses.replace(TRAJECTORIES[0], steps=TRAJECTORIES[0].steps[:1])
    assert judge.trajectory_scores([whole])[0][0] == pytest.approx(judge.trajectory_scores([first])[0][0], abs=1e-6)


def test_verdicts_that_begin_alike_are_refused() -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_letters(),
        unk_token="?",
        eos_token="|",
        chat_template=re.sub(r"<\|end\|> ", "| ", CHAT_TEMPLATE),
    )
    judge = dataclasses.replace(reward_model(), chat=Chat(tokenizer))
    with pytest.raises(ModelError, match="GOOD and BAD begin with the same token"):
        judge.scores([pack((1, 2), [(1, (2,))])])


def _letters() -> object:
    """A tokenizer that knows neither verdict."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["?", "|", "<|user|>", "<|model|>"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer
