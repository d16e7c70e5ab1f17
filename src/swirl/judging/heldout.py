"""Error rates of a reward model that was taught here, on steps that it was not taught."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from swirl.core.types import ActionKind, HeldOutStep


def error_rates(steps: Sequence[HeldOutStep], threshold: float) -> dict[str, float]:
    """How well the reward model tells GOOD from BAD: `heldout.RATE` over all steps, `heldout.ROW.RATE` over some.

    Rows are tasks, and what is done in one (`search.answer`). A verdict is GOOD from P(GOOD) = `threshold` on, and BAD
    for a step that is cut, as those of stage `judge` are. Beside it stand two that know nothing of the question: the
    policy's own log-probability of the action, which calls as many steps GOOD (`logprob_...`: of the steps where it is
    known; left out if there are none), and chance, which draws as many (`chance_accuracy`; its AUC is one half). Empty
    without steps.
    """
    if not steps:
        return {}
    metrics = {"heldout.threshold": threshold}
    tasks = dict.fromkeys(step.task for step in steps)
    kinds = dict.fromkeys((step.task, step.kind) for step in steps)
    rows = {"": list(steps), **{task: [step for step in steps if step.task == task] for task in tasks}}
    rows |= {f"{task}.{kind}": [s for s in steps if (s.task, s.kind) == (task, kind)] for task, kind in sorted(kinds)}
    for row, chosen in rows.items():
        prefix = f"heldout.{row}." if row else "heldout."
        metrics |= {f"{prefix}{key}": value for key, value in _rates(chosen, threshold).items()}
    return metrics


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Area under the ROC curve: how often a GOOD step has the higher score, ties counted half; 0.5 without a pair."""
    import pandas as pd

    if not good or not bad:
        return 0.5
    ranks = pd.Series([*good, *bad]).rank()[: len(good)].sum()
    return float((ranks - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def _rates(steps: Sequence[HeldOutStep], threshold: float) -> dict[str, float]:
    labels = [step.good for step in steps]
    verdicts = [step.kind != ActionKind.CUT and step.score >= threshold for step in steps]
    known = [(step, verdict) for step, verdict in zip(steps, verdicts, strict=True) if not math.isnan(step.logprob)]
    share, right = sum(verdicts) / len(steps), sum(labels) / len(steps)
    return {
        "n": len(steps),
        "good": right,
        "accuracy": _accuracy(labels, verdicts),
        "tpr": _share(verdict for label, verdict in zip(labels, verdicts, strict=True) if label),
        "fpr": _share(verdict for label, verdict in zip(labels, verdicts, strict=True) if not label),
        "auc": auc([step.score for step in steps if step.good], [step.score for step in steps if not step.good]),
        **(_rates_of_logprobs([step for step, _ in known], sum(verdict for _, verdict in known)) if known else {}),
        "chance_accuracy": share * right + (1 - share) * (1 - right),
    }


def _rates_of_logprobs(steps: Sequence[HeldOutStep], good: int) -> dict[str, float]:
    """What the log-probability tells, if the `good` most probable actions, as many as the reward model's, are GOOD."""
    ranked = sorted(range(len(steps)), key=lambda place: -steps[place].logprob)
    probable = set(ranked[:good])
    return {
        "logprob_accuracy": _accuracy(
            [step.good for step in steps], [place in probable for place in range(len(steps))]
        ),
        "logprob_auc": auc([s.logprob for s in steps if s.good], [s.logprob for s in steps if not s.good]),
    }


def _accuracy(labels: Sequence[bool], verdicts: Sequence[bool]) -> float:
    return _share(label == verdict for label, verdict in zip(labels, verdicts, strict=True))


def _share(verdicts: Iterable[bool]) -> float:
    """The share that is true; 0 of none."""
    kept = list(verdicts)
    return sum(kept) / max(1, len(kept))
