"""`swirl bench`: speed against alternatives, recall of retrieval, overhead of a run, tables of the paper's size."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer

from swirl.cli.project import project_layout
from swirl.core.errors import SwirlError
from swirl.core.suggestions import meant

OPTIONS = {
    "rl-step": ("rounds", "repeats", "cores", "model", "kl"),
    "scaling": ("rounds", "repeats", "cores"),
    "synthesis": ("rounds", "repeats", "cores", "model", "questions"),
    "slow-tools": ("rounds", "model"),
    "retrieval": (),
    "overhead": ("rounds", "preset", "last"),
    "paper-scale": (),
}
"""Benchmark -> the options that count for it, besides --json."""


def check(name: str, given: Collection[str]) -> None:
    """Raise `SwirlError` for a benchmark that there is none, and for an option given that would not count."""
    if name not in OPTIONS:
        raise SwirlError(f"there is no benchmark {name!r}; there are {', '.join(OPTIONS)}{meant(name, OPTIONS)}")
    if others := [f"--{one}" for one in given if one not in OPTIONS[name]]:
        taken = ", ".join(f"--{one}" for one in OPTIONS[name]) or "only --json"
        raise SwirlError(f"{' and '.join(others)} would not count: {name} takes {taken}")
    if "last" in given and (others := [f"--{one}" for one in given if one != "last"]):
        raise SwirlError(f"--last runs nothing: leave out that, or {' and '.join(others)}")


def bench(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="rl-step, scaling, synthesis, slow-tools, retrieval, overhead or paper-scale.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="How often each side is run, in turn. Default: 2; overhead, slow-tools: 1."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Steps timed in each process, after the warm-up.")] = 5,
    cores: Annotated[int, typer.Option(min=1, help="CPU cores that each side may use.")] = 2,
    model: Annotated[
        str | None,
        typer.Option(
            help="For rl-step, slow-tools: a model's folder, as models/base, or 30m (random); for synthesis: a folder.",
            show_default="the embedded default's",
        ),
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="For synthesis: how many questions.")] = 400,
    kl: Annotated[
        float, typer.Option(min=0, help="For rl-step: the KL coefficient; 0 leaves the reference out.")
    ] = 0.04,
    preset: Annotated[
        str, typer.Option(help="For overhead: the preset that is run, in a copy of the project.")
    ] = "smoke",
    last: Annotated[bool, typer.Option("--last", help="For overhead: take apart this project's last run.")] = False,
) -> None:
    """Run a benchmark: speed against alternatives, recall of retrieval, overhead, or tables of the paper's size.

    `rl-step`, `scaling` and `synthesis` run this project and its alternatives in turn: one update of step-wise RL
    against plain sequences and TRL, the same for growing K, and rollouts against transformers' generate. `slow-tools`
    measures rollouts with a tool of half a second against decoding and waiting alone. `retrieval`
    measures recall@k of the supporting passages of the stored questions and indices. `overhead` measures how much of a
    run's time DVC, Prefect, MLflow and the gates take. `paper-scale` takes 87,500 scripted trajectories, and fewer,
    through all tables up to training's first batch: seconds and memory.
    """
    import json

    from swirl.bench import overhead, paper_scale, report, retrieval, rl_step, slow_tools, synthesis

    root = project_layout().root
    sources = {one: context.get_parameter_source(one) for one in context.params}
    given = [one for one, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    check(name, [one for one in given if one not in ("name", "as_json")])
    benches = {
        "rl-step": lambda: rl_step.rl_step(root, cores, rounds or 2, repeats, model or "embedded", kl),
        "scaling": lambda: rl_step.scaling(root, cores, rounds or 2, repeats),
        "synthesis": lambda: synthesis.synthesis(root, cores, rounds or 2, repeats, model, questions),
        "slow-tools": lambda: slow_tools.slow_tools(root, rounds or 1, model),
        "retrieval": lambda: retrieval.retrieval(root),
        "overhead": lambda: overhead.last_run(root) if last else overhead.overhead(root, preset, rounds or 1),
        "paper-scale": lambda: paper_scale.paper_scale(root),
    }
    result = benches[name]()
    print(json.dumps(result, indent=1) if as_json else report.text(result))
