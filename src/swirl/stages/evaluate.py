"""evaluate: one model on every benchmark, multi-step with tools, and search benchmarks also without.

Rollouts are journalled: a killed evaluation resumes with the blocks that it had not finished. A block is a worker's
whole share of the questions with or without tools, or `evaluate.block_size` of them if that is set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from swirl.config.params import Params
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import save, save_json, to_dict
from swirl.core.seeds import derive
from swirl.core.threads import spread
from swirl.core.types import ActionKind, JudgeRole, Prediction, Question, Score, Trajectory, Verdict
from swirl.evaluation.scoring import predict, score
from swirl.judging.rationale import RationaleJudge
from swirl.models.skipped import why_skipped
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.rollout.engine import Attempt
from swirl.wiring.attempts import attempts, blocks, check_rollouts, flight_of, fly, sampling
from swirl.wiring.graders import graded, load_grader
from swirl.wiring.label_judges import NoJudge, load_label_judge
from swirl.wiring.oracles import oracles_of
from swirl.wiring.policies import AnyPolicy, load_policy
from swirl.wiring.prompts import user_input_folders
from swirl.wiring.questions import questions_of
from swirl.wiring.rewards import judge_of
from swirl.wiring.servers import print_usage


def run(params: Params, layout: Layout, item: str) -> None:
    """Evaluate the model `item` (ceiling, base, sft or swirl); for one that this run skips, write empty results."""
    if why := why_skipped(layout.model(item)):
        print(f"evaluate: no {item}: {why}")
        _write(layout, item, [], [], [], [], {})
        return
    servers = {str(name): server for name, server in params.evaluate.servers.items()}
    policy = load_policy(params, layout.model(item), item, servers.get(item))
    judge, role = load_label_judge(params, layout)
    asker = None if isinstance(judge, NoJudge) else judge_of(judge)
    grader = load_grader(params, layout, None if role is JudgeRole.SECOND else asker)
    everything = questions_of(layout, "evaluation")
    oracles = oracles_of(layout, everything)
    arms = _arms(params, everything)
    made: list[Trajectory] = []
    verdicts: list[Verdict] = []
    predictions: list[Prediction] = []
    scores: list[Score] = []
    table = {question.id: question for question in everything}
    texts = {name: question.text for name, question in table.items()}
    ungraded = 0
    journals = _journals(params, layout, item)
    with Progress(params.evaluate.samples * sum(len(questions) for questions, _ in arms), f"evaluate {item}") as bar:
        for with_tools in (True, False):
            # All benchmarks together: while the last long trajectories of one finish, questions of the next one start.
            asked = [question for questions, tools in arms if tools == with_tools for question in questions]
            seed = derive(params.seed, "evaluate", str(with_tools))
            todo = attempts(params, layout, asked, params.evaluate.samples, with_tools)
            trajectories = _roll_out(params, policy, todo, seed, journals[with_tools], bar)
            outcomes = graded(grader, trajectories, table) if grader else {}
            ungraded += len(trajectories) - len(outcomes) if grader else 0
            judged = judge.process_verdicts(trajectories, texts)
            predicted = predict(item, trajectories, table, oracles, judged, with_tools, outcomes)
            for _, arm in groupby(predicted, key=lambda prediction: prediction.benchmark):
                scores.append(score(list(arm), judge.name, role))
            predictions += predicted
            if with_tools:
                made, verdicts = trajectories, judged
    for one in {one for one in (asker, grader) if isinstance(one, RationaleJudge)}:
        one.check_failures(params.check_steps.max_null_rate, one.asked)
    metrics = {**_metrics(scores, predictions), **by_hops(predictions, table), **cut_rates(made)}
    if ungraded:
        print(f"evaluate: no verdict of the grader on {ungraded} answers, which are compared as text")
    if grader:
        metrics["ungraded"] = ungraded / max(1, len(predictions))
    _write(layout, item, predictions, made, verdicts, scores, metrics)
    for journal in journals.values():
        journal.finish()
    print_usage()


def _journals(params: Params, layout: Layout, item: str) -> dict[bool, Journal]:
    """Journals of this model's rollouts, with tools (True) and without (False)."""
    sections = [params.seed, dict(params.tasks)]
    sections += [part.model_dump() for part in (params.runtime, params.tools, params.rollout, params.actions)]
    sections += [params.evaluate.model_dump(exclude={"judge"})]  # which judges the rollouts, and makes none
    models = dict.fromkeys((layout.model("base"), layout.model(item)))
    inputs = [layout.questions, layout.root / "data/index", *models, *user_input_folders(params, layout)]
    mark = fingerprint(digest("evaluate"), sections, inputs)
    return {with_tools: Journal(layout.evaluation_journal(item, with_tools), mark) for with_tools in (True, False)}


def _roll_out(
    params: Params, policy: AnyPolicy, todo: Sequence[Attempt], seed: int, journal: Journal, bar: Progress
) -> list[Trajectory]:
    """Roll out as `wiring.attempts.roll_out_all` does, with the same worker shares, a journalled block at a time."""
    drawn, workers = sampling(params, params.evaluate.temperature), params.runtime.workers
    shares = [todo[first::workers] for first in range(workers)]
    parts = [part for share in shares for part in blocks(share, params.evaluate.block_size or max(1, len(share)))]
    flight = flight_of(params, policy, max(map(len, parts), default=1))
    flight.resume(journal.flight)

    def block_of(number: int) -> list[Trajectory]:
        part, kept = parts[number], journal.read(number, Trajectory)
        if kept is not None:
            bar.update(len(part))
            return kept
        return journal.block(number, Trajectory, lambda: fly(flight, params, policy, part, drawn, seed, bar.update))

    done = spread(block_of, range(len(parts)), workers)
    check_rollouts([[trajectory.error for trajectory in part] for part in done], params, journal)
    made = {trajectory.id: trajectory for part in done for trajectory in part}
    return [made[f"{attempt.question.id}/{attempt.sample}"] for attempt in todo]


def _write(
    layout: Layout,
    item: str,
    predictions: list[Prediction],
    made: list[Trajectory],
    verdicts: list[Verdict],
    scores: list[Score],
    metrics: dict[str, float],
) -> None:
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
