"""params.yaml as strict types: a section per stage, plus shared sections. No default value is set here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from swirl.config.base_model import AnnotatedBase, BaseModelSection, EmbeddedBase, EndpointBase
from swirl.config.data import Benchmark, CheckQuestions, Download, Index
from swirl.config.evaluation import Evaluate, Report, Tracking
from swirl.config.execution import Execution
from swirl.config.messages import explain
from swirl.config.reward_model import EndpointReward, RewardModelSection, is_reward_model
from swirl.config.section import Section
from swirl.config.served import Clients
from swirl.config.shared import Actions, Prompts, Rollout, Runtime, Task, ToolCalls, Tools
from swirl.config.train import Train
from swirl.config.trajectories import CheckSteps, CheckTrajectories, Filter, Judge, Synthesize
from swirl.config.yaml_text import read
from swirl.core.errors import ParamsError


class Params(Section):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0)] = Field(description="every random draw derives from it")
    base_seed: Annotated[int, Field(ge=0)] | None = Field(
        description="seed of the splits and of base_model, which runs of several seeds may share; null: seed"
    )
    runtime: Runtime
    prompts: Prompts
    tasks: Annotated[Mapping[str, Task], Field(min_length=1)]
    tools: Tools
    rollout: Rollout
    actions: Actions
    download: Download
    check_questions: CheckQuestions
    index: Index
    base_model: BaseModelSection
    reward_model: RewardModelSection
    synthesize: Synthesize
    check_trajectories: CheckTrajectories
    judge: Judge
    filter: Filter
    check_steps: CheckSteps
    train: Train
    evaluate: Evaluate
    report: Report
    execution: Execution
    clients: Clients
    tool_calls: ToolCalls
    tracking: Tracking

    @property
    def shared_seed(self) -> int:
        """The seed of the splits and of the base."""
        return self.seed if self.base_seed is None else self.base_seed

    @model_validator(mode="after")
    def _fits(self) -> Params:
        for name, benchmark in self.download.benchmarks.items():
            task = task_of(name, benchmark)
            if task not in self.tasks:
                known = ", ".join(self.tasks)
                raise ValueError(f"download.benchmarks.{name} is of task {task!r}; tasks has {known}")
            if benchmark.source == "own" and "search" in self.tasks[task].tools and benchmark.corpus is None:
                raise ValueError(f"download.benchmarks.{name}: its task searches, so it needs a corpus")
        if "closed_book" in self.tasks:
            raise ValueError("tasks.closed_book: the name is taken by the prompt for questions without tools")
        base = self.base_model
        if isinstance(base, EmbeddedBase | AnnotatedBase) and self.rollout.max_action_tokens >= base.shape.context:
            raise ValueError("rollout.max_action_tokens must be below base_model.shape.context")
        if self.actions.format == "native" or self.actions.thinking != "none":
            made = [("base_model", base), ("reward_model", self.reward_model)]
            for name, section in made:
                if section.source not in ("pretrained", "endpoint"):
                    raise ValueError(
                        f"{name}.source is {section.source}, which is taught our tags without thoughts: it needs "
                        "actions.format: tags and actions.thinking: none; or set it to pretrained or endpoint"
                    )
        if isinstance(base, EndpointBase) and self.train.methods:
            raise ValueError(
                f"train.methods is {', '.join(self.train.methods)}, but base_model.source is endpoint: training needs "
                "local weights. Set base_model.source to pretrained (and synthesize.server to the server that has it), "
                "or train.methods to []"
            )
        if self.judge.outcome == "model" and self.judge.grader is None:
            writes = isinstance(self.reward_model, EndpointReward)
            if not writes and getattr(self.reward_model, "verdict", "token") != "rationale":
                raise ValueError(
                    "judge.outcome is model, but the reward model reads verdicts from one token; name a judge.grader, "
                    "or set judge.outcome to match"
                )
        taught = self.reward_model.source
        if taught in ("embedded", "annotations") and taught != base.source:
            raise ValueError(
                f"reward_model.source is {taught}, but base_model.source is {base.source}: a judge that is taught here "
                "is taught from such a base; set reward_model.source to pretrained or endpoint"
            )
        if is_reward_model(self.evaluate.judge, self.reward_model):
            raise ValueError("evaluate.judge describes the reward model itself; say so: evaluate.judge: same")
        if self.execution.engine == "ray" and ":" in self.runtime.device:
            raise ValueError(
                f"runtime.device is {self.runtime.device}, but execution.engine is ray: Ray gives each worker its own "
                "GPU; set runtime.device to cuda, or cpu"
            )
        if 0 < self.runtime.context <= self.rollout.max_action_tokens:
            raise ValueError("runtime.context must be above rollout.max_action_tokens, or 0")
        return self


def task_of(name: str, benchmark: Benchmark) -> str:
    """The task of a benchmark's questions: its `task`, else calculate for (mini-)gsm8k and search for others."""
    return benchmark.task or ("calculate" if name in ("gsm8k", "mini-gsm8k") else "search")


def label_judge_section(params: Params) -> RewardModelSection | None:
    """The section of the judge whose verdicts `evaluate` reports as process labels; None for no judge."""
    judge = params.evaluate.judge
    return params.reward_model if judge == "same" else None if judge == "none" else judge


def load(path: Path) -> Params:
    """Read and check params.yaml. Raises `ParamsError` naming each key, its value and what is allowed."""
    return validate(read(path), str(path))


def validate(tree: Any, source: str) -> Params:
    """Params from plain values. Raises `ParamsError`, whose message begins with `source`, where they came from."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [explain(item, Params) for item in error.errors(include_url=False)]
        raise ParamsError(f"{source}: {len(lines)} wrong\n" + "\n".join(f"  {line}" for line in lines)) from None
