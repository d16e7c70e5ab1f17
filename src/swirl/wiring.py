"""From params and the layout to the objects that stages work with: policies, reward model, tools, attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl.comb.sampling import Sampling
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load
from swirl.core.threads import spread
from swirl.core.types import Derivation, Question, Trajectory
from swirl.models.loading import context_of, deterministic, load_chat, load_model
from swirl.models.prompts import Prompts, fill, read_prompt
from swirl.params import Params, Served
from swirl.rollout.engine import Attempt, Policy, roll_out
from swirl.rollout.remote import RemotePolicy, roll_out_remote
from swirl.servers import remote_policy
from swirl.tools import Search
from swirl.tools.base import Tool, listed
from swirl.tools.by_name import by_kind, open_tool, options_name

AnyPolicy = Policy | RemotePolicy


def read_prompts(params: Params, layout: Layout) -> Prompts:
    """The policy's prompts.

    Raises `DataError` naming a file that is missing, or lacks `{question}`, or shows `{tools}` though there are none.
    """
    folder = layout.root / params.prompts.policy
    texts = {}
    for name in (*params.tasks, "closed_book"):
        texts[name] = read_prompt(folder / f"{name}.txt")
        if "{question}" not in texts[name]:
            raise DataError(f"{folder / name}.txt must hold {{question}}, where the question goes")
        if "{tools}" in texts[name] and name == "closed_book":
            raise DataError(f"{folder / name}.txt must not hold {{tools}}: it is asked without tools; leave it out")
    closed_book = texts.pop("closed_book")
    return Prompts(texts, closed_book)


def prompts_to_demonstrate(params: Params, layout: Layout) -> Prompts:
    """The policy's prompts for a base that is made from demonstrations, which list no tools. See `read_prompts`."""
    prompts = read_prompts(params, layout)
    for name, text in prompts.tasks.items():
        if "{tools}" in text:
            why = "the demonstrations that the base is made from are written without them"
            raise DataError(f"{layout.root / params.prompts.policy / name}.txt must not hold {{tools}}: {why}")
    return prompts


def own_files(params: Params, layout: Layout) -> list[Path]:
    """Prompts and own tools: inputs that a journal's fingerprint must hold, for they may change under one name."""
    return [layout.root / params.prompts.policy, layout.root / params.tools.folder]


def load_policy(params: Params, folder: Path, name: str, server: Served | None = None) -> AnyPolicy:
    """The policy of a model's folder: here, with torch made deterministic, or behind `server` or the folder's own."""
    remote = remote_policy(folder, name, server, params.runtime.context)
    return remote or load_local_policy(params, folder, name)


def load_local_policy(params: Params, folder: Path, name: str) -> Policy:
    """The policy of a model's folder here, with torch made deterministic."""
    run = params.runtime
    deterministic(run.threads)
    model = load_model(folder, run.device, run.attention, run.dtype)
    return Policy(name, model, load_chat(folder), context_of(model, run.context))


def roll_out_any(policy: AnyPolicy, *arguments: Any, **named: Any) -> list[Trajectory]:
    """`roll_out` or `roll_out_remote`, whichever the policy is for; they take the same arguments."""
    roll = roll_out_remote if isinstance(policy, RemotePolicy) else roll_out
    return roll(policy, *arguments, **named)  # type: ignore[arg-type]


class Toolbox:
    """The tools of each question, each index opened once."""

    def __init__(self, params: Params, layout: Layout) -> None:
        self._params, self._layout = params, layout
        self._made: dict[tuple[str, ...], Tool] = {}

    def tools(self, question: Question) -> dict[str, Tool]:
        """Tools by kind of action. Raises `ParamsError` for a tool that is not there or is not sound."""
        return by_kind(self._tool(name, question) for name in question.tools)

    def _tool(self, name: str, question: Question) -> Tool:
        key = (name, question.benchmark, question.split) if name == "search" else (name,)
        if key not in self._made:
            self._made[key] = self._open(name, question)
        return self._made[key]

    def _open(self, name: str, question: Question) -> Tool:
        settings, root = self._params.tools, self._layout.root
        if name != "search":
            return open_tool(name, settings.options.get(options_name(name), {}), root / settings.folder)
        index = self._layout.index(question.benchmark, question.split)
        limit, size = settings.search_output_limit, self._size()
        return Search(index, settings.search_results, limit, size, root, self._params.runtime.device)

    def _size(self) -> Callable[[str], int]:
        """What counts the length of a search's result."""
        if self._params.tools.search_output_unit == "characters":
            return len
        return load_chat(self._layout.model("base")).count


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
        if question.task not in params.tasks:
            known = ", ".join(params.tasks)
            raise DataError(f"question {question.id} is of task {question.task!r}; params.yaml has tasks {known}")
        limit = params.tasks[question.task].max_steps if tools_of else 1
        template = prompts.tasks[question.task] if tools_of else prompts.closed_book
        tools = tools_of(question) if tools_of else {}
        prompt = fill(template, question.text, limit, listed(tools.values()))
        made += [Attempt(question, sample, prompt, tools, limit) for sample in range(samples)]
    return made


def roll_out_all(
    params: Params,
    policy: AnyPolicy,
    todo: Sequence[Attempt],
    temperature: float,
    seed: int,
) -> list[Trajectory]:
    """Roll out all attempts, dealt to `runtime.workers` shares."""
    loop, drawn, workers = params.rollout, sampling(params, temperature), params.runtime.workers
    shares = spread(
        lambda first: roll_out_any(policy, todo[first::workers], drawn, seed, loop.max_malformed, loop.in_flight),
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
    """Golden derivations by question id, of made-up questions and of annotated rows (GSM8K's training rows have them).

    Golden labels: for logging and evaluation, and for the annotations that a reward model is told to learn from.
    """
    return {derivation.question_id: derivation for derivation in load(Derivation, layout.derivations)}


def blocks(items: Sequence[Attempt], size: int) -> list[Sequence[Attempt]]:
    """Fixed blocks of work, in order."""
    return [items[i : i + size] for i in range(0, len(items), size)]
