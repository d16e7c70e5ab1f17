"""Which stages a flow retries after a failure: those that use the network, and no others.

A gate that failed would fail again, and so would a stage that only computes. Stages that ask servers commit their work
to a journal, so a retry repeats no request that was answered and committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swirl.config.params import validate
from swirl.core.errors import ParamsError
from swirl.planning import keys


def asks_network(stage: str, params: Mapping[str, Any], root: Path) -> bool:
    """Whether a stage, by its DVC name, fetches files or asks a server; `params` is params.yaml as plain values.

    False for params that are refused, as the stage refuses them again.
    """
    try:
        return keys.asks_network(stage, validate(params, "params.yaml"), root)
    except ParamsError:
        return False
