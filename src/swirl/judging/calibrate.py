"""Error rates of a judge, measured on labelled steps or outcomes (as the paper's Table 5 does for its judges)."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from swirl.comb.combs import Comb, pack
from swirl.core.errors import DataError
from swirl.core.untrusted import writable
from swirl.evaluation.statistics import wilson
from swirl.judging.rationale import RationaleJudge, outcome_prompt, process_prompt
from swirl.judging.reward import RewardModel
from swirl.judging.verdicts import GOOD_BAD, YES_NO

MAX_LINE = 2**20
"""Maximum number of characters of one row; a longer one is refused."""
_PIECE = 64
"""Number of rows that are judged in one call, between two words of progress."""

Asked = TypeVar("Asked")
Said = TypeVar("Said")


@dataclass(frozen=True, slots=True)
class LabelledStep:
    """One step and whether it is GOOD."""

    question: str
    conversation: str
    """The actions and results before this step; empty for the first step."""
    action: str
    good: bool
    task: str = ""
    """Name of a task in params.yaml; empty where the row names none."""
    where: str = field(default="", compare=False)
    """File and line of the row, for error messages."""


@dataclass(frozen=True, slots=True)
class LabelledOutcome:
    """One answer and whether it matches the golden one."""

    question: str
    answer: str
    golden: tuple[str, ...]
    good: bool
    where: str = field(default="", compare=False)
    """File and line of the row, for error messages."""


Labelled = LabelledStep | LabelledOutcome


@dataclass(frozen=True, slots=True)
class Rate:
    """A proportion of `of` cases with its 95% Wilson interval; the three numbers are None when `of` is 0."""

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
    """Share judged GOOD (or YES) among the rows labelled BAD (or NO)."""
    fnr: Rate
    """Share judged BAD (or NO) among the rows labelled GOOD (or YES)."""
    threshold: float | None = None
    """Least P(GOOD) of a verdict GOOD; None for a judge that writes its verdict."""


def calibrate(
    judge: RationaleJudge, rows: Sequence[Labelled], done: Callable[[int], None] = lambda n: None
) -> ErrorRates:
    """Have `judge` judge the labelled rows, and return its error rates; `done(n)` is told of `n` more rows."""
    steps = [row for row in rows if isinstance(row, LabelledStep)]
    outcomes = [row for row in rows if isinstance(row, LabelledOutcome)]
    process, outcome = judge.prompts.process, judge.prompts.outcome
    of_steps = [process_prompt(process, row.question, row.conversation, row.action) for row in steps]
    of_outcomes = [outcome_prompt(outcome, row.question, row.answer, row.golden) for row in outcomes]
    judged = [
        *_in_pieces(lambda prompts: judge.judge(prompts, GOOD_BAD), of_steps, done),
        *_in_pieces(lambda prompts: judge.judge(prompts, YES_NO), of_outcomes, done),
    ]
    labels = [step.good for step in steps] + [outcome.good for outcome in outcomes]
    return error_rates(labels, [said.good for said in judged])


def calibrate_tokens(
    judge: RewardModel,
    rows: Sequence[Labelled],
    opening: Callable[[LabelledStep], str],
    context: int,
    done: Callable[[int], None] = lambda n: None,
) -> ErrorRates:
    """Have a judge whose verdict is read from one token judge labelled steps, and return its error rates.

    Each step is laid out in the turns of a rollout, with `opening(row)` as the user's first turn. A step that does not
    fit into `context` tokens gets no verdict. `done` is as in `calibrate`. Raises `DataError` for a labelled outcome,
    and for a conversation that cannot be split into turns.
    """
    combs = [_comb(judge, row, opening) for row in rows]
    fits = [comb.packed_size <= context for comb in combs]
    done(fits.count(False))
    scores = iter(_in_pieces(judge.read, [comb for comb, fit in zip(combs, fits, strict=True) if fit], done))
    verdicts = [next(scores)[0] >= judge.threshold if fit else None for fit in fits]
    return dataclasses.replace(error_rates([row.good for row in rows], verdicts), threshold=judge.threshold)


def _in_pieces(
    judge: Callable[[Sequence[Asked]], list[Said]], asked: Sequence[Asked], done: Callable[[int], None]
) -> list[Said]:
    """What `judge` says of all that is asked, a piece after the other."""
    said = list[Said]()
    for start in range(0, len(asked), _PIECE):
        some = judge(asked[start : start + _PIECE])
        said += some
        done(len(some))
    return said


def _comb(judge: RewardModel, row: Labelled, opening: Callable[[LabelledStep], str]) -> Comb:
    if isinstance(row, LabelledOutcome):
        raise DataError(
            f"{row.where}: the row has golden answers, but a judge that reads one token judges steps alone; leave the "
            "row out, or calibrate the grader with --grader"
        )
    chat = judge.chat
    state = [*chat.prompt(opening(row))]
    for action, result in _turns(row):
        state += [*chat.reply(action), *chat.turn(result, True)]
    return pack(state, [(len(state), judge.tooth(chat.reply(row.action)))])


def _turns(row: LabelledStep) -> list[tuple[str, str]]:
    """(action, result) of each step of a conversation written as in the process prompt; `DataError` otherwise."""
    if not row.conversation.strip():
        return []
    before, *pieces = re.split(r"(?:\A|\n\n)Action (\d{1,9}): ?", row.conversation)
    turns = []
    for number, (said, piece) in enumerate(zip(pieces[::2], pieces[1::2], strict=True), 1):
        action, *result = re.split(rf"\nResult {number}: ?", piece, maxsplit=1)
        turns += [(action, result[0])] if result and said == str(number) else []
    if before or len(turns) != len(pieces) // 2 or not turns:
        raise DataError(
            f"{row.where}: conversation = {row.conversation[:80]!r}; for a judge that reads one token it must be "
            "'Action 1: ...', 'Result 1: ...' on a line of its own, a blank line, 'Action 2: ...' and so on"
        )
    return turns


def error_rates(labels: Sequence[bool], verdicts: Sequence[bool | None]) -> ErrorRates:
    """Error rates of `verdicts` (None: no verdict) against `labels`, compared row by row."""
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
    """The error rates as text: the number of rows, then one line per rate with its 95% interval."""
    at = "" if rates.threshold is None else f"; GOOD where P(GOOD) is at least {rates.threshold:g} (judge.threshold)"
    lines = [f"{rates.n:,} {'row' if rates.n == 1 else 'rows'}, {rates.nulls} without a verdict{at}"]
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
    """Read the labelled rows of a JSONL file.

    A step has `question`, `conversation`, `action` and `label` (GOOD or BAD), and may have a `task`. An outcome has
    `question`, `answer`, `golden` (one text or several) and `label` (YES or NO). Raises `DataError` naming file, line
    and field.
    """
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as file:
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
            _text(row, "question", where), _text(row, "answer", where, True), keys, _label(row, YES_NO, where), where
        )
    return LabelledStep(
        _text(row, "question", where),
        _text(row, "conversation", where, True),
        _text(row, "action", where, True),
        _label(row, GOOD_BAD, where),
        _text(row, "task", where) if "task" in row else "",
        where,
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
    return writable(value)


def _label(row: dict[str, Any], words: tuple[str, str], where: str) -> bool:
    label = row.get("label")
    if label not in words:
        raise DataError(f"{where}: label = {str(label)[:80]!r}; it must be {words[0]} or {words[1]}")
    return bool(label == words[0])
