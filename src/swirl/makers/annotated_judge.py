"""`source: annotations`: the base taught to judge steps, by the oracle of calculator annotations, on the reward split.

It trains on golden labels: on what the base itself does on a split of its own and on rows with other numbers, and on
written solutions of its own split, sound and spoilt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from swirl.benchmarks.renumbering import renumbered
from swirl.errors import DataError
from swirl.judge_prompts import judge_question
from swirl.judging.reward import RewardModel
from swirl.layout import Layout
from swirl.makers.annotated_base import solved
from swirl.makers.teaching import Labelled, error_rates, label_trajectory, label_written, teach
from swirl.models.annotated import fitting, written
from swirl.models.local import load_model, load_tokenizer, save
from swirl.models.training import Schedule
from swirl.params import AnnotatedBase, AnnotatedReward, Params
from swirl.records import save_json, save_series
from swirl.rollout.engine import Attempt, Policy
from swirl.seeds import derive, generator
from swirl.types import Derivation, Question
from swirl.wiring import attempts, derivations_of, load_local_policy, questions_of, read_prompts, roll_out_all


def make(params: Params, layout: Layout) -> None:
    """Train on sampled and written steps; measure error rates on what the base does on questions held out."""
    settings, run = params.reward_model, params.runtime
    assert isinstance(settings, AnnotatedReward)
    known = derivations_of(layout)
    questions = [question for question in questions_of(layout, "reward") if question.id in known]
    if len(questions) <= settings.heldout:
        raise DataError(
            f"{layout.questions} holds {len(questions)} annotated questions of split reward, and reward_model.heldout "
            f"keeps {settings.heldout} of them; more are needed: raise download.benchmarks.*.reward"
        )
    base = load_local_policy(params, layout.model("base"), "base")
    heldout, learned = questions[: settings.heldout], questions[settings.heldout :]
    labelled = _sampled(params, layout, settings, base, learned, "train")
    labelled += _written(params, layout, settings, base, learned)
    labelled += _varied(params, layout, settings, base)
    tested = _sampled(params, layout, settings, base, heldout, "heldout")
    model = load_model(layout.model("base"), run.device, run.attention)
    judge = RewardModel("reward", model, base.chat, judge_question(params, layout), workers=run.workers)
    schedule = Schedule(settings.steps, settings.adam_lr, settings.muon_lr)
    rng = generator(params.seed, "reward model batches")
    series = teach(judge, labelled, schedule, settings.batch_size, settings.mixed_precision, rng)
    save(model, load_tokenizer(layout.model("base")), layout.model("reward"))
    save_series(series, layout.series("reward_model"))
    save_json(error_rates(judge, tested), layout.metrics("reward_model"))


def _sampled(
    params: Params, layout: Layout, settings: AnnotatedReward, base: Policy, questions: list[Question], part: str
) -> list[Labelled]:
    """What the base does on these questions, labelled by the oracle."""
    todo = attempts(params, layout, questions, settings.samples)
    return _acted(params, settings, base, todo, derivations_of(layout), part)


def _varied(params: Params, layout: Layout, settings: AnnotatedReward, base: Policy) -> list[Labelled]:
    """What the base does on the rows that it knows with other numbers, with still others."""
    made_from, rng = params.base_model, generator(params.seed, "reward model", "variants")
    assert isinstance(made_from, AnnotatedBase)
    if not settings.variants:
        return []
    questions: list[Question] = []
    known: dict[str, Derivation] = {}
    for split in made_from.foreign:
        rows = questions_of(layout, split, made_from.benchmark)
        solutions, _ = solved(layout, rows, thoughts=False)
        for row in rows:
            for number in range(settings.variants if row.id in solutions else 0):
                changed, name = renumbered(solutions[row.id], rng), f"{row.id}/variant-{number}"
                if changed and len(changed.turns) <= params.tasks[row.task].max_steps:
                    questions.append(dataclasses.replace(row, id=name, text=changed.question))
                    known[name] = changed.derivation(name)
    return _acted(params, settings, base, attempts(params, layout, questions, 1), known, "variants")


def _acted(
    params: Params,
    settings: AnnotatedReward,
    base: Policy,
    todo: Sequence[Attempt],
    known: Mapping[str, Derivation],
    part: str,
) -> list[Labelled]:
    made = roll_out_all(params, base, todo, settings.temperature, derive(params.seed, "reward model", part))
    return [label_trajectory(trajectory, known[trajectory.question_id]) for trajectory in made if trajectory.steps]


def _written(
    params: Params, layout: Layout, settings: AnnotatedReward, base: Policy, questions: list[Question]
) -> list[Labelled]:
    """A sound and a spoilt conversation for a share of the written solutions."""
    task, rng = params.tasks[questions[0].task], generator(params.seed, "reward model", "written")
    prompt, longest = read_prompts(params, layout).tasks[questions[0].task], params.rollout.max_action_tokens
    made_from = params.base_model
    assert isinstance(made_from, AnnotatedBase)
    solutions, _ = solved(layout, questions, made_from.thoughts)
    usable = fitting(list(solutions.values()), base.chat, prompt, task.max_steps, longest, base.context)
    chosen = rng.sample(usable, round(settings.written * len(usable)))
    return [
        label_written(written(solution, prompt, task.max_steps, spoilt, rng), base.chat)
        for solution in chosen
        for spoilt in (False, True)
    ]
