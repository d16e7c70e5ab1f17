"""synthesize: multi-step tool-use trajectories of the base model on the training questions (paper, stage 1)."""

from __future__ import annotations

from collections import Counter

from swirl.config.params import Params
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import save, save_json
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
    recipe = Rollouts(params, layout, prompts, "synthesize", "base", params.synthesize.server, settings.temperature)
    questions = questions_of(layout, "train")
    done = roll_out_in_blocks(recipe, questions, settings.samples, seed, journal, "synthesize")
    made = [trajectory for block in done for trajectory in block]
    save(made, Trajectory, layout.trajectories)
    save_json(summary(made), layout.metrics("synthesize"))
    journal.finish()
    print_usage()


def summary(trajectories: list[Trajectory]) -> dict[str, float]:
    """Counts and rates of a set of trajectories."""
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    stops = Counter(trajectory.stop for trajectory in trajectories)
    kinds = Counter(step.action.kind for step in steps)
    return {
        "trajectories": len(trajectories),
        "steps": len(steps),
        "steps_per_trajectory": len(steps) / max(1, len(trajectories)),
        "tokens_per_action": sum(len(step.token_ids) for step in steps) / max(1, len(steps)),
        "malformed_rate": kinds[ActionKind.MALFORMED] / max(1, len(steps)),
        "think_rate": kinds[ActionKind.THINK] / max(1, len(steps)),
        "cut_rate": kinds[ActionKind.CUT] / max(1, len(steps)),
        "tool_error_rate": sum(step.tool_error for step in steps) / max(1, len(steps)),
        **{f"stop.{stop}": stops[stop] / max(1, len(trajectories)) for stop in Stop},
    }
