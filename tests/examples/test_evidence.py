"""The reward without labels of examples/smollm2-135m: what a step brings, by real searches and calculations."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from swirl.core.records import save
from swirl.core.types import Passage, Question
from swirl.tools.search import build
from tests.conftest import ROOT

QUESTION = "When was the director of Harbour Lights born?"  # four words: director, harbour, lights, born
PROBLEM = "Ann has 3 boxes of 12 pens and gives away half of them. How many pens are left?"
PASSAGES = (
    Passage("a", "Harbour Lights", "Harbour Lights is a film whose director is Ida Moss."),
    Passage("b", "Ida Moss", "Ida Moss (born 1951) is a Welsh painter."),
)


@pytest.fixture
def evidence(tmp_path: Path) -> Any:
    file = ROOT / "examples/smollm2-135m/rewards/evidence.py"
    spec = importlib.util.spec_from_file_location("evidence", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build(PASSAGES, tmp_path / "index/hotpotqa.train")
    asked = [
        Question("q", "hotpotqa", "train", QUESTION, ("1951",), 2, ("search",)),
        Question("p", "gsm8k", "train", PROBLEM, ("18",), 2, ("calculator",), "calculate"),
    ]
    save(asked, Question, tmp_path / "questions.parquet")
    return module.Evidence(str(tmp_path / "index"), str(tmp_path / "questions.parquet"), results=1)


def search(*turns: str) -> str:
    return "\n---\n".join(["user\nUse a search engine.\n\nQuestion: " + QUESTION, *turns, "assistant"])


def calculate(*turns: str) -> str:
    return "\n---\n".join(["user\nUse a calculator.\n\nProblem: " + PROBLEM, *turns, "assistant"])


FILM = ("assistant\n<search_query> Harbour Lights </search_query>", "user\nHarbour Lights -> " + PASSAGES[0].text)
PERSON = ("assistant\n<search_query> Ida Moss </search_query>", "user\nIda Moss -> " + PASSAGES[1].text)
PENS = ("assistant\n<math_exp> 3*12 </math_exp>", "user\n3*12 -> 36")
LEFT = ("assistant\n<math_exp> 36/2 </math_exp>", "user\n36/2 -> 18")


@pytest.mark.parametrize(
    ("state", "action", "score"),
    [
        (search(), "First. <search_query> Harbour Lights </search_query>", 0.75**0.5),  # director, harbour, lights
        (search(*FILM), "<search_query> Ida Moss </search_query>", 0.25**0.5),  # born
        (search(*FILM), "<search_query> Harbour Lights film </search_query>", 0.0),  # the same page again
        (search(*FILM), "<search_query> Harbour Lights </search_query>", 0.0),
        (search(*FILM), "<answer> 1951 </answer>", 0.0),  # nothing has shown it
        (search(*FILM, *PERSON), "<answer> 1951 </answer>", 1.0),
        (search(*FILM, *PERSON), "<answer> Harbour Lights </answer>", 0.0),  # the question's own words
        (search(*FILM), "<answer> Ida Moss </answer>", 0.75**2),
        (search(*FILM), "<answer> yes </answer>", 0.75**2),
        (search(*FILM), "<answer>  </answer>", 0.0),
        (search(*FILM), "I do not know.", 0.0),
        (calculate(), "<search_query> boxes of pens </search_query>", 0.0),
        (calculate(), "<math_exp> 3*12 </math_exp>", 1.0),
        (calculate(), "<math_exp> 3*13 </math_exp>", 0.0),  # nobody has said 13
        (calculate(), "<math_exp> 3/0 </math_exp>", 0.0),
        (calculate(*PENS), "<math_exp> 3*12 </math_exp>", 0.0),
        (
            calculate(*PENS),
            "<math_exp> 36/2 </math_exp>",
            0.8,
        ),  # whole, new; the 2 of half is the problem's
        (calculate(*PENS), "<math_exp> 36-3 </math_exp>", 0.6),  # the 3 was used before
        (calculate(*PENS), "<answer> 36 </answer>", (2 / 3) ** 2),
        (calculate(*PENS, *LEFT), "<answer> 18 </answer>", 1.0),
        (calculate(*PENS, *LEFT), "<answer> 36 </answer>", 0.0),  # not the last result
    ],
)
def test_what_a_step_earns(evidence: Any, state: str, action: str, score: float) -> None:
    (given,) = evidence.scores([state], [action])
    assert given == pytest.approx(score) and 0 <= given <= 1


def test_a_question_of_no_split_is_an_error(evidence: Any) -> None:
    with pytest.raises(KeyError, match="Who was she"):
        evidence.scores(["Question\nQuestion: Who was she?\n---\nassistant"], ["<search_query> Ida </search_query>"])
