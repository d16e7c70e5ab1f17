"""`swirl.tools.actions`: what a model wrote becomes one action, whatever it wrote."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.core.types import Action, ActionKind
from swirl.tools.actions import parse, render

FRAGMENTS = ["<", ">", "<<", ">>", "/", "search_query", "math_exp", "answer", "<answer>", "</answer>", " ", "x"]


@pytest.mark.parametrize(
    ("text", "kind", "payload"),
    [
        ("<search_query> capital of France </search_query>", ActionKind.SEARCH, "capital of France"),
        ("I need it.\n<math_exp>48 / 2</math_exp>", ActionKind.CALCULATE, "48 / 2"),
        ("<<search_query>> who <</search_query>>", ActionKind.SEARCH, "who"),
        ("so <<answer>> Paris <</answer>>", ActionKind.ANSWER, "Paris"),
        ("<answer>\n24\n</answer> and more text", ActionKind.ANSWER, "24"),
        ("<math_exp> 2 < 3 </math_exp>", ActionKind.CALCULATE, "2 < 3"),
        ("<thought> a </thought> <answer> <b>7</b> </answer>", ActionKind.ANSWER, "<b>7</b>"),
    ],
)
def test_one_call_or_one_answer(text: str, kind: ActionKind, payload: str) -> None:
    assert parse(text) == Action(kind, text, payload)


@pytest.mark.parametrize(
    ("text", "kind", "payload"),
    [
        ("I could use <search_query>. <search_query> Bergen </search_query>", ActionKind.SEARCH, "Bergen"),
        ("<search_query> or <math_exp>? <math_exp> 1 + 2 </math_exp>", ActionKind.CALCULATE, "1 + 2"),
        ("No <<search_query>> any more: <answer> Oslo </answer>", ActionKind.ANSWER, "Oslo"),
        ("I must close it with </answer>. <answer> Oslo </answer>", ActionKind.ANSWER, "Oslo"),
        ("In <search_query></search_query>: <search_query> who </search_query> now", ActionKind.SEARCH, "who"),
    ],
)
def test_a_thought_before_the_action_may_name_tags(text: str, kind: ActionKind, payload: str) -> None:
    assert parse(text) == Action(kind, text, payload)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I could use <search_query>",
        "I could use <search_query> a </search_query> or <search_query> b </search_query>",
        "<search_query> a </math_exp> <answer> b </answer>",
        "<search_query> a </search_query> I used <search_query>",
        "I do not know",
        "<answer>",
        "</answer>",
        "<answer> 3",
        "3 </answer>",
        "</answer> 3 <answer>",
        "<answer>  \n </answer>",
        "<answer></answer>",
        "<search_query> a </math_exp>",
        "<answer> 3 <</answer>>",
        "<<answer>> 3 </answer>",
        "<answer> 3 </answer> <answer> 3 </answer>",
        "<search_query> a </search_query> <search_query> b </search_query>",
        "<search_query> a </search_query> so <answer> b </answer>",
        "<search_query> a </search_query> <answer>",
        "<search_query> a <answer> b </answer> </search_query>",
        "<answer> 3 </answer> </answer>",
        "<ANSWER> 3 </ANSWER>",
        "< answer > 3 </ answer >",
    ],
)
def test_everything_else_is_malformed(text: str) -> None:
    assert parse(text) == Action(ActionKind.MALFORMED, text, "")


def test_a_registered_tool_has_its_own_tag_and_hides_the_others() -> None:
    tags = {"py": "python", "py_long": "slow"}
    assert parse("<py> 1 </py>", tags) == Action("python", "<py> 1 </py>", "1")
    assert parse("<py_long> 1 </py_long>", tags).kind == "slow"
    assert parse("<answer> 1 </answer>", tags).kind == ActionKind.ANSWER
    assert parse("<math_exp> 1 </math_exp>", tags).kind == ActionKind.MALFORMED
    assert parse("<py> <math_exp> </py>", tags).payload == "<math_exp>"


def test_render_writes_the_single_form() -> None:
    assert render(ActionKind.SEARCH, "who") == "<search_query> who </search_query>"
    assert render("calculate", " 1 + 2 ") == "<math_exp> 1 + 2 </math_exp>"
    assert render("answer", "24") == "<answer> 24 </answer>"
    assert render("python", "1", {"py": "python"}) == "<py> 1 </py>"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [("malformed", "x"), ("python", "x"), ("answer", " "), ("answer", "a </answer> b"), ("search", "<math_exp>")],
)
def test_render_refuses_what_would_not_be_read_back(kind: str, payload: str) -> None:
    with pytest.raises(ValueError, match="tag|cannot be written"):
        render(kind, payload)


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5)).map("".join))
def test_parse_is_total(text: str) -> None:
    action = parse(text)
    assert action.text == text
    assert (action.payload == "") == (action.kind == ActionKind.MALFORMED)
    if action.payload:
        assert parse(render(action.kind, action.payload)).payload == action.payload


@pytest.mark.parametrize("unit", ["<", "<<", "<answer", "<answer>", "</answer", "<<answer>>", " ", "<answer> "])
def test_hostile_text_takes_linear_time(unit: str) -> None:
    started = time.process_time()
    assert parse(unit * 200_000).kind == ActionKind.MALFORMED
    assert time.process_time() - started < 2
