"""From logged conversations to trajectories in a model's tokens, a journalled block at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow.compute as pc

from swirl.agent_logs.conversation import LoggedConversation
from swirl.agent_logs.exchanges import Fault
from swirl.agent_logs.stored import from_content
from swirl.agent_logs.tokenised import renderer_of, shortened, trajectory_of
from swirl.core.journal import Journal
from swirl.core.layout import Layout
from swirl.core.records import stream
from swirl.core.types import Conversation, Question, Stop, Trajectory
from swirl.models.native_chat import AnyChat

TOO_LONG = "a state and its action are longer than the model's context"


@dataclass(slots=True)
class Lost:
    """What of the conversations is in no trajectory, or otherwise there."""

    steps: int = 0
    places: list[dict[str, Any]] = field(default_factory=list)
    """Of each conversation that lost steps, where the first of them was."""
    rewritten: int = 0
    """Actions whose text the tokenizer writes otherwise, in another Unicode form; they are as it writes them."""
    cuts: int = 0
    """States that begin anew, because the chat template rewrites what came before."""


class Importer:
    """Makes the trajectories of some questions' conversations; `lost` says what is not in them."""

    def __init__(
        self, layout: Layout, questions: Sequence[Question], chat: AnyChat, context: int, longest: int, thoughts: bool
    ) -> None:
        """`thoughts`: actions begin with their thoughts, so that one which was withheld ends a conversation.

        A state and its action, or one of `longest` tokens, must fit into `context` tokens.
        """
        self._layout, self._chat, self._context, self._longest = layout, chat, context, longest
        self._asked = {question.id: question for question in questions}
        self._renderer, self._thoughts = renderer_of(chat), thoughts
        self.lost = Lost()

    def blocks(self, journal: Journal, size: int, done: Callable[[int], object]) -> int:
        """Commit the trajectories to `journal`, in blocks of `size` conversations; returns how many blocks there are.

        Raises `ModelError`, naming file, line and turn, where the model's template or tokenizer loses something.
        """
        number, waiting = -1, self._conversations(self._asked)
        for number, block in enumerate(iter(lambda: list(islice(waiting, size)), [])):
            if not journal.holds(number, Trajectory):
                journal.commit(number, Trajectory, filter(None, (self._made(*one) for one in block)))
            self._note(journal, number, block)
            done(len(block))
        return number + 1

    def trajectories(self) -> Iterator[tuple[Question, Trajectory | None]]:
        """One of each conversation, None where not even its first action fits. Raises `ModelError` as `blocks` does."""
        for name, conversation in self._conversations(self._asked):
            yield self._asked[name], self._made(name, conversation)

    def _conversations(self, wanted: Collection[str]) -> Iterator[tuple[str, LoggedConversation]]:
        for group in stream(Conversation, self._layout.conversations) if wanted else ():
            for row in group:
                if row.question_id in wanted:
                    yield row.question_id, from_content(row.content)

    def _made(self, name: str, conversation: LoggedConversation) -> Trajectory | None:
        self._renderer.render(conversation)
        end = self._withheld(conversation)
        seen = dataclasses.replace(conversation, actions=tuple(index for index in conversation.actions if index < end))
        if not seen.actions:
            return None
        made = trajectory_of(seen, self._chat, self._asked[name].benchmark, self._renderer)
        if len(seen.actions) < len(conversation.actions):
            made = dataclasses.replace(made, stop=Stop.STEP_LIMIT)
        return shortened(made, self._context, self._longest)[0]

    def _withheld(self, conversation: LoggedConversation) -> int:
        """The first message whose thought was withheld, where thoughts count; else one after the last."""
        indices = (index for index, message in enumerate(conversation.messages) if message.withheld)
        return next(indices, len(conversation.messages)) if self._thoughts else len(conversation.messages)

    def _note(self, journal: Journal, number: int, block: Sequence[tuple[str, LoggedConversation]]) -> None:
        """Compare a block with its conversations: one that was committed before counts like any other."""
        table = journal.columns(number, Trajectory, ["question_id", "steps"])
        steps = table["steps"].combine_chunks()
        sizes_anew = pc.list_value_length(pc.struct_field(pc.list_flatten(steps), "rewritten_ids"))
        self.lost.cuts += int(pc.sum(pc.greater(sizes_anew, 0)).as_py() or 0)
        said = iter(pc.struct_field(pc.list_flatten(steps), ["action", "text"]).to_pylist())  # and no token
        sizes = zip(table["question_id"].to_pylist(), pc.list_value_length(steps).to_pylist(), strict=True)
        texts = {name: list(islice(said, size)) for name, size in sizes}
        for name, conversation in block:
            kept, actions = texts.get(name, []), conversation.actions
            written = self._renderer.said(conversation, actions[: len(kept)])
            self.lost.rewritten += sum(not one.endswith(other) for one, other in zip(kept, written, strict=True))
            if lost := len(actions) - len(kept):
                place = conversation.places[actions[len(kept)]]
                self.lost.steps += lost
                reason = str(Fault.WITHHELD) if actions[len(kept)] >= self._withheld(conversation) else TOO_LONG
                self.lost.places.append(
                    {"file": place.file, "line": place.line, "turn": place.turn, "steps": lost, "reason": reason}
                )
