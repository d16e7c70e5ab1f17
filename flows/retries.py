"""Which stages a flow retries after a failure: those that use the network, and no others.

A gate that failed would fail again, and so would a stage that only computes. Stages that ask servers commit their work
to a journal, so a retry repeats no request that was answered and committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def asks_network(stage: str, params: Mapping[str, Any]) -> bool:
    """Whether a stage, by its DVC name, fetches files or asks a server; `params` is params.yaml as plain values."""
    name, _, item = stage.partition("@")
    policy_served = _get(params, "base_model", "source") == "endpoint"
    judge_served = _get(params, "reward_model", "source") == "endpoint"
    grader_served = _get(params, "judge", "outcome") == "model" and _get(params, "judge", "grader") is not None
    if name == "download":
        return True
    if name in ("base_model", "reward_model"):
        return _get(params, name, "source") in ("pretrained", "cold_start", "fine_tuned", "endpoint")
    if name == "index":
        return bool(_get(params, "index", "embedding_model"))
    if name == "synthesize":
        return policy_served or _get(params, "synthesize", "server") is not None
    if name == "judge":
        return judge_served or grader_served
    if name == "evaluate":
        second = _get(params, "evaluate", "judge", "source") is not None  # a pointer may have to be downloaded
        served = policy_served or judge_served or grader_served or second
        return served or _get(params, "evaluate", "servers", item) is not None
    return name == "train" and judge_served  # sft asks the judge about the development questions


def _get(params: Mapping[str, Any], *keys: str) -> Any:
    """The value below these nested keys; None where one of them is missing."""
    found: Any = params
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
