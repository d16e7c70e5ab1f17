"""The layout of the plan's tables."""

from __future__ import annotations

from swirl.planning.columns import aligned


def test_the_first_column_is_flush_left_and_the_others_flush_right() -> None:
    assert aligned([("", "hours"), ("judge", "1"), ("synthesize", "12")]) == [
        "            hours",
        "judge           1",
        "synthesize     12",
    ]
