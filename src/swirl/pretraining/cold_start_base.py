"""`source: cold_start`: a pretrained model that is taught our format, and the habit of using tools, by demonstrations.

They are written from the annotations of the questions of split pretrain, of no other, and played with the real tools:
HotPotQA's supporting pages, MuSiQue's sub-questions, GSM8K's calculator annotations, and the demonstrations of an own
task. Logged conversations of that split are demonstrations as they are, and no tool runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from swirl.benchmarks.annotations import Solution, solve
from swirl.config.base_model import ColdStart
from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load, save_json, save_series
from swirl.core.seeds import derive, generator
from swirl.core.types import LOGGED, ActionKind, Annotation, Passage, Support, Trajectory, WrittenSolution
from swirl.models import adapters
from swirl.models.chat import Chat
from swirl.models.loading import context_of, load_chat, load_model, make_deterministic, save
from swirl.models.pointers import NAME as POINTER
from swirl.models.skipped import mark_skipped
from swirl.pretraining.base_checkpoints import open_checkpoints
from swirl.pretraining.demonstrated import NotPlayed, example_of, play
from swirl.pretraining.fine_tuning import fine_tune
from swirl.pretraining.pointed_base import point
from swirl.pretraining.search_scripts import NoScript, by_pages, by_questions
from swirl.pretraining.training import Example
from swirl.rollout.engine import Attempt
from swirl.tools.search import Search
from swirl.wiring.attempts import attempts
from swirl.wiring.logged_trajectories import Importer
from swirl.wiring.questions import questions_of

ADAPTER = "adapter"
"""Folder in models/base of the adapter that it was taught by, beside the weights that it is merged into."""


def make(params: Params, layout: Layout) -> None:
    """Write the demonstrations, teach the model, and save it; what is taught by an adapter is saved as one, too."""
    settings, run, folder = params.base_model, params.runtime, layout.model("base")
    assert isinstance(settings, ColdStart)
    make_deterministic(run.threads)
    point("base", settings, layout)
    model = load_model(folder, run.device, run.attention, run.dtype if settings.lora else "float32")
    chat = load_chat(folder)
    shown, metrics = demonstrations(params, layout, chat, context_of(model, run.context))
    if lora := settings.lora:
        adapters.add(model, lora.rank, lora.alpha, lora.targets, derive(params.shared_seed, "lora", "base"))
    (checkpoints,) = open_checkpoints(params, layout, ["cold start"], [layout.root / "data/index", folder / POINTER])
    examples = [example_of(trajectory) for trajectory in shown]
    seed, alone = derive(params.shared_seed, "cold start"), [(example,) for example in examples]
    series = fine_tune("base_model, cold start", model, alone, settings, run.workers, seed, checkpoints)
    trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    _save(model, chat.tokenizer, layout, run.dtype)
    metrics |= {"trained_parameters": sum(trained), "parameters": sum(p.numel() for p in model.parameters())}
    metrics |= _sizes(examples) | {"loss": series[-1]["loss"]}
    save_series(series, layout.series("base_model"))
    save_json(metrics, layout.metrics("base_model"))
    checkpoints.finish()


def demonstrations(
    params: Params, layout: Layout, chat: Chat, context: int
) -> tuple[list[Trajectory], dict[str, float]]:
    """The demonstrations of all annotated questions of split pretrain, and how many of each benchmark there are.

    Raises `DataError` when a benchmark has questions there and none of them becomes a demonstration, and for an own
    task's demonstration that cannot be played.
    """
    questions = questions_of(layout, "pretrain")
    logged = [question for question in questions if question.task == LOGGED]
    todo = attempts(params, layout, [question for question in questions if question.task != LOGGED], 1)
    if not questions:
        raise DataError(
            f"{layout.questions} holds no question of split pretrain; give download.benchmarks.NAME.pretrain a number"
        )
    writer = _Writer(params, layout)
    longest = params.rollout.max_action_tokens
    made: list[Trajectory] = []
    counts: Counter[str] = Counter()
    for attempt in todo:
        result = writer.demonstrate(attempt, chat, longest, context)
        name = attempt.question.benchmark
        if isinstance(result, Trajectory):
            made.append(result)
            counts[f"demonstrations.{name}"] += 1
        else:
            counts[f"left_out.{name}.{result.name.lower()}"] += 1
    for question, trajectory in Importer(layout, logged, chat, context, longest, False).trajectories():
        made += [trajectory] if trajectory else []
        what = "demonstrations.{}" if trajectory else f"left_out.{{}}.{NotPlayed.NO_ROOM.name.lower()}"
        counts[what.format(question.benchmark)] += 1
    for name in dict.fromkeys(question.benchmark for question in questions):
        if not counts[f"demonstrations.{name}"]:
            why = ", ".join(f"{key.rpartition('.')[2]}: {count}" for key, count in counts.items() if f".{name}." in key)
            raise DataError(
                f"no question of {name} in split pretrain becomes a demonstration ({why}); a demonstration needs "
                "annotations (hotpotqa, musique, gsm8k, or the field demonstration of an own task) or a log, and has "
                "to fit into tasks.*.max_steps, rollout.max_action_tokens and runtime.context"
            )
    return made, {key: float(count) for key, count in sorted(counts.items())}


class _Writer:
    """Demonstrates how a question is answered, by what is annotated of it."""

    def __init__(self, params: Params, layout: Layout) -> None:
        self._seed = params.shared_seed
        ways = load(Annotation, layout.annotations) if layout.annotations.exists() else []
        self._ways = {way.question_id: way for way in ways}
        self._support = {row.question_id: row.passage_ids for row in load(Support, layout.support)}
        self._solutions = {row.question_id: row.text for row in load(WrittenSolution, layout.solutions)}
        self._passages: dict[int, dict[str, Passage]] = {}

    def demonstrate(self, attempt: Attempt, chat: Chat, longest: int, context: int) -> Trajectory | StrEnum:
        """The demonstration of one question, or why there is none. Raises `DataError` as `demonstrations` does."""
        question = attempt.question
        way = self._ways.get(question.id)
        own = way is not None and not way.results
        try:
            actions = list(way.steps) if way and own else self._script(attempt, way)
            return actions if isinstance(actions, StrEnum) else play(attempt, actions, chat, longest, context)
        except ValueError as error:
            if own:
                raise DataError(f"question {question.id}, field 'demonstration', {error}") from None
            return NoScript.NO_ACTION

    def _script(self, attempt: Attempt, way: Annotation | None) -> list[str] | StrEnum:
        """The written actions of an official row."""
        question, search = attempt.question, attempt.tools.get(ActionKind.SEARCH)
        if question.id in self._solutions:
            solved = solve(question.text, self._solutions[question.id])
            return [turn.action for turn in solved.turns] if isinstance(solved, Solution) else solved
        if question.id not in self._support or not isinstance(search, Search):
            return NoScript.NO_ANNOTATION
        if id(search) not in self._passages:
            self._passages[id(search)] = {passage.id: passage for passage in search.passages}
        pages = [self._passages[id(search)][name] for name in self._support[question.id]]
        rng = generator(self._seed, "cold start", question.id)
        if way is not None:
            return by_questions(way.steps, way.results, question.answers[0], pages, search, rng)
        return by_pages(question.text, question.answers[0], pages, search, rng)


def _sizes(examples: Sequence[Example]) -> dict[str, float]:
    tokens = float(sum(len(example.ids) for example in examples))
    return {"tokens": tokens, "own_tokens": sum(sum(example.weights) for example in examples)}


def _save(model: Any, tokenizer: Any, layout: Layout, dtype: str) -> None:
    """Save whole weights in place of the pointer to what was taught, and an adapter beside them with such a pointer."""
    import torch

    folder = layout.model("base")
    if adapters.is_on(model):
        save(model, tokenizer, folder / ADAPTER, folder, layout.root)
        adapters.merge(model)
    (folder / POINTER).unlink()
    save(model.to(getattr(torch, dtype)), tokenizer, folder)
    mark_skipped(layout.model("ceiling"), "the base was not made here, so there is no sound model before its flaws")
