"""params.yaml as strict types: one section a stage, plus what stages share. No default lives here, only meanings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swirl.errors import ParamsError
from swirl.types import Strategy

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Hops = Annotated[Mapping[Count, Positive], Field(min_length=1)]
Calculations = Annotated[Mapping[Annotated[int, Field(ge=2, le=8)], Positive], Field(min_length=1)]
Task = Literal["search", "calculate"]


class Section(BaseModel):
    """A section: unknown keys, wrong types and values out of range are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class Runtime(Section):
    """Where models run. Shared by every stage that runs one."""

    device: str = Field(description="torch device: cpu, cuda, cuda:1")
    attention: Literal["eager", "sdpa"] = Field(description="transformers' attention; eager is faster for tiny models")
    dtype: Literal["float32", "bfloat16"] = Field(description="type of the weights; what trains has float32 masters")
    context: Annotated[int, Field(ge=0)] = Field(description="longest conversation in tokens; 0: what the model can")
    threads: Count = Field(description="CPU threads inside one torch operation; part of what bytes depend on")
    workers: Count = Field(description="pieces of work at the same time: cores divided by threads; 1 on a GPU")
    processes: Count = Field(description="processes that train together, on a GPU each or all on the CPU; 1: this one")


class Prompts(Section):
    """Prompt files, relative to params.yaml; `{question}` and `{steps}` are filled in."""

    search: str = Field(description="first user turn of a search question")
    calculate: str = Field(description="first user turn of a math question")
    closed_book: str = Field(description="first user turn when there are no tools")
    judge: str = Field(description="the turn that asks the reward model for GOOD or BAD")


class Tools(Section):
    """The tools' settings, the same for synthesis, training and evaluation."""

    search_results: Count = Field(description="passages that one search shows")
    search_output_limit: Annotated[int, Field(ge=100)] = Field(description="characters that one search shows at most")


class Rollout(Section):
    """The agent loop, the same for synthesis, training and evaluation."""

    max_steps: Mapping[Task, Count] = Field(description="actions a trajectory may take, by kind of task")
    max_action_tokens: Annotated[int, Field(ge=4)] = Field(description="longest action in tokens")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(description="least likelihood that sampling keeps; 1: all")
    top_k: Annotated[int, Field(ge=0)] = Field(description="most tokens that sampling keeps; 0: all")
    max_malformed: Annotated[int, Field(ge=0)] = Field(description="malformed actions in a row that end it; 0: never")
    block_size: Count = Field(description="trajectories that are committed together: a journal's unit")
    in_flight: Count = Field(description="trajectories of a block that are worked on at the same time")


class Split(Section):
    """How many questions of one benchmark."""

    train: Annotated[int, Field(ge=0)] = Field(description="questions to synthesise from; 0: out of distribution")
    development: Annotated[int, Field(ge=0)] = Field(
        description="questions to watch training on; 0: none, and no guard"
    )
    evaluation: Count = Field(description="questions to evaluate on")


class Download(Section):
    """The benchmarks."""

    source: Literal["embedded"] = Field(description="embedded: the generated fictional world")
    benchmarks: Annotated[Mapping[str, Split], Field(min_length=1)] = Field(description="questions a split")
    worlds: Count = Field(description="fictional worlds behind each benchmark's split")
    changed_facts: Share = Field(description="share of the remembered world's facts that mini-cofca changes")


class CheckQuestions(Section):
    """Limits of the questions gate."""

    min_evaluation: Count = Field(description="least evaluation questions a benchmark")


class Index(Section):
    """The search index (BM25)."""

    stopwords: list[str] = Field(description="words that the index and queries leave out; []: none")


class Shape(Section):
    """Size of an embedded model (a Qwen3 decoder with tied embeddings)."""

    hidden: Count = Field(description="hidden size")
    layers: Count = Field(description="decoder layers")
    heads: Count = Field(description="attention heads")
    feed_forward: Count = Field(description="feed-forward size")
    context: Annotated[int, Field(ge=64)] = Field(description="longest conversation in tokens")


