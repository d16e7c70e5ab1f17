"""`source: embedded`: the sound model, taught to judge steps by the oracle's labels on a split of its own.

An embedded world has no stronger model to ask, so the judge is trained on golden labels. (A share of the sound model's
demonstrations has such labels, too, as verdicts from which it learns the words.) Its training data are written
trajectories and trajectories of the base.
"""

from __future__ import annotations

from collections.abc import Callable

from swirl.benchmarks.embedded.demonstrations import Flaws
from swirl.benchmarks.embedded.miniatures import build
from swirl.benchmarks.oracle import label_trajectory
from swirl.config.base_model import EmbeddedBase
from swirl.config.params import Params
from swirl.config.reward_model import EmbeddedReward
from swirl.core.layout import Layout
from swirl.core.records import save_series
from swirl.core.seeds import derive, generator
from swirl.core.types import Question
from swirl.judge_training.judge_checkpoints import open_checkpoints
from swirl.judge_training.teaching import Labelled, Sampled, label_written, sampled, teach, write_heldout
from swirl.judging.reward import RewardModel
from swirl.models.loading import load_model, load_tokenizer, save
from swirl.pipeline.progress import Progress
from swirl.pretraining.embedded_base import demonstrator
from swirl.pretraining.embedded_examples import Demonstration
from swirl.pretraining.training import Schedule
from swirl.rollout.engine import Policy
from swirl.tools import Calculator, Search
from swirl.wiring.attempts import attempts_with, roll_out_all
from swirl.wiring.judge_prompts import judge_question
from swirl.wiring.policies import load_local_policy

SOURCES = {"mini-hotpotqa": 1 / 3, "mini-musique": 1 / 3, "mini-beerqa": 1 / 3, "mini-gsm8k": 1.0}
"""Benchmarks on whose kind of question the base makes the judge's training data, and their shares of the count."""

_BATCHES = "reward model batches"


def make(params: Params, layout: Layout) -> None:
    """Train on sampled and written steps; score further steps sampled from the base."""
    settings, base_settings = params.reward_model, params.base_model
    assert isinstance(settings, EmbeddedReward) and isinstance(base_settings, EmbeddedBase)
    base = load_local_policy(params, layout.model("base"), "base")
    counts = (settings.questions, settings.heldout)
    total = settings.samples * sum(_share(count, share) for count in counts for share in SOURCES.values())
    with Progress(total, "reward_model, trajectories") as bar:
        learned = _sampled(params, layout, settings, base, settings.questions, "train", bar.update)
        heldout = _sampled(params, layout, settings, base, settings.heldout, "heldout", bar.update)
    model = load_model(layout.model("ceiling"), params.runtime.device, params.runtime.attention)
    judge = RewardModel("reward", model, base.tagged, judge_question(params, layout), workers=params.runtime.workers)
    labelled = [*(item.labelled for item in learned), *_written(params, layout, settings, base_settings, base)]
    schedule, rng = Schedule(settings.steps, settings.adam_lr, settings.muon_lr), generator(params.seed, _BATCHES)
    checkpoints = open_checkpoints(params, layout)
    series = teach(judge, labelled, schedule, settings.batch_size, base_settings.mixed_precision, rng, checkpoints)
    save(model, load_tokenizer(layout.model("base")), layout.model("reward"))
    save_series(series, layout.series("reward_model"))
    write_heldout(judge, heldout, layout)
    checkpoints.finish()


def _share(count: int, share: float) -> int:
    """How many questions a benchmark of `SOURCES` with this share gets."""
    return max(1, round(count * share))


def _sampled(
    params: Params,
    layout: Layout,
    settings: EmbeddedReward,
    base: Policy,
    count: int,
    part: str,
    done: Callable[[int], None],
) -> list[Sampled]:
    """Trajectories of the base on questions of the reward split, labelled by the oracle; `done(1)` after each."""
    seed = derive(params.seed, "reward model", part)
    made_of_all = list[Sampled]()
    for name, share in SOURCES.items():
        built = build(name, "reward", _share(count, share), 2, 0.0, seed)
        tool = Search.over(built.passages, params.tools.search_results) if built.passages else Calculator()

        def tools_of(question: Question, tool: Search | Calculator = tool) -> dict[str, Search | Calculator]:
            return {tool.kind: tool}

        derivations = {derivation.question_id: derivation for derivation in built.derivations}
        todo = attempts_with(params, layout, built.questions, settings.samples, tools_of)
        made = roll_out_all(params, base, todo, settings.temperature, derive(seed, name), done)
        for one in (trajectory for trajectory in made if trajectory.steps):
            derivation = derivations[one.question_id]
            made_of_all.append(sampled(one, derivation.kind, label_trajectory(derivation, one)))
    return made_of_all


def _written(
    params: Params, layout: Layout, settings: EmbeddedReward, base_settings: EmbeddedBase, base: Policy
) -> list[Labelled]:
    """Written trajectories, partly corrupted, of both kinds of task."""
    source = demonstrator(params, layout, "reward", "written")
    flaws = Flaws(settings.corruption.contextual, settings.corruption.anywhere)
    drawn: list[Demonstration] = []
    for _ in range(settings.demonstrations):
        drawn.append(source.search(base_settings.hops, flaws))
        drawn.append(source.calculate(base_settings.steps, flaws))
    return [label_written(demonstration, base.tagged) for demonstration in drawn]
