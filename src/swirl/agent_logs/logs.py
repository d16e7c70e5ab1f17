"""Logs of agents as trajectories: each leaf of the tree of requests is one, each action in it a step."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swirl.agent_logs.arguments import to_text
from swirl.agent_logs.canonical import hash_of
from swirl.agent_logs.conversation import NO_OUTPUT, Call, LoggedConversation, LoggedTool, Message, Place, Role
from swirl.agent_logs.exchanges import Change, Exchange, Fault, LineFault, Turn
from swirl.agent_logs.log_files import LogFiles
from swirl.agent_logs.near_duplicates import near_duplicates, signature
from swirl.agent_logs.outcomes import Outcomes, decide, first_turns
from swirl.agent_logs.request_tree import Is, RequestTree, Source, chained, read_pieces
from swirl.agent_logs.unions import Unions


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A line or a step that is not used."""

    place: Place
    unit: str
    """`line` or `step`."""
    reason: str


@dataclass(slots=True)
class Summary:
    """What an import found."""

    conversations: int = 0
    """A conversation whose history was rewritten is one; sub-agents have one each."""
    groups: int = 0
    trajectories: int = 0
    steps: int = 0
    near_duplicates: int = 0
    """Trajectories that nearly equal an earlier one of another conversation."""
    cuts: int = 0
    """States before which the chat template rewrites the past, counted where conversations are rendered."""
    changed: Counter[Change] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)
    group_of: list[int] = field(default_factory=list)
    """Group of each trajectory, in order: what shares a group must not be split."""


