"""Error rates of a reward model that was taught here, on steps that it was not taught."""

from __future__ import annotations

from collections.abc import Sequence

from swirl.core.types import ActionKind, HeldOutStep


def error_rates(steps: Sequence[HeldOutStep], threshold: float) -> dict[str, float]:
    """Accuracy, true- and false-positive rates against the oracle, over all steps and by kind of task.

    A verdict is GOOD from P(GOOD) = `threshold` on, as those of stage `judge` are. Empty without steps.
    """
    if not steps:
        return {}
    metrics = {"heldout.threshold": threshold}
    for kind in ("", ActionKind.SEARCH, ActionKind.CALCULATE):
        rows = [(step.good, step.score >= threshold) for step in steps if kind in ("", step.kind)]
        name = f"heldout.{kind}." if kind else "heldout."
        metrics |= {f"{name}{key}": value for key, value in _rates(rows).items()}
    return metrics


def _rates(rows: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """Count, accuracy, true- and false-positive rate of (label, verdict) pairs; a rate over no pairs is 0."""
    good = [verdict for label, verdict in rows if label]
    bad = [verdict for label, verdict in rows if not label]
    return {
        "n": len(rows),
        "accuracy": sum(label == verdict for label, verdict in rows) / max(1, len(rows)),
        "tpr": sum(good) / max(1, len(good)),
        "fpr": sum(bad) / max(1, len(bad)),
    }
