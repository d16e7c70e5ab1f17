"""From params, the layout and a labelled file to a judge's error rates: what `swirl judge calibrate` does."""

from __future__ import annotations

from pathlib import Path

from swirl.errors import DataError, SwirlError
from swirl.judges import load_text_judge
from swirl.judging.calibrate import ErrorRates, LabelledStep, calibrate, calibrate_tokens, read_labelled
from swirl.judging.reward import RewardModel
from swirl.layout import Layout
from swirl.models.local import context_of
from swirl.models.prompts import fill
from swirl.params import Params
from swirl.wiring import read_prompts


def measure(labelled: Path, grader: bool, params: Params, layout: Layout) -> ErrorRates:
    """How often the reward model errs on the rows of a file; with `grader`, who grades answers."""
    if grader and params.judge.outcome != "model":
        raise SwirlError("judge.outcome is match: nobody grades by reading; set it to model to calibrate the grader")
    rows = read_labelled(labelled)
    judge = load_text_judge(params, layout, grader)
    if not isinstance(judge, RewardModel):
        return calibrate(judge, rows)
    prompts = read_prompts(params, layout).tasks

    def opening(row: LabelledStep) -> str:
        task = row.task or (next(iter(prompts)) if len(prompts) == 1 else "")
        if task not in prompts:
            what = f"task = {task[:80]!r}" if task else "task is missing"
            raise DataError(
                f"{row.where}: {what}; the judge reads the question in the prompt of its task, which is one of the "
                f"tasks of params.yaml: {', '.join(prompts)}"
            )
        return fill(prompts[task], row.question, params.tasks[task].max_steps)

    return calibrate_tokens(judge, rows, opening, context_of(judge.model, params.runtime.context))
