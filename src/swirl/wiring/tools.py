"""From params to the tools of a question."""

from __future__ import annotations

from collections.abc import Callable

from swirl.config.params import Params
from swirl.core.errors import ParamsError
from swirl.core.layout import Layout
from swirl.core.types import LOGGED, LOGGED_TOOL, Question
from swirl.models.chat import Chat
from swirl.models.loading import load_chat
from swirl.rollout.reading import Reader
from swirl.rollout.turns import TurnReader
from swirl.tools import Search
from swirl.tools.actions import kind_of_call
from swirl.tools.base import Tool
from swirl.tools.by_name import by_kind, open_tool, options_name


class Toolbox:
    """The tools of each question; every tool and every index is opened only once."""

    def __init__(self, params: Params, layout: Layout) -> None:
        self._params, self._layout = params, layout
        self._made: dict[tuple[str, ...], Tool] = {}

    def tools(self, question: Question) -> dict[str, Tool]:
        """Tools by kind of action. Raises `ParamsError` for a tool that does not exist or is not valid."""
        return by_kind(self._tool(name, question) for name in question.tools)

    def tags(self, question: Question) -> dict[str, str]:
        """Tag of each tool -> the kind of action that calls it; opens no index."""
        found = {}
        for name in question.tools:
            if name.startswith(LOGGED_TOOL):
                known = name.removeprefix(LOGGED_TOOL)
                found[known] = kind_of_call(known)
                continue
            tool = Search if name == "search" else self._tool(name, question)
            found[tool.tag] = tool.kind
        return found

    def reader(self, question: Question, chat: Chat, thoughts: bool = False) -> Reader:
        """What reads the actions on a question: whole turns in a logged conversation."""
        tags = self.tags(question)
        return TurnReader(chat, tags) if question.task == LOGGED else Reader(chat, tags, thoughts)

    def _tool(self, name: str, question: Question) -> Tool:
        key = (name, question.benchmark, question.split) if name == "search" else (name,)
        if key not in self._made:
            self._made[key] = self._open(name, question)
        return self._made[key]

    def _open(self, name: str, question: Question) -> Tool:
        settings, root = self._params.tools, self._layout.root
        if name.startswith(LOGGED_TOOL):
            raise ParamsError(f"question {question.id} is of a log, and its tool {name} does not run here")
        if name != "search":
            return open_tool(name, settings.options.get(options_name(name), {}), root / settings.folder)
        index = self._layout.index(question.benchmark, question.split)
        limit, size = settings.search_output_limit, self._size()
        return Search(index, settings.search_results, limit, size, root, self._params.runtime.device)

    def _size(self) -> Callable[[str], int]:
        """The function that measures a search result, in characters or in tokens of the base model."""
        if self._params.tools.search_output_unit == "characters":
            return len
        return load_chat(self._layout.model("base")).count
