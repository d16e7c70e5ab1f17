"""Every record that crosses a stage boundary; `swirl.core.record_schemas` has the schemas of their files.

Reading order: a `Question` is asked over a corpus of `Passage`s; a model answers it with a `Trajectory` of
`Step`s, each an `Action` and its `Observation`s; a judge gives `Verdict`s; a filter keeps
`SubTrajectory` rows (one state and its stored action); step-wise RL makes `Draw`s there; evaluation writes
`Prediction`s and `Score`s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

OUTCOME = -1
"""`Verdict.step` of a verdict on the final answer rather than on one step."""

LOGGED = "logged"
"""`Question.task` of a logged conversation: its states are the log's, and no tool of it runs here."""

LOGGED_TOOL = "logged:"
"""What the name of a tool begins with in `Question.tools` that only a log knows: it can be called, but not run."""


class ActionKind(StrEnum):
    """What an action does. A registered tool's own name is a kind too, see `Action.kind`."""

    SEARCH = "search"
    CALCULATE = "calculate"
    ANSWER = "answer"
    MALFORMED = "malformed"
    """Neither one tool call nor one answer: nothing, several, both, or an unclosed tag."""
    THINK = "think"
    """A thought without call or answer, where `actions.thought_only` allows it."""
    CUT = "cut"
    """Cut off at the longest length of an action before it was a whole call or answer."""


class Stop(StrEnum):
    """Why a trajectory ended."""

    ANSWERED = "answered"
    """The last action is an answer."""
    STEP_LIMIT = "step_limit"
    """The step budget was spent without an answer."""
    MALFORMED = "malformed"
    """Too many malformed or cut actions in a row."""
    CONTEXT_FULL = "context_full"
    """Another action, at its longest, would not fit into the model's context."""
    TOOL_FAILED = "tool_failed"
    """The environment itself failed (a bad call by the model is no such failure: its error is the observation)."""


