"""Every record that crosses a stage boundary, with its Parquet schema beside it.

Reading order: a `Question` is asked over a corpus of `Passage`s; a model answers it with a `Trajectory` of
`Step`s, each an `Action` and the tool's observation; a judge gives `Verdict`s; a filter keeps
`SubTrajectory` rows (one state and its stored action); evaluation writes `Prediction`s and `Score`s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

OUTCOME = -1
"""`Verdict.step` of a verdict on the final answer rather than on one step."""


class ActionKind(StrEnum):
    """What an action does. A registered tool's own name is a kind too, see `Action.kind`."""

    SEARCH = "search"
    CALCULATE = "calculate"
    ANSWER = "answer"
    MALFORMED = "malformed"
    """Neither one tool call nor one answer: nothing, several, both, or an unclosed tag."""


class Stop(StrEnum):
    """Why a trajectory ended."""

    ANSWERED = "answered"
    """The last action is an answer."""
    STEP_LIMIT = "step_limit"
    """The step budget was spent without an answer."""
    MALFORMED = "malformed"
    """Too many malformed actions in a row."""
    CONTEXT_FULL = "context_full"
    """The next action would not fit into the model's context."""
    TOOL_FAILED = "tool_failed"
    """The environment itself failed (not: the model's call was bad, which is an observation)."""


