"""evaluate: one model on every benchmark, multi-step with tools, and search benchmarks also without.

On logged conversations, whose tools do not run here, it draws actions in their states (`wiring.logged_evaluation`).

Rollouts and the verdicts on them are journalled: a killed evaluation resumes with the blocks that it had not finished.
A block of rollouts is a worker's whole share of the questions with or without tools, one of verdicts all of these; or
`evaluate.block_size` trajectories if that is set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from swirl.config.params import Params
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import save, save_json, to_dict
from swirl.core.seeds import derive
from swirl.core.types import (
    LOGGED,
    OUTCOME,
    ActionKind,
    Prediction,
    Question,
    Score,
    StateAction,
    Stop,
    Trajectory,
    Verdict,
)
from swirl.evaluation.scoring import predict, score
from swirl.evaluation.state_scores import state_measures
from swirl.execution.engines import Engine, opened
from swirl.models.skipped import why_skipped
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.wiring.attempts import blocks
from swirl.wiring.label_judges import label_judge_name, load_label_judges
from swirl.wiring.logged_evaluation import evaluate_states
from swirl.wiring.logged_states import logged_trajectories
from swirl.wiring.oracles import oracles_of
from swirl.wiring.prompts import read_prompts, user_input_folders
from swirl.wiring.questions import questions_of
from swirl.wiring.rollout_blocks import Rollouts, roll_out_shares, share_size
from swirl.wiring.servers import print_usage
from swirl.wiring.verdict_blocks import Case, Failures, Verdicts, judge_in_blocks


def run(params: Params, layout: Layout, item: str) -> None:
    """Evaluate the model `item` (ceiling, base, sft or swirl); for one that this run skips, write empty results."""
    if why := why_skipped(layout.model(item)):
        print(f"evaluate: no {item}: {why}")
        _write(layout, item, [], [], [], [], [], {})
        return
    asked = questions_of(layout, "evaluation")
    actions, state_journals = _on_states(params, layout, item, {q.id: q for q in asked if q.task == LOGGED})
    table = {question.id: question for question in asked if question.task != LOGGED}
    journals = _journals(params, layout, item)
    made: dict[bool, list[Trajectory]] = {True: [], False: []}
    judged: dict[bool, list[Verdict]] = {True: [], False: []}
    more_journals: list[Journal] = []
    if table:
        with opened(params.execution, Verdicts(params, layout, "evaluate", load_label_judges)) as judging:
            made = _roll_out(params, layout, item, _arms(params, list(table.values())), journals)
            judged, more_journals = _judge(params, layout, item, judging, made, table, journals)
    predictions, scores, ungraded = _scored(params, layout, item, made, judged, table)
    metrics = {**_metrics(scores, predictions), **by_hops(predictions, table), **cut_rates(made[True])}
    if ungraded:
        print(f"evaluate: no verdict of the grader on {ungraded} answers, which are compared as text")
    if params.judge.outcome == "model":
        metrics["ungraded"] = ungraded / max(1, len(predictions))
    metrics |= state_metrics(actions)
    _write(layout, item, predictions, made[True], _on_steps(judged[True]), scores, actions, metrics)
    for journal in (*journals.values(), *more_journals, *state_journals):
        journal.finish()
    print_usage()


def _on_states(
    params: Params, layout: Layout, item: str, questions: Mapping[str, Question]
) -> tuple[list[StateAction], list[Journal]]:
    """What the model does in the states of logged conversations, and the journal of that; nothing without such."""
    trajectories = list(logged_trajectories(layout, questions))
    if not trajectories:
        return [], []
    sections: list[Any] = [params.seed, item, params.runtime.of_every_stage()]
    parts = (params.rollout, params.actions, params.judge, params.reward_model, params.evaluate)
    sections += [part.model_dump() for part in parts]
    models = dict.fromkeys((layout.model("base"), layout.model(item), *_judging_models(params, layout)))
    inputs = [layout.questions, layout.logged, *models]
    inputs += [layout.root / params.prompts.judge, layout.root / params.tools.folder]
    journal = Journal(layout.state_actions_journal(item), fingerprint(digest("evaluate"), sections, inputs))
    with Progress(len(trajectories), f"evaluate {item}, logged states") as bar:
        return evaluate_states(params, layout, item, trajectories, questions, journal, bar.update), [journal]


def _judging_models(params: Params, layout: Layout) -> list[Path]:
    """The folders of the reward model and of the judge; a judge may be on the hub, a server, or a class."""
    models = [layout.model("reward"), layout.root / str(getattr(params.evaluate.judge, "model", "models/reward"))]
    return [folder for folder in dict.fromkeys(models) if folder.is_dir()]


def state_metrics(actions: Sequence[StateAction]) -> dict[str, float]:
    """Flat metrics of the actions in logged states, with the same names for every model."""
    found = state_measures({"": actions})
    return {f"{one.benchmark}.{one.measure}": one.mean for one in found}


def _journals(params: Params, layout: Layout, item: str) -> dict[bool, Journal]:
    """Journals of this model's rollouts, with tools (True) and without (False)."""
    sections = [params.seed, dict(params.tasks), params.runtime.of_every_stage()]
    sections += [part.model_dump() for part in (params.tools, params.rollout, params.actions)]
    sections += [params.evaluate.model_dump(exclude={"judge"})]  # which judges the rollouts, and makes none
    models = dict.fromkeys((layout.model("base"), layout.model(item)))
    inputs = [layout.questions, layout.root / "data/index", *models, *user_input_folders(params, layout)]
    mark = fingerprint(digest("evaluate"), sections, inputs)
    return {with_tools: Journal(layout.evaluation_journal(item, with_tools), mark) for with_tools in (True, False)}


