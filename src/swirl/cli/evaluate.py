"""`swirl evaluate`: any models side by side, on any file of rows in a benchmark's official format."""

from __future__ import annotations

import gc
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swirl.cli import models as naming
from swirl.cli.project import project_layout
from swirl.core.errors import DataError, ParamsError
from swirl.pipeline import environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from swirl.config.params import Params
    from swirl.core.layout import Layout
    from swirl.evaluation.comparison import Compared
    from swirl.serving.measuring import Drawing
    from swirl.wiring.given_rows import GivenRows


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="What --model of `swirl ask` takes: a model's folder, a .gguf file, a registered agent "
            "(models:/swirl-policy@champion), or an OpenAI-compatible server (http://127.0.0.1:8000/v1#NAME).",
            show_default=False,
        ),
    ],
    benchmark: Annotated[
        str, typer.Option(help="Whose official format the rows have: gsm8k, hotpotqa, musique, cofca or beerqa.")
    ],
    file: Annotated[Path, typer.Option(help="The rows: JSON lines, a JSON document or Parquet.")],
    questions: Annotated[
        int | None, typer.Option(min=1, help="How many of the rows are drawn, the same for every model. Default: all.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Trajectories per question.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of sampling; 0: greedy.")] = 0.0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws questions and samples. Default: that of the settings.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A preset's settings for every model instead of params.yaml; or a YAML file of your own."),
    ] = None,
    key_env: Annotated[
        str, typer.Option(help="The environment variable that holds the servers' key.", show_default=False)
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure models on a file of rows, each against the first: accuracy, exact match, F1, with tools.

    Prompts, tools, step limits and grading are those of stage `evaluate`; an exported model has its own prompts and
    settings, unless --preset is given. The search index is made from the passages of the file. Rows
    that the project trains on are warned of. Nothing in the project is changed.
    """
    layout = project_layout()
    if file.exists() and not file.is_file():
        raise DataError(f"{file} is no file but a folder or a pipe, and it is read more than once: name a file of rows")
    sources = [naming.source(model, layout) for model in models]
    if not math.isfinite(temperature):
        raise ParamsError(f"--temperature is {temperature}; it is a finite number, 0 or more")
    if samples > 1 and temperature == 0:
        raise ParamsError(f"{samples} greedy samples of a question are all the same; add --temperature 1.0, or such")
    from swirl.config import presets

    settings = presets.settings(layout.root, preset)
    environment.set_up_process(settings.runtime.threads)
    each = [settings if preset else naming.settings_of(source, settings) for source in sources]
    from swirl.reporting.text import show_comparison
    from swirl.serving.measuring import Drawing
    from swirl.wiring.given_rows import GivenRows
    from swirl.wiring.servers import print_usage

    drawing = Drawing(samples, temperature, settings.seed if seed is None else seed)
    with tempfile.TemporaryDirectory(prefix="swirl-evaluate-") as folder:
        rows = GivenRows(benchmark, file, questions, drawing.seed, Path(folder))
        if seen := rows.seen(layout):
            print(_warning(seen), file=sys.stderr)
        results: list[Compared] = []
        named = list(zip(models, sources, each, strict=True))
        try:
            for result in compare_all(named, rows, drawing, settings, layout, key_env):
                results.append(result)
        finally:  # what a later model's failure does not take away
            if results and as_json:
                print(json.dumps(as_dict(benchmark, len(rows.drawn), results, seen), ensure_ascii=False))
            elif results:
                how = f"{samples} per question at temperature {temperature:g}" if temperature else "greedy"
                drawn = f"{len(rows.drawn):,} of {rows.total:,} questions of {file.name}"
                show_comparison(f"{benchmark}: {drawn}, {how}", results)
                print_usage()


def compare_all(
    models: Sequence[tuple[str, Path | str, Params]],
    rows: GivenRows,
    drawing: Drawing,
    params: Params,
    layout: Layout,
    key_env: str,
) -> Iterator[Compared]:
    """The results of each model as soon as they are there, in the order given; one model is in memory at a time.

    A model is what the user called it, its `swirl.cli.models.source`, and the settings that it is asked with; `params`
    says how answers are graded and servers are asked. All are looked at before the first is asked.
    """
    from swirl.evaluation.comparison import compare
    from swirl.evaluation.statistics import by_question
    from swirl.pipeline.progress import Progress
    from swirl.serving.measuring import measure
    from swirl.wiring.graders import load_text_grader

    for _, _, settings in models:
        rows.questions(settings)
    openers = [naming.opener(source, own, layout, {}, key_env, params.clients) for _, source, own in models]
    grader = load_text_grader(params, layout)
    first: dict[str, float] | None = None
    for (name, *_), opened in zip(models, openers, strict=True):
        agent = opened()
        with Progress(len(rows.drawn) * drawing.samples, f"evaluate {_short(name)}") as bar:
            made, predicted = measure(agent, name, rows, drawing, grader, bar.update)
        del agent
        gc.collect()
        if grader:
            grader.tally.check_failures(params.check_steps.max_null_rate, grader.tally.asked)
        yield compare(name, predicted, made, first, drawing.seed)
        first = by_question(predicted) if first is None else first


def _short(name: str) -> str:
    """The end of a long name, for the progress bar."""
    return name if len(name) <= 40 else f"…{name[-39:]}"


def _warning(seen: Mapping[str, int]) -> str:
    splits = ", ".join(f"{count:,} in {split}" for split, count in seen.items())
    return (
        f"WARNING: some of the drawn questions are in this project's data: {splits}. What learned from them, or was "
        "chosen by them, is not measured on new questions"
    )


def as_dict(benchmark: str, n: int, results: Sequence[Compared], seen: Mapping[str, int]) -> dict[str, Any]:
    """What `--json` prints: shares and means in [0, 1], the interval that of accuracy; `n` counts questions.

    `seen` counts those of them that are in a split of the project that something learned from.
    """
    models = [
        {
            "model": row.model,
            "accuracy": row.accuracy.value,
            "ci_low": row.accuracy.low,
            "ci_high": row.accuracy.high,
            "em": row.em.value,
            "f1": row.f1.value,
            "answered": row.answered,
            "malformed": row.malformed,
            "p_vs_first": row.p_vs_first,
        }
        for row in results
    ]
    return {"benchmark": benchmark, "n": n, "seen": dict(seen), "models": models}
