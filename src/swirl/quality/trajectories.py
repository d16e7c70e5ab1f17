"""The gate after synthesis: complete, token-exact trajectories of training questions, few of them with failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from swirl.core.types import ActionKind, Stop
from swirl.quality import expect
from swirl.quality.tables import Frames, data_columns, gathered, only, presence, training_problem
from swirl.quality.validation import Report, Table, examine

Decode = Callable[[list[int]], str]
"""From token ids to text, special tokens left out."""

_STEP = ("row", "trajectory_id", "index")
"""What identifies a step to the reader of a report."""


def check(
    groups: Callable[[], Iterable[Frames]],
    questions: pd.DataFrame,
    *,
    decode: Decode,
    max_steps: Mapping[str, int],
    max_malformed_rate: float,
    max_cut_rate: float,
    max_tool_error_rate: float,
    max_failed_rate: float,
    min_benchmark_share: float,
) -> Report:
    """Validate the trajectories, steps and observations of all `groups`, as `tables.read_trajectories` gives them.

    `max_steps` is the step limit by task. Limits are shares in [0, 1]: of malformed and of cut actions among all
    actions, of tool errors among all tool calls, of trajectories that failed in the environment among all trajectories.
    Each benchmark with training questions must have at least the share `min_benchmark_share` of all trajectories.
    """
    whole, parts, seen = gathered(groups(), presence("row", "id"), presence(*_STEP), presence(*_STEP))
    complete = [
        Table("trajectories", whole, ("row", "id"), expect.present(data_columns(whole))),
        Table("steps", parts, _STEP, expect.present(data_columns(parts))),
        Table("observations", seen, _STEP, expect.present(["text", "error", "kind", "payload"])),
        Table("questions", questions, ("row", "id"), expect.present(["id", "benchmark", "split", "task"])),
    ]

    def derive() -> tuple[list[Table], dict[str, float]]:
        examined = _examined(groups(), _asked(questions, max_steps), decode)
        whole, parts, calls = gathered(examined, *map(only, _KEPT))
        mix = _mix(whole, questions)
        share = f"every training benchmark has at least {min_benchmark_share:.1%} of the trajectories"
        tables = [
            Table("trajectories", whole, ("row", "id"), _on_trajectories(max_failed_rate)),
            Table("steps", parts, _STEP, _on_steps(max_malformed_rate, max_cut_rate)),
            Table("calls", calls, _STEP, _on_calls(max_tool_error_rate)),
            Table("mix", mix, ("benchmark",), [expect.between("share", min_benchmark_share, None, share)]),
        ]
        return tables, _statistics(whole, parts, calls, mix)

    return examine("trajectories", complete, derive)


_PROBLEMS = ("question_id_problem", "benchmark_problem", "index_problem", "length_problem", "ending_problem")
_KEPT = (
    ("row", "id", "benchmark", "stop", "retokenised", "failed", *_PROBLEMS),
    (*_STEP, "malformed", "cut", "token_ids_problem", "logprobs_problem", "observation_problem"),
    (*_STEP, "error"),
)
"""The columns of trajectories, steps and calls that are looked at in all row groups together."""


def _examined(groups: Iterable[Frames], asked: _Asked, decode: Decode) -> Iterator[Frames]:
    """The trajectories and the steps of each group with helper columns, and its calls."""
    for trajectories, steps, observations in groups:
        whole = _with_problems(trajectories, steps, asked)
        parts = _with_step_problems(
            steps, observations, decode, dict(zip(whole["row"], whole["retokenised"], strict=True))
        )
        yield whole, parts, observations[observations["kind"] != ""]


def _on_trajectories(max_failed_rate: float) -> list[expect.Expectation]:
    return [
        expect.at_least(1, "there are trajectories"),
        expect.unique(["id"], "every trajectory has an id of its own"),
        expect.no_problem("question_id_problem", "every trajectory tries a question of the train split"),
        expect.no_problem("benchmark_problem", "a trajectory has its question's benchmark"),
        expect.one_of("stop", [stop.value for stop in Stop], "every stop is a known one"),
        expect.no_problem("index_problem", "the steps are numbered 0, 1, 2 and so on"),
        expect.no_problem("length_problem", "no trajectory has more steps than its limit"),
        expect.no_problem("ending_problem", "an answer is the last action of an answered trajectory and nothing else"),
        expect.rarely("failed", max_failed_rate, f"at most {max_failed_rate:.1%} of the trajectories end in an error"),
    ]


def _on_steps(max_malformed_rate: float, max_cut_rate: float) -> list[expect.Expectation]:
    return [
        expect.no_problem("token_ids_problem", "an action's token ids decode to its text"),
        expect.no_problem("logprobs_problem", "every token has one finite log-probability, 0 at most"),
        expect.no_problem("observation_problem", "an observation follows every call, and no answer"),
        expect.rarely(
            "malformed", max_malformed_rate, f"at most {max_malformed_rate:.1%} of the actions are malformed"
        ),
        expect.rarely("cut", max_cut_rate, f"at most {max_cut_rate:.1%} of the actions are cut off at their limit"),
    ]


def _on_calls(max_tool_error_rate: float) -> list[expect.Expectation]:
    return [
        expect.rarely(
            "error", max_tool_error_rate, f"at most {max_tool_error_rate:.1%} of the tool calls give an error"
        )
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the gate knows of the questions, by id."""

    splits: dict[str, str]
    benchmarks: dict[str, str]
    limits: dict[str, int | None]
    """Of steps."""


