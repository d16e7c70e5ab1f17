"""A sample of a stage's trajectories, as traces and as a table. Knows nothing of MLflow.

The pipeline does not time single steps, so traces and their spans take no time: a trace starts when its stage did, and
its steps follow one another by a nanosecond, which keeps their order.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.row_groups import tables
from swirl.core.types import OUTCOME, ActionKind, Prediction, Question, Step, Stop, Trajectory, Verdict


@dataclass(frozen=True, slots=True)
class Sample:
    """One trajectory with its question, verdicts and labels."""

    trajectory: Trajectory
    question: Question | None
    correct: bool | None
    verdicts: dict[int, Verdict]
    """By step index; the verdict on the outcome under `OUTCOME`."""
    labels: dict[str, float]
    """Numbers for the whole trajectory: its prediction's EM, F1 and process labels."""
    part: str = ""
    """How many of the stage's trajectories were drawn, as `20 of 2000`."""

    @property
    def outcome(self) -> str:
        """`true`, `false`, or `unknown` when nobody graded the answer."""
        return "unknown" if self.correct is None else str(self.correct).lower()


def read_samples(stage: str, layout: Layout, count: int) -> list[Sample]:
    """At most `count` of the trajectories of stage `judge` or `evaluate@MODEL`; none for other stages.

    They are drawn at random, as many of each benchmark, and by their ids alone: of every evaluated model the same
    questions, so that two models' traces can be laid side by side.
    """
    name, _, item = stage.partition("@")
    if count <= 0 or name not in ("judge", "evaluate"):
        return []
    path = layout.trajectories if name == "judge" else layout.prediction_trajectories(item)
    if not path.exists():
        return []
    questions = {question.id: question for question in records.load(Question, layout.questions)}
    ids, graded = _ids(path), dict[str, Prediction]()
    given = layout.verdicts if name == "judge" else layout.prediction_verdicts(item)
    correct: dict[str, bool | None]
    if name == "judge":
        correct = _outcomes(given) if given.exists() else {}
    else:
        predictions = records.load(Prediction, layout.predictions(item))
        graded = {row.trajectory_id: row for row in predictions if row.with_tools}
        correct = {key: row.correct for key, row in graded.items()}
    chosen = _choose(ids, count)
    made = {trajectory.id: trajectory for trajectory in records.pick(Trajectory, path, "id", chosen)}
    verdicts = dict[str, dict[int, Verdict]]()
    for verdict in records.pick(Verdict, given, "trajectory_id", chosen) if given.exists() else ():
        verdicts.setdefault(verdict.trajectory_id, {})[verdict.step] = verdict
    return [
        Sample(
            made[one],
            questions.get(made[one].question_id),
            correct.get(one),
            verdicts.get(one, {}),
            _labels(graded.get(one)),
            f"{len(chosen)} of {len(ids)}",
        )
        for one in chosen
    ]


def sampled_tokens(path: Path) -> int:
    """The number of action tokens in a file of trajectories, read by row group, without building records."""
    import pyarrow.compute as pc

    total = 0
    for table in tables(Trajectory, path, ["steps"]):
        actions = pc.struct_field(pc.list_flatten(table["steps"]), "token_ids")
        total += pc.sum(pc.list_value_length(actions)).as_py() or 0
    return total


def _outcomes(path: Path) -> dict[str, bool | None]:
    """The verdict on the outcome of each trajectory that has one."""
    columns = records.read_table(Verdict, path, ["trajectory_id", "step", "good"])
    given = zip(*(columns[name].to_pylist() for name in columns.column_names), strict=True)
    return {trajectory: good for trajectory, step, good in given if step == OUTCOME}


