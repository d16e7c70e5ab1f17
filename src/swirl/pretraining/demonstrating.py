"""From params to written demonstrations of the embedded world: what its models are made from."""

from __future__ import annotations

from swirl.benchmarks.embedded.miniatures import memory_world
from swirl.core.layout import Layout
from swirl.core.seeds import generator
from swirl.judge_prompts import judge_question
from swirl.params import Params
from swirl.pretraining.embedded_examples import Demonstrator
from swirl.wiring import prompts_to_demonstrate


def demonstrator(params: Params, layout: Layout, split: str, *purpose: str) -> Demonstrator:
    """Written demonstrations of one split of the embedded world, with their own random stream."""
    rng = generator(params.seed, "demonstrations", split, *purpose)
    limits = {name: task.max_steps for name, task in params.tasks.items()}
    k = params.tools.search_results
    prompts, judge = prompts_to_demonstrate(params, layout), judge_question(params, layout)
    return Demonstrator(split, memory_world(params.seed), prompts, judge, limits, k, rng)