def _asked(questions: pd.DataFrame, max_steps: Mapping[str, int]) -> _Asked:
    identifiers = questions["id"]
    return _Asked(
        dict(zip(identifiers, questions["split"], strict=True)),
        dict(zip(identifiers, questions["benchmark"], strict=True)),
        {identifier: max_steps.get(task) for identifier, task in zip(identifiers, questions["task"], strict=True)},
    )


def _with_problems(trajectories: pd.DataFrame, steps: pd.DataFrame, known: _Asked) -> pd.DataFrame:
    """The trajectories with helper columns that say what is wrong with each."""
    indices: dict[int, list[int]] = {row: [] for row in trajectories["row"]}
    kinds: dict[int, list[str]] = {row: [] for row in trajectories["row"]}
    for row, index, kind in zip(steps["row"], steps["index"], steps["kind"], strict=True):
        indices[row].append(index)
        kinds[row].append(kind)
    asked, stops = list(trajectories["question_id"]), list(trajectories["stop"])
    named = zip(asked, trajectories["benchmark"], strict=True)
    done = kinds.values()
    problems = {
        "question_id_problem": [training_problem(question, known.splits) for question in asked],
        "benchmark_problem": [
            _benchmark_problem(name, known.benchmarks.get(question, name)) for question, name in named
        ],
        "index_problem": [_index_problem(numbers) for numbers in indices.values()],
        "length_problem": [_length_problem(len(k), known.limits.get(q)) for q, k in zip(asked, done, strict=True)],
        "ending_problem": [_ending_problem(stop, k) for stop, k in zip(stops, done, strict=True)],
    }
    failed = (trajectories["stop"] == Stop.TOOL_FAILED.value) | (trajectories["error"] != "")
    return trajectories.assign(failed=failed, **{k: pd.Series(v, dtype=object) for k, v in problems.items()})


def _benchmark_problem(benchmark: str, expected: str) -> str | None:
    return None if benchmark == expected else f"{benchmark}, but its question is of {expected}"


def _index_problem(indices: Sequence[int]) -> str | None:
    return None if list(indices) == list(range(len(indices))) else f"numbered {', '.join(map(str, indices))}"


def _length_problem(steps: int, limit: int | None) -> str | None:
    return None if limit is None or steps <= limit else f"{steps} steps, the limit is {limit}"


