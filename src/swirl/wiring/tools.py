"""From params to the tools of a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from swirl.config.params import Params
from swirl.core.errors import ParamsError
from swirl.core.layout import Layout
from swirl.core.types import LOGGED, LOGGED_TOOL, Question
from swirl.models.loading import load_chat
from swirl.models.native_chat import AnyChat, NativeChat
from swirl.rollout.reading import AnyReader, reader_for
from swirl.rollout.turns import NativeTurnReader, TurnReader
from swirl.tools import Calculator, Search
from swirl.tools.actions import kind_of_call
from swirl.tools.base import Tool
from swirl.tools.by_name import by_kind, open_tool, options_name
from swirl.tools.schemas import Signatures, schema_of


def built_in(kind: str) -> Signatures:
    """The function of the built-in tool of this kind."""
    return Signatures([schema_of(tool) for tool in (Search, Calculator) if tool.kind == kind])


class Toolbox:
    """The tools of each question; every tool and every index is opened only once."""

    def __init__(self, params: Params, layout: Layout) -> None:
        self._params, self._layout = params, layout
        self._made: dict[tuple[str, ...], Tool] = {}

    def tools(self, question: Question) -> dict[str, Tool]:
        """Tools by kind of action. Raises `ParamsError` for a tool that does not exist or is not valid."""
        return by_kind(self._tool(name, question) for name in question.tools)

    def tags(self, question: Question) -> dict[str, str]:
        """Tag of each tool, or `Signatures` in the model's own format -> the kind of action that calls it.

        Opens no index. Tools of a log have names alone, in either format.
        """
        logged = [name.removeprefix(LOGGED_TOOL) for name in question.tools if name.startswith(LOGGED_TOOL)]
        if logged:
            return {name: kind_of_call(name) for name in logged}
        tools = [Search if name == "search" else self._tool(name, question) for name in question.tools]
        if self._params.actions.format == "native":
            return Signatures(map(schema_of, tools))
        return {tool.tag: tool.kind for tool in tools}

    def reader(self, question: Question, chat: AnyChat) -> AnyReader:
        """What reads the actions on a question: whole turns in a logged conversation."""
        if question.task == LOGGED:
            return self.turn_reader(question, chat)
        return reader_for(chat, self.tags(question), self._params.actions.thought_only == "allow")

    def turn_reader(self, question: Question, chat: AnyChat) -> TurnReader | NativeTurnReader:
        """What reads whole turns in a logged conversation."""
        tags = self.tags(question)
        if isinstance(chat, NativeChat):
            return NativeTurnReader(chat, cast("Signatures", tags))
        return TurnReader(chat, tags)

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