def _roll_out(
    params: Params,
    layout: Layout,
    item: str,
    arms: Sequence[tuple[list[Question], bool]],
    journals: Mapping[bool, Journal],
) -> dict[bool, list[Trajectory]]:
    """The trajectories with tools (True) and without (False)."""
    settings, samples = params.evaluate, range(params.evaluate.samples)
    servers = {str(name): server for name, server in settings.servers.items()}
    # All benchmarks together: while the last long trajectories of one finish, questions of the next one start.
    asked = {
        with_tools: [(one, k) for some, tools in arms if tools == with_tools for one in some for k in samples]
        for with_tools in journals
    }
    counts = [len(of_arm) for of_arm in asked.values()]
    prompts, most = read_prompts(params, layout), share_size(params, max(counts), settings.block_size)
    recipe = Rollouts(params, layout, prompts, "evaluate", item, servers.get(item), settings.temperature, most)
    made = {}
    with opened(params.execution, recipe) as engine, Progress(sum(counts), f"evaluate {item}") as bar:
        for with_tools, journal in journals.items():
            seed = derive(params.seed, "evaluate", str(with_tools))
            made[with_tools] = roll_out_shares(
                engine, params, asked[with_tools], settings.block_size, seed, with_tools, journal, bar
            )
    return made


def _judge(
    params: Params,
    layout: Layout,
    item: str,
    engine: Engine[Sequence[Case], Verdict],
    made: Mapping[bool, list[Trajectory]],
    table: Mapping[str, Question],
    rollouts: Mapping[bool, Journal],
) -> tuple[dict[bool, list[Verdict]], list[Journal]]:
    """The verdicts on the trajectories with tools (True) and without (False), and their journals."""
    every = [trajectory for of_arm in made.values() for trajectory in of_arm]
    steps, answers = sum(len(one.steps) for one in every), sum(one.stop is Stop.ANSWERED for one in every)
    failures = Failures(params.check_steps.max_null_rate, steps, answers)
    judged, journals = {}, []
    with Progress(len(every), f"evaluate {item}, verdicts") as bar:
        for with_tools, trajectories in made.items():
            mark = _verdict_mark(params, layout, rollouts[with_tools])
            journals.append(Journal(layout.evaluation_journal(item, with_tools, verdicts=True), mark))
            cases = [(trajectory, table[trajectory.question_id]) for trajectory in trajectories]
            parts = blocks(cases, params.evaluate.block_size or max(1, len(cases)))
            judged[with_tools] = list(judge_in_blocks(engine, parts, journals[-1], failures, bar))
    failures.check()
    return judged, journals


def _verdict_mark(params: Params, layout: Layout, rollouts: Journal) -> str:
    """The fingerprint of the verdicts on exactly these rollouts."""
    sections: list[Any] = [params.seed, params.runtime.of_every_stage()]
    sections += [part.model_dump() for part in (params.actions, params.judge, params.reward_model)]
    sections += [params.evaluate.model_dump()]
    inputs = [layout.questions, layout.root / params.prompts.judge, layout.root / params.tools.folder, rollouts.folder]
    inputs += _judging_models(params, layout)
    return fingerprint(digest("evaluate"), sections, inputs)


