"""params.yaml as strict types: a section per stage, plus shared sections. No default value is set here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from swirl.config.base_model import AnnotatedBase, BaseModelSection, EmbeddedBase, EndpointBase
from swirl.config.data import NAMES, Benchmark, CheckQuestions, Download, Index
from swirl.config.evaluation import Evaluate, Report, Tracking
from swirl.config.execution import Execution
from swirl.config.messages import explain
from swirl.config.reward_model import EndpointReward, NoReward, OwnJudge, RewardModelSection, is_reward_model
from swirl.config.section import Section
from swirl.config.served import Clients
from swirl.config.shared import Actions, Prompts, Rollout, Runtime, Task, ToolCalls, Tools
from swirl.config.train import Train
from swirl.config.trajectories import CheckSteps, CheckTrajectories, Filter, Imported, Judge, SynthesizeSection
from swirl.config.yaml_text import read
from swirl.core.errors import ParamsError
from swirl.core.splits import counts
from swirl.core.suggestions import meant
from swirl.core.types import LOGGED
from swirl.tools.by_name import BUILT_IN

_PART = 10
"""So many missing keys are taken for a file that holds a part of the settings."""


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
    synthesize: SynthesizeSection
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
        self._check_benchmarks()
        self._check_tasks()
        self._check_options()
        self._check_logs()
        self._check_rewards()
        self._check_base()
        self._check_judges()
        self._check_execution()
        if 0 < self.runtime.context <= self.rollout.max_action_tokens:
            raise ValueError("runtime.context must be above rollout.max_action_tokens, or 0")
        return self

    def _check_benchmarks(self) -> None:
        """Benchmarks of a source have its names, and tasks that there are."""
        for name, benchmark in self.download.benchmarks.items():
            what, names = NAMES.get(benchmark.source, ("", (name,)))
            if name not in names:
                raise ValueError(
                    f"download.benchmarks.{name}: not {what}; they are {', '.join(names)}{meant(name, names)} (source: "
                    "own takes questions of your own under any name)"
                )
            task = task_of(name, benchmark)
            if benchmark.source == "logs":
                continue
            if task not in self.tasks:
                known = ", ".join(self.tasks)
                raise ValueError(f"download.benchmarks.{name} is of task {task!r}; tasks has {known}")
            if benchmark.source == "own" and "search" in self.tasks[task].tools and benchmark.corpus is None:
                raise ValueError(f"download.benchmarks.{name}: its task searches, so it needs a corpus")

    def _check_tasks(self) -> None:
        """No task has a name that something else has."""
        taken = {
            "closed_book": "the prompt for questions without tools",
            "system": "the prompt of the system turn",
            LOGGED: "logged conversations",
        }
        for name in self.tasks:
            if name in taken:
                raise ValueError(f"tasks.{name}: the name is taken by {taken[name]}; call the task otherwise")

    def _check_base(self) -> None:
        """What is made here can be made, and what is trained has weights here."""
        base = self.base_model
        if isinstance(base, EmbeddedBase | AnnotatedBase) and self.rollout.max_action_tokens >= base.shape.context:
            raise ValueError("rollout.max_action_tokens must be below base_model.shape.context")
        if self.actions.format == "native" or self.actions.thinking != "none":
            for name, section in (("base_model", base), ("reward_model", self.reward_model)):
                if section.source not in ("pretrained", "endpoint", "none"):
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

    def _check_judges(self) -> None:
        """A judge that grades answers can write, one that is taught here has its base, and a second one is another."""
        if self.judge.outcome == "model" and self.judge.grader is None and not isinstance(self.reward_model, NoReward):
            writes = isinstance(self.reward_model, EndpointReward)
            if not writes and getattr(self.reward_model, "verdict", "token") != "rationale":
                raise ValueError(
                    "judge.outcome is model, but the reward model reads verdicts from one token; name a judge.grader, "
                    "or set judge.outcome to match"
                )
        taught, base = self.reward_model.source, self.base_model.source
        if taught in ("embedded", "annotations") and taught != base:
            raise ValueError(
                f"reward_model.source is {taught}, but base_model.source is {base}: a judge that is taught here "
                "is taught from such a base; set reward_model.source to pretrained, fine_tuned or endpoint"
            )
        if is_reward_model(self.evaluate.judge, self.reward_model):
            raise ValueError("evaluate.judge describes the reward model itself; say so: evaluate.judge: same")

    def _check_options(self) -> None:
        """Options are of no built-in tool. Those of a tool that no task names now may stay; `swirl plan` says so."""
        for name in BUILT_IN.keys() & self.tools.options.keys():
            raise ValueError(f"tools.options.{name}: {' and '.join(BUILT_IN)} take no options; leave it out")

    def _check_execution(self) -> None:
        """Workers of Ray have the GPU that their model is to run on."""
        device = self.runtime.device
        if self.execution.engine != "ray":
            return
        if ":" in device:
            raise ValueError(
                f"runtime.device is {device}, but execution.engine is ray: Ray gives each worker its own "
                "GPU; set runtime.device to cuda, or cpu"
            )
        if device == "cuda" and not self.execution.gpus_per_worker and (model := _model_of_workers(self)):
            raise ValueError(
                f"runtime.device is cuda, and {model} is loaded by workers of Ray, but execution.gpus_per_worker is 0, "
                "which gives them no GPU; set it to 1.0 (or 0.5, where two workers fit on one GPU), or runtime.device "
                "to cpu"
            )

    def _check_logs(self) -> None:
        """Logs and rollouts are not mixed in training, and what logs cannot give is not asked of them."""
        given = {name: counts(one) for name, one in self.download.benchmarks.items()}
        logs = [name for name, one in self.download.benchmarks.items() if one.source == "logs"]
        others = [name for name in given if name not in logs and "train" in given[name]]
        trained = [name for name in logs if "train" in given[name]]
        if isinstance(self.synthesize, Imported) and not trained:
            raise ValueError(
                "synthesize.source is import, but no benchmark has source logs and train conversations; write "
                "download.benchmarks.NAME: {source: logs, logs: [FILE, ...], train: all, development: 50, "
                "evaluation: 100}"
            )
        if isinstance(self.synthesize, Imported) and others:
            raise ValueError(
                f"synthesize.source is import, but download.benchmarks.{others[0]}.train asks for questions that would "
                "be rolled out; set its train to 0, or leave it out"
            )
        if not isinstance(self.synthesize, Imported) and logs:
            raise ValueError(
                f"download.benchmarks.{logs[0]} is logs, whose tools do not run here, so its conversations cannot "
                "be rolled out; set synthesize to {source: import}"
            )
        if any("evaluation" in given[name] for name in logs) and self.evaluate.servers:
            raise ValueError(
                "evaluate.servers: actions in the states of logged conversations are drawn by models that run here; "
                "set servers to {}, or the evaluation of the logs to 0"
            )
        if logs and isinstance(self.base_model, EndpointBase):
            raise ValueError(
                "base_model.source is endpoint, but actions in the states of logged conversations are drawn by models "
                "that run here; set it to pretrained"
            )

    def _check_rewards(self) -> None:
        """Without a reward model, rewards of one's own are all there is; a second judge is none of them."""
        parts = [part.name for part in self.judge.rewards]
        if isinstance(self.reward_model, NoReward):
            if not parts or "judge" in parts:
                raise ValueError(
                    "reward_model.source is none, so judge.rewards must name rewards of your own, and not judge, as "
                    "[{name: 'module:Class', weight: 1.0, options: {}}]"
                )
            if self.judge.outcome == "model" and self.judge.grader is None:
                raise ValueError(
                    "judge.outcome is model, but reward_model.source is none; name a judge.grader, or set "
                    "judge.outcome to match"
                )
        second = self.evaluate.judge
        if isinstance(second, OwnJudge) and second.name in parts:
            raise ValueError(
                f"evaluate.judge names {second.name}, which judge.rewards rewards; say so: evaluate.judge: same, or "
                "name another class"
            )


