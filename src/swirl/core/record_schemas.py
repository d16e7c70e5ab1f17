"""The Parquet schema of every record that has a file of its own."""

from __future__ import annotations

import pyarrow as pa

from swirl.core.types import (
    Annotation,
    Conversation,
    Derivation,
    Draw,
    HeldOutStep,
    Passage,
    Prediction,
    Question,
    StateAction,
    SubTrajectory,
    Support,
    Trajectory,
    Verdict,
    WrittenSolution,
)

_ids = pa.list_(pa.int32())
_strings = pa.list_(pa.string())
_observation = pa.struct(
    [("text", pa.string()), ("error", pa.bool_()), ("kind", pa.string()), ("payload", pa.string())]
)
_step = pa.struct(
    [
        ("index", pa.int32()),
        ("action", pa.struct([("kind", pa.string()), ("text", pa.string()), ("payload", pa.string())])),
        ("observations", pa.list_(_observation)),
        ("token_ids", _ids),
        ("logprobs", pa.list_(pa.float32())),
        ("observation_ids", _ids),
        ("rewritten_ids", _ids),
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
    Conversation: pa.schema([("question_id", pa.string()), ("content", pa.string())]),
    Derivation: pa.schema(
        [("question_id", pa.string()), ("kind", pa.string()), ("calls", _strings), ("results", _strings)]
    ),
    WrittenSolution: pa.schema([("question_id", pa.string()), ("text", pa.string())]),
    Annotation: pa.schema([("question_id", pa.string()), ("steps", _strings), ("results", _strings)]),
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
    HeldOutStep: pa.schema(
        [
            ("task", pa.string()),
            ("kind", pa.string()),
            ("good", pa.bool_()),
            ("score", pa.float64()),
            ("logprob", pa.float64()),
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
            ("piece", pa.int32()),
        ]
    ),
    Draw: pa.schema(
        [
            ("update", pa.int32()),
            ("trajectory_id", pa.string()),
            ("question_id", pa.string()),
            ("benchmark", pa.string()),
            ("step", pa.int32()),
            ("sample", pa.int32()),
            ("action_ids", _ids),
            ("text", pa.string()),
            ("reward", pa.float64()),
            ("cut", pa.bool_()),
            ("advantage", pa.float64()),
            ("logprob", pa.float64()),
        ]
    ),
    StateAction: pa.schema(
        [
            ("trajectory_id", pa.string()),
            ("question_id", pa.string()),
            ("benchmark", pa.string()),
            ("model", pa.string()),
            ("step", pa.int32()),
            ("sample", pa.int32()),
            ("text", pa.string()),
            ("kind", pa.string()),
            ("reward", pa.float64()),
            ("judge", pa.string()),
            ("judge_role", pa.string()),
            ("same_tools", pa.bool_()),
            ("same_calls", pa.bool_()),
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