class Logs:
    """An import: `read` once, then `conversations` once, then `summary` is whole."""

    def __init__(
        self,
        files: Sequence[Path],
        tools: Sequence[LoggedTool] = (),
        models: Sequence[str] = (),
        changed: Callable[[Change, Place], None] = lambda change, place: None,
        names: Sequence[str] = (),
        keep_thoughts: bool = False,
    ) -> None:
        """`tools`: those of requests that name none. `models`: only what these wrote is an action; none: all.

        `changed` is told of every change, with its place. `names`: what places call the files, by default their paths.
        `keep_thoughts`: the model's states hold past thoughts, so that one which was withheld cuts.
        """
        self.summary = Summary()
        self._files, self._given, self._changed = LogFiles(files, tools, names), tuple(tools), changed
        self._tree = RequestTree(self._turn_at, frozenset(models), keep_thoughts)
        self._lost: list[tuple[int, int, str, str]] = []
        self._outcomes: Outcomes | None = None
        self._noted = self._claimed = bytearray()
        self._first: Sequence[int] = ()
        self._groups, self._conversations = Unions(), Unions()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._files.size

    @property
    def trajectories(self) -> int:
        """How many trajectories `conversations` will give; known after `read`."""
        return len(self._outcomes.ends) if self._outcomes else 0

    def read(self, done: Callable[[int], None] = lambda size: None) -> None:
        """Read every file from front to back and build the tree; `done` is told of the bytes.

        Raises `DataError` for a file that cannot be read.
        """
        waiting: list[tuple[int, int]] = []
        for piece, exchanges in self._files.read_all(self._line_left_out, done):
            for number, exchange in enumerate(exchanges):
                if not (exchange.responses or exchange.whole):
                    self._line_left_out(piece, LineFault.NO_RESPONSE)
                elif not self._tree.add(exchange, piece, number):
                    waiting.append((piece, number))
        for piece, number in self._in_turn(waiting):
            answers = self._files.exchange(piece, number).responses
            self._lost.extend((piece, answer.number, "step", Fault.CHAIN) for answer in answers)
        self._outcomes = decide(self._tree)
        self._noted, self._claimed = bytearray(len(self._tree)), bytearray(len(self._tree))
        self._first = first_turns(self._tree)
        for piece, turn in self._tree.again:
            self._note(Change.AGAIN, self._files.place(piece, turn))
        for node, reason in self._outcomes.lost:
            source = self._tree.sources(node)[0]
            self._lost.append((source.line, self._tree.turn[node], "step", reason))
        for node, origin in self._outcomes.segments.items():
            self._conversations.join(self._first[origin], self._first[node])
        self._sum_up()

    @property
    def lines(self) -> list[int]:
        """How many lines (or elements of a document) each file has that are not blank; known after `read`."""
        return self._files.counts

    def conversations(self) -> Iterator[LoggedConversation]:
        """Every trajectory, in the order of the log; afterwards `summary` says how they were grouped and changed.

        Of an action that several share, the first one has it as an action, the others as a part of their state.
        """
        assert self._outcomes is not None, "read comes first"
        signatures = bytearray()
        for number, end in enumerate(self._outcomes.ends):
            conversation = self._conversation(end)
            signatures += signature(conversation).tobytes()
            self._group(number, end, conversation)
            self.summary.trajectories += 1
            self.summary.steps += len(conversation.actions)
            yield conversation
        self._files.close()
        self._join_near_duplicates(signatures)

    def _in_turn(self, waiting: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Add what goes on from later lines; what remains goes on from a response that no line has.

        The order is reversed each time, so that a log in the order of time, or against it, takes two rounds.
        """
        while waiting:
            left = [one for one in reversed(waiting) if not self._tree.add(self._files.exchange(*one), *one)]
            if len(left) == len(waiting):
                return waiting
            waiting = left
        return []

    def _turn_at(self, source: Source) -> Turn:
        exchange = self._files.exchange(source.line, source.exchange)
        if source.slot < 0:
            return exchange.responses[-1 - source.slot]
        before = self._tree.before(exchange.previous) if exchange.previous else None
        if before is not None:
            chain = chained(exchange, read_pieces(self._turn_at, self._tree.sources(before)))
            if source.slot or not chain.system:
                return chain.turns[source.slot - bool(chain.system)]
        return exchange.history[source.slot]

    def _conversation(self, end: int) -> LoggedConversation:
        tree, path = self._tree, self._tree.path(end)
        messages, places, actions, question = list[Message](), list[Place](), list[int](), ""
        for node in path:
            turn, place = self._read(node)
            if tree.flags[node] & Is.USER and not question:
                question = turn.message.text
            if self._outcomes and self._outcomes.usable[node] and not self._claimed[node]:
                self._claimed[node] = 1
                actions.append(len(messages))
            messages.append(turn.message)
            places.append(place)
        source = tree.sources(end)[0]
        exchange = self._files.exchange(source.line, source.exchange)
        answers = next((tree.answers[node] for node in reversed(path) if node in tree.answers), ())
        return LoggedConversation(
            id=f"{tree.key[end]:016x}",
            session=exchange.session,
            question=question,
            answers=answers,
            tools=self._tools(exchange, messages, places[-1]),
            messages=tuple(_with_ids(messages)),
            actions=tuple(actions),
            places=tuple(places),
        )

    def _read(self, node: int) -> tuple[Turn, Place]:
        """The turn of a node and its place; its changes are counted when it is read first."""
        tree = self._tree
        sources = tree.sources(node)
        turn = read_pieces(self._turn_at, sources)
        place = self._files.place(sources[0].line, tree.turn[node])
        if tree.flags[node] & Is.SPLIT and turn.glued:
            message = dataclasses.replace(turn.message, calls=turn.glued)
            turn = dataclasses.replace(turn, message=message, changes=[*turn.changes, Change.SPLIT])
        if turn.message.role is Role.TOOL and not turn.message.text.strip():
            message = dataclasses.replace(turn.message, text=NO_OUTPUT)
            turn = dataclasses.replace(turn, message=message, changes=[*turn.changes, Change.NO_OUTPUT])
        if not self._noted[node]:
            self._noted[node] = 1
            for change in turn.changes:
                self._note(change, place)
            if self._outcomes and node in self._outcomes.parted:
                self._note(Change.SEGMENT, place)
        return turn, place

    def _tools(self, exchange: Exchange, messages: Sequence[Message], place: Place) -> tuple[LoggedTool, ...]:
        """The tools of a trajectory: as logged, else as given, else by the calls in it."""
        calls = [call for message in messages for call in message.calls]
        if exchange.nulls:
            self._note(Change.NULL_KEYS, place)
        if exchange.tools is not None or not calls:
            return exchange.tools or ()
        self._note(Change.TOOLS_GIVEN if self._given else Change.TOOLS_SEEN, place)
        return self._given or tuple(_seen(name, calls) for name in dict.fromkeys(call.name for call in calls))

    def _group(self, number: int, end: int, conversation: LoggedConversation) -> None:
        """Join a trajectory with its session, its first user turn and its conversation."""
        self._groups.join(("conversation", self._conversations.find(self._first[end])), number)
        if conversation.session:
            self._groups.join(("session", conversation.session), number)
        if conversation.question:
            self._groups.join(("question", hash_of(conversation.question)), number)

    def _join_near_duplicates(self, signatures: bytearray) -> None:
        assert self._outcomes is not None, "read comes first"
        whose = [self._conversations.find(self._first[end]) for end in self._outcomes.ends]
        apart = [pair for pair in near_duplicates(signatures) if whose[pair[0]] != whose[pair[1]]]
        for later, earlier in apart:
            self._groups.join(earlier, later)
        numbers: dict[object, int] = {}
        found = self.summary
        joined = (self._groups.find(one) for one in range(found.trajectories))
        found.group_of = [numbers.setdefault(one, len(numbers)) for one in joined]
        found.near_duplicates, found.groups = len(apart), len(numbers)

    def _sum_up(self) -> None:
        """Count conversations, and put what is left out into the order of the log."""
        acted = [node for node in range(len(self._tree)) if self._tree.flags[node] & Is.ACTION]
        self.summary.conversations = len({self._conversations.find(self._first[node]) for node in acted})
        self.summary.left_out = [
            LeftOut(self._files.place(piece, turn), unit, str(reason))
            for piece, turn, unit, reason in sorted(self._lost)
        ]

    def _line_left_out(self, piece: int, reason: LineFault) -> None:
        self._lost.append((piece, 0, "line", reason))

    def _note(self, change: Change, place: Place) -> None:
        self.summary.changed[change] += 1
        self._changed(change, place)


def _with_ids(messages: list[Message]) -> Iterator[Message]:
    """The messages; calls that were split get the ids of their results, which follow in their order."""
    for index, message in enumerate(messages):
        results = messages[index + 1 : index + 1 + len(message.calls)]
        alike = len({call.id for call in message.calls}) < len(message.calls)
        if alike and len(results) == len(message.calls) and all(one.role is Role.TOOL for one in results):
            calls = [
                dataclasses.replace(call, id=result.call_id or call.id)
                for call, result in zip(message.calls, results, strict=True)
            ]
            message = dataclasses.replace(message, calls=tuple(calls))
        yield message


def _seen(name: str, calls: Sequence[Call]) -> LoggedTool:
    """A tool that no log describes, by the arguments that it was called with."""
    keys = dict.fromkeys(key for call in calls if call.name == name for key in call.value or ())
    return LoggedTool(name, "", to_text({"type": "object", "properties": {key: {} for key in keys}}))
