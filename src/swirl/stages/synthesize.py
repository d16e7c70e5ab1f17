"""synthesize: multi-step tool-use trajectories of the base model on the training questions (paper, stage 1)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.compute as pc

from swirl.config.params import Params
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.core.row_groups import tables
from swirl.core.seeds import derive
from swirl.core.types import ActionKind, Stop, Trajectory
from swirl.pipeline.source import digest
from swirl.wiring.prompts import read_prompts, user_input_folders
from swirl.wiring.questions import questions_of
from swirl.wiring.rollout_blocks import Rollouts, roll_out_in_blocks
from swirl.wiring.servers import print_usage


def run(params: Params, layout: Layout) -> None:
    """Roll out every training question, a journalled block at a time."""
    settings = params.synthesize
    sections = [params.seed, dict(params.tasks)]
    sections += [
        part.model_dump() for part in (params.runtime, params.tools, params.rollout, params.actions, params.synthesize)
    ]
    inputs = [layout.questions, layout.root / "data/index", layout.model("base"), *user_input_folders(params, layout)]
    journal = Journal(layout.trajectories_journal, fingerprint(digest("synthesize"), sections, inputs))
    prompts, seed = read_prompts(params, layout), derive(params.seed, "synthesize")
    server, most = settings.server, params.rollout.block_size
    recipe = Rollouts(params, layout, prompts, "synthesize", "base", server, settings.temperature, most)
    questions = questions_of(layout, "train")
    publish(journal, roll_out_in_blocks(recipe, questions, settings.samples, seed, journal, "synthesize"), layout)
    print_usage()


def publish(journal: Journal, blocks: int, layout: Layout) -> None:
    """Write the trajectories of the journal's first `blocks` blocks, and their counts and rates."""
    journal.collect(blocks, Trajectory, layout.trajectories)
    save_json(summary(layout.trajectories), layout.metrics("synthesize"))
    journal.finish()


def summary(path: Path) -> dict[str, float]:
    """Counts and rates of a file of trajectories, read by row group, as columns."""
    stops, kinds, tokens, failed = Counter[str](), Counter[str](), 0, 0
    for table in tables(Trajectory, path, ["stop", "steps"]):
        stops.update(table["stop"].to_pylist())
        steps = pc.list_flatten(table["steps"].combine_chunks())
        kinds.update(pc.struct_field(steps, ["action", "kind"]).to_pylist())
        tokens += len(pc.list_flatten(pc.struct_field(steps, "token_ids")))
        seen = pc.struct_field(steps, "observations")
        wrong = pc.struct_field(pc.list_flatten(seen), "error")
        failed += len(pc.unique(pc.list_parent_indices(seen).filter(wrong)))
    made, done = max(1, stops.total()), max(1, kinds.total())
    return {
        "trajectories": stops.total(),
        "steps": kinds.total(),
        "steps_per_trajectory": kinds.total() / made,
        "tokens_per_action": tokens / done,
        "malformed_rate": kinds[ActionKind.MALFORMED] / done,
        "think_rate": kinds[ActionKind.THINK] / done,
        "cut_rate": kinds[ActionKind.CUT] / done,
        "tool_error_rate": failed / done,
        **{f"stop.{stop}": stops[stop] / made for stop in Stop},
    }