def trace_of(sample: Sample, stage: str, record: str, started: float) -> dict[str, Any]:
    """A trajectory as plain values: id, times (nanoseconds), texts, tags, spans, verdicts."""
    trajectory, question = sample.trajectory, sample.question
    clock, read = int(started * 1e9), len(trajectory.prompt_ids)
    spans = []
    for number, step in enumerate(trajectory.steps, start=1):
        read = len(step.rewritten_ids) or read
        spans.append(_span(step, clock + number, read, sample.verdicts.get(step.index)))
        read += len(step.token_ids) + len(step.observation_ids)
    tags = {
        "benchmark": trajectory.benchmark,
        "stop": str(trajectory.stop),
        "correct": sample.outcome,
        "model": trajectory.model,
        "stage": stage,
        "trajectory": trajectory.id,
        "sample": sample.part,
    }
    outcome = _verdict(sample.verdicts.get(OUTCOME))
    return {
        "id": hashlib.sha256(f"{record}/{trajectory.id}".encode()).hexdigest()[:32],
        "name": trajectory.benchmark,
        "start": clock,
        "failed": trajectory.error,
        "question": question.text if question else trajectory.question_id,
        "accepted": list(question.answers) if question else [],
        "answer": trajectory.answer if trajectory.stop is Stop.ANSWERED else f"(no answer: {trajectory.stop})",
        "tags": tags,
        "labels": sample.labels,
        "outcome": outcome or {"good": sample.correct, "rationale": "", "judge": "evaluation"},
        "spans": spans,
    }


def table_of(samples: Sequence[Sample]) -> str:
    """The samples as a table that MLflow shows (in the JSON of `log_table`): one row per trajectory."""
    columns = ["trajectory", "benchmark", "question", "accepted", "answer", "correct", "stop", "steps", "transcript"]
    data = [
        [
            sample.trajectory.id,
            sample.trajectory.benchmark,
            sample.question.text if sample.question else "",
            " | ".join(sample.question.answers) if sample.question else "",
            sample.trajectory.answer,
            sample.outcome,
            str(sample.trajectory.stop),
            len(sample.trajectory.steps),
            "\n".join(_transcript(sample)),
        ]
        for sample in samples
    ]
    return json.dumps({"columns": columns, "data": data}, ensure_ascii=False)


def _span(step: Step, starts: int, read: int, verdict: Verdict | None) -> dict[str, Any]:
    """One step as a span: the whole action, the tool calls in it, the observations, and the judge's verdict.

    It has the name of what the action does, so that a tool's calls are one row of MLflow's page about tools. `read` is
    the number of tokens of its state.
    """
    kind = step.action.kind
    calls = kind not in (ActionKind.ANSWER, ActionKind.THINK) and not step.action.faulty
    asked = {
        "tool": ", ".join(action.kind for action in step.actions),
        "call": "\n".join(action.payload for action in step.actions),
    }
    failed = f"{kind} action" if step.action.faulty else "the tool answered with an error"
    return {
        "name": str(kind),
        "type": "TOOL" if calls else "LLM",
        "start": starts,
        "failed": failed if step.tool_error or step.action.faulty else "",
        "inputs": {"action": step.action.text, **(asked if calls else {})},
        "outputs": {"observation": step.observation} if step.observation else {"answer": step.action.payload},
        "verdict": _verdict(verdict),
        "attributes": {"step": step.index + 1, "kind": str(kind)},
        "tokens": (read, len(step.token_ids)),
    }


def _verdict(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {"good": verdict.good, "score": verdict.score, "rationale": verdict.rationale, "judge": verdict.judge}


def _transcript(sample: Sample) -> list[str]:
    lines = []
    for step in sample.trajectory.steps:
        verdict = sample.verdicts.get(step.index)
        said = "" if verdict is None else f"  [{_word(verdict.good)}] {verdict.rationale}".rstrip()
        lines.append(f"{step.index + 1}. {step.action.text.strip()}{said}")
        lines.extend(f"   -> {seen.text.strip()}" for seen in step.observations)
    return lines


def _word(good: bool | None) -> str:
    return "no verdict" if good is None else "good" if good else "bad"


def _labels(prediction: Prediction | None) -> dict[str, float]:
    if prediction is None:
        return {}
    names = ("em", "f1", "process_label_judge", "process_label_oracle")
    return {name: value for name in names if (value := getattr(prediction, name)) is not None}


def _choose(rows: Sequence[tuple[str, str]], count: int) -> list[str]:
    """Up to `count` of the (id, benchmark) at random, in turn from each benchmark; the draw depends on ids alone."""
    groups: dict[str, list[str]] = {}
    for one, benchmark in sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest()):
        groups.setdefault(benchmark, []).append(one)
    turns = itertools.zip_longest(*(groups[name] for name in sorted(groups)))
    return [one for turn in turns for one in turn if one is not None][:count]


def _ids(path: Path) -> list[tuple[str, str]]:
    names = ("id", "benchmark")
    columns = records.read_table(Trajectory, path, names)
    return list(zip(*(columns.column(name).to_pylist() for name in names), strict=True))
