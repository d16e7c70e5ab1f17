"""From params to the questions and conversations of an agent's logs, in splits that no group crosses."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swirl.agent_logs.conversation import LoggedConversation, Role
from swirl.agent_logs.exchanges import LineFault
from swirl.agent_logs.found import as_dict, place_of
from swirl.agent_logs.log_shapes import read_tools
from swirl.agent_logs.logs import LeftOut, Logs
from swirl.agent_logs.splitting import split_groups
from swirl.agent_logs.stored import to_content
from swirl.agent_logs.unions import Unions
from swirl.config.data import Benchmark, Download
from swirl.core.errors import DataError
from swirl.core.leakage import leakage_key
from swirl.core.seeds import derive
from swirl.core.splits import counts
from swirl.core.types import LOGGED, LOGGED_TOOL, Conversation, Question
from swirl.core.untrusted import writable
from swirl.pipeline.progress import SHORT, Progress, counted, megabytes

MLFLOW = "mlflow:"
"""Before the name of an experiment, in place of a file."""
TRACES = "mlflow"
"""Folder below `download.folder` for the traces that a tracking server gave."""
ORDER = ("evaluation", "development", "pretrain", "train")
"""The splits in the order of drawing: first those whose results are compared over time."""
UNREADABLE = frozenset({LineFault.NO_JSON, LineFault.NO_TEXT, LineFault.DEEP, LineFault.SHAPE, LineFault.TYPES})
"""Why a line counts as a bad row; other lines that are left out are of requests that are none of the agent's steps."""
NO_TURN = "a conversation without a turn of the user or the system"
HALF = "half a surrogate pair: written as ?"


@dataclass(slots=True)
class ReadLogs:
    """One benchmark's logs. `conversations` streams; all else is known once it is through."""

    name: str
    files: list[Path]
    logs: Logs
    questions: list[Question] = field(default_factory=list)
    """Of every conversation, in the order of the log, in split '' until `dealt`."""
    left_out: list[LeftOut] = field(default_factory=list)
    halves: int = 0

    def conversations(self) -> Iterator[Conversation]:
        """Every conversation, whatever its split; fills `questions`."""
        known: set[str] = set()
        label = f"{self.name}: conversations"
        for conversation in counted(self.logs.conversations(), self.logs.trajectories, label):
            question = _question(self.name, conversation)
            if question is None:
                last = conversation.places[conversation.actions[-1]]
                self.left_out.append(LeftOut(last, "conversation", NO_TURN))
                self.questions.append(Question("", self.name, "", "", (), 0, (), LOGGED))
                continue
            assert question.id not in known, "the tree of requests gives each of its leaves an id of its own"
            known.add(question.id)
            self.questions.append(question)
            content, half = to_content(conversation)
            self.halves += half
            yield Conversation(question.id, content)

    def dealt(self, wanted: dict[str, int | None], seed: int) -> list[Question]:
        """The questions of the splits, which hold whole groups; `wanted` as in `split_groups`.

        Raises `DataError` for a split that gets none.
        """
        groups, joined = self.logs.summary.group_of, Unions()
        for group, question in zip(groups, self.questions, strict=True):
            if key := leakage_key(question.text):  # none without a word
                joined.join(("text", key), group)
        usable = [number for number, question in enumerate(self.questions) if question.id]
        found = split_groups([joined.find(groups[number]) for number in usable], wanted, seed)
        sizes = Counter(found)
        if empty := [split for split in wanted if not sizes[split]]:
            largest = Counter(joined.find(groups[number]) for number in usable).most_common(1)
            raise DataError(
                f"download.benchmarks.{self.name}: split {empty[0]} gets no conversation of {len(usable)}. Groups are "
                f"dealt out whole, and the largest has {largest[0][1] if largest else 0} (one session, one first turn, "
                "or near-duplicates); ask for other numbers, or add logs"
            )
        pairs = zip(usable, found, strict=True)
        return [replace(self.questions[number], split=split) for number, split in pairs if split]

    def report(self, dealt: Sequence[Question]) -> dict[str, Any]:
        """What was found, changed and left out, and how the conversations were dealt out."""
        found = as_dict(self.logs.summary)
        found["left_out"] += [place_of(one) for one in self.left_out]
        found["changed"] |= {HALF: self.halves} if self.halves else {}
        sizes = Counter(question.split for question in dealt)
        usable = sum(bool(question.id) for question in self.questions)
        labelled = sum(bool(question.answers) for question in dealt)
        return {
            **found,
            "splits": dict(sorted(sizes.items())),
            "labelled": labelled,
            "in_no_split": usable - len(dealt),
        }

    def bad_rows(self) -> list[list[LeftOut]]:
        """Of each file, the lines that cannot be read."""
        places = {str(name): number for number, name in enumerate(self.files)}
        found: list[list[LeftOut]] = [[] for _ in self.files]
        for one in self.logs.summary.left_out:
            if one.unit == "line" and one.reason in UNREADABLE:
                found[places[one.place.file]].append(one)
        return found