class JudgeRole(StrEnum):
    """What the judge of an evaluation was before, in the words of the report."""

    REWARD = "the same that was the reward"
    SECOND = "a second judge, not the reward"
    NONE = "no judge"


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
    """All accepted spellings, the preferred one first; empty only for a logged conversation without a golden label."""
    hops: int
    """Number of tool calls in the golden derivation; 0 when unknown."""
    tools: tuple[str, ...]
    """Names of the tools the question may use."""
    task: str = "search"
    """One of `tasks` in params.yaml, which decides prompt and step limit; or `LOGGED`."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The logged conversation of a question whose task is `LOGGED`."""

    question_id: str
    content: str
    """A `swirl.agent_logs.conversation.LoggedConversation` as JSON text; `swirl.agent_logs.stored` reads it."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """The golden sequence of tool calls that leads to an answer; an oracle compares the steps of a trajectory with it.

    Questions of embedded benchmarks have one, and those with calculator annotations (GSM8K). Golden labels: read to
    check data, for logging, for evaluation and to teach `reward_model`, but never by step-wise RL or SFT. `base_model`
    and `reward_model` learn from questions of their own, unless params.yaml gives them further splits.
    """

    question_id: str
    kind: str
    """How calls are compared: `search`, `calculate`, or `annotated` (GSM8K's calculator annotations)."""
    calls: tuple[str, ...]
    """The tool calls in order."""
    results: tuple[str, ...]
    """The result of each call; the last one is the answer."""


@dataclass(frozen=True, slots=True)
class WrittenSolution:
    """The golden solution in the words of an official file (GSM8K). A golden label: see `Derivation`."""

    question_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """The way to an answer as a file gives it, for demonstrations. A golden label: see `Derivation`."""

    question_id: str
    steps: tuple[str, ...]
    """MuSiQue: sub-questions, in which `#1` stands for the first one's answer. An own task: the actions."""
    results: tuple[str, ...]
    """MuSiQue: the answers of the sub-questions; empty for an own task."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of the search corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Support:
    """The passages that support a question's answer, for measuring the search tool's recall.

    Golden labels: read only to check data and to measure the search tool.
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

    @property
    def faulty(self) -> bool:
        """Whether it does nothing, because it is malformed or cut."""
        return self.kind in (ActionKind.MALFORMED, ActionKind.CUT)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the model is shown after an action: a tool's result of one call, or a reply to an action without a call."""

    text: str
    error: bool
    """Whether a tool answered the call with an error, which `text` states."""
    kind: str = ""
    """Kind of the call, as `Action.kind`; empty when there is no call that this answers."""
    payload: str = ""
    """The call, as `Action.payload`; empty when there is none."""


@dataclass(frozen=True, slots=True)
class Step:
    """One action and what the model was shown after it."""

    index: int
    action: Action
    """With several calls, it has the kind and the payload of the first; `observations` name each."""
    observations: tuple[Observation, ...]
    """One for each call, in order, or one reply to an action without a call; none after an answer."""
    token_ids: tuple[int, ...]
    """The action's tokens exactly as sampled, its end-of-turn token included; see `Trajectory.retokenised`."""
    logprobs: tuple[float, ...]
    """Natural-log probability of each token under the sampling policy at temperature 1; empty when not known."""
    observation_ids: tuple[int, ...]
    """Tokens between this action and the next one: observation turn and opening of the next turn.

    None at the end, and none where the next step has a `rewritten_ids`.
    """
    rewritten_ids: tuple[int, ...] = ()
    """The whole state of this step, where the chat template rewrites what came before (`actions.thinking: strip`).

    Empty where the state is what precedes it, token by token.
    """

    @property
    def observation(self) -> str:
        """The text of all observations, each on lines of its own; empty when there is none."""
        return "\n".join(seen.text for seen in self.observations)

    @property
    def tool_error(self) -> bool:
        """Whether a tool answered a call of this step with an error."""
        return any(seen.error for seen in self.observations)

    @property
    def actions(self) -> tuple[Action, ...]:
        """The action as one `Action` for each of its calls; itself when no call of it was answered."""
        called = [seen for seen in self.observations if seen.kind]
        return tuple(Action(seen.kind, self.action.text, seen.payload) for seen in called) or (self.action,)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One attempt at one question. The state of step k is prompt_ids + steps[:k] (actions and observations).

    Where a step's state is rewritten, it stands in the step, and later states go on from it.
    """

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
    """Whether a server did not give the token ids or log-probabilities of some action.

    Ids that are missing come from encoding the action's text again; the action's log-probabilities are empty.
    """

    def state_ids(self, k: int) -> tuple[int, ...]:
        """Token ids of state s_{k+1} (k from 0): everything before the action of step k."""
        ids = list(self.prompt_ids)
        for number, step in enumerate(self.steps[: k + 1]):
            ids = list(step.rewritten_ids) or ids
            if number < k:
                ids.extend(step.token_ids)
                ids.extend(step.observation_ids)
        return tuple(ids)

    @property
    def pieces(self) -> list[tuple[Step, ...]]:
        """The steps in pieces: in each, the states are prefixes of the last one's. A rewritten state begins a piece."""
        pieces: list[list[Step]] = []
        for step in self.steps:
            if step.rewritten_ids or not pieces:
                pieces.append([])
            pieces[-1].append(step)
        return [tuple(piece) for piece in pieces]

    @property
    def answer(self) -> str:
        """The final answer, empty when the trajectory did not end with one."""
        if self.stop is Stop.ANSWERED and self.steps:
            return self.steps[-1].action.payload
        return ""


GOOD, BAD = "GOOD", "BAD"
"""The two words that a judge can give as its verdict on a step."""

NOT_JUDGED = "cut off at the longest length of an action, so BAD without asking"
"""The rationale of the verdict on a step that is cut."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's verdict on one step, or on the outcome (`step` is `OUTCOME`)."""

    trajectory_id: str
    step: int
    good: bool | None
    """None when the judge gave no verdict; the trajectory then passes no filter that needs it."""
    score: float | None
    """In [0, 1]; None when `good` is None."""
    rationale: str
    judge: str


@dataclass(frozen=True, slots=True)
class HeldOutStep:
    """A step that the reward model was not taught: what the oracle and what the reward model make of it.

    Golden labels: read only to report how often the reward model errs.
    """

    task: str
    """The task of the step's question."""
    kind: str
    """What the step does, as `Action.kind`."""
    good: bool
    """The oracle's label."""
    score: float
    """The reward model's P(GOOD), in [0, 1]; 0 for a step that is cut."""
    logprob: float
    """The policy's own log-probability of the action, the mean over its tokens, in nats; NaN where it is not known."""


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
    """The judge's stored score of this action; None when it gave no verdict."""
    piece: int = 0
    """Number of its piece in the trajectory, from 0: the states of one piece are prefixes of the longest of them."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One action that step-wise RL drew in a state of an update; the state is the `SubTrajectory` of the same step."""

    update: int
    """From 1, as in the metrics."""
    trajectory_id: str
    question_id: str
    benchmark: str
    step: int
    sample: int
    """From 0 to G - 1."""
    action_ids: tuple[int, ...]
    text: str
    reward: float | None
    """None when the reward model gave no verdict."""
    cut: bool
    advantage: float
    logprob: float
    """Natural-log probability of the action under the policy that drew it, at temperature 1."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One evaluated trajectory: the answer to a question, with or without tools."""

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
    """Share of GOOD among the verdicts of `evaluate.judge` on the steps; None when there is no verdict."""
    process_label_oracle: float | None
    steps: int
    malformed: int
    stop: Stop
    trajectory_id: str


@dataclass(frozen=True, slots=True)
class StateAction:
    """One action that an evaluated model drew in the state of a logged step, beside the logged one."""

    trajectory_id: str
    question_id: str
    benchmark: str
    model: str
    step: int
    sample: int
    """From 0."""
    text: str
    kind: str
    """As `Action.kind`."""
    reward: float | None
    """What `evaluate.judge` gives it, in [0, 1]; None without a verdict."""
    judge: str
    judge_role: JudgeRole
    same_tools: bool | None
    """Whether it calls the tools of the logged action in their order, or none where that calls none; None where the
    logged action is malformed."""
    same_calls: bool | None
    """Whether it makes the calls of the logged action, arguments compared as JSON; None where that makes none."""


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
    """p-value against `base` on the same questions, McNemar's with one sample a question; None for base itself."""
    em: float
    f1: float
    precision: float
    recall: float
    process_label_judge: float | None
    process_label_oracle: float | None
    steps: float
    malformed: float
    """Mean number of malformed actions per trajectory."""
    judge: str
    """Name of the judge of `process_label_judge`."""
    judge_role: JudgeRole
