"""params.yaml as strict types: one section a stage, plus what stages share. No default lives here, only meanings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from swirl.core.errors import ParamsError
from swirl.core.types import Strategy
from swirl.endpoints.requests import ALLOWED, is_key_env, is_url

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Hops = Annotated[Mapping[Count, Positive], Field(min_length=1)]
Calculations = Annotated[Mapping[Annotated[int, Field(ge=2, le=8)], Positive], Field(min_length=1)]
SPLITS = ("pretrain", "reward", "train", "development", "evaluation")
"""What questions are for."""
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""A name that may be part of a file's name."""


def _questions(value: object) -> object:
    if value is None or value == "all" or (type(value) is int and value >= 0):
        return value
    raise ValueError(f"expected a number of questions, 0 for none, or all; got {value!r}")


def _inside(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"expected a path inside download.folder, relative to it; got {path!r}")
    return path


Questions = Annotated[int | Literal["all"] | None, PlainValidator(_questions)]
Inside = Annotated[str, AfterValidator(_inside)]
Files = Annotated[
    Mapping[Literal["pretrain", "reward", "train", "development", "evaluation"], Inside], Field(min_length=1)
]
_KEYS_OF_SOURCE = {
    "embedded": set[str](),
    "file": {"files", "eval_ids", "drop_easy", "max_hops"},
    "hub": {"eval_ids", "drop_easy", "max_hops"},
    "own": {"files", "eval_ids", "corpus", "task", "max_hops"},
}
"""What a source can be told beside the counts."""
_NEEDED_BY_SOURCE = {"embedded": set[str](), "file": {"files"}, "hub": set[str](), "own": {"files", "task"}}


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
    """Folders of prompt files."""

    policy: str = Field(
        description="TASK.txt for every task, and closed_book.txt; {question}, {steps} and {tools} are filled in"
    )
    judge: str = Field(description="verdict.txt: the turn that asks a local judge for GOOD or BAD")


class Task(Section):
    """A kind of question: the name is that of its prompt file, and what a benchmark's `task` says."""

    tools: Annotated[list[str], Field(min_length=1)] = Field(
        description="search, calculator, module:Class of your own, or mcp:SERVER/TOOL"
    )
    max_steps: Count = Field(description="actions a trajectory may take (the paper: 5 for search, 10 for math)")


class Tools(Section):
    """The tools' settings, the same for synthesis, training and evaluation."""

    folder: str = Field(description="where the modules of your own tools are; a change of a file in it counts")
    options: Mapping[str, Mapping[str, Any]] = Field(description="settings of your own tools and MCP servers, by name")
    search_results: Count = Field(description="passages that one search shows")
    search_output_limit: Annotated[int, Field(ge=20)] = Field(description="how much one search shows at most")
    search_output_unit: Literal["characters", "tokens"] = Field(description="of what; tokens are the base model's")


class Rollout(Section):
    """The agent loop, the same for synthesis, training and evaluation."""

    max_action_tokens: Annotated[int, Field(ge=4)] = Field(description="longest action in tokens")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(description="least likelihood that sampling keeps; 1: all")
    top_k: Annotated[int, Field(ge=0)] = Field(description="most tokens that sampling keeps; 0: all")
    max_malformed: Annotated[int, Field(ge=0)] = Field(description="malformed actions in a row that end it; 0: never")
    block_size: Count = Field(description="trajectories that are committed together: a journal's unit")
    in_flight: Count = Field(description="trajectories of a block that are worked on at the same time")