def read_logs(name: str, benchmark: Benchmark, folder: Path) -> ReadLogs:
    """Read the logs of a benchmark from front to back; paths are relative to `folder`, and places name them so.

    Raises `DataError` for a file that does not exist or cannot be read, and for logs without a single action.
    """
    paths = [path for given in benchmark.logs or () for path in _paths(folder, given)]
    tools = read_tools(folder / benchmark.logged_tools) if benchmark.logged_tools else ()
    names = [path.relative_to(folder).as_posix() for path in paths]
    logs = Logs(paths, tools, benchmark.by or (), names=names)
    with Progress(logs.size // 1_000_000, f"{name}: MB of logs read", after=SHORT) as bar:
        logs.read(megabytes(bar))
    if not logs.summary.conversations:
        why = Counter(one.reason for one in logs.summary.left_out).most_common(1)
        most = f"; most often left out: {why[0][0]} ({why[0][1]})" if why else ""
        raise DataError(f"{name}: {', '.join(names)} hold no action of an agent{most}; `swirl import` says more")
    return ReadLogs(name, [Path(one) for one in names], logs)


def experiments_of(settings: Download, folder: Path) -> list[tuple[str, Path]]:
    """The experiments whose traces the benchmarks name as logs, and where these are kept; each once."""
    given = [log for one in settings.benchmarks.values() for log in one.logs or () if log.startswith(MLFLOW)]
    names = dict.fromkeys(one.removeprefix(MLFLOW) for one in given)
    return [(name, traces_file(folder, name)) for name in names]


def traces_file(folder: Path, experiment: str) -> Path:
    """Where `download` keeps the traces of an experiment that it has fetched."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment)
    mark = "" if plain == experiment else "-" + hashlib.sha256(experiment.encode()).hexdigest()[:8]
    return folder / TRACES / f"{plain}{mark}.jsonl"


def wanted_of(benchmark: Benchmark) -> dict[str, int | None]:
    """How many conversations each split gets at most, in the order of drawing; None: all that are left."""
    asked = counts(benchmark)
    return {split: None if asked[split] == "all" else int(asked[split]) for split in ORDER if split in asked}


def seed_of(name: str, seed: int) -> int:
    """The seed of a benchmark's splits."""
    return derive(seed, "download", name, "logs")


def _question(name: str, conversation: LoggedConversation) -> Question | None:
    """The question of a conversation: its first real user turn, or else what it begins with; None if it has neither."""
    said = (message.text for message in conversation.messages if message.role in (Role.USER, Role.SYSTEM))
    text = next((text for text in (conversation.question, *said) if text.strip()), None)
    if text is None:
        return None
    tools = tuple(LOGGED_TOOL + writable(tool.name) for tool in conversation.tools)
    answers = tuple(writable(answer) for answer in conversation.answers)
    return Question(f"{name}/{conversation.id}", name, "", writable(text), answers, 0, tools, LOGGED)


def _paths(folder: Path, given: str) -> list[Path]:
    """The file of that name, or those of the folder, by name; the traces that were fetched of an experiment.

    Raises `DataError` when there is none.
    """
    if given.startswith(MLFLOW):
        return [traces_file(folder, given.removeprefix(MLFLOW))]
    path = folder / given
    if path.is_dir():
        if found := sorted(one for one in path.iterdir() if one.suffix in (".jsonl", ".json") and one.is_file()):
            return found
        raise DataError(f"{path} holds no *.jsonl and no *.json")
    if not path.exists():
        raise DataError(f"{path} does not exist; paths are relative to download.folder, which is {folder}")
    return [path]