def _ending_problem(stop: str, kinds: Sequence[str]) -> str | None:
    if ActionKind.ANSWER in kinds[:-1]:
        return f"answers at step {kinds.index(ActionKind.ANSWER) + 1} of {len(kinds)} and goes on"
    last = kinds[-1] if kinds else "missing"
    if (stop == Stop.ANSWERED) != (last == ActionKind.ANSWER):
        return f"stop is {stop}, the last action is {last}"
    return None


def _with_step_problems(
    steps: pd.DataFrame, observations: pd.DataFrame, decode: Decode, retokenised: Mapping[int, bool]
) -> pd.DataFrame:
    """The steps with helper columns that say what is wrong with each, and which are malformed or cut.

    `retokenised` is the flag of each trajectory, by row: where it is set, steps may lack log-probabilities.
    """
    last = ~steps.duplicated("row", keep="last")
    seen: list[list[str]] = [[] for _ in range(len(steps))]
    for step, text in zip(observations["step"], observations["text"], strict=True):
        seen[step].append(text)
    problems = {
        "token_ids_problem": [
            _token_problem(ids, text, decode) for ids, text in zip(steps["token_ids"], steps["text"], strict=True)
        ],
        "logprobs_problem": [
            _logprob_problem(len(ids), logprobs, retokenised[row])
            for ids, logprobs, row in zip(steps["token_ids"], steps["logprobs"], steps["row"], strict=True)
        ],
        "observation_problem": [
            _observation_problem(kind, texts, end) for kind, texts, end in zip(steps["kind"], seen, last, strict=True)
        ],
    }
    malformed, cut = (steps["kind"] == kind.value for kind in (ActionKind.MALFORMED, ActionKind.CUT))
    return steps.assign(malformed=malformed, cut=cut, **{k: pd.Series(v, dtype=object) for k, v in problems.items()})


def _token_problem(ids: np.ndarray, text: str, decode: Decode) -> str | None:
    if len(ids) == 0:
        return "no tokens"
    if ids.min() < 0:
        return f"token id {ids.min()}"
    decoded = decode(ids.tolist())
    return None if decoded == text else f"decode to {decoded!r}, the text is {text!r}"


def _logprob_problem(tokens: int, logprobs: np.ndarray, retokenised: bool) -> str | None:
    if retokenised and len(logprobs) == 0:
        return None
    if len(logprobs) != tokens:
        return f"{len(logprobs)} for {tokens} tokens"
    wrong = ~(np.isfinite(logprobs) & (logprobs <= 0))
    return f"{logprobs[wrong.argmax()]:g} at token {wrong.argmax()}" if wrong.any() else None


def _observation_problem(kind: str, seen: Sequence[str], last: bool) -> str | None:
    if kind == ActionKind.ANSWER:
        return f"an answer is followed by {seen[0]!r}" if seen else None
    return None if last or (seen and all(seen)) else f"nothing follows a {kind} action that is not the last"


def _mix(trajectories: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """For each benchmark with training questions, its share of all trajectories."""
    expected = sorted(set(questions["benchmark"][questions["split"] == "train"]))
    counts = trajectories["benchmark"].value_counts().reindex(expected, fill_value=0)
    return pd.DataFrame({"benchmark": expected, "share": (counts / max(len(trajectories), 1)).to_numpy()})


def _statistics(
    trajectories: pd.DataFrame, steps: pd.DataFrame, calls: pd.DataFrame, mix: pd.DataFrame
) -> dict[str, float]:
    if trajectories.empty or steps.empty:
        return {}
    statistics = {
        "steps_per_trajectory": len(steps) / len(trajectories),
        "malformed_rate": float(steps["malformed"].mean()),
        "cut_rate": float(steps["cut"].mean()),
        "tool_error_rate": float(calls["error"].mean()) if len(calls) else 0.0,
        "failed_rate": float(trajectories["failed"].mean()),
        "retokenised_rate": float(trajectories["retokenised"].mean()),
    }
    statistics |= {f"stop/{stop}": float((trajectories["stop"] == stop.value).mean()) for stop in Stop}
    return statistics | {f"share/{name}": float(s) for name, s in zip(mix["benchmark"], mix["share"], strict=True)}
