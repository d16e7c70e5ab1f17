"""`source: annotations`: the base taught to judge steps by the oracle of calculator annotations.

It is trained on golden labels of the base's own steps on the reward split, and of written solutions, sound and spoilt.
Its error rates on held-out questions show how little such a small judge knows about questions that it was not trained
on. With `reward_model.further_splits: [train]` it is trained on the questions that it will judge and is an oracle by
memory: step-wise RL still sees only its verdicts, but these come from golden labels.
"""

from __future__ import annotations

from collections.abc import Callable

from swirl.benchmarks.oracle import label_trajectory
from swirl.config.base_model import AnnotatedBase
from swirl.config.params import Params
from swirl.config.reward_model import AnnotatedReward
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import save_series
from swirl.core.seeds import derive, generator
from swirl.core.types import Question
from swirl.judge_training.judge_checkpoints import open_checkpoints
from swirl.judge_training.teaching import Labelled, Sampled, label_written, sampled, teach, write_heldout
from swirl.judging.reward import RewardModel
from swirl.models.loading import load_model, load_tokenizer, save
from swirl.pipeline.progress import Progress
from swirl.pretraining.annotated_base import solved
from swirl.pretraining.annotated_examples import fitting, written
from swirl.pretraining.training import Schedule
from swirl.rollout.engine import Policy
from swirl.wiring.attempts import attempts, roll_out_all
from swirl.wiring.judge_prompts import judge_question
from swirl.wiring.policies import load_local_policy
from swirl.wiring.prompts import demonstration_prompts
from swirl.wiring.questions import derivations_of, questions_of


def make(params: Params, layout: Layout) -> None:
    """Train on sampled and written steps; score the base's steps for held-out questions."""
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
    for split in settings.further_splits:
        learned += [question for question in questions_of(layout, split) if question.id in known]
    with Progress(settings.samples * (len(learned) + len(heldout)), "reward_model, trajectories") as bar:
        taught = _sampled(params, layout, settings, base, learned, "train", bar.update)
        tested = _sampled(params, layout, settings, base, heldout, "heldout", bar.update)
    labelled = [*(one.labelled for one in taught), *_written(params, layout, settings, base, learned)]
    model = load_model(layout.model("base"), run.device, run.attention)
    judge = RewardModel("reward", model, base.tagged, judge_question(params, layout), workers=run.workers)
    schedule = Schedule(settings.steps, settings.adam_lr, settings.muon_lr)
    rng = generator(params.seed, "reward model batches")
    checkpoints = open_checkpoints(params, layout)
    series = teach(judge, labelled, schedule, settings.batch_size, settings.mixed_precision, rng, checkpoints)
    save(model, load_tokenizer(layout.model("base")), layout.model("reward"))
    save_series(series, layout.series("reward_model"))
    write_heldout(judge, tested, layout)
    checkpoints.finish()


def _sampled(
    params: Params,
    layout: Layout,
    settings: AnnotatedReward,
    base: Policy,
    questions: list[Question],
    part: str,
    done: Callable[[int], None],
) -> list[Sampled]:
    """Trajectories of the base on these questions, labelled by the oracle; `done(1)` after each."""
    todo, known = attempts(params, layout, questions, settings.samples), derivations_of(layout)
    seed = derive(params.seed, "reward model", part)
    made = roll_out_all(params, base, todo, settings.temperature, seed, done)
    task = questions[0].task
    return [sampled(one, task, label_trajectory(known[one.question_id], one)) for one in made if one.steps]


def _written(
    params: Params, layout: Layout, settings: AnnotatedReward, base: Policy, questions: list[Question]
) -> list[Labelled]:
    """A sound and a spoilt conversation for a share of the written solutions."""
    task, rng = params.tasks[questions[0].task], generator(params.seed, "reward model", "written")
    prompt, longest = demonstration_prompts(params, layout).tasks[questions[0].task], params.rollout.max_action_tokens
    made_from = params.base_model
    assert isinstance(made_from, AnnotatedBase)
    solutions, _ = solved(layout, questions, made_from.thoughts)
    usable = fitting(list(solutions.values()), base.tagged, prompt, task.max_steps, longest, base.context)
    chosen = rng.sample(usable, round(settings.written * len(usable)))
    return [
        label_written(written(solution, prompt, task.max_steps, spoilt, rng), base.tagged)
        for solution in chosen
        for spoilt in (False, True)
    ]
