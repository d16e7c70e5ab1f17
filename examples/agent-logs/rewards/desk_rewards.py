"""Two judges of the support desk's steps: `Procedure` is the reward, `Grounded` a second one for evaluation.

Both see text: the state (turns between lines `---`, the desk's instructions and tools first) and the action.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

CALL = re.compile(r"<(lookup_order|search_policy|issue_refund)>(.*?)</\1>", re.DOTALL)
ORDER = re.compile(r"\bF\d{5}\b")
NUMBER = re.compile(r"\d+")


def calls(text: str) -> list[tuple[str, dict[str, Any] | None]]:
    """(tool, arguments) of each call in a text; None where the arguments are no JSON object."""
    found = []
    for name, payload in CALL.findall(text):
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            value = None
        found.append((name, value if isinstance(value, dict) else None))
    return found


def conversation(state: str) -> str:
    """The state from the customer's words on: what comes before is the tools and the desk's instructions."""
    return state.rpartition("only where the policy allows it.")[2]


class Procedure:
    """How far a step keeps to the desk's instructions: 0 to 1."""

    def __init__(self, repeated: float = 0.2) -> None:
        """`repeated`: what a call earns that was made before."""
        self.repeated = repeated

    def scores(self, states: Sequence[str], actions: Sequence[str]) -> list[float]:
        """One score an action."""
        return [self._score(conversation(state), action) for state, action in zip(states, actions, strict=True)]

    def _score(self, said: str, action: str) -> float:
        made, now = calls(said), calls(action)
        if len(now) > 1 or any(arguments is None for _, arguments in now):
            return 0.0
        asked = said.partition("---")[0]
        about_order, about_money = bool(ORDER.search(asked)), bool(re.search("money|refund|return|send back", asked))
        known = {name for name, _ in made}
        if not now:
            needed = {*(["lookup_order"] if about_order else []), *(["search_policy"] if about_money else [])}
            return 1.0 if needed <= known and action.strip() else 0.0
        name, arguments = now[0]
        if (name, arguments) in made:
            return self.repeated
        if name == "lookup_order":
            return float(about_order and str((arguments or {}).get("order_id", "?")) in ORDER.findall(asked))
        if name == "search_policy":
            return float(about_money and str((arguments or {}).get("item", "?")) in said)
        return self._refund(said, known, arguments or {})

    def _refund(self, said: str, known: set[str], arguments: dict[str, Any]) -> float:
        """1 where the order and the policy were read, and allow exactly this."""
        paid = re.search(r"order (F\d{5}): \w+, paid (\d+) EUR, delivered (\d+) days ago", said)
        rule = re.search(r"within (\d+) days", said)
        if not paid or not rule or "issue_refund" in known or not {"lookup_order", "search_policy"} <= known:
            return 0.0
        right = arguments.get("order_id") == paid[1] and arguments.get("amount") == int(paid[2])
        return float(right and int(paid[3]) <= int(rule[1]))


class Grounded:
    """The share of the numbers and order ids in a step that the conversation has; 1 without any, 0 for no words."""

    def scores(self, states: Sequence[str], actions: Sequence[str]) -> list[float]:
        """One score an action."""
        return [self._score(conversation(state), action) for state, action in zip(states, actions, strict=True)]

    def _score(self, said: str, action: str) -> float:
        if not action.strip():
            return 0.0
        named, there = NUMBER.findall(action), set(NUMBER.findall(said))
        return sum(one in there for one in named) / len(named) if named else 1.0