class Phase(Section):
    """One phase of training from nothing, by Muon and AdamW with a cosine schedule."""

    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="sequences a step")
    adam_lr: Positive = Field(description="peak learning rate of embeddings and norms")
    muon_lr: Positive = Field(description="peak learning rate of weight matrices")
    search: Annotated[float, Field(ge=0)] = Field(description="share of search demonstrations in fresh worlds")
    calculate: Annotated[float, Field(ge=0)] = Field(description="share of word problems")
    recall: Annotated[float, Field(ge=0)] = Field(description="share answered from memory of the fixed world")
    remembered_search: Annotated[float, Field(ge=0)] = Field(description="share of searches in the fixed world")
    copying: Annotated[float, Field(ge=0)] = Field(description="share of drills: repeat random words and numbers")
    judged: Share = Field(description="share of demonstrations that end in a judge's question and its verdict")
    sound: Share = Field(description="share of sound demonstrations among the others; the rest is flawed")


class DesignedFlaws(Section):
    """How often a flawed demonstrator errs."""

    contextual: Share = Field(description="probability of the flaw that a trigger invites")
    anywhere: Share = Field(description="probability of an untriggered flaw in a step")


class BaseModelSection(Section):
    """The base model, made from nothing in phases."""

    shape: Shape
    hops: Hops = Field(description="hops of search demonstrations -> share")
    steps: Calculations = Field(description="steps of word problems -> share")
    other_weight: Share = Field(description="loss weight of tokens that are not the model's own; 0: none")
    mixed_precision: Literal["no", "bf16"] = Field(description="accelerate's mixed precision in training")
    sound_phases: Annotated[list[Phase], Field(min_length=1)] = Field(description="up to the sound model, the ceiling")
    flawed_phase: Phase = Field(description="from the sound model to the base")
    flaws: DesignedFlaws


class RewardModelSection(Section):
    """The reward model: the sound model taught to judge, on its own split, by oracle labels."""

    questions: Count = Field(description="questions a kind of task whose steps the base samples for training")
    heldout: Count = Field(description="further questions a kind of task, to measure error rates on")
    samples: Count = Field(description="trajectories a question")
    temperature: Positive = Field(description="sampling temperature of the base")
    demonstrations: Annotated[int, Field(ge=0)] = Field(description="written trajectories a kind of task; 0: none")
    corruption: DesignedFlaws = Field(description="flaws of the written ones")
    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="trajectories a step; every step of each is judged")
    adam_lr: Positive = Field(description="peak learning rate of embeddings and norms")
    muon_lr: Positive = Field(description="peak learning rate of weight matrices")


class Synthesize(Section):
    """Trajectory synthesis."""

    samples: Count = Field(description="trajectories a question (the paper: 5)")
    temperature: Positive = Field(description="sampling temperature")


class CheckTrajectories(Section):
    """Limits of the trajectories gate."""

    max_malformed_rate: Share = Field(description="malformed actions among all")
    max_tool_error_rate: Share = Field(description="calls that tools answered with an error, among all calls")
    max_failed_rate: Share = Field(description="trajectories that the environment ended")
    min_benchmark_share: Share = Field(description="least share of each synthesised benchmark; 0: no limit")


class Judge(Section):
    """Step and outcome verdicts."""

    threshold: Share = Field(description="least P(GOOD) of a GOOD verdict")
    outcome: Literal["match"] = Field(description="how answers are graded: match is normalised text or number")


class Filter(Section):
    """Which trajectories training sees."""

    strategy: Literal["none", "process", "outcome", "both"] = Field(description="the paper's four filters")
    max_trajectories: Annotated[int, Field(ge=0)] = Field(description="equal arms in a comparison; 0: keep all")

    @property
    def kind(self) -> Strategy:
        """The strategy as an enum member."""
        return Strategy(self.strategy)


class CheckSteps(Section):
    """Limits of the steps gate."""

    max_null_rate: Share = Field(description="verdicts that the judge did not give")
    min_good_share: Share = Field(description="least share of GOOD among all step verdicts")
    max_good_share: Share = Field(description="largest share of GOOD among all step verdicts")
    min_rows: Count = Field(description="fewest sub-trajectories worth training on")


class Guard(Section):
    """When step-wise RL stops and keeps its last good checkpoint, by what needs no golden label."""

    max_kl: Positive = Field(description="nats an action, mean of the updates since the last look")
    max_step_growth: Positive = Field(description="ratio of steps per trajectory to the start")
    max_malformed: Share = Field(description="share of malformed actions")
    max_reward_drop: Share = Field(description="fall of the mean reward below its best")


