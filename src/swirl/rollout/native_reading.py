"""Actions in a model's own tool format: a turn is one or several calls, or an answer, and ends with its end of turn.

A turn without a call is the answer: what stands in `<answer>` tags, if it has them, otherwise all of it. Where thoughts
are steps of their own, an answer needs its tags. A call beside an answer, text after a call, a function that is not
there, and arguments that it cannot take are malformed. What a thought names is no call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swirl.core.types import Action, ActionKind, Observation, Step
from swirl.models.call_grammar import Turn
from swirl.models.native_chat import NativeChat, Result
from swirl.rollout.whole_turns import WholeTurns
from swirl.tools.actions import is_thought, parse
from swirl.tools.schemas import Signatures


@dataclass(frozen=True, slots=True)
class NativeReader(WholeTurns):
    """Reads the actions of one conversation, and writes what follows them; as `swirl.rollout.reading.Reader` does."""

    chat: NativeChat
    tags: Signatures
    """Name of each function that the conversation has -> kind of action."""
    thoughts: bool = False
    """Whether a turn without call or tagged answer is a thought, not an answer."""

    stops = ()
    """A server stops at the end of turn alone."""

    @property
    def needs_ids(self) -> bool:
        """Whether a server's text may lack what calls are told by: special tokens."""
        return self.chat.marked

    def prompt(self, text: str, system: str) -> tuple[int, ...]:
        """Ids of a conversation that opens with the user's `text` and a system turn, if any."""
        return self.chat.prompt(text, self._functions, system)

    def turn(self, action: Action, seen: Sequence[Observation], closed: bool) -> tuple[int, ...]:
        """Ids that follow an action: its end of turn unless `closed` already, what answers it, the next opening."""
        return self.chat.results(self._results(action, seen), closed)

    def anew(self, text: str, system: str, steps: Sequence[Step]) -> tuple[int, ...]:
        """Ids of the state after these steps, where the template drops the last one's thought; else none."""
        if not self.chat.strips or self.chat.unthought(steps[-1].action.text) == steps[-1].action.text:
            return ()
        turns = [(step.action.text, self._results(step.action, step.observations)) for step in steps]
        return self.chat.anew(text, self._functions, system, turns)

    @property
    def _functions(self) -> list[dict[str, Any]]:
        return [schema.function for schema in self.tags.schemas.values()]

    def _results(self, action: Action, seen: Sequence[Observation]) -> list[Result]:
        """What answers an action, by the names and ids of its calls."""
        said = self._said(action.text)
        calls = said.calls if said else ()
        results = []
        for i, one in enumerate(seen):
            call = calls[i] if i < len(calls) else None
            results.append(Result(one.text, call.name if call else "", call.id if call else ""))
        return results

    def markup(self, turns: Sequence[tuple[str, str]], ids: Sequence[int]) -> str:
        """The conversation so far as text, from its `ids`."""
        return self.chat.markup(ids)

    def shown(self, payload: str, result: str) -> str:
        """What the model is shown of a call's result: the result alone."""
        return result

    def upto(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The action among tokens that may go on after it."""
        end = next((i for i, token in enumerate(ids) if token in self.chat.end_ids), len(ids))
        return ids[: end + 1]

    def written(self, text: str) -> str:
        """The action at the start of `text`: all of it."""
        return text

    def whole(self, text: str) -> bool:
        """Whether `text` alone says that the action is at its end: never."""
        return False

    def closed(self, text: str) -> str:
        """`text` as it is."""
        return text

    def read(self, ids: tuple[int, ...]) -> Action:
        """The action of these tokens, with the kind and the payload of its first call."""
        text = self.chat.text(ids)
        if self.cut(ids):
            return Action(ActionKind.CUT, text, "")
        said = self._said(text)
        calls = self._calls(said)
        if calls:
            return Action(calls[0][0], text, calls[0][1])
        if said is None or said.calls or said.broken or not said.before.strip():
            return Action(ActionKind.MALFORMED, text, "")
        answer = parse(said.before, {})
        if answer.kind == ActionKind.ANSWER:
            return Action(ActionKind.ANSWER, text, answer.payload)
        if not is_thought(said.before, {}):
            return Action(ActionKind.MALFORMED, text, "")
        if self.thoughts:
            return Action(ActionKind.THINK, text, "")
        return Action(ActionKind.ANSWER, text, said.before.strip())

    def calls(self, action: Action) -> tuple[tuple[str, str], ...]:
        """Kind and payload of each call of an action; none if it is no call."""
        return self._calls(self._said(action.text)) if action.kind in self.tags.values() else ()

    def _said(self, text: str) -> Turn | None:
        """What is said after the thought; None where the thought has no end."""
        parts = self.chat.after_thought(text)
        return parts and self.chat.grammar.read(parts[1])

    def _calls(self, said: Turn | None) -> tuple[tuple[str, str], ...]:
        """The calls of a well-formed turn of nothing but calls and text before them."""
        if said is None or said.broken or said.after or not is_thought(f"- {said.before}", {}):
            return ()
        found = []
        for call in said.calls:
            schema = self.tags.schemas.get(call.name)
            payload = schema.payload(call.arguments) if schema else None
            if schema is None or payload is None:
                return ()
            found.append((schema.kind, payload))
        return tuple(found)
