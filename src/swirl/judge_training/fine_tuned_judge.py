"""`source: fine_tuned`: a pretrained model taught to judge the base's own steps by annotations of the reward split.

The base is sampled on annotated questions of that split, whose oracles (`swirl.wiring.oracles`) label each step. The
model learns the verdict after each step of most of these questions, and of some that the base was taught on, if it is
to; its errors are counted on the others of the reward split, which neither has read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swirl.config.params import Params
from swirl.config.reward_model import FineTunedReward
from swirl.core.errors import DataError
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import save_series
from swirl.core.seeds import derive
from swirl.core.types import Question, Trajectory
from swirl.judge_training.judge_checkpoints import open_checkpoints
from swirl.judge_training.teaching import Labelled, Sampled, questions_of, sampled, write_heldout
from swirl.judging.reward import RewardModel
from swirl.models import adapters
from swirl.models.loading import load_chat, load_model, save
from swirl.models.pointers import NAME as POINTER
from swirl.pipeline.source import digest
from swirl.pretraining.fine_tuning import fine_tune
from swirl.pretraining.pointed_base import point
from swirl.pretraining.training import Example
from swirl.wiring import questions as asked
from swirl.wiring.judge_prompts import judge_question
from swirl.wiring.oracles import Oracle, oracles_of
from swirl.wiring.prompts import read_prompts, user_input_folders
from swirl.wiring.rollout_blocks import Rollouts, roll_out_in_blocks


def make(params: Params, layout: Layout) -> None:
    """Sample the base, teach the model on most questions, and score the steps of the others."""
    import torch

    settings, run, folder = params.reward_model, params.runtime, layout.model("reward")
    assert isinstance(settings, FineTunedReward)
    questions = asked.questions_of(layout, "reward")
    besides = [question for name in settings.pretrain for question in asked.questions_of(layout, "pretrain", name)]
    oracles = oracles_of(layout, [*questions, *besides])
    learned, heldout = _split(questions, oracles, settings.heldout)
    learned += _besides(besides, oracles, settings.pretrain)
    journal = _journal(params, layout, settings)
    made = _sampled(params, layout, [*learned, *heldout], oracles, journal)
    point("reward", settings, layout)
    model = load_model(folder, run.device, run.attention, run.dtype if settings.lora else "float32")
    chat = load_chat(folder)
    judge = RewardModel("reward", model, chat, judge_question(params, layout), workers=run.workers)
    if lora := settings.lora:
        adapters.add(model, lora.rank, lora.alpha, lora.targets, derive(params.seed, "lora", "reward"))
    taught = [one for question in learned for one in made[question.id]]
    conversations = [verdicts(judge, one.labelled) for one in taught]
    checkpoints = open_checkpoints(params, layout, [layout.root / "data/index", folder / POINTER])
    seed = derive(params.seed, "reward model", "batches")
    series = fine_tune("reward_model", model, conversations, settings, run.workers, seed, checkpoints)
    if settings.lora:
        adapters.merge(model)
    (folder / POINTER).unlink()
    save(model.to(getattr(torch, run.dtype)), chat.tokenizer, folder)
    save_series(series, layout.series("reward_model"))
    steps = sum(len(one.kinds) for one in taught)
    tested = [one for question in heldout for one in made[question.id]]
    write_heldout(judge, tested, layout, **{"taught.questions": len(learned), "taught.steps": steps})
    checkpoints.finish()
    journal.finish()


def verdicts(judge: RewardModel, item: Labelled) -> list[Example]:
    """For each step the conversation up to it, the judge's question and the right verdict, which alone has weight."""
    good, bad = judge.verdict_ids
    made = []
    for (end, question), label in zip(questions_of(judge, item), item.good, strict=True):
        ids = (*item.ids[:end], *question, good if label else bad)
        made.append(Example(ids, (*[0.0] * (len(ids) - 1), 1.0)))
    return made


def _split(
    questions: Sequence[Question], oracles: Mapping[str, Oracle], heldout: int
) -> tuple[list[Question], list[Question]]:
    """The annotated questions to learn from, and the first `heldout` of each benchmark, to measure error rates on."""
    learned, tested = list[Question](), list[Question]()
    for name in dict.fromkeys(question.benchmark for question in questions):
        annotated = [question for question in questions if question.benchmark == name and question.id in oracles]
        if 0 < len(annotated) <= heldout:
            raise DataError(
                f"split reward has {len(annotated)} annotated questions of {name}, and reward_model.heldout keeps "
                f"{heldout} of each benchmark; more are needed: raise download.benchmarks.{name}.reward"
            )
        tested += annotated[:heldout]
        learned += annotated[heldout:]
    if not learned:
        raise DataError(
            "split reward has no annotated question, and reward_model.source is fine_tuned; give "
            "download.benchmarks.NAME.reward a number for hotpotqa, musique or gsm8k"
        )
    return learned, tested


def _besides(questions: Sequence[Question], oracles: Mapping[str, Oracle], wanted: Mapping[str, int]) -> list[Question]:
    """The first annotated ones of each benchmark, as many as are wanted."""
    found = []
    for name, count in wanted.items():
        annotated = [question for question in questions if question.benchmark == name and question.id in oracles]
        if len(annotated) < count:
            raise DataError(
                f"reward_model.pretrain.{name} is {count}, and split pretrain has {len(annotated)} annotated questions "
                f"of {name}; lower it, or raise download.benchmarks.{name}.pretrain"
            )
        found += annotated[:count]
    return found


def _journal(params: Params, layout: Layout, settings: FineTunedReward) -> Journal:
    """Where sampling goes on after a kill: valid whatever is set of the training after it."""
    sections = [params.seed, dict(params.tasks), params.runtime.of_every_stage()]
    sections += [part.model_dump() for part in (params.tools, params.rollout, params.actions)]
    sections += [settings.samples, settings.temperature, settings.heldout, dict(settings.pretrain)]
    inputs = [layout.questions, layout.root / "data/index", layout.model("base"), *user_input_folders(params, layout)]
    return Journal(layout.root / ".swirl/journals/reward_model", fingerprint(digest("reward_model"), sections, inputs))


def _sampled(
    params: Params, layout: Layout, questions: Sequence[Question], oracles: Mapping[str, Oracle], journal: Journal
) -> dict[str, list[Sampled]]:
    """Labelled trajectories of the base, by question id."""
    settings = params.reward_model
    assert isinstance(settings, FineTunedReward)
    prompts, seed = read_prompts(params, layout), derive(params.seed, "reward model", "sampled")
    most = params.rollout.block_size
    recipe = Rollouts(params, layout, prompts, "reward_model", "base", None, settings.temperature, most)
    label = "reward_model, steps to learn from"
    count = roll_out_in_blocks(recipe, questions, settings.samples, seed, journal, label)
    found: dict[str, list[Sampled]] = {question.id: [] for question in questions}
    tasks = {question.id: question.task for question in questions}
    for number in range(count):
        for trajectory in (one for one in journal.records(number, Trajectory) if one.steps):
            name = trajectory.question_id
            found[name].append(sampled(trajectory, tasks[name], oracles[name](trajectory)))
    return found
