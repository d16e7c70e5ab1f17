"""What a worker of a cluster reserves for a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from swirl.config.params import validate
from swirl.config.presets import laid_over
from swirl.core.layout import Layout
from swirl.wiring.graders import load_reward_judges
from swirl.wiring.verdict_blocks import Verdicts

ROOT = Path(__file__).parents[2]
SERVER = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
SERVED = {"source": "endpoint", "max_tokens": 8, "votes": 1, "temperature": 0.0, "server": SERVER}


@pytest.mark.parametrize(("changes", "cpus"), [({}, 8), ({"reward_model": SERVED}, 2)])
def test_a_judge_that_runs_here_keeps_all_its_threads_busy(changes: dict[str, Any], cpus: int, tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree = laid_over(tree, {"runtime": {"workers": 4, "threads": 2}})
    recipe = Verdicts(validate({**tree, **changes}, "tests"), Layout(tmp_path), "judge", load_reward_judges)
    assert (recipe.threads, recipe.cpus) == (2, cpus)
