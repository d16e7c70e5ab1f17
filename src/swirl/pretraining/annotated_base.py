"""`source: annotations`: a small Gemma-2-shaped base made from written solutions with calculator annotations (GSM8K).

Each annotation of a solution becomes a calculator call, its value the observation, and the last line the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from swirl.benchmarks.annotations import LeftOut, Solution, solve
from swirl.config.base_model import AnnotatedBase
from swirl.config.params import Params
from swirl.core.devices import check_device
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load, save_json, save_series
from swirl.core.seeds import derive, generator
from swirl.core.types import Question, WrittenSolution
from swirl.models.chat import Chat
from swirl.models.loading import make_deterministic, save
from swirl.models.prompts import fill
from swirl.models.skipped import mark_skipped
from swirl.pipeline.progress import Progress
from swirl.pretraining.annotated_examples import Blend, drills, examples, fitting, tokenizer_of
from swirl.pretraining.architectures import random_gemma2
from swirl.pretraining.base_checkpoints import open_checkpoints
from swirl.pretraining.training import Schedule, train, weighted_loss
from swirl.rollout.reading import CUT_REPLY, MALFORMED_REPLY
from swirl.wiring.judge_prompts import judge_question
from swirl.wiring.prompts import demonstration_prompts
from swirl.wiring.questions import questions_of


def make(params: Params, layout: Layout) -> None:
    """Learn a tokenizer and a model from the benchmark's pretraining split; there is no ceiling."""
    settings, run = params.base_model, params.runtime
    assert isinstance(settings, AnnotatedBase)
    check_device(run.device)
    make_deterministic(run.threads)
    questions = questions_of(layout, "pretrain", settings.benchmark)
    sound, left_out = solved(layout, questions, settings.thoughts)
    solutions = list(sound.values())
    if not solutions:
        raise DataError(
            f"{layout.questions} holds no pretraining question of {settings.benchmark} with an annotated solution; set "
            f"download.benchmarks.{settings.benchmark}.pretrain, and use a benchmark with such solutions (gsm8k)"
        )
    others = [one for split in settings.foreign for one in questions_of(layout, split, settings.benchmark)]
    foreign = list(solved(layout, others, settings.thoughts)[0].values())
    task = params.tasks[questions[0].task]
    prompt, judge = demonstration_prompts(params, layout).tasks[questions[0].task], judge_question(params, layout)
    shape, longest = settings.shape, params.rollout.max_action_tokens
    fixed = [fill(prompt, "", task.max_steps), judge, MALFORMED_REPLY, CUT_REPLY.format(tokens=longest)]
    tokenizer = tokenizer_of(solutions, fixed, shape.vocabulary, shape.context, shape.digits)
    chat = Chat(tokenizer)
    kept, known = (fitting(rows, chat, prompt, task.max_steps, longest, shape.context) for rows in (solutions, foreign))
    if not kept:
        raise DataError(
            f"none of the {len(solutions)} solutions of {settings.benchmark} has at most {task.max_steps} actions of "
            f"up to {longest} tokens, and {shape.context} tokens in all with the prompt; raise "
            f"tasks.{questions[0].task}.max_steps, rollout.max_action_tokens or base_model.shape.context"
        )
    model = random_gemma2(
        tokenizer,
        shape.hidden,
        shape.layers,
        shape.heads,
        shape.feed_forward,
        shape.context,
        shape.window,
        run.attention,
        derive(params.shared_seed, "weights") % 2**32,
    )
    model.to(run.device)
    blend = Blend(
        settings.other_weight, settings.thought_weight, settings.judged, settings.copying, settings.changed_numbers
    )
    rng = generator(params.shared_seed, "mixture", "annotations")
    rows = examples(kept, known, chat, prompt, judge, task.max_steps, blend, rng)
    phases = [(settings.drill_steps, drills(chat, blend.other, rng)), (settings.steps, rows)]
    kept_states = open_checkpoints(params, layout, ["drills", "solutions"])
    series: list[dict[str, float]] = []
    with Progress(settings.drill_steps + settings.steps, "base_model") as bar:

        def report(step: int, metrics: dict[str, float]) -> None:
            series.append({"step": len(series), **metrics})
            bar.update(1, loss=metrics["loss"])

        for (steps, stream), checkpoints in zip(phases, kept_states, strict=True):
            train(
                model,
                Schedule(steps, settings.adam_lr, settings.muon_lr),
                lambda _, stream=stream: list(islice(stream, settings.batch_size)),  # type: ignore[misc]
                lambda batch: weighted_loss(model, batch),
                report,
                settings.mixed_precision,
                run.workers,
                checkpoints,
            )
    save(model, tokenizer, layout.model("base"))
    mark_skipped(layout.model("ceiling"), "a model made from written solutions has no designed flaws, so no ceiling")
    metrics: dict[str, float] = {f"left_out.{reason.name.lower()}": left_out.count(reason) for reason in LeftOut}
    metrics |= {"solutions": len(solutions), "solutions.used": len(kept), "solutions.foreign": len(known)}
    metrics["vocabulary"] = len(tokenizer)
    metrics["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    save_series(series, layout.series("base_model"))
    save_json(metrics, layout.metrics("base_model"))
    for checkpoints in kept_states:
        checkpoints.finish()


def solved(layout: Layout, questions: Sequence[Question], thoughts: bool) -> tuple[dict[str, Solution], list[LeftOut]]:
    """The questions' written solutions as calculator conversations, by question id, and why others were left out."""
    written = {row.question_id: row.text for row in load(WrittenSolution, layout.solutions)}
    tried = {one.id: solve(one.text, written[one.id]) for one in questions if one.id in written}
    sound = {name: one for name, one in tried.items() if isinstance(one, Solution)}
    left_out = [one for one in tried.values() if isinstance(one, LeftOut)]
    return (sound if thoughts else {name: one.without_words() for name, one in sound.items()}), left_out
