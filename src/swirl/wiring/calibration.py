"""From params, the layout and a labelled file to a judge's error rates: what `swirl judge calibrate` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from swirl.config.params import Params
from swirl.core.errors import DataError, SwirlError
from swirl.core.layout import Layout
from swirl.judging.calibrate import ErrorRates, Labelled, LabelledStep, calibrate, calibrate_tokens, read_labelled
from swirl.judging.reward import RewardModel
from swirl.models.prompts import fill
from swirl.pipeline.progress import SHORT, Progress
from swirl.tools import Search
from swirl.tools.base import Tool, listed
from swirl.tools.by_name import open_tool, options_name
from swirl.wiring.graders import load_text_judge
from swirl.wiring.judges import Judge
from swirl.wiring.prompts import read_prompts


def measure(labelled: Path, grader: bool, params: Params, layout: Layout) -> ErrorRates:
    """Error rates of the reward model, or of the grader of answers if `grader` is True, on the rows of a file."""
    if grader and params.judge.outcome != "model":
        raise SwirlError("judge.outcome is match: nobody grades by reading; set it to model to calibrate the grader")
    rows = read_labelled(labelled)
    judge = load_text_judge(params, layout, grader)
    with Progress(len(rows), "rows judged", after=SHORT) as bar:
        return _rates(judge, rows, params, layout, bar)


def _rates(judge: Judge, rows: list[Labelled], params: Params, layout: Layout, bar: Progress) -> ErrorRates:
    if not isinstance(judge, RewardModel):
        return calibrate(judge, rows, bar.update)
    prompts = read_prompts(params, layout).tasks

    def opening(row: LabelledStep) -> str:
        task = row.task or (next(iter(prompts)) if len(prompts) == 1 else "")
        if task not in prompts:
            what = f"task = {task[:80]!r}" if task else "task is missing"
            raise DataError(
                f"{row.where}: {what}; the judge reads the question in the prompt of its task, which is one of the "
                f"tasks of params.yaml: {', '.join(prompts)}"
            )
        prompt, wanted = prompts[task], params.tasks[task]
        return fill(prompt, row.question, wanted.max_steps, listing(wanted.tools) if "{tools}" in prompt else "")

    def listing(names: Sequence[str]) -> str:
        settings, folder = params.tools, layout.root / params.tools.folder
        tools = [
            Search if name == "search" else open_tool(name, settings.options.get(options_name(name), {}), folder)
            for name in names
        ]
        return listed(cast("list[Tool]", tools))  # `listed` reads only class attributes of Search: no index is needed

    return calibrate_tokens(judge, rows, opening, judge.context, bar.update)
