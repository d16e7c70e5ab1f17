"""Marks in texts: found where they are, and nowhere else."""

from __future__ import annotations

import time

import pytest

from swirl.agent_logs import marks

CUT = ["a ...[truncated]", '{"q": "x ...[truncated]"}', "x [TRUNCATED]", "x … (truncated 1200 chars)", "x <truncated>",
       "a... (litellm_truncated skipped 5 chars) ...b"]  # fmt: skip
WHOLE = ["[output truncated]", "the list was truncated", "[12 lines truncated]", "truncated tables"]
MASKED = "[EMAIL] <EMAIL_ADDRESS> [PHONE_NUMBER_1] [REDACTED] [NAME] [REDACTED_EMAIL] {{EMAIL}} [redacted] <PERSON_1>"
PLAIN = "[DATE] <TABLE_NAME> [x] <div> [TODO] EMAIL [ADDRESS_LIST]"


@pytest.mark.parametrize("text", CUT)
def test_the_marks_of_loggers(text: str) -> None:
    assert marks.cut_by_logger(text)


@pytest.mark.parametrize("text", WHOLE)
def test_what_tools_and_people_say_of_cutting(text: str) -> None:
    assert not marks.cut_by_logger(text)


@pytest.mark.parametrize("text", MASKED.split())
def test_masked_values(text: str) -> None:
    assert marks.masked(f"Write to {text}.")


@pytest.mark.parametrize("text", PLAIN.split())
def test_brackets_that_mask_nothing(text: str) -> None:
    assert not marks.masked(f"Write to {text}.")


def test_summaries_and_errors_of_clients() -> None:
    assert all(
        map(marks.summary, ["Summary: x", "[Summary] x", "Here is a summary of it", "Summary of the conversation"])
    )
    assert not any(map(marks.summary, ["Write me a poem", "What does this summary say?"]))
    assert marks.client_error("API Error: 529 overloaded") and not marks.client_error("The API Error: 529 means")


@pytest.mark.parametrize("text", ["[" + "EMAIL" * 20_000, "[base64_data truncated: " * 20_000])
def test_hostile_text_takes_linear_time(text: str) -> None:
    started = time.process_time()
    assert not marks.masked(text) and not marks.cut_by_logger(text)
    assert time.process_time() - started < 2
