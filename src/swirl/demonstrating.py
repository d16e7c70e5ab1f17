"""From params to written demonstrations of the embedded world: what its models are made from."""

from __future__ import annotations

from swirl.benchmarks.embedded import memory_world
from swirl.layout import Layout
from swirl.models.pretraining import Demonstrator
from swirl.params import Params
from swirl.seeds import generator
from swirl.wiring import read_prompts


def demonstrator(params: Params, layout: Layout, split: str, *purpose: str) -> Demonstrator:
    """Written demonstrations of one split of the embedded world, with their own random stream."""
    rng = generator(params.seed, "demonstrations", split, *purpose)
    limits = {str(task): limit for task, limit in params.rollout.max_steps.items()}
    k = params.tools.search_results
    return Demonstrator(split, memory_world(params.seed), read_prompts(params, layout), limits, k, rng)
