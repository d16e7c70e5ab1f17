"""What an import found, as plain values for JSON and for metrics."""

from __future__ import annotations

from typing import Any

from swirl.agent_logs.logs import LeftOut, Summary


def as_dict(found: Summary) -> dict[str, Any]:
    """Counts, changes by reason, and each place that is left out.

    Lines and turns count from 1; the turn of a whole line is 0.
    """
    return {
        "conversations": found.conversations,
        "groups": found.groups,
        "trajectories": found.trajectories,
        "steps": found.steps,
        "near_duplicates": found.near_duplicates,
        "changed": {str(change): count for change, count in sorted(found.changed.items())},
        "left_out": [place_of(one) for one in found.left_out],
    }


def place_of(one: LeftOut) -> dict[str, Any]:
    """What is left out, and where."""
    return {
        "file": one.place.file,
        "line": one.place.line,
        "turn": one.place.turn,
        "unit": one.unit,
        "reason": one.reason,
    }
