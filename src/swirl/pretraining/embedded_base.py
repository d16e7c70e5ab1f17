"""`source: embedded`: a base trained from scratch on the generated world.

It is trained on sound and then on mostly flawed demonstrations; the sound model, before the designed flaws, is the
ceiling.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from swirl.benchmarks.embedded.demonstrations import Flaws
from swirl.benchmarks.embedded.miniatures import memory_world
from swirl.benchmarks.embedded.names import words
from swirl.config.base_model import EmbeddedBase, Phase
from swirl.config.params import Params
from swirl.core.checkpoints import Checkpoints
from swirl.core.devices import check_device
from swirl.core.grading import grade
from swirl.core.layout import Layout
from swirl.core.records import load, save_json, save_series
from swirl.core.seeds import derive, generator
from swirl.core.types import BAD, GOOD, Derivation, Question
from swirl.models.chat import Chat
from swirl.models.loading import make_deterministic, save
from swirl.pipeline.progress import SHORT, Progress
from swirl.pretraining.architectures import random_qwen3
from swirl.pretraining.base_checkpoints import open_checkpoints
from swirl.pretraining.embedded_examples import Demonstrator, Mixture, examples
from swirl.pretraining.training import Schedule, train, weighted_loss
from swirl.pretraining.word_tokenizer import build_tokenizer
from swirl.rollout.engine import Attempt, Policy
from swirl.rollout.reading import CUT_REPLY, MALFORMED_REPLY
from swirl.tools.search import NO_RESULT
from swirl.wiring.attempts import attempts, roll_out_all
from swirl.wiring.judge_prompts import judge_question
from swirl.wiring.prompts import demonstration_prompts


def make(params: Params, layout: Layout) -> None:
    """Train tokenizer, sound model and base; measure what the models remember of the fixed world."""
    settings = params.base_model
    assert isinstance(settings, EmbeddedBase)
    check_device(params.runtime.device)
    make_deterministic(params.runtime.threads)
    tokenizer = _tokenizer(params, layout, settings)
    chat = Chat(tokenizer)
    shape, attention = settings.shape, params.runtime.attention
    seed = derive(params.shared_seed, "weights") % 2**32
    model = random_qwen3(
        tokenizer, shape.hidden, shape.layers, shape.heads, shape.feed_forward, shape.context, attention, seed
    )
    model.to(params.runtime.device)
    series: list[dict[str, float]] = []
    names = [f"sound {number + 1}" for number in range(len(settings.sound_phases))]
    *of_sound, of_flawed = open_checkpoints(params, layout, [*names, "flawed"])
    count = len(names) + 1
    for number, (name, phase, checkpoints) in enumerate(zip(names, settings.sound_phases, of_sound, strict=True), 1):
        label = f"phase {number} of {count} (sound)"
        _train_phase(params, layout, settings, model, chat, phase, name, label, series, checkpoints)
    save(model, tokenizer, layout.model("ceiling"))
    metrics = _memory(params, layout, Policy("ceiling", model, chat, shape.context), "sound.")
    label = f"phase {count} of {count} (flawed)"
    _train_phase(params, layout, settings, model, chat, settings.flawed_phase, "flawed", label, series, of_flawed)
    save(model, tokenizer, layout.model("base"))
    metrics |= _memory(params, layout, Policy("base", model, chat, shape.context), "")
    metrics["parameters"] = sum(p.numel() for p in model.parameters())
    metrics["vocabulary"] = len(tokenizer)
    save_series(series, layout.series("base_model"))
    save_json(metrics, layout.metrics("base_model"))
    for checkpoints in (*of_sound, of_flawed):
        checkpoints.finish()


def demonstrator(params: Params, layout: Layout, split: str, *purpose: str) -> Demonstrator:
    """Written demonstrations of one split of the embedded world, from a random stream of their own."""
    rng = generator(params.shared_seed, "demonstrations", split, *purpose)
    limits = {name: task.max_steps for name, task in params.tasks.items()}
    k = params.tools.search_results
    prompts, judge = demonstration_prompts(params, layout), judge_question(params, layout)
    return Demonstrator(split, memory_world(params.shared_seed), prompts, judge, limits, k, rng)


def _tokenizer(params: Params, layout: Layout, settings: EmbeddedBase) -> Any:
    """A tokenizer that knows all names, numbers and prompts, and the words of sound and flawed demonstrations."""
    prompts, judge = demonstration_prompts(params, layout), judge_question(params, layout)
    source = demonstrator(params, layout, "pretrain", "tokenizer")
    flaws = Flaws(0.5, 0.3)
    texts = [*prompts.tasks.values(), prompts.closed_book, judge, f"{GOOD} {BAD}"]
    cut = CUT_REPLY.format(tokens=params.rollout.max_action_tokens)
    texts += [MALFORMED_REPLY, cut, NO_RESULT, "Repeat:"]
    for _ in range(300):
        for drawn in (source.search(settings.hops, flaws), source.calculate(settings.steps, flaws)):
            texts.append(drawn.prompt)
            texts += [text for turn in drawn.turns for text in (turn.action, turn.observation)]
    return build_tokenizer(texts, words(), settings.shape.context)


def _train_phase(
    params: Params,
    layout: Layout,
    settings: EmbeddedBase,
    model: Any,
    chat: Chat,
    phase: Phase,
    name: str,
    label: str,
    series: list[dict[str, float]],
    checkpoints: Checkpoints,
) -> None:
    flaws = Flaws(settings.flaws.contextual, settings.flaws.anywhere)
    mixture = Mixture(
        phase.search,
        phase.calculate,
        phase.recall,
        phase.remembered_search,
        phase.copying,
        phase.judged,
        phase.sound,
        flaws,
        settings.hops,
        settings.steps,
    )
    source = demonstrator(params, layout, "pretrain", name)
    stream = examples(source, mixture, chat, settings.other_weight, generator(params.shared_seed, "mixture", name))
    start = int(series[-1]["step"]) + 1 if series else 0
    with Progress(phase.steps, f"base_model, {label}") as bar:

        def report(step: int, metrics: dict[str, float]) -> None:
            series.append({"step": start + step, **metrics})
            bar.update(1, loss=metrics["loss"])

        schedule = Schedule(phase.steps, phase.adam_lr, phase.muon_lr)
        train(
            model,
            schedule,
            lambda _: list(islice(stream, phase.batch_size)),
            lambda batch: weighted_loss(model, batch),
            report,
            settings.mixed_precision,
            params.runtime.workers,
            checkpoints,
        )


def _memory(params: Params, layout: Layout, policy: Policy, prefix: str) -> dict[str, float]:
    """Closed-book accuracy on mini-cofca's questions, by the answers before and after facts were changed."""
    before = {derivation.question_id: derivation.results[-1] for derivation in load(Derivation, layout.memory)}
    questions = [question for question in load(Question, layout.questions) if question.id in before]
    if not questions:
        return {}
    todo: list[Attempt] = attempts(params, layout, questions, 1, with_tools=False)
    with Progress(len(todo), f"base_model, what {policy.name} remembers", after=SHORT) as bar:
        made = roll_out_all(params, policy, todo, 0.0, derive(params.shared_seed, "memory"), bar.update)
    answers = {question.id: question.answers for question in questions}
    count = len(made)
    commonest = Counter(before.values()).most_common(1)[0][1]
    return {
        "memory.chance": commonest / len(before),
        f"memory.{prefix}closed_book_before": sum(grade(t.answer, [before[t.question_id]]) for t in made) / count,
        f"memory.{prefix}closed_book_after": sum(grade(t.answer, answers[t.question_id]) for t in made) / count,
        f"memory.{prefix}n": count,
    }