class Swirl(Section):
    """Step-wise RL."""

    updates: Count = Field(description="optimiser updates")
    states: Count = Field(description="states an update, whole trajectories at a time")
    samples: Annotated[int, Field(ge=2)] = Field(description="actions sampled a state (G)")
    temperature: Positive = Field(description="sampling temperature")
    lr: Positive = Field(description="peak learning rate of Adam")
    warmup: Annotated[int, Field(ge=0)] = Field(description="updates of linear warm-up; 0: none")
    estimator: Literal["reinforce", "rloo", "grpo"] = Field(description="advantage estimator")
    kl_coefficient: Annotated[float, Field(ge=0)] = Field(description="weight of KL(policy || reference); 0: none")
    clip: Positive = Field(description="largest gradient norm")
    check_every: Count = Field(description="updates between looks at the development questions, and checkpoints")
    guard: Guard


class Sft(Section):
    """The supervised baseline on the same steps."""

    epochs: Count = Field(description="passes over the steps")
    batch_size: Count = Field(description="trajectories an update")
    lr: Positive = Field(description="peak learning rate of AdamW")
    clip: Positive = Field(description="largest gradient norm")


class Lora(Section):
    """A low-rank adapter in float32 that trains in place of the weights; without it, the model is the reference."""

    rank: Count = Field(description="rank of each layer's update")
    alpha: Count = Field(description="updates are scaled by alpha / rank")
    targets: Annotated[list[str], Field(min_length=1)] = Field(description="names of linear layers; [all-linear]: all")


class Train(Section):
    """The two ways of training on the filtered steps."""

    packed: bool = Field(description="one comb a trajectory (true) or one sequence an action (false); same numbers")
    token_budget: Count = Field(description="tokens that one forward reads at most, if one trajectory has not more")
    gradient_checkpointing: bool = Field(description="compute activations twice to hold fewer in memory; same numbers")
    lora: Lora | None = Field(description="train an adapter and save that alone; null: all weights")
    swirl: Swirl
    sft: Sft


class Evaluate(Section):
    """Benchmark evaluation."""

    temperature: Annotated[float, Field(ge=0)] = Field(description="sampling temperature; 0: greedy")
    without_tools: bool = Field(description="also evaluate search benchmarks without tools")


class Report(Section):
    """The report."""

    samples: Annotated[int, Field(ge=0)] = Field(description="questions shown a benchmark, base beside SWiRL; 0: none")


class Params(Section):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0)] = Field(description="every random draw derives from it")
    runtime: Runtime
    prompts: Prompts
    tools: Tools
    rollout: Rollout
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

    @model_validator(mode="after")
    def _fits(self) -> Params:
        for task in ("search", "calculate"):
            if task not in self.rollout.max_steps:
                raise ValueError(f"rollout.max_steps has no entry for {task!r}")
        if self.rollout.max_action_tokens >= self.base_model.shape.context:
            raise ValueError("rollout.max_action_tokens must be below base_model.shape.context")
        if 0 < self.runtime.context <= self.rollout.max_action_tokens:
            raise ValueError("runtime.context must be above rollout.max_action_tokens, or 0")
        if self.train.lora and self.runtime.workers > 1:
            raise ValueError("runtime.workers must be 1 with train.lora: the adapter is switched off for the reference")
        return self


def load(path: Path) -> Params:
    """Read and check params.yaml. Raises `ParamsError` naming each key, its value and what is allowed."""
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run this from the project's root, where dvc.yaml is") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not YAML: {error}") from error
    return validate(tree, str(path))


def validate(tree: Any, source: str) -> Params:
    """Params from plain values. Raises `ParamsError`; `source` says where they came from."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors(include_url=False)]
        raise ParamsError(f"{source}: {len(lines)} wrong\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(item: Mapping[str, Any]) -> str:
    """`filter.strategy = 'proces': Input should be 'none', 'process', 'outcome' or 'both'`."""
    where = ".".join(str(part) for part in item["loc"]) or "params"
    if item["type"] == "extra_forbidden":
        return f"{where}: no such key; the keys here are {', '.join(_keys_beside(item['loc']))}"
    if item["type"] == "missing":
        return f"{where}: missing"
    if item["type"] == "value_error":
        return f"{where}: {item['ctx']['error']}"
    return f"{where} = {item['input']!r}: {item['msg']}"


def _keys_beside(location: tuple[Any, ...]) -> list[str]:
    section: Any = Params
    for part in location[:-1]:
        inside = get_args(section)
        section = inside[-1] if inside else section.model_fields[part].annotation
    return list(section.model_fields)
