"""What counts as a verdict at the end of a judgement, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl.judging.verdicts import YES_NO, parse


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
    ],
)
def test_a_verdict(text: str, verdict: bool | None) -> None:
    assert parse(text) is verdict


def test_yes_and_no_are_another_pair() -> None:
    assert parse("10.00 is 10.\nAnswer: Yes", YES_NO) is True
    assert parse("No, the key says 11.\nNO", YES_NO) is False
    assert parse("No, the key says 11.", YES_NO) is None
    assert parse("GOOD", YES_NO) is None


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_parse_is_total(text: str) -> None:
    assert parse(text) in (True, False, None)
    assert parse(text + "\nGOOD") is True


@pytest.mark.parametrize("unit", ["GOOD or ", "a: ", "*", "/", "<a", "_ ", "\n", " GOOD\n", "a b c: x ", "("])
def test_hostile_text_is_read_at_once(unit: str) -> None:
    """A million characters; what is looked at is bounded, so this cannot take long."""
    parse(unit * (1_000_000 // len(unit)))
