"""Which reasons say that an answer is not whole."""

from __future__ import annotations

import pytest

from swirl.core.endings import cut_short


@pytest.mark.parametrize(
    "reason",
    [
        "length",
        "max_tokens",
        "MAX_TOKENS",
        "content_filter",
        "refusal",
        "model_context_window_exceeded",
        "failed",
        "error",
    ],
)
def test_an_answer_that_is_not_whole(reason: str) -> None:
    assert cut_short(reason)


@pytest.mark.parametrize("reason", ["stop", "end_turn", "tool_use", "tool_calls", "completed", "STOP", "", None, 3, {}])
def test_an_answer_that_is_whole_or_of_which_nothing_is_said(reason: object) -> None:
    assert not cut_short(reason)
