"""What counts as a verdict at the end of a judgement, and what does not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl.judging.verdicts import GOOD_BAD, YES_NO, find


def parse(text: str, words: tuple[str, str] = GOOD_BAD, ended: bool = True) -> bool | None:
    """The verdict alone, without its place."""
    found = find(text, words, ended)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("GOOD", True),
        ("bad", False),
        ("The query asks for the birthplace, which is needed.\n\nGOOD", True),
        ("**BAD**", False),
        ("Verdict: **good**.", True),
        ("The step is GOOD.", True),
        ("The action is not bad, so: GOOD", True),
        ("[[GOOD]]", True),
        ("\\boxed{BAD}", False),
        ('{"verdict": "GOOD"}', True),
        ("<verdict>GOOD</verdict>", True),
        ("_GOOD_", True),
        ("### Verdict\n\n`BAD`\n", False),
        ("GOOD\nOn second thought:\nBAD", False),
        ("**Final verdict:** BAD\n\nAsk me if you want to know more!", False),
        ("GOOD\n\nThe search asks for what is missing.", True),
        ("", None),
        ("This is a good query because", None),
        ("The search is good, and the results of it were", None),
        ("It is not good", None),
        ("It isn't GOOD.", None),
        ("GOOD or BAD?", None),
        ("GOOD/BAD", None),
        ("BAD.\nIs it good or bad", None),
        ("goodness", None),
        ("no-good", None),
        ("YES", None),
        ("Reasons only.", None),
        ("... so the query is not very good", None),
        ("It would be hard to call this step good", None),
        ("The step might be GOOD.", None),
        ("It is not so good.", None),
        ("The step is not, in my view, GOOD.", None),
        ("Nobody can say whether it is GOOD", None),
        ("Is it GOOD?", None),
        ("The query is very good", None),
        ("The query is good.", True),
        ("I judge the step **good**", True),
        ("so my verdict is good", True),
        ("It repeats nothing. Good.", True),
        ("Although the query is not perfect, it is GOOD.", True),
        ("It does not repeat an earlier search and is therefore GOOD.", True),
        ("The results do not support this answer so it is BAD.", False),
        ('{"reason": "It is not new.", "final_verdict": "bad"}', False),
        ("\\boxed{\\text{good}}", True),
        ("Verdict - Good", True),
        ("BAD\n\nThe query was very good", False),
        ("<think>It is BAD.\nVerdict: BAD</think>\n\nThe search helps.\nGOOD", True),
        ("It is BAD, I think.</think>\n\nGOOD", True),
        ("<think>\nIt is GOOD.\n</think>\n\nThe search helps.", None),
        ("<think>The step might be good", None),
        ("<think>\nVerdict: GOOD", None),
        ("The action leaves <think> open, so it is no call.\nBAD", False),
    ],
)
def test_a_verdict(text: str, verdict: bool | None) -> None:
    assert parse(text) is verdict


def test_yes_and_no_are_another_pair() -> None:
    assert parse("10.00 is 10.\nAnswer: Yes", YES_NO) is True
    assert parse("No, the key says 11.\nNO", YES_NO) is False
    assert parse("No, the key says 11.", YES_NO) is None
    assert parse("GOOD", YES_NO) is None
    assert parse("The given answer has no", YES_NO) is None
    assert parse("The answer does not match, so: no", YES_NO) is False
    assert parse("Final verdict: NO\n\nThe key names another town.", YES_NO) is False
    assert parse("Assistant's final answer: Yes\nThe key says no, and the question", YES_NO, ended=False) is None
    assert parse("Final answer: yes\nAnswer key: no\nThese differ.", YES_NO) is None
    assert parse("Answer to grade: no\nAnswer key: yes\nThese differ.", YES_NO) is None  # repeats the prompt


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: GOOD", True),
        ("**Final verdict:** BAD\n\nThe query asks for what", False),
        ("My verdict on it = **good**\nIt helps", True),
        ("GOOD", None),
        ("It asks for Ada.\n\nGOOD", None),
        ("The step is GOOD.", None),
        ("It repeats a search: BAD", None),
        ("Verdict: GOOD or BAD", None),
        ("<think>\nVerdict: GOOD", None),
    ],
)
def test_of_a_text_that_was_cut_only_a_labelled_line_counts(text: str, verdict: bool | None) -> None:
    assert parse(text, ended=False) is verdict


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_parse_is_total(text: str) -> None:
    assert parse(text) in (True, False, None)
    assert parse(text + "\nGOOD") is True


@pytest.mark.parametrize(
    "text", ["Verdict: **GOOD**", "a\r\nb\n\n<b>good</b>\n", "GOOD?</think>\n GOOD", "x" * 5000 + "\nit is GOOD."]
)
def test_where_the_verdict_stands(text: str) -> None:
    found = find(text)
    assert found is not None
    assert text[found[1] :].upper().startswith("GOOD")
    assert found[1] > text.rfind("</think>")


@pytest.mark.parametrize(
    "unit", ["GOOD or ", "a: ", "*", "/", "<a", "_ ", "\n", " GOOD\n", "a b c: x ", "(", ", so", "is a_ ", "</think>"]
)
def test_hostile_text_is_read_at_once(unit: str) -> None:
    """A million characters, of which a bounded part is looked at."""
    started = time.process_time()
    assert parse(unit * (1_000_000 // len(unit))) is (True if unit == " GOOD\n" else None)
    assert time.process_time() - started < 2