class Benchmark(Section):
    """Where one benchmark comes from, and how many questions each of its splits gets.

    A key that is left out is None here: no questions, no such file. Paths are relative to `download.folder`.
    """

    source: Literal["embedded", "file", "hub", "own"] = Field(
        description="embedded: generated; file: official files; hub: downloaded; own: a user's own task"
    )
    pretrain: Questions = Field(default=None, description="questions for base_model; embedded: it makes its own")
    reward: Questions = Field(default=None, description="questions for reward_model; embedded: it makes its own")
    train: Questions = Field(default=None, description="questions to synthesise from; 0: out of distribution")
    development: Questions = Field(default=None, description="questions to watch training on; 0: none, and no guard")
    evaluation: Questions = Field(default=None, description="questions to evaluate on; all: what is left")
    files: Files | None = Field(default=None, description="split -> its file; splits without one draw from train's")
    eval_ids: Inside | None = Field(default=None, description="file of official ids: evaluate on these alone")
    drop_easy: bool | None = Field(default=None, description="hotpotqa: leave easy questions out of file train")
    max_hops: Count | None = Field(
        default=None, description="leave out questions of more hops than this, or of an unknown number"
    )
    corpus: Inside | None = Field(default=None, description="own: the passages, JSON lines or a folder of texts")
    task: Word | None = Field(
        default=None, description="own: one of `tasks`, which decides prompt, tools and step limit"
    )

    @model_serializer(mode="wrap")
    def _given(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is left out stays left out."""
        return {key: value for key, value in plain(self).items() if value is not None}

    @model_validator(mode="after")
    def _fits(self) -> Benchmark:
        allowed = {"source", *SPLITS, *_KEYS_OF_SOURCE[self.source]}
        if others := sorted(self.model_dump().keys() - allowed):
            raise ValueError(f"source: {self.source} has no use for {', '.join(others)}")
        if missing := sorted(_NEEDED_BY_SOURCE[self.source] - self.model_dump().keys()):
            raise ValueError(f"source: {self.source} needs {', '.join(missing)}")
        if self.source == "embedded" and (self.pretrain or self.reward):
            raise ValueError(
                "base_model and reward_model make their own embedded questions; leave out pretrain, reward"
            )
        if self.source == "embedded" and "all" in self.counts.values():
            raise ValueError("embedded questions are made, so there is no 'all' of them; give numbers")
        if self.eval_ids is not None and self.evaluation not in (None, "all"):
            raise ValueError("eval_ids lists the evaluation questions; leave out evaluation")
        if self.eval_ids is not None and self.max_hops is not None:
            raise ValueError("eval_ids lists the evaluation questions, whatever their hops; leave out max_hops")
        if self.files is not None:
            for split in self.counts:
                if split not in self.files and "train" not in self.files:
                    raise ValueError(f"files names no file for {split}, and no train to draw it from")
        return self

    @property
    def counts(self) -> dict[str, int | Literal["all"]]:
        """The splits that get questions, and how many."""
        asked = {split: getattr(self, split) for split in SPLITS}
        if self.eval_ids is not None:
            asked["evaluation"] = "all"
        return {split: count for split, count in asked.items() if count}

    @property
    def paths(self) -> dict[str, str]:
        """`files`, empty where there are none."""
        return {str(split): path for split, path in (self.files or {}).items()}


class Download(Section):
    """The benchmarks."""

    folder: str = Field(description="folder of official and own files, relative to params.yaml; a change re-runs")
    benchmarks: Annotated[Mapping[Word, Benchmark], Field(min_length=1)] = Field(description="benchmark -> its source")
    on_bad_row: Literal["stop", "skip"] = Field(description="a row that cannot be read; skip: left out and counted")
    worlds: Count = Field(description="fictional worlds behind each embedded benchmark's split")
    changed_facts: Share = Field(description="share of the remembered world's facts that mini-cofca changes")


class CheckQuestions(Section):
    """Limits of the questions gate."""

    min_evaluation: Count = Field(description="least evaluation questions of a benchmark that has some")
    max_skipped_share: Share = Field(description="bad rows that download left out, among all rows of a file")


class Index(Section):
    """The search index."""

    retriever: Literal["bm25", "dense", "hybrid"] = Field(description="words, vectors, or both by reciprocal rank")
    stopwords: list[str] = Field(description="words that bm25 leaves out; []: none")
    embedding_model: str = Field(description="sentence-transformers model for vectors: hub id or folder; '': none")
    embedding_revision: str = Field(description="commit of the hub repository; '' for a folder or the newest")

    @model_validator(mode="after")
    def _fits(self) -> Index:
        if self.retriever != "bm25" and not self.embedding_model:
            raise ValueError(f"retriever: {self.retriever} needs an embedding_model")
        return self


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


class Pretrained(Section):
    """A model that somebody else has trained: models/X holds a pointer to it, never a copy."""

    source: Literal["pretrained"] = Field(description="a model of the Hugging Face hub, or a folder")
    model: str = Field(description="hub id, as Qwen/Qwen3-0.6B, or a folder")
    revision: str = Field(description="commit of the hub repository; '' for a folder")
    trust_remote_code: bool = Field(description="run code that comes with the model: only if you have read it")


class Served(Section):
    """An OpenAI-compatible server: vLLM, SGLang, llama.cpp, a hosted model."""

    url: str = Field(description="base address, as http://127.0.0.1:8000/v1")
    model: str = Field(description="the name the server knows it by")
    api: Literal["completions", "chat"] = Field(description="completions is token-exact where the server gives ids")
    key_env: str = Field(description="environment variable that holds the key; '': none")
    concurrency: Count = Field(description="requests at the same time")
    requests_per_minute: Annotated[int, Field(ge=0)] = Field(description="at most; 0: no limit")
    tokens_per_minute: Annotated[int, Field(ge=0)] = Field(description="at most; 0: no limit")
    timeout_s: Positive = Field(description="seconds a request may take")
    retries: Annotated[int, Field(ge=0)] = Field(description="further tries after 429, 5xx and time-outs; 0: none")
    cost_per_million_input: Annotated[float, Field(ge=0)] = Field(description="price of a million prompt tokens")
    cost_per_million_output: Annotated[float, Field(ge=0)] = Field(description="price of a million reply tokens")

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Served:
        # The values are left out of the message: a key may have been put there.
        for name, fine in (("url", is_url(self.url)), ("key_env", is_key_env(self.key_env))):
            if not fine:
                raise ValueError(f"{name} {ALLOWED[name]}")
        return self


class EndpointBase(Section):
    """A policy behind a server: it can synthesise and be evaluated, not trained."""

    source: Literal["endpoint"] = Field(description="a server")
    tokenizer: str = Field(description="hub id or folder of the model's tokenizer, for prompts and token counts")
    revision: str = Field(description="commit of the tokenizer's hub repository; '' for a folder")
    context: Annotated[int, Field(ge=64)] = Field(description="longest conversation in tokens")
    server: Served


class EmbeddedBase(Section):
    """The base model, made from nothing in phases."""

    source: Literal["embedded"] = Field(description="made here, out of the generated world")
    shape: Shape
    hops: Hops = Field(description="hops of search demonstrations -> share")
    steps: Calculations = Field(description="steps of word problems -> share")
    other_weight: Share = Field(description="loss weight of tokens that are not the model's own; 0: none")
    mixed_precision: Literal["no", "bf16"] = Field(description="accelerate's mixed precision in training")
    sound_phases: Annotated[list[Phase], Field(min_length=1)] = Field(description="up to the sound model, the ceiling")
    flawed_phase: Phase = Field(description="from the sound model to the base")
    flaws: DesignedFlaws


class WindowedShape(Section):
    """Size of a Gemma-2-shaped model."""

    vocabulary: Annotated[int, Field(ge=300)] = Field(description="tokens of the BPE vocabulary")
    digits: Annotated[int, Field(ge=1, le=3)] = Field(description="digits of a number that may share a token")
    hidden: Count = Field(description="hidden size")
    layers: Count = Field(description="decoder layers")
    heads: Count = Field(description="attention heads")
    feed_forward: Count = Field(description="feed-forward size")
    context: Annotated[int, Field(ge=64)] = Field(description="longest conversation in tokens")
    window: Count = Field(description="tokens that every other layer sees")


class AnnotatedBase(Section):
    """The base model, made from written solutions with calculator annotations (GSM8K)."""

    source: Literal["annotations"] = Field(description="made here, from a benchmark's own annotated solutions")
    benchmark: Word = Field(description="whose pretraining split it learns from")
    shape: WindowedShape
    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="sequences a step")
    adam_lr: Positive = Field(description="peak learning rate of embeddings and norms")
    muon_lr: Positive = Field(description="peak learning rate of weight matrices")
    other_weight: Share = Field(description="loss weight of tokens that are not the model's own; 0: none")
    drill_steps: Annotated[int, Field(ge=0)] = Field(description="optimiser steps on copying drills alone, before")
    changed_numbers: Share = Field(description="share of rows that are shown with other numbers, worked out anew")
    foreign: list[Literal["reward", "train", "development"]] = Field(
        description="splits whose rows it reads with other numbers only: never with their own, nor their answers"
    )
    thoughts: bool = Field(description="whether demonstrations have the words before a call, or the call alone")
    thought_weight: Share = Field(description="loss weight of the words before a call; calls weigh 1")
    judged: Share = Field(description="share of sequences that end in a judge's question and its verdict")
    copying: Annotated[float, Field(ge=0, lt=1)] = Field(description="share of drills: repeat numbers")
    mixed_precision: Literal["no", "bf16"] = Field(description="accelerate's mixed precision in training")

    @model_validator(mode="after")
    def _fits(self) -> AnnotatedBase:
        if self.thoughts and (self.changed_numbers or self.foreign):
            raise ValueError(
                "numbers are changed in calls, not in words: with thoughts, changed_numbers is 0, foreign []"
            )
        return self


class AnnotatedReward(Section):
    """The reward model: the base taught to judge by the oracle of calculator annotations."""

    source: Literal["annotations"] = Field(description="taught here, by a benchmark's own annotated solutions")
    heldout: Count = Field(description="questions of the reward split to measure error rates on")
    samples: Count = Field(description="trajectories that the base makes of each question")
    temperature: Positive = Field(description="sampling temperature of the base")
    written: Share = Field(description="share of the written solutions that it also learns from, sound and spoilt")
    further_splits: list[Literal["train", "development"]] = Field(
        description="splits beside reward whose annotated questions it learns to judge; of train it then knows by heart"
    )
    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="trajectories a step; every step of each is judged")
    adam_lr: Positive = Field(description="peak learning rate of embeddings and norms")
    muon_lr: Positive = Field(description="peak learning rate of weight matrices")
    mixed_precision: Literal["no", "bf16"] = Field(description="accelerate's mixed precision in training")


class EmbeddedReward(Section):
    """The reward model: the sound model taught to judge, on its own split, by oracle labels."""

    source: Literal["embedded"] = Field(description="taught here, by the generated world's oracle")
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


class PretrainedReward(Pretrained):
    """A local judge that is asked for a verdict as it is."""

    verdict: Literal["token", "rationale"] = Field(
        description="token: P(GOOD) of the reply's first token, packed; rationale: written reasoning, then a verdict"
    )
    max_tokens: Count = Field(description="longest rationale in tokens")
    votes: Count = Field(description="rationales asked for each step; the score is the share of GOOD")
    temperature: Annotated[float, Field(ge=0)] = Field(description="of rationales; 0: greedy")

    @model_validator(mode="after")
    def _votes_differ(self) -> PretrainedReward:
        if self.verdict == "rationale":
            _need_chance(self.votes, self.temperature)
        return self


class EndpointReward(Section):
    """A judge behind a server: written reasoning, then a verdict."""

    source: Literal["endpoint"] = Field(description="a server")
    max_tokens: Count = Field(description="longest rationale in tokens")
    votes: Count = Field(description="rationales asked for each step; the score is the share of GOOD")
    temperature: Annotated[float, Field(ge=0)] = Field(description="of rationales; 0: greedy")
    server: Served

    @model_validator(mode="after")
    def _votes_differ(self) -> EndpointReward:
        _need_chance(self.votes, self.temperature)
        return self


def _need_chance(votes: int, temperature: float) -> None:
    if votes > 1 and temperature == 0:
        raise ValueError(f"{votes} votes at temperature 0 are all the same; set votes to 1, or temperature above 0")


BaseModelSection = Annotated[EmbeddedBase | AnnotatedBase | Pretrained | EndpointBase, Field(discriminator="source")]
RewardModelSection = Annotated[
    EmbeddedReward | AnnotatedReward | PretrainedReward | EndpointReward, Field(discriminator="source")
]


class Synthesize(Section):
    """Trajectory synthesis."""

    samples: Count = Field(description="trajectories a question (the paper: 5)")
    temperature: Annotated[float, Field(ge=0)] = Field(description="sampling temperature; 0: greedy")
    server: Served | None = Field(description="a server that has the base model; null: it runs here")


class CheckTrajectories(Section):
    """Limits of the trajectories gate."""

    max_malformed_rate: Share = Field(description="malformed actions among all")
    max_tool_error_rate: Share = Field(description="calls that tools answered with an error, among all calls")
    max_failed_rate: Share = Field(description="trajectories that the environment ended")
    min_benchmark_share: Share = Field(description="least share of each synthesised benchmark; 0: no limit")


class Judge(Section):
    """Step and outcome verdicts."""

    threshold: Share = Field(description="least P(GOOD) of a GOOD verdict that is read from one token")
    outcome: Literal["match", "model"] = Field(
        description="how answers are graded: match is normalised text or number; model asks the grader"
    )
    grader: Served | None = Field(description="a server that grades answers; null: the reward model, if it writes")
    retry_failed: bool = Field(description="ask once more where a written answer holds no verdict")


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
    max_unjudged: Share = Field(description="share of sampled actions without a verdict since the last look")


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

    methods: list[Literal["sft", "swirl"]] = Field(description="what is trained; []: evaluate the base alone")
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
    block_size: Count | None = Field(
        default=None, description="trajectories that are committed together; left out: each worker's whole share"
    )
    servers: Mapping[Literal["ceiling", "base", "sft", "swirl"], Served] = Field(
        description="servers that have a model, by its name; a model without one runs here"
    )


class Report(Section):
    """The report."""

    samples: Annotated[int, Field(ge=0)] = Field(description="questions shown a benchmark, base beside SWiRL; 0: none")


class Tracking(Section):
    """What goes to MLflow. No stage depends on it."""

    experiment: Annotated[str, Field(min_length=1)] = Field(description="the project's name in MLflow: all its runs")
    traces: Annotated[int, Field(ge=0)] = Field(
        description="trajectories shown step by step as traces, of `judge` and of every `evaluate` each; 0: none"
    )
    system_metrics: Annotated[float, Field(ge=0)] = Field(
        description="seconds between two looks at processor, memory and disk; 0: none"
    )
    checkpoints: bool = Field(description="log training's checkpoints with their optimiser state, as they are made")
    max_model_mb: Annotated[float, Field(ge=0)] = Field(
        description="largest model or checkpoint that is copied, in MB; of a larger model come checksums; 0: no limit"
    )


class Params(Section):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0)] = Field(description="every random draw derives from it")
    runtime: Runtime
    prompts: Prompts
    tasks: Annotated[Mapping[str, Task], Field(min_length=1)]
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
    tracking: Tracking

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
        if 0 < self.runtime.context <= self.rollout.max_action_tokens:
            raise ValueError("runtime.context must be above rollout.max_action_tokens, or 0")
        if self.train.lora and self.runtime.workers > 1:
            raise ValueError("runtime.workers must be 1 with train.lora: the adapter is switched off for the reference")
        return self


def task_of(name: str, benchmark: Benchmark) -> str:
    """The task of a benchmark's questions: its own, or what the known benchmarks are."""
    return benchmark.task or ("calculate" if name in ("gsm8k", "mini-gsm8k") else "search")


def load(path: Path) -> Params:
    """Read and check params.yaml. Raises `ParamsError` naming each key, its value and what is allowed."""
    return validate(read(path), str(path))


def read(path: Path) -> Any:
    """The plain values of params.yaml. Raises `ParamsError` when there is no such file or it is not YAML."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run this from the project's root, where dvc.yaml is") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not YAML: {error}") from error
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error}") from error


def parse(text: str, source: str) -> Any:
    """The plain values of YAML 1.2, which DVC reads and writes: 1e-5 is a number. Raises `ParamsError`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:  # ValueError: 2020-13-01 as a date
        raise ParamsError(f"{source} is not YAML: {str(error).partition(chr(10) * 2)[0]}") from error


def dump(tree: Mapping[str, Any]) -> str:
    """Plain values as text that `parse` reads back: a revision such as 12345e7 stands in quotes."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    text = StringIO()
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 120, False
    yaml.dump(dict(tree), text)
    return text.getvalue()


def validate(tree: Any, source: str) -> Params:
    """Params from plain values. Raises `ParamsError`; `source` says where they came from."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors(include_url=False)]
        raise ParamsError(f"{source}: {len(lines)} wrong\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(item: Mapping[str, Any]) -> str:
    """`filter.strategy = 'proces': Input should be 'none', 'process', 'outcome' or 'both'`."""
    shown, section = _place(item["loc"])
    where = ".".join(shown) or "params"
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: no such key; the keys here are {', '.join(section.model_fields)}"
    if kind == "missing":
        return f"{where}: missing"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    if kind == "union_tag_not_found":
        return f"{where}.source: missing"
    if kind == "union_tag_invalid":
        return f"{where}.source = {context['tag']!r}: Input should be one of {context['expected_tags']}"
    return f"{where} = {item['input']!r}: {item['msg']}"


def _place(location: tuple[Any, ...]) -> tuple[list[str], Any]:
    """(the keys as params.yaml has them, the section that holds the last of them).

    Where a section is chosen by its `source`, pydantic puts the source's name between the keys: that one is left out.
    """
    shown: list[str] = []
    section: Any = Params
    inside: Any = Params
    for part in location:
        if kinds := chosen_by_source(inside):
            inside = kinds.get(part, inside)
            continue
        shown.append(str(part))
        section = inside
        if isinstance(inside, type) and issubclass(inside, Section):
            field = inside.model_fields.get(part)
            inside = field.annotation if field else None
        else:
            inside = (get_args(inside) or (None,))[-1]
    return shown, section


def chosen_by_source(annotation: Any) -> dict[str, Any]:
    """The sections that a `source` chooses from, by its value; empty for any other annotation."""
    members = get_args(annotation)
    several = len(members) > 1 and all(isinstance(member, type) and issubclass(member, Section) for member in members)
    return {get_args(kind.model_fields["source"].annotation)[0]: kind for kind in members} if several else {}
