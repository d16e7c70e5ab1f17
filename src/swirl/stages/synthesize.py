"""synthesize: multi-step tool-use trajectories on the training questions (paper, stage 1).

The base model makes them (`source: rollout`), or an agent's logs hold them (`source: import`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from swirl.config.params import Params
from swirl.config.trajectories import Imported
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import load, save, save_json
from swirl.core.row_groups import tables
from swirl.core.seeds import derive
from swirl.core.types import LOGGED, ActionKind, Question, Stop, Trajectory
from swirl.models.loading import configured_context
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.wiring.chats import policy_chat
from swirl.wiring.logged_trajectories import Importer
from swirl.wiring.prompts import read_prompts, user_input_folders
from swirl.wiring.questions import questions_of
from swirl.wiring.rollout_blocks import Rollouts, roll_out_in_blocks
from swirl.wiring.servers import print_usage


def run(params: Params, layout: Layout) -> None:
    """Roll out every training question, or take its logged conversation, a journalled block at a time."""
    if isinstance(params.synthesize, Imported):
        _import(params, layout)
    else:
        _roll_out(params, layout)


def _roll_out(params: Params, layout: Layout) -> None:
    settings = params.synthesize
    sections = [params.seed, dict(params.tasks), params.runtime.of_every_stage()]
    sections += [part.model_dump() for part in (params.tools, params.rollout, params.actions, params.synthesize)]
    inputs = [layout.questions, layout.root / "data/index", layout.model("base"), *user_input_folders(params, layout)]
    journal = Journal(layout.trajectories_journal, fingerprint(digest("synthesize"), sections, inputs))
    prompts, seed = read_prompts(params, layout), derive(params.seed, "synthesize")
    server, most = settings.server, params.rollout.block_size
    recipe = Rollouts(params, layout, prompts, "synthesize", "base", server, settings.temperature, most)
    questions = questions_of(layout, "train")
    publish(journal, roll_out_in_blocks(recipe, questions, settings.samples, seed, journal, "synthesize"), layout)
    save([], Trajectory, layout.logged)
    save_json([], layout.too_long)
    print_usage()


def _import(params: Params, layout: Layout) -> None:
    """Make trajectories of the logged conversations: those to train on, and, apart, those that are held out."""
    read_prompts(params, layout)  # no log is read with them, but `swirl export` ships them: better refused here
    base, questions = layout.model("base"), load(Question, layout.questions)
    chat, context = policy_chat(params, base), configured_context(base, params.runtime.context)
    sections = [params.rollout.block_size, params.rollout.max_action_tokens, context, params.actions.model_dump()]
    mark = fingerprint(digest("synthesize"), sections, [layout.questions, layout.conversations, base])
    kept = {"train": [q for q in questions if q.split == "train"]}
    kept["logged"] = [q for q in questions if q.task == LOGGED and q.split in ("development", "evaluation")]
    journals = {"train": layout.trajectories_journal, "logged": layout.logged_journal}
    places, metrics = list[dict[str, Any]](), dict[str, float]()
    opened = {name: Journal(folder, mark) for name, folder in journals.items()}
    blocks = {}
    with Progress(sum(map(len, kept.values())), "synthesize") as bar:
        for name, some in kept.items():
            thoughts = params.actions.thinking != "none"
            importer = Importer(layout, some, chat, context, params.rollout.max_action_tokens, thoughts)
            blocks[name] = importer.blocks(opened[name], params.rollout.block_size, bar.update)
            places += importer.lost.places
            metrics[f"{name}_too_long_steps"] = importer.lost.steps
            metrics[f"{name}_rewritten_actions"] = importer.lost.rewritten
            metrics[f"{name}_cuts"] = importer.lost.cuts
    if places:
        first = ", ".join(f"{key} {places[0][key]}" for key in ("file", "line", "turn"))
        print(
            f"synthesize: {len(places)} conversations end before their last action; the first: {first}, "
            f"{places[0]['reason']}"
        )
    opened["logged"].collect(blocks["logged"], Trajectory, layout.logged)
    save_json(places, layout.too_long)
    opened["train"].collect(blocks["train"], Trajectory, layout.trajectories)
    save_json({**summary(layout.trajectories), **metrics}, layout.metrics("synthesize"))
    for journal in opened.values():
        journal.finish()


def publish(journal: Journal, blocks: int, layout: Layout) -> None:
    """Write the trajectories of the journal's first `blocks` blocks, and their counts and rates."""
    journal.collect(blocks, Trajectory, layout.trajectories)
    save_json(summary(layout.trajectories), layout.metrics("synthesize"))
    journal.finish()


def summary(path: Path) -> dict[str, float]:
    """Counts and rates of a file of trajectories, read by row group, as columns."""
    stops, kinds, tokens, calls, failed, cuts = Counter[str](), Counter[str](), 0, 0, 0, 0
    for table in tables(Trajectory, path, ["stop", "steps"]):
        stops.update(table["stop"].to_pylist())
        steps = pc.list_flatten(table["steps"].combine_chunks())
        kinds.update(pc.struct_field(steps, ["action", "kind"]).to_pylist())
        tokens += len(pc.list_flatten(pc.struct_field(steps, "token_ids")))
        anew = pc.list_value_length(pc.struct_field(steps, "rewritten_ids"))
        cuts += int(pc.sum(pc.greater(anew, 0)).as_py() or 0)
        seen = pc.struct_field(steps, "observations")
        answers = pc.list_flatten(seen)
        called = pc.not_equal(pc.struct_field(answers, "kind"), "")
        calls += int(pc.sum(called).as_py() or 0)
        failed += int(pc.sum(pc.and_(called, pc.struct_field(answers, "error"))).as_py() or 0)
    made, done = max(1, stops.total()), max(1, kinds.total())
    return {
        "trajectories": stops.total(),
        "steps": kinds.total(),
        "steps_per_trajectory": kinds.total() / made,
        "tokens_per_action": tokens / done,
        "malformed_rate": kinds[ActionKind.MALFORMED] / done,
        "think_rate": kinds[ActionKind.THINK] / done,
        "cut_rate": kinds[ActionKind.CUT] / done,
        "tool_error_rate": failed / max(1, calls),
        "cuts": cuts,
        **{f"stop.{stop}": stops[stop] / made for stop in Stop},
    }
