"""The sections that stages share: where models run, prompts, tasks, tools, the agent loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from swirl.config.section import Count, ProjectFolder, Section
from swirl.tools import by_name


class Runtime(Section):
    """Where models run. Shared by every stage that runs one."""

    device: str = Field(
        pattern="^(cpu|mps|(cuda|xpu|hpu|mtia)(:[0-9]+)?)$", description="torch device: cpu, cuda, cuda:1, mps"
    )
    attention: Literal["eager", "sdpa"] = Field(description="transformers' attention; eager is faster for tiny models")
    dtype: Literal["float32", "bfloat16"] = Field(description="type of the weights; what trains has float32 masters")
    context: Annotated[int, Field(ge=0)] = Field(description="longest conversation in tokens; 0: what the model can")
    threads: Count = Field(description="CPU threads inside one torch operation; part of what bytes depend on")
    workers: Count = Field(description="pieces of work at the same time: cores divided by threads; 1 on a GPU")
    processes: Count = Field(description="processes that train together, on a GPU each or all on the CPU; 1: this one")
    sharding: Literal["none", "full"] = Field(
        description="none: each of them holds the whole model; full: weights, masters and optimiser are dealt out"
    )

    def of_every_stage(self) -> dict[str, Any]:
        """These settings but for those that training alone reads, so that its processes change nothing before it."""
        return self.model_dump(exclude={"processes", "sharding"})

    @model_validator(mode="after")
    def _can_be_sharded(self) -> Runtime:
        if self.sharding == "full" and self.processes == 1:
            raise ValueError("sharding: full deals weights out over processes, so set processes above 1")
        if self.sharding == "full" and self.workers > 1:
            raise ValueError("sharding: full gathers weights for one forward pass at a time, so set workers to 1")
        return self


class Prompts(Section):
    """Folders of prompt files."""

    policy: ProjectFolder = Field(
        description="TASK.txt for every task, and closed_book.txt; {question}, {calls}, {steps}, {tools} are filled in"
    )
    judge: ProjectFolder = Field(description="verdict.txt: the turn that asks a local judge for GOOD or BAD")


def _named(tool: str) -> str:
    if why := by_name.fault(tool):
        raise ValueError(why)
    return tool


class Task(Section):
    """A kind of question. Its name is also that of its prompt file, and the value of a benchmark's `task`."""

    tools: Annotated[list[Annotated[str, AfterValidator(_named)]], Field(min_length=1)] = Field(
        description="search, calculator, module:Class of your own, or mcp:SERVER/TOOL"
    )
    max_steps: Count = Field(
        description="actions a trajectory may take, the answer included (the paper: 5 for search, 10 for math)"
    )


class Tools(Section):
    """The tools' settings, the same for synthesis, training and evaluation."""

    folder: ProjectFolder = Field(
        description="where the modules of your own tools are; a change of a file in it counts"
    )
    options: Mapping[str, Mapping[str, Any]] = Field(description="settings of your own tools and MCP servers, by name")
    search_results: Count = Field(description="passages that one search shows")
    search_output_limit: Annotated[int, Field(ge=20)] = Field(description="how much one search shows at most")
    search_output_unit: Literal["characters", "tokens"] = Field(description="of what; tokens are the base model's")


class Actions(Section):
    """How actions are written, and what one may be besides calls or an answer."""

    format: Literal["tags", "native"] = Field(
        description="tags: <search_query> and the like, which the prompt teaches; native: the model's own tool calls"
    )
    thinking: Literal["none", "keep", "strip"] = Field(
        description="none: the chat template is asked for turns without thoughts; keep: with, and they stay in states; "
        "strip: with, and states are as the template writes them"
    )
    thought_only: Literal["allow", "refuse"] = Field(
        description="a thought alone: a step of kind think, which counts towards max_steps, or malformed (native: the "
        "answer; with allow, an answer needs <answer> tags)"
    )


class Rollout(Section):
    """The agent loop of synthesis, of evaluation and of the looks while training.

    Actions of step-wise RL are as long, but drawn from the whole softmax at `train.swirl.temperature`.
    """

    max_action_tokens: Annotated[int, Field(ge=4)] = Field(description="longest action in tokens")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(description="least likelihood that sampling keeps; 1: all")
    top_k: Annotated[int, Field(ge=0)] = Field(description="most tokens that sampling keeps; 0: all")
    max_malformed: Annotated[int, Field(ge=0)] = Field(
        description="malformed or cut actions in a row that end it; 0: never"
    )
    block_size: Count = Field(description="trajectories that are committed together: a journal's unit")
    in_flight: Count = Field(description="trajectories of a block that are worked on at the same time")
    tool_passes: Count = Field(
        description="forward passes that others make before a tool's result is read; more for slow tools"
    )


class ToolCalls(Section):
    """How tools are called. No stage depends on it."""

    in_flight: Count = Field(description="calls at the same time, in each block that is worked on")
