"""`swirl bench slow-tools`: what tools that take half a second cost a rollout, beside decoding and waiting alone.

- decoding: the conversations with a tool that answers at once, where results are read after one pass;
- waiting: the same calls without a model, those of a conversation one after another, as many at a time as are allowed;
- together: the rollout with the slow tool.

The model is real, and so are the engine and the time that it takes. What is said is made up: prompts and results are
random tokens, and whatever the model says is a call, which is whole at some tokens of the vocabulary, so that actions
are of different lengths. Together must give the trajectories, bit for bit, that a tool gives that answers at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import cast

from swirl.bench.measure import Result, forget_peak, interleave, resident_mb
from swirl.bench.states import SHAPES, model_of
from swirl.comb.sampling import Sampling
from swirl.core.errors import DataError, SwirlError
from swirl.core.types import Question, Trajectory
from swirl.models.chat import Chat
from swirl.models.flops import matmul_flops
from swirl.rollout.engine import Attempt, Calls, Policy, observe, roll_out

QUESTIONS = 32
TOOL_SECONDS = 0.5
SETTINGS = {"as the default run": (4, 1), "4 calls at a time": (4, None), "16 calls at a time": (16, None)}
"""Calls at a time, and passes until a result is read; None: as many as the model makes while a tool is at work."""

_WHOLE = 16
"""One in so many tokens makes an action whole."""
_LONGEST = 32


def slow_tools(root: Path, rounds: int, model: str | None = None, seconds: float = TOOL_SECONDS) -> Result:
    """A row for each of `SETTINGS`, with medians over the rounds; `ratio` is together over the slower of the two.

    The whole's `ratio` is the worst of the rows whose passes are fitted to the tool.
    `model` is one of `swirl.bench.states.SHAPES` (embedded if None) or a model's folder.
    """
    model = model or "embedded"
    if model not in SHAPES and not (root / model).is_dir():
        raise DataError(f"there is no model {model!r} to measure: it is a model's folder, {' or '.join(SHAPES)}")
    common = {"bench": "slow-tools", "model": model, "tool_seconds": seconds, "threads": 1}
    sides = [{**common, "name": name, "calls": calls, "passes": passes} for name, (calls, passes) in SETTINGS.items()]
    rows = []
    for side, row in zip(sides, interleave(root, sides, rounds), strict=True):
        ratio = row["seconds"] / max(row["decoding_seconds"], row["waiting_seconds"])
        rows.append({"model": model, "calls_in_flight": side["calls"], **row, "ratio": ratio})
    worst = max(row["ratio"] for row, side in zip(rows, sides, strict=True) if side["passes"] is None)
    about = {"bench": "slow-tools", "questions": QUESTIONS, "tool_seconds": seconds, "ratio": worst}
    return {**about, "rows": rows}


def run_side(side: Result) -> Result:
    """Run one setting in this process. Raises `SwirlError` when trajectories depend on how long a tool takes."""
    import torch

    loaded = model_of(Path.cwd(), {"model": side["model"], "attention": "sdpa", "dtype": "float32"}, adapted=False)
    policy = Policy(side["model"], loaded, cast("Chat", MadeUpChat(loaded.config.vocab_size)), 2048)
    in_flight, passes, seconds = side["calls"], side["passes"], side["tool_seconds"]
    before = resident_mb()
    made_passes: list[int] = []
    _rolled(policy, 0.0, Calls(in_flight, 1))  # which warms up
    forget_peak()
    with loaded.base_model.register_forward_hook(lambda *_: made_passes.append(1)):
        decoding, fast = _rolled(policy, 0.0, Calls(in_flight, 1))
    if passes is None:
        passes = max(1, round(seconds * len(made_passes) / decoding))
        _, fast = _rolled(policy, 0.0, Calls(in_flight, passes))
    calls = Calls(in_flight, passes)
    together, made = _rolled(policy, seconds, calls)
    if made != fast:
        raise SwirlError(
            f"with {calls}, a tool of {seconds:g} s gives other trajectories than one that answers at once"
        )
    waiting = _waited([len(trajectory.steps) for trajectory in made], calls.in_flight, seconds)
    return {
        "seconds": [together],
        "tool_passes": passes,
        "parts": {"decoding": [decoding], "waiting": [waiting]},
        "trajectories": len(made),
        "action_tokens": sum(len(step.token_ids) for trajectory in made for step in trajectory.steps),
        "peak_mb": resident_mb("VmHWM") - before,
        "matmul_gflops": matmul_flops("cpu", torch.float32, 1) / 1e9,
    }


def _rolled(policy: Policy, seconds: float, calls: Calls) -> tuple[float, list[Trajectory]]:
    """Seconds that the rollout takes, and its trajectories."""
    tool = Sleeper(seconds)
    questions = [Question(f"q{n}", "made-up", "train", f"q{n}", (), 1, (tool.name,)) for n in range(QUESTIONS)]
    todo = [Attempt(q, 0, q.text, {tool.kind: tool}, 3 + n % 3) for n, q in enumerate(questions)]
    started = time.perf_counter()
    made = roll_out(policy, todo, Sampling(max_tokens=_LONGEST), 0, 0, QUESTIONS, calls)
    return time.perf_counter() - started, made


def _waited(counts: Sequence[int], in_flight: int, seconds: float) -> float:
    """Seconds that conversations with so many calls each take without a model."""
    room, tool = Semaphore(in_flight), Sleeper(seconds)

    def one(count: int) -> None:
        for _ in range(count):
            with room:
                observe(tool, "x")

    started = time.perf_counter()
    with ThreadPoolExecutor(len(counts)) as pool:
        list(pool.map(one, counts))
    return time.perf_counter() - started


class Sleeper:
    """A tool whose calls take `seconds`."""

    name = kind = tag = "wait"
    description = "waits"
    time_limit_s, output_limit = 30.0, 100

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self, payload: str) -> str:
        """What was asked, after a while."""
        time.sleep(self._seconds)
        return payload


class MadeUpChat:
    """The parts of a `Chat` that a rollout uses: random tokens, all of which say calls of `Sleeper`."""

    end_ids: frozenset[int] = frozenset()
    native = thinking = strips = False

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def prompt(self, question: str) -> tuple[int, ...]:
        """48 to 96 tokens of its own."""
        return self._tokens(question, 48, 96)

    def turn(self, result: str, closed: bool) -> tuple[int, ...]:
        """8 to 24 tokens."""
        return self._tokens(result, 8, 24)

    def said_by(self, token: int) -> str:
        """The end of a tag, for one in 16 tokens."""
        return ">" if token % _WHOLE == 0 else "x"

    def so_far(self, ids: Sequence[int]) -> str:
        """A call, once it is whole."""
        return self.text(ids) if ids[-1] % _WHOLE == 0 else "x"

    def text(self, ids: Sequence[int]) -> str:
        """A call whose payload is how long it was."""
        return f"<wait> {len(ids)} </wait>"

    def _tokens(self, of: str, least: int, most: int) -> tuple[int, ...]:
        rng = random.Random(of)
        return tuple(rng.randrange(self._vocabulary) for _ in range(rng.randint(least, most)))