class Strategy(StrEnum):
    """Which trajectories a filter keeps (paper, section 3.1)."""

    NONE = "none"
    PROCESS = "process"
    OUTCOME = "outcome"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `split` is one of pretrain, reward, train, development, evaluation."""

    id: str
    benchmark: str
    split: str
    text: str
    answers: tuple[str, ...]
    """All accepted spellings, the preferred one first; never empty."""
    hops: int
    """Number of tool calls in the golden derivation; 0 when unknown."""
    tools: tuple[str, ...]
    """Names of the tools the question may use."""
    task: str = "search"
    """Which of the tasks of params.yaml: decides prompt and step limit."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """The golden way to an answer: what an oracle compares steps with. Embedded benchmarks have one.

    Golden labels: read for logging and evaluation; what `base_model` and `reward_model` learn from is drawn apart.
    """

    question_id: str
    kind: str
    """How calls are compared: `search`, `calculate`, or `annotated` (GSM8K's calculator annotations)."""
    calls: tuple[str, ...]
    """The tool calls in order."""
    results: tuple[str, ...]
    """What each call yields; the last one is the answer."""


@dataclass(frozen=True, slots=True)
class WrittenSolution:
    """The golden way to an answer in an official file's own words (GSM8K). A golden label: see `Derivation`."""

    question_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of the search corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Support:
    """The passages that a question's answer rests on, for the search tool's recall.

    Golden labels: read to measure the search tool, by nothing else.
    """

    question_id: str
    passage_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Action:
    """What the model did in one step. `text` is all it wrote; `payload` the query, expression or answer."""

    kind: str
    """An `ActionKind` value, or the name of a registered tool."""
    text: str
    payload: str


@dataclass(frozen=True, slots=True)
class Step:
    """One action and what came back. `observation` is the text of the next user turn, empty at the end."""

    index: int
    action: Action
    observation: str
    token_ids: tuple[int, ...]
    """The action's tokens exactly as sampled, its end-of-turn token included; see `Trajectory.retokenised`."""
    logprobs: tuple[float, ...]
    """Natural-log probability of each token under the sampling policy at temperature 1; empty when not known."""
    observation_ids: tuple[int, ...]
    """Tokens between this action and the next one: the observation turn and the next turn's opening."""
    tool_error: bool
    """The tool answered this call with an error (the observation says which)."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One attempt at one question. Its k-th state is prompt_ids + steps[:k] (actions and observations)."""

    id: str
    question_id: str
    benchmark: str
    sample: int
    model: str
    seed: int
    prompt_ids: tuple[int, ...]
    steps: tuple[Step, ...]
    stop: Stop
    error: str
    """Empty, or what failed in the environment."""
    retokenised: bool = False
    """Some action's token ids or log-probabilities are not the server's own, which did not give them: its ids are then
    its text encoded again, and its log-probabilities empty."""

    def state_ids(self, k: int) -> tuple[int, ...]:
        """Token ids of state s_{k+1}: everything before step k's action."""
        ids = list(self.prompt_ids)
        for step in self.steps[:k]:
            ids.extend(step.token_ids)
            ids.extend(step.observation_ids)
        return tuple(ids)

    @property
    def answer(self) -> str:
        """The final answer, empty when the trajectory did not end with one."""
        if self.stop is Stop.ANSWERED and self.steps:
            return self.steps[-1].action.payload
        return ""


GOOD, BAD = "GOOD", "BAD"
"""The words that a judge says of a step."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's word on one step, or on the outcome (`step` is `OUTCOME`)."""

    trajectory_id: str
    step: int
    good: bool | None
    """None when the judge did not answer: passes no filter that needs it."""
    score: float | None
    """In [0, 1]; None with `good` None."""
    rationale: str
    judge: str


@dataclass(frozen=True, slots=True)
class SubTrajectory:
    """One state and the action stored for it: the unit that step-wise RL and SFT train on."""

    trajectory_id: str
    question_id: str
    benchmark: str
    step: int
    state_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    score: float | None
    """The judge's stored score of this action; None when it did not answer."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One evaluated question."""

    question_id: str
    benchmark: str
    model: str
    with_tools: bool
    answer: str
    correct: bool
    em: float
    f1: float
    precision: float
    recall: float
    process_label_judge: float | None
    """Mean over the steps of the reward model's GOOD labels; None when no step was judged."""
    process_label_oracle: float | None
    steps: int
    malformed: int
    stop: Stop
    trajectory_id: str


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of the paper's tables: one model on one benchmark."""

    benchmark: str
    model: str
    with_tools: bool
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    """95% Wilson interval of the accuracy."""
    p_vs_base: float | None
    """Exact McNemar test against `base` on the same questions; None for base itself."""
    em: float
    f1: float
    precision: float
    recall: float
    process_label_judge: float | None
    process_label_oracle: float | None
    steps: float
    malformed: float
    """Mean malformed actions a trajectory."""


_ids = pa.list_(pa.int32())
_strings = pa.list_(pa.string())
_step = pa.struct(
    [
        ("index", pa.int32()),
        ("action", pa.struct([("kind", pa.string()), ("text", pa.string()), ("payload", pa.string())])),
        ("observation", pa.string()),
        ("token_ids", _ids),
        ("logprobs", pa.list_(pa.float32())),
        ("observation_ids", _ids),
        ("tool_error", pa.bool_()),
    ]
)

SCHEMAS: dict[type, pa.Schema] = {
    Question: pa.schema(
        [
            ("id", pa.string()),
            ("benchmark", pa.string()),
            ("split", pa.string()),
            ("text", pa.string()),
            ("answers", _strings),
            ("hops", pa.int32()),
            ("tools", _strings),
            ("task", pa.string()),
        ]
    ),
    Derivation: pa.schema(
        [("question_id", pa.string()), ("kind", pa.string()), ("calls", _strings), ("results", _strings)]
    ),
    WrittenSolution: pa.schema([("question_id", pa.string()), ("text", pa.string())]),
    Passage: pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())]),
    Support: pa.schema([("question_id", pa.string()), ("passage_ids", _strings)]),
    Trajectory: pa.schema(
        [
            ("id", pa.string()),
            ("question_id", pa.string()),
            ("benchmark", pa.string()),
            ("sample", pa.int32()),
            ("model", pa.string()),
            ("seed", pa.int64()),
            ("prompt_ids", _ids),
            ("steps", pa.list_(_step)),
            ("stop", pa.string()),
            ("error", pa.string()),
            ("retokenised", pa.bool_()),
        ]
    ),
    Verdict: pa.schema(
        [
            ("trajectory_id", pa.string()),
            ("step", pa.int32()),
            ("good", pa.bool_()),
            ("score", pa.float32()),
            ("rationale", pa.string()),
            ("judge", pa.string()),
        ]
    ),
    SubTrajectory: pa.schema(
        [
            ("trajectory_id", pa.string()),
            ("question_id", pa.string()),
            ("benchmark", pa.string()),
            ("step", pa.int32()),
            ("state_ids", _ids),
            ("action_ids", _ids),
            ("score", pa.float32()),
        ]
    ),
    Prediction: pa.schema(
        [
            ("question_id", pa.string()),
            ("benchmark", pa.string()),
            ("model", pa.string()),
            ("with_tools", pa.bool_()),
            ("answer", pa.string()),
            ("correct", pa.bool_()),
            ("em", pa.float64()),
            ("f1", pa.float64()),
            ("precision", pa.float64()),
            ("recall", pa.float64()),
            ("process_label_judge", pa.float64()),
            ("process_label_oracle", pa.float64()),
            ("steps", pa.int32()),
            ("malformed", pa.int32()),
            ("stop", pa.string()),
            ("trajectory_id", pa.string()),
        ]
    ),
}
