"""How often a judge errs, measured on labelled steps or outcomes (the paper's Table 5 does so for its judges)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl.errors import DataError
from swirl.evaluation.statistics import wilson
from swirl.judging.rationale import RationaleJudge, outcome_prompt, process_prompt
from swirl.judging.verdicts import GOOD_BAD, YES_NO

MAX_LINE = 2**20
"""Characters of one row."""


@dataclass(frozen=True, slots=True)
class LabelledStep:
    """One step and whether it is GOOD."""

    question: str
    conversation: str
    """What happened before it; empty for the first."""
    action: str
    good: bool


@dataclass(frozen=True, slots=True)
class LabelledOutcome:
    """One answer and whether it matches the golden one."""

    question: str
    answer: str
    golden: tuple[str, ...]
    good: bool


Labelled = LabelledStep | LabelledOutcome


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of `of` cases with its 95% Wilson interval; all None when there are none."""

    of: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """How a judge's verdicts compare with labels. Rates are over the rows that got a verdict."""

    n: int
    nulls: int
    """Rows without a verdict."""
    accuracy: Rate
    fpr: Rate
    """Judged GOOD (or YES) of those labelled BAD (or NO)."""
    fnr: Rate
    """Judged BAD (or NO) of those labelled GOOD (or YES)."""


def calibrate(judge: RationaleJudge, rows: Sequence[Labelled]) -> ErrorRates:
    """Let `judge` judge labelled rows, and count its errors."""
    steps = [row for row in rows if isinstance(row, LabelledStep)]
    outcomes = [row for row in rows if isinstance(row, LabelledOutcome)]
    process, outcome = judge.prompts.process, judge.prompts.outcome
    judged = [
        *judge.judge([process_prompt(process, row.question, row.conversation, row.action) for row in steps], GOOD_BAD),
        *judge.judge([outcome_prompt(outcome, row.question, row.answer, row.golden) for row in outcomes], YES_NO),
    ]
    labels = [step.good for step in steps] + [outcome.good for outcome in outcomes]
    return error_rates(labels, [said.good for said in judged])


def error_rates(labels: Sequence[bool], verdicts: Sequence[bool | None]) -> ErrorRates:
    """Errors of `verdicts` against `labels`, row by row."""
    given = [(label, verdict) for label, verdict in zip(labels, verdicts, strict=True) if verdict is not None]
    on_bad = [verdict for label, verdict in given if not label]
    on_good = [not verdict for label, verdict in given if label]
    return ErrorRates(
        n=len(labels),
        nulls=len(labels) - len(given),
        accuracy=_rate([label == verdict for label, verdict in given]),
        fpr=_rate(on_bad),
        fnr=_rate(on_good),
    )


def as_text(rates: ErrorRates) -> str:
    """A line a rate, with its 95% interval."""
    lines = [f"{rates.n} rows, {rates.nulls} without a verdict"]
    for name, rate in (("accuracy", rates.accuracy), ("false positives", rates.fpr), ("false negatives", rates.fnr)):
        shown = "none" if rate.value is None else f"{rate.value:.1%}, 95% from {rate.low:.1%} to {rate.high:.1%}"
        lines.append(f"{name}: {shown} (of {rate.of})")
    return "\n".join(lines)


def _rate(cases: Sequence[bool]) -> Rate:
    if not cases:
        return Rate(0, None, None, None)
    low, high = wilson(sum(cases), len(cases))
    return Rate(len(cases), sum(cases) / len(cases), low, high)


def read_labelled(path: Path) -> list[Labelled]:
    """Rows of a JSONL file: `question`, `conversation`, `action`, `label` GOOD or BAD, or `question`, `answer`,
    `golden` (one text or several), `label` YES or NO. Raises `DataError` naming file, line and field.
    """
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), 1):
                if line.strip():
                    rows.append(_row(line, f"{path}, line {number}"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not readable text: {error}") from error
    if not rows:
        raise DataError(f"{path} holds no labelled row")
    return rows


def _row(line: str, where: str) -> Labelled:
    if len(line) > MAX_LINE:
        raise DataError(f"{where} is longer than {MAX_LINE} characters")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} is {type(row).__name__}; a row is an object with a label")
    if "golden" in row:
        golden = row["golden"] if isinstance(row["golden"], list) and row["golden"] else [row["golden"]]
        keys = tuple(_text({"golden": key}, "golden", where) for key in golden)
        return LabelledOutcome(
            _text(row, "question", where), _text(row, "answer", where, True), keys, _label(row, YES_NO, where)
        )
    return LabelledStep(
        _text(row, "question", where),
        _text(row, "conversation", where, True),
        _text(row, "action", where, True),
        _label(row, GOOD_BAD, where),
    )


def _text(row: dict[str, Any], field: str, where: str, may_be_empty: bool = False) -> str:
    if field not in row:
        raise DataError(
            f"{where}: {field} is missing; a row has question, conversation, action, label or "
            "question, answer, golden, label"
        )
    value = row[field]
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise DataError(f"{where}: {field} = {str(value)[:80]!r}; it must be a text that is not blank")
    return value.encode("utf-8", "replace").decode()  # JSON can hold lone surrogates, and nothing else can


def _label(row: dict[str, Any], words: tuple[str, str], where: str) -> bool:
    label = row.get("label")
    if label not in words:
        raise DataError(f"{where}: label = {str(label)[:80]!r}; it must be {words[0]} or {words[1]}")
    return bool(label == words[0])