def task_of(name: str, benchmark: Benchmark) -> str:
    """The task of a benchmark's questions: its `task`, else calculate for (mini-)gsm8k and search for others.

    Logs are of `LOGGED`, which is none of `tasks`.
    """
    if benchmark.source == "logs":
        return LOGGED
    return benchmark.task or ("calculate" if name in ("gsm8k", "mini-gsm8k") else "search")


def label_judge_section(params: Params) -> RewardModelSection | None:
    """The section of the judge whose verdicts `evaluate` reports as process labels; None for none, or classes alone."""
    judge = params.evaluate.judge
    if judge == "same":
        return params.reward_model if reward_asks_judge(params) else None
    return None if isinstance(judge, OwnJudge | str) else judge


def reward_asks_judge(params: Params) -> bool:
    """Whether the reward model is the reward of a step or a part of it; `judge.rewards` may leave it out."""
    parts = params.judge.rewards
    return not parts or any(part.name == "judge" for part in parts)


def evaluated(params: Params) -> list[Literal["ceiling", "base", "sft", "swirl"]]:
    """The models that `evaluate` measures; there is a ceiling only where the base and its flaws are made here."""
    found: list[Literal["ceiling", "base", "sft", "swirl"]] = ["base", *params.train.methods]
    return ["ceiling", *found] if isinstance(params.base_model, EmbeddedBase) else found


def judged_here(params: Params, stage: str) -> bool:
    """Whether a model of this project's own processes judges in `judge` or `evaluate`, or grades answers there."""
    reward, judge = _runs_here(params.reward_model), params.evaluate.judge
    mixed = reward and reward_asks_judge(params)
    of_steps = mixed if stage == "judge" or judge == "same" else not isinstance(judge, str) and _runs_here(judge)
    return of_steps or grades_here(params)


def grades_here(params: Params) -> bool:
    """Whether the reward model, in this project's own processes, grades answers."""
    return _runs_here(params.reward_model) and params.judge.outcome == "model" and params.judge.grader is None


def _runs_here(judge: RewardModelSection | OwnJudge) -> bool:
    return not isinstance(judge, EndpointReward | NoReward | OwnJudge)


def _model_of_workers(params: Params) -> str | None:
    """A model that the workers of Ray load, in words; None where servers have all."""
    asked = [one for one in params.download.benchmarks.values() if one.source != "logs" and "evaluation" in counts(one)]
    local = not isinstance(params.base_model, EndpointBase)
    if local and not isinstance(params.synthesize, Imported) and params.synthesize.server is None:
        return "the base, for synthesize,"
    if local and asked and not {*evaluated(params)} <= params.evaluate.servers.keys():
        return "a model to evaluate"
    if judged_here(params, "judge") or (asked and judged_here(params, "evaluate")):
        return "the judge"
    return None


def load(path: Path) -> Params:
    """Read and check params.yaml. Raises `ParamsError` naming each key, its value and what is allowed."""
    return validate(read(path), str(path))


def validate(tree: Any, source: str) -> Params:
    """Params from plain values. Raises `ParamsError`, whose message begins with `source`, where they came from."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        lines = [explain(item, Params) for item in errors]
        if sum(item["type"] == "missing" for item in errors) >= _PART:
            lines.append("a preset holds only what differs: `swirl preset FILE` makes a whole params.yaml of it")
        raise ParamsError(f"{source}: {len(errors)} wrong\n" + "\n".join(f"  {line}" for line in lines)) from None
