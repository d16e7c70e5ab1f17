"""The tree of requests: a node is a message under its parent, so that a history that is logged again is one path.

Nodes hold hashes and where their message stands, never texts: a node takes about 150 bytes, whatever its message has.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntFlag

from swirl.agent_logs import marks
from swirl.agent_logs.canonical import hash_of, of_message, of_tools
from swirl.agent_logs.chat_messages import joined
from swirl.agent_logs.conversation import Role
from swirl.agent_logs.exchanges import Change, Exchange, Fault, NoAction, Turn
from swirl.agent_logs.pairing import pair

SHORT = 40
"""Characters below which equal texts do not show that two histories are one conversation's."""


class Is(IntFlag):
    """What is known of a node."""

    ACTION = 1
    """Its message came as a response, or in a conversation that was logged at once."""
    ASSISTANT = 2
    USER = 4
    SYSTEM = 8
    GLUED = 16
    SPLIT = 32
    """Results told its glued calls apart."""
    PARENT = 64
    FINISHED = 128
    SUMMARY = 256
    MOVED = 512
    """Its pieces were joined to the message of another node."""
    SHORT = 1024
    """A text of the assistant that many conversations may have."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a message stands: number of the line, of the exchange in it, and of the turn (responses: -1, -2, ...)."""

    line: int
    exchange: int
    slot: int


