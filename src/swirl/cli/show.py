"""One trajectory, or one exported model, as text: what `swirl show` prints."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.core.errors import DataError, ModelError, SwirlError
from swirl.core.layout import Layout
from swirl.core.suggestions import meant
from swirl.core.types import OUTCOME, Prediction, Question, Trajectory, Verdict
from swirl.reporting.format import words
from swirl.reporting.markup import printable
from swirl.reporting.tool_names import tool_name

if TYPE_CHECKING:
    from swirl.models.pointers import Pointer


def check(what: str | None, model: str | None, drawing: Sequence[str]) -> None:
    """Raise `SwirlError` for options of which one would not count beside another.

    `what` is an id or an exported model's folder, and `drawing` are the options given that are about a random draw.
    """
    if what and drawing:
        are = "is" if len(drawing) == 1 else "are"
        raise SwirlError(f"{' and '.join(drawing)} {are} for a trajectory drawn at random: leave out that, or {what}")
    if what and model and Path(what).is_dir():
        raise SwirlError(f"{what} is a model's folder, which has no evaluation to look in: leave out --model")
    if "--diff" in drawing and "--wrong" in drawing:
        raise SwirlError("--diff draws among questions that A has wrong and B has right: leave out --wrong")
    if "--diff" in drawing and model:
        raise SwirlError("--diff names both models itself: leave out --model")


def show(trajectory_id: str, layout: Layout, model: str | None = None) -> str:
    """The trajectory with its question, actions, observations and verdicts, safe for a terminal.

    `model` names an evaluated model; None shows the trajectory of every file that has the id, the synthesised ones
    first. Raises `DataError` when no trajectory has that id.
    """
    found = _find(trajectory_id, layout, model)
    return "\n\n\n".join(_shown(trajectory, path, layout) for trajectory, path in found)


def show_random(
    layout: Layout, models: Sequence[str], benchmark: str | None, wrong: bool, seed: int | None, diff: bool = False
) -> str:
    """A random question evaluated with tools, as `show` prints it, by each of the models that answered it.

    wrong: one that a model of these answers wrong.
    diff: of two models, one that the second answers right and the first does not.

    Raises `DataError` where there is none.
    """
    from swirl.core import records

    right: dict[str, dict[str, bool]] = {}
    known = dict[str, None]()
    for model in models:
        path = layout.predictions(model)
        if not path.exists():
            raise _not_evaluated(model, layout)
        rows = [row for row in records.load(Prediction, path) if row.with_tools]
        known |= dict.fromkeys(row.benchmark for row in rows)
        right[model] = {row.trajectory_id: row.correct for row in rows if benchmark in (None, row.benchmark)}
    whose = f"the evaluation of {' and '.join(models)}"
    if benchmark and benchmark not in known:
        raise DataError(
            f"{whose} has no benchmark {benchmark!r}; there are {', '.join(known)}{meant(benchmark, known)}"
        )
    every = {one for rows in right.values() for one in rows}
    if diff:
        first, second = (right[model] for model in models)
        wanted = [one for one in every if not first.get(one, True) and second.get(one, False)]
    else:
        wanted = [one for one in every if not (wrong and all(rows.get(one, True) for rows in right.values()))]
    if not wanted:
        raise DataError(
            f"{whose} has no {'question that only the second answers right' if diff else 'such trajectory'}"
        )
    chosen = random.Random(seed).choice(sorted(wanted))
    return "\n\n\n".join(show(chosen, layout, model) for model in models if chosen in right[model])


def evaluated(layout: Layout) -> list[str]:
    """The models that were evaluated, the tuned one last. Raises `DataError` where none was."""
    from swirl.reporting.results import MODELS
    from swirl.reporting.state_tables import require_answers

    found = [model for model in MODELS if _has_rows(layout.predictions(model))]
    if not found:
        require_answers(layout, "this project")
        raise DataError("no model has been evaluated yet: run `dvc repro`")
    return found


def _has_rows(path: Path) -> bool:
    """Whether a Parquet file is there and has rows; that of a model that was skipped has none."""
    import pyarrow.parquet as pq

    return path.exists() and pq.read_metadata(path).num_rows > 0


def _not_evaluated(model: str, layout: Layout) -> DataError:
    there = sorted(one.parent.name for one in layout.root.glob("data/predictions/*/predictions.parquet"))
    return DataError(
        f"there is no evaluation of {model!r}; there are {', '.join(there) or 'none: run `dvc repro`'}"
        f"{meant(model, there)}"
    )


def _shown(trajectory: Trajectory, path: Path, layout: Layout) -> str:
    from swirl.core import records

    asked = [trajectory.question_id]
    questions = records.pick(Question, layout.questions, "id", asked) if layout.questions.exists() else []
    question = questions[0] if questions else None
    verdicts: dict[int, Verdict] = {}
    synthesised, model = path == layout.trajectories, path.parent.name
    of_steps = layout.verdicts if synthesised else layout.prediction_verdicts(model)
    if of_steps.exists():
        verdicts = {v.step: v for v in records.pick(Verdict, of_steps, "trajectory_id", [trajectory.id])}
    lines = [f"trajectory  {trajectory.id}  ({path.relative_to(layout.root)})"]
    lines.append(f"benchmark   {trajectory.benchmark}, model {trajectory.model}, sample {trajectory.sample}")
    if question is not None:
        lines.append(f"question    {question.text}")
        lines.append(f"accepted    {' | '.join(question.answers)}")
    lines.extend(_steps(trajectory, verdicts))
    lines.append(f"\nended       {words(trajectory.stop)}" + (f": {trajectory.error}" if trajectory.error else ""))
    lines.append(f"answer      {trajectory.answer or '(none)'}{_verdict(verdicts.get(OUTCOME))}")
    if not synthesised and layout.predictions(model).exists():
        graded = records.pick(Prediction, layout.predictions(model), "trajectory_id", [trajectory.id])
        lines += [f"graded      {'right' if one.correct else 'wrong'}" for one in graded if one.with_tools]
    return printable("\n".join(lines))


def show_model(folder: Path) -> str:
    """What an exported model is and stands on, and its settings. Raises `ModelError` for a folder that is none."""
    from swirl.config.own_settings import NAME, brings_settings
    from swirl.models.loading import is_adapter
    from swirl.models.pointers import read_pointer

    pointer = read_pointer(folder)
    if not brings_settings(folder) or is_adapter(folder) != (pointer is not None):
        raise ModelError(f"{folder} is no exported model with settings ({NAME}): see `swirl export`")
    lines = [f"model       {folder}"]
    try:
        own = (folder / NAME).read_text(encoding="utf-8").rstrip()
        adapter = _adapter(folder, pointer) if pointer is not None else []
    except (OSError, ValueError, KeyError, TypeError, SwirlError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ModelError(f"{folder} is no whole export; one of its files is missing or broken: {what}") from error
    if adapter:
        lines += adapter
    else:
        weights = [file for pattern in ("*.safetensors", "*.gguf") for file in sorted(folder.glob(pattern))]
        lines += [f"weights     {file.name}, {file.stat().st_size / 1e6:.1f} MB" for file in weights]
    return printable("\n".join([*lines, "", own]))


def _adapter(folder: Path, pointer: Pointer) -> list[str]:
    """The lines that say what an adapter is and what it stands on."""
    from swirl.core.records import load_json
    from swirl.models.adapters import CONFIG, WEIGHTS

    config, size = load_json(folder / CONFIG), (folder / WEIGHTS).stat().st_size
    missing = not pointer.revision and not (folder / pointer.model).exists()
    lacking = " (not there: `make weights`)" if missing else ""
    return [
        f"adapter     LoRA of rank {config['r']}, {size / 1e6:.1f} MB",
        f"stands on   {config['base_model_name_or_path']}{lacking}",
        *(f"  {name}  SHA-256 {digest}" for name, digest in pointer.files.items()),
    ]


def _steps(trajectory: Trajectory, verdicts: dict[int, Verdict]) -> list[str]:
    lines = []
    for step in trajectory.steps:
        lines.append(f"\nstep {step.index + 1}  {tool_name(step.action.kind)}{_verdict(verdicts.get(step.index))}")
        lines.append(_indented("model  ", step.action.text))
        for seen in step.observations:
            lines.append(_indented("error  " if seen.error else "result ", seen.text))
    return lines


def _indented(label: str, text: str) -> str:
    """`text` after `label`, with its further lines aligned below its first."""
    return f"  {label}" + text.strip().replace("\n", "\n" + " " * (2 + len(label)))


def _verdict(verdict: Verdict | None) -> str:
    """The judge's verdict and its score in [0, 1], to be appended to a line; empty when there is none."""
    if verdict is None:
        return ""
    if verdict.good is None or verdict.score is None:
        return f"  [judge: no verdict, {verdict.rationale or 'nothing was said'}]"
    return f"  [judge: {'good' if verdict.good else 'bad'} {verdict.score:.2f}]"


def _find(trajectory_id: str, layout: Layout, model: str | None) -> list[tuple[Trajectory, Path]]:
    """The trajectories of that id and the files they are in: a synthesised one, or those behind predictions."""
    from swirl.core import records

    paths = [layout.trajectories, *sorted(layout.root.glob("data/predictions/*/trajectories.parquet"))]
    if model:
        paths = [layout.prediction_trajectories(model)]
        if not paths[0].exists():
            raise _not_evaluated(model, layout)
    paths = [path for path in paths if path.exists()]
    found = [(one, path) for path in paths for one in records.pick(Trajectory, path, "id", [trajectory_id])]
    if found:
        return found
    example = ""
    for path in paths:
        ids = records.read_table(Trajectory, path, ["id"])["id"]
        example = example or (f"; an id looks like {ids[0].as_py()!r}" if len(ids) else "")
    if not paths:
        raise DataError("there are no trajectories yet; run `dvc repro` to make them")
    places = ", ".join(str(path.relative_to(layout.root)) for path in paths)
    raise DataError(f"no trajectory {trajectory_id!r} in {places}{example}")