def _scored(
    params: Params,
    layout: Layout,
    item: str,
    made: Mapping[bool, list[Trajectory]],
    judged: Mapping[bool, list[Verdict]],
    table: Mapping[str, Question],
) -> tuple[list[Prediction], list[Score], int]:
    """Predictions, scores, and how many answers a grader should have graded and has not."""
    oracles = oracles_of(layout, table.values())
    predictions: list[Prediction] = []
    scores: list[Score] = []
    ungraded = 0
    for with_tools, trajectories in made.items():
        verdicts, outcomes = _on_steps(judged[with_tools]), dict[str, bool]()
        if params.judge.outcome == "model":  # answers without a verdict are graded by text and number
            graded = (verdict for verdict in judged[with_tools] if verdict.step == OUTCOME)
            outcomes = {verdict.trajectory_id: verdict.good for verdict in graded if verdict.good is not None}
            ungraded += len(trajectories) - len(outcomes)
        predicted = predict(item, trajectories, table, oracles, verdicts, with_tools, outcomes)
        name, role = label_judge_name(params)
        name = next((verdict.judge for verdict in verdicts), name)
        for _, arm in groupby(predicted, key=lambda prediction: prediction.benchmark):
            scores.append(score(list(arm), name, role))
        predictions += predicted
    return predictions, scores, ungraded


def _on_steps(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.step != OUTCOME]


def _write(
    layout: Layout,
    item: str,
    predictions: list[Prediction],
    made: list[Trajectory],
    verdicts: list[Verdict],
    scores: list[Score],
    actions: list[StateAction],
    metrics: dict[str, float],
) -> None:
    layout.state_actions(item).unlink(missing_ok=True)
    if actions:
        save(actions, StateAction, layout.state_actions(item))
    save(predictions, Prediction, layout.predictions(item))
    save(made, Trajectory, layout.prediction_trajectories(item))
    save(verdicts, Verdict, layout.prediction_verdicts(item))
    save_json([to_dict(row) for row in scores], layout.evaluation(item))
    save_json(metrics, layout.metrics(f"evaluate-{item}"))


def _arms(params: Params, questions: list[Question]) -> list[tuple[list[Question], bool]]:
    """Each benchmark's questions with tools, then the search benchmarks' without."""
    by_benchmark: dict[str, list[Question]] = {}
    for question in questions:
        by_benchmark.setdefault(question.benchmark, []).append(question)
    arms = [(group, True) for group in by_benchmark.values()]
    if params.evaluate.without_tools:
        arms += [(group, False) for group in by_benchmark.values() if "search" in group[0].tools]
    return arms


def by_hops(predictions: list[Prediction], questions: Mapping[str, Question]) -> dict[str, float]:
    """Accuracy with tools by number of hops, and its mean over these (CofCA's score), if a benchmark has several."""
    right: dict[str, dict[int, list[bool]]] = {}
    for prediction in predictions:
        hops = questions[prediction.question_id].hops
        if prediction.with_tools and hops:
            right.setdefault(prediction.benchmark, {}).setdefault(hops, []).append(prediction.correct)
    metrics: dict[str, float] = {}
    for name, groups in right.items():
        if len(groups) > 1:
            parts = {hops: sum(group) / len(group) for hops, group in sorted(groups.items())}
            metrics |= {f"{name}.hops_{hops}.accuracy": value for hops, value in parts.items()}
            metrics[f"{name}.mean_of_hops.accuracy"] = sum(parts.values()) / len(parts)
    return metrics


def cut_rates(made: Sequence[Trajectory]) -> dict[str, float]:
    """The share of actions that are cut, by benchmark, with tools."""
    kinds: dict[str, list[bool]] = {}
    for trajectory in made:
        cut = [step.action.kind == ActionKind.CUT for step in trajectory.steps]
        kinds.setdefault(trajectory.benchmark, []).extend(cut)
    return {f"{name}.cut_rate": sum(cut) / max(1, len(cut)) for name, cut in kinds.items()}


def _metrics(scores: list[Score], predictions: list[Prediction]) -> dict[str, float]:
    """Flat metrics, with the same names for every model, so that runs can be compared."""
    metrics: dict[str, float] = {}
    for row in scores:
        name = row.benchmark if row.with_tools else f"{row.benchmark}.without_tools"
        for key in ("accuracy", "ci_low", "ci_high", "f1", "process_label_judge", "process_label_oracle", "steps"):
            if (value := getattr(row, key)) is not None:
                metrics[f"{name}.{key}"] = value
    stops = Counter(prediction.stop for prediction in predictions if prediction.with_tools)
    metrics |= {f"stop.{stop}": count / max(1, sum(stops.values())) for stop, count in sorted(stops.items())}
    return metrics
