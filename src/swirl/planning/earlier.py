"""What an earlier run of the same settings tells of the next one: its questions, and how its trajectories went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from swirl.config.params import Params
from swirl.config.yaml_text import read
from swirl.core.errors import ParamsError
from swirl.core.layout import Layout
from swirl.core.records import load, stream
from swirl.core.types import Passage, Question

ROLLING = ("prompts.policy", "tasks", "tools", "rollout", "actions")
"""The settings that say how a trajectory goes."""
_DRAWING = ("prompts", "tasks", "rollout", "train.lora", "train.swirl")
"""The settings that say how alike the actions are that step-wise RL draws in a state."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known; None or empty where nothing is."""

    questions: Mapping[tuple[str, str], list[str]] = field(default_factory=dict)
    """The questions' texts, by benchmark and split."""
    passages: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Mean characters of a passage that can be searched, by benchmark and split."""
    steps: float | None = None
    """Steps of a synthesised trajectory."""
    action: float | None = None
    """Tokens of a synthesised action."""
    different: float | None = None
    """Different actions among those that step-wise RL drew in a state, in its last update."""


def earlier(params: Params, root: Path) -> Earlier:
    """What the results in a project tell, as far as dvc.lock says that they were made with these settings."""
    layout, texts, sizes = Layout(root), dict[tuple[str, str], list[str]](), dict[tuple[str, str], float]()
    if made_with(params, root, "download", "download") and layout.questions.exists():
        for question in load(Question, layout.questions):
            texts.setdefault((question.benchmark, question.split), []).append(question.text)
        for name, split in texts:
            path = layout.corpus(name, split)
            some = next(stream(Passage, path), []) if path.exists() else []
            if some:
                sizes[name, split] = sum(len(one.title) + len(one.text) for one in some) / len(some)
    same = made_with(params, root, "base_model", "base_model")
    rolled = layout.metrics("synthesize") if same and made_with(params, root, "synthesize", *ROLLING) else None
    steps, action = _metric(rolled, "steps_per_trajectory"), _metric(rolled, "tokens_per_action")
    drew = same and made_with(params, root, "train@swirl", *_DRAWING)
    different = _metric(layout.metrics("train-swirl") if drew else None, "different_actions")
    return Earlier(texts, sizes, steps, action, different)


def made_with(params: Params, root: Path, stage: str, *names: str) -> bool:
    """Whether dvc.lock says that a stage last ran with the values that `params` has at these keys."""
    try:
        locked = read(root / "dvc.lock")["stages"][stage]["params"]["params.yaml"]
        then = params.model_dump()
        for name in names:
            *path, last = name.split(".")
            place = then
            for part in path:
                place = place[part]
            place[last] = locked[name]
        return Params.model_validate(then) == params
    except (ParamsError, ValidationError, KeyError, TypeError):  # no such file or stage, or of another schema
        return False


def _metric(path: Path | None, name: str) -> float | None:
    """A metric of a stage; None without its file, and where that has none of this name."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))[name]) if path else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
