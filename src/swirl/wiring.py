"""From params and the layout to the objects that stages work with: policies, reward model, tools, attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from swirl.errors import DataError
from swirl.judging.reward import RewardModel
from swirl.layout import Layout
from swirl.models.local import context_of, deterministic, load_chat, load_model
from swirl.models.prompts import Prompts, fill
from swirl.models.threads import spread
from swirl.params import Params, Task
from swirl.records import load
from swirl.rollout.engine import Attempt, Policy, roll_out
from swirl.rollout.sampler import Sampling
from swirl.tools import Calculator, Search
from swirl.tools.base import Tool
from swirl.types import ActionKind, Derivation, Question, Trajectory

KIND_OF_TOOL = {"search": ActionKind.SEARCH, "calculator": ActionKind.CALCULATE}
"""Tool names in `Question.tools` -> the kind of action that calls them."""


def read_prompts(params: Params, layout: Layout) -> Prompts:
    """The prompt files. Raises `DataError` naming a file that is missing or lacks `{question}`."""
    texts = {}
    for name, file in params.prompts.model_dump().items():
        path = layout.root / file
        if not path.exists():
            raise DataError(f"prompts.{name}: {path} does not exist")
        texts[name] = path.read_text(encoding="utf-8").strip()
        if name != "judge" and "{question}" not in texts[name]:
            raise DataError(f"prompts.{name}: {path} must hold {{question}}, where the question goes")
    return Prompts(**texts)


def prompt_files(params: Params, layout: Layout) -> list[Path]:
    """The prompt files: inputs that a journal's fingerprint must hold, for their text may change under one name."""
    return [layout.root / file for file in params.prompts.model_dump().values()]


def load_policy(params: Params, folder: Path, name: str) -> Policy:
    """A local policy, with torch made deterministic."""
    deterministic(params.runtime.threads)
    runtime = params.runtime
    model = load_model(folder, runtime.device, runtime.attention, runtime.dtype)
    return Policy(name, model, load_chat(folder), context_of(model, runtime.context))


def load_reward_model(params: Params, layout: Layout) -> RewardModel:
    """The reward model of the pipeline."""
    folder = layout.model("reward")
    deterministic(params.runtime.threads)
    runtime = params.runtime
    model = load_model(folder, runtime.device, runtime.attention, runtime.dtype)
    question = read_prompts(params, layout).judge
    return RewardModel("reward", model, load_chat(folder), question, workers=runtime.workers)


def task_of(question: Question) -> Task:
    """`search` or `calculate`: which prompt and step limit a question has."""
    return "search" if KIND_OF_TOOL[question.tools[0]] is ActionKind.SEARCH else "calculate"


class Toolbox:
    """The tools of each question, each index opened once."""

    def __init__(self, params: Params, layout: Layout) -> None:
        self._params, self._layout = params, layout
        self._made: dict[tuple[str, ...], Tool] = {}

    def tools(self, question: Question) -> dict[str, Tool]:
        """Tools by kind of action."""
        return {KIND_OF_TOOL[name]: self._tool(name, question) for name in question.tools}

    def _tool(self, name: str, question: Question) -> Tool:
        key = (name, question.benchmark, question.split) if name == "search" else (name,)
        if key not in self._made:
            self._made[key] = self._open(name, question)
        return self._made[key]

    def _open(self, name: str, question: Question) -> Tool:
        if name == "calculator":
            return Calculator()
        settings = self._params.tools
        index = self._layout.index(question.benchmark, question.split)
        return Search(index, settings.search_results, settings.search_output_limit)


def attempts(
    params: Params, layout: Layout, questions: Iterable[Question], samples: int, with_tools: bool = True
) -> list[Attempt]:
    """`samples` attempts at each question over the stored indices, in order."""
    return attempts_with(params, layout, questions, samples, Toolbox(params, layout).tools if with_tools else None)


def attempts_with(
    params: Params,
    layout: Layout,
    questions: Iterable[Question],
    samples: int,
    tools_of: Callable[[Question], Mapping[str, Tool]] | None,
) -> list[Attempt]:
    """`samples` attempts at each question; with `tools_of` None the closed-book prompt and one action."""
    prompts = read_prompts(params, layout)
    made = []
    for question in questions:
        task = task_of(question)
        limit = params.rollout.max_steps[task] if tools_of else 1
        template = getattr(prompts, task) if tools_of else prompts.closed_book
        prompt = fill(template, question.text, limit)
        tools = tools_of(question) if tools_of else {}
        made += [Attempt(question, sample, prompt, tools, limit) for sample in range(samples)]
    return made


def roll_out_all(
    params: Params,
    policy: Policy,
    todo: Sequence[Attempt],
    temperature: float,
    seed: int,
    done: Callable[[int], None] = lambda count: None,
) -> list[Trajectory]:
    """Roll out all attempts, dealt to `runtime.workers` shares; `done(1)` follows each trajectory."""
    loop, drawn, workers = params.rollout, sampling(params, temperature), params.runtime.workers
    shares = spread(
        lambda first: roll_out(policy, todo[first::workers], drawn, seed, loop.max_malformed, loop.in_flight, done),
        range(workers),
        workers,
    )
    made = {trajectory.id: trajectory for share in shares for trajectory in share}
    return [made[f"{attempt.question.id}/{attempt.sample}"] for attempt in todo]


def sampling(params: Params, temperature: float) -> Sampling:
    """How actions are drawn at this temperature."""
    loop = params.rollout
    return Sampling(temperature, loop.top_p, loop.top_k, loop.max_action_tokens)


def questions_of(layout: Layout, split: str, benchmark: str | None = None) -> list[Question]:
    """The questions of one split (and benchmark), in file order."""
    wanted = load(Question, layout.questions)
    return [q for q in wanted if q.split == split and benchmark in (None, q.benchmark)]


def derivations_of(layout: Layout) -> Mapping[str, Derivation]:
    """Golden derivations by question id; empty for real benchmarks. Golden labels: for logging and evaluation only."""
    return {derivation.question_id: derivation for derivation in load(Derivation, layout.derivations)}


def blocks(items: Sequence[Attempt], size: int) -> list[Sequence[Attempt]]:
    """Fixed blocks of work, in order."""
    return [items[i : i + size] for i in range(0, len(items), size)]
