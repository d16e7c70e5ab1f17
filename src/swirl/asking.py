"""`swirl ask`: one question, answered step by step with a benchmark's tools."""

from __future__ import annotations

import json
from pathlib import Path

from swirl.absent import why_absent
from swirl.errors import DataError
from swirl.layout import Layout
from swirl.params import Params
from swirl.records import to_dict
from swirl.types import Question, Trajectory
from swirl.wiring import attempts, load_policy, questions_of, roll_out_any, sampling


def ask(text: str, benchmark: str, model: Path, params: Params, layout: Layout) -> Trajectory:
    """The trajectory of `model` (a folder) on a question asked over the benchmark's evaluation corpus.

    Raises `DataError` for a benchmark that is not in the data, or an empty question.
    """
    if not text.strip():
        raise DataError("the question is empty")
    known = {question.benchmark: question for question in questions_of(layout, "evaluation")}
    if benchmark not in known:
        raise DataError(f"benchmark {benchmark!r} is not in {layout.questions}; there are {', '.join(sorted(known))}")
    like = known[benchmark]
    question = Question("ask", benchmark, "evaluation", " ".join(text.split()), (), 0, like.tools, like.task)
    if why := why_absent(model):
        raise DataError(f"there is no model in {model}: {why}")
    servers = {str(name): server for name, server in params.evaluate.servers.items()}
    policy = load_policy(params, model, model.name, servers.get(model.name))
    todo = attempts(params, layout, [question], 1)
    return roll_out_any(policy, todo, sampling(params, 0.0), params.seed, params.rollout.max_malformed, 1)[0]


def as_text(trajectory: Trajectory) -> str:
    """Each step's action and observation, then the answer."""
    lines = []
    for step in trajectory.steps:
        lines.append(f"step {step.index + 1}  {step.action.text}")
        if step.observation:
            lines.append(f"        {step.observation}")
    lines.append(f"answer: {trajectory.answer}" if trajectory.answer else f"no answer: {trajectory.stop}")
    return "\n".join(lines)


def as_json(trajectory: Trajectory) -> str:
    """The answer, why the trajectory ended, and its steps."""
    steps = [
        {"action": to_dict(step.action), "observation": step.observation, "tool_error": step.tool_error}
        for step in trajectory.steps
    ]
    return json.dumps({"answer": trajectory.answer, "stop": trajectory.stop, "steps": steps}, ensure_ascii=False)