class RequestTree:
    """Requests and conversations, added in any order; `read` gives back the turn of a source."""

    def __init__(
        self, read: Callable[[Source], Turn], models: frozenset[str] = frozenset(), keep_thoughts: bool = False
    ) -> None:
        """`models`: only what these wrote is an action; empty: whoever wrote it.

        `keep_thoughts`: states hold past thoughts, so that one which was withheld is a fault.
        """
        self._read, self._models, self._keep_thoughts = read, models, keep_thoughts
        self.parent, self.turn, self.flags = array("i"), array("i"), array("H")
        self.key, self.message, self.session = array("Q"), array("Q"), array("Q")
        self._line, self._exchange, self._slot = array("i"), array("I"), array("i")
        self._at: dict[int, int] = {}
        self._responses: dict[int, int] = {}
        self._pieces: dict[int, list[Source]] = {}
        self._joined: tuple[int, Turn] | None = None
        """The node whose pieces were joined last, and its turn, as the next piece is mostly of the same one."""
        self.faults: dict[int, Fault] = {}
        self.no_action: dict[int, NoAction] = {}
        self.answers: dict[int, tuple[str, ...]] = {}
        self.again: list[tuple[int, int]] = []
        """Line and turn of actions that were logged again on the same state."""

    def __len__(self) -> int:
        return len(self.parent)

    def sources(self, node: int) -> list[Source]:
        """Where a node's message stands: one place, or one for each piece of it."""
        return self._pieces.get(node) or [Source(self._line[node], self._exchange[node], self._slot[node])]

    def path(self, node: int) -> list[int]:
        """The nodes from the root down to `node`."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.parent[node]
        return nodes[::-1]

    def before(self, previous: str) -> int | None:
        """The node of the response with this id; None when it was not added yet."""
        return self._responses.get(hash_of(previous))

    def add(self, exchange: Exchange, line: int, number: int) -> bool:
        """Add one exchange; False if it goes on from a response that was not added yet."""
        session = hash_of(exchange.session)
        node, key = -1, hash_of(session, of_tools(exchange.tools))
        turns = exchange.history
        if exchange.previous:
            before = self.before(exchange.previous)
            if before is None:
                return False
            if not exchange.session:
                session = self.session[before]
                key = hash_of(session, of_tools(exchange.tools))
            chain = chained(exchange, self._turn(before))
            turns = chain.turns
            node, key = self._go_on(before, key, session, chain.system, Source(line, number, 0))
            if Change.SPLIT in chain.caller.changes:
                self.flags[node] |= Is.SPLIT
            if chain.waiting:
                waits = [replace(turn, fault=turn.fault or Fault.UNANSWERED) for turn in exchange.responses]
                exchange = replace(exchange, responses=waits)
        first = len(exchange.history) - len(turns)
        for slot, turn in enumerate(turns, first):
            source = Source(line, number, slot)
            node, key = self._step(node, key, session, turn, source)
            if exchange.whole and turn.message.role is Role.ASSISTANT:
                self._act(node, turn, source)
        end = self._respond(exchange, node, key, session, line, number)
        if exchange.answers and end >= 0:
            self.answers[end] = exchange.answers
        return True

    def _respond(self, exchange: Exchange, node: int, key: int, session: int, line: int, number: int) -> int:
        """Add the responses below `node`; the last node."""
        end = node
        for index, turn in enumerate(exchange.responses):
            source = Source(line, number, -1 - index)
            alone = len(exchange.responses) == 1 and bool(turn.id)
            known = self._responses.get(hash_of(turn.id)) if alone else None
            if known is not None and self._joins(known, node, turn):
                end = self._join(known, key, turn, source)
            else:
                end, _ = self._step(node, key, session, turn, source)
                self._act(end, turn, source)
            if alone:
                self._responses[hash_of(turn.id)] = end
        return end

    def _step(self, parent: int, key: int, session: int, turn: Turn, source: Source) -> tuple[int, int]:
        """The node of a turn below `parent`, whose path has this `key`, made if need be; and the key of its path."""
        message = of_message(turn.message)
        key = hash_of(key, message)
        node = self._at.get(key, -1)
        if node < 0:
            node = self._new(parent, key, message, session, turn, source)
        withheld = Fault.WITHHELD if self._keep_thoughts and turn.message.withheld else None
        if fault := turn.fault or withheld:
            self.faults.setdefault(node, fault)
        self.flags[node] |= (Is.GLUED if turn.glued else 0) | (Is.SPLIT if Change.SPLIT in turn.changes else 0)
        return node, key

    def _new(self, parent: int, key: int, message: int, session: int, turn: Turn, source: Source) -> int:
        node = len(self.parent)
        role = turn.message.role
        kind = {Role.ASSISTANT: Is.ASSISTANT, Role.USER: Is.USER, Role.SYSTEM: Is.SYSTEM}.get(role, Is(0))
        if role is Role.USER and turn.no_action is NoAction.EXAMPLE:
            kind = Is(0)
        if role in (Role.USER, Role.SYSTEM) and marks.summary(turn.message.text):
            kind |= Is.SUMMARY
        if role is Role.ASSISTANT and not turn.message.calls and len(turn.message.text) < SHORT:
            kind |= Is.SHORT
        self._append(parent, key, message, session, turn.number, int(kind), source)
        if turn.no_action and role is Role.ASSISTANT:
            self.no_action[node] = turn.no_action
        return node

    def _append(self, parent: int, key: int, message: int, session: int, turn: int, flags: int, source: Source) -> None:
        self._at[key] = len(self.parent)
        if parent >= 0:
            self.flags[parent] |= Is.PARENT
        for column, value in (
            (self.parent, parent),
            (self.key, key),
            (self.message, message),
            (self.session, session),
            (self.turn, turn),
            (self.flags, flags),
            (self._line, source.line),
            (self._exchange, source.exchange),
            (self._slot, source.slot),
        ):
            column.append(value)

    def _act(self, node: int, turn: Turn, source: Source) -> None:
        """Take the turn as the action at a node; one that is there already stays."""
        if self.flags[node] & Is.ACTION:
            self.again.append((source.line, turn.number))
            return
        self.flags[node] |= Is.ACTION | (Is.FINISHED if turn.finished else 0)
        self._line[node], self._exchange[node], self._slot[node] = source.line, source.exchange, source.slot
        self.turn[node] = turn.number
        self.no_action.pop(node, None)
        if turn.no_action:
            self.no_action[node] = turn.no_action
        elif self._models and turn.message.model not in self._models:
            self.no_action[node] = NoAction.MODEL

    def _turn(self, node: int) -> Turn:
        return read_pieces(self._read, self.sources(node))

    def _joins(self, known: int, parent: int, turn: Turn) -> bool:
        """Whether a response with the id of the one at `known` is another piece of it rather than the same again."""
        if self.parent[known] != parent or self.message[known] == of_message(turn.message):
            return False
        both = bool(self.flags[known] & Is.FINISHED) and turn.finished
        return not self.flags[known] & Is.PARENT and (not both or turn.id.startswith("msg_"))

    def _join(self, known: int, key: int, turn: Turn, source: Source) -> int:
        """Join a piece to the turn at `known`; the node of the whole."""
        pieces = [*self.sources(known), source]
        before = self._joined[1] if self._joined and self._joined[0] == known else self._turn(known)
        whole = joined([before, turn])
        message = of_message(whole.message)
        del self._at[self.key[known]]
        node = self._at.get(hash_of(key, message), known)
        if node == known:
            self.key[node], self.message[node] = hash_of(key, message), message
            self._at[self.key[node]] = node
            self.flags[node] &= ~Is.ACTION
        else:
            self.flags[known] = (self.flags[known] | Is.MOVED) & ~Is.ACTION
        self.faults.pop(known, None)
        self.no_action.pop(known, None)
        if whole.fault:
            self.faults[node] = whole.fault
        self.flags[node] |= Is.GLUED if whole.glued else 0
        self._act(node, whole, pieces[0])
        self._pieces[node] = pieces
        self._joined = node, whole
        return node

    def _go_on(self, before: int, key: int, session: int, system: Turn | None, source: Source) -> tuple[int, int]:
        """The node and key to go on from: that of `before`, or of a copy of its path with another system turn.

        A request with `previous_response_id` sends instructions and tools of its own; if they are the same, so is the
        state.
        """
        path = self.path(before)
        old = path[0] if self.flags[path[0]] & Is.SYSTEM and self.turn[path[0]] == 0 else -1
        start = hash_of(key, of_message(system.message)) if system else key
        follows = path[1:] if old >= 0 else path
        wanted = start
        for node in follows:
            wanted = hash_of(wanted, self.message[node])
        if wanted == self.key[before]:
            return before, wanted
        at = -1
        if system:
            at, _ = self._step(-1, key, session, system, source)
        for node in follows:
            start = hash_of(start, self.message[node])
            if start not in self._at:
                kept = self.flags[node] & ~(Is.ACTION | Is.PARENT | Is.FINISHED | Is.SHORT)
                first = self.sources(node)
                self._append(at, start, self.message[node], session, self.turn[node], kept, first[0])
                if len(first) > 1:
                    self._pieces[self._at[start]] = first
                if node in self.faults:
                    self.faults[self._at[start]] = self.faults[node]
            at = self._at[start]
        return at, start


@dataclass(frozen=True, slots=True)
class Chained:
    """A request that goes on from a response, read together with it."""

    system: Turn | None
    turns: list[Turn]
    """The new turns, without the system turn."""
    caller: Turn
    """The response, its glued calls split where the results say so."""
    waiting: bool
    """Whether calls are without a result before the answer."""


def chained(exchange: Exchange, caller: Turn) -> Chained:
    """Pair the turns of a request with the calls of the response that it goes on from, whose turn is `caller`."""
    turns = exchange.history
    system = turns[0] if turns and turns[0].message.role is Role.SYSTEM and turns[0].number == 0 else None
    paired, waiting = pair([caller, *(turns[1:] if system else turns)])
    if len(paired) > 1:
        paired[1] = replace(paired[1], changes=[*paired[1].changes, Change.CHAINED])
    return Chained(system, paired[1:], paired[0], waiting)


def read_pieces(read: Callable[[Source], Turn], sources: list[Source]) -> Turn:
    """The turn that stands in one place, or in several pieces."""
    return joined([read(source) for source in sources])
