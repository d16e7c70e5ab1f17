"""What an agent tells while it acts in its own tool format."""

from __future__ import annotations

from typing import Any, cast

from swirl.core.types import Question, Stop
from swirl.models.native_chat import Result
from swirl.rollout.engine import Attempt, Calls, Policy, roll_out
from swirl.rollout.reading import reader_of
from swirl.serving.agent import Acted, Observed, _Listening
from tests.rollout.test_native import ASKED, CHAT, CONTEXT, FIND, FOUND, GREEDY, SUM
from tests.scripted_model import Scripted
from tests.taught import TOOLS


def test_calls_results_and_the_answer_are_told_once_each() -> None:
    question = Question("q", "mini", "evaluation", ASKED, ("Oslo",), 2, ("search",))
    attempt = Attempt(question, 0, ASKED, TOOLS, 5)
    texts = [f"{FIND}\n{SUM}", "<answer> Oslo </answer>"]
    prompt = reader_of(CHAT, TOOLS, False).prompt(ASKED, "")
    model = Scripted(
        CHAT, {prompt: [CHAT.reply(text) for text in texts]}, tuple(CHAT._encode(CHAT._pieces.generation)), CONTEXT
    )
    told: list[Any] = []
    chat = cast("Any", _Listening(CHAT, attempt, told.append))
    (made,) = roll_out(Policy("scripted", model, chat, CONTEXT), [attempt], GREEDY, 7, 2, 1, Calls(4, 1))
    assert made.stop is Stop.ANSWERED
    assert told == [
        Acted(0, "", "search", "Ada born", "search", texts[0]),
        Observed(0, f"{FOUND}\n6", False, f"{FOUND}\n6"),
        Acted(1, "", "", "Oslo", "answer", texts[1]),
    ]


def test_a_result_that_is_an_error_is_told_as_one_wherever_it_stands() -> None:
    attempt = Attempt(Question("q", "mini", "evaluation", ASKED, ("Oslo",), 2, ("search",)), 0, ASKED, TOOLS, 5)
    told: list[Any] = []
    listening = _Listening(CHAT, attempt, told.append)
    listening.results([Result("fine", "search"), Result("error: division by zero", "calculator")], closed=True)
    (observed,) = told
    assert observed.error
