"""A chat template that takes tools, and the conversations that it is tried with.

Their words are sentinels, found again in what the template writes, by name, id and value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swirl.core.errors import ModelError
from swirl.models.call_grammar import Call
from swirl.models.tokens import Tokens, template_errors

Messages = list[dict[str, Any]]
Tool = Mapping[str, Any]
"""A tool as templates take it: `{"type": "function", "function": {"name", "description", "parameters"}}`."""

FIX = "use actions.format: tags"

QUESTION, REPLY, THOUGHT = "QUESTION-SENTINEL", "REPLY-SENTINEL", "THOUGHT-SENTINEL"
VALUES = ('VALUE-SENTINEL "quoted" \\ 7', "OTHER-SENTINEL", "LAST-SENTINEL")
NAMES = ("first_sentinel", "second_sentinel", "third_sentinel")
_ARGUMENTS = (
    {"argument_sentinel": VALUES[0], "another_sentinel": "FURTHER-VALUE"},
    {"argument_sentinel": VALUES[1]},
    {"argument_sentinel": VALUES[2]},
)
CALLS = [Call(NAMES[i], _ARGUMENTS[i], f"CallId00{i}") for i in range(3)]
"""Ids have nine letters and digits, as Mistral's templates demand."""
RESULTS = ("RESULT-SENTINEL", "SECOND-RESULT", "THIRD-RESULT")
DESCRIPTION = "DESCRIPTION-SENTINEL"
ASK = {"role": "user", "content": QUESTION}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": DESCRIPTION,
            "parameters": {
                "type": "object",
                "properties": {
                    key: {"type": "string", "description": "a text"}
                    for key in ("argument_sentinel", "another_sentinel")
                },
                "required": ["argument_sentinel"],
            },
        },
    }
    for name in NAMES
]


class Template(Tokens):
    """A tokenizer whose chat template writes conversations with tools."""

    def __init__(self, tokenizer: Any, thinking: bool = False) -> None:
        """`thinking` asks the template for turns with thoughts."""
        super().__init__(tokenizer)
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the tokenizer has no chat template; use an instruction-tuned model or set one")
        self._options = {
            "enable_thinking": thinking,
            "thinking": thinking,
            "date_string": "26 Jul 2024",
        }

    def render(
        self, messages: Messages, what: str, tools: Sequence[Tool] | None = None, generation: bool = True
    ) -> str:
        """The template's text; with the tools of the sentinels unless others are given."""
        given = [dict(tool) for tool in (TOOLS if tools is None else tools)] or None
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tools=given, tokenize=False, add_generation_prompt=generation, **self._options
            )
        except template_errors() as error:
            raise ModelError(f"the chat template refuses {what}: {error}; {FIX}") from error
        return str(text)

    def plain(self, value: Any) -> Any:
        """A tool without names of special tokens, which a server's description may hold: a blank breaks them up."""
        if isinstance(value, Mapping):
            return {self.plain(key): self.plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        if isinstance(value, str):
            for name in self.tokenizer.convert_ids_to_tokens(sorted(self._special)):
                value = value.replace(name, f"{name[:1]} {name[1:]}") if len(name) > 1 else value
        return value

    def markup(self, ids: Sequence[int]) -> str:
        """Tokens as text, special ones by their names."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def special_start(self, text: str) -> int | None:
        """The special token that a text of the template begins with; None where it begins with another."""
        ids = self._encode(text)
        return ids[0] if ids and ids[0] in self._special else None


def said(text: str) -> dict[str, Any]:
    """The model's turn with this text."""
    return {"role": "assistant", "content": text}


def acted(count: int) -> dict[str, Any]:
    """The model's turn with the first calls."""
    calls = [
        {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
        for call in CALLS[:count]
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def results(count: int) -> Messages:
    """The results of the first calls."""
    return [
        {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result}
        for call, result in zip(CALLS[:count], RESULTS, strict=False)
    ]


def moved(piece: str, by: int) -> str:
    """A piece about the first calls, about those that are `by` further on."""
    for i in reversed(range(3 - by)):
        piece = piece.replace(CALLS[i].id, CALLS[i + by].id).replace(NAMES[i], NAMES[i + by])
    return piece


def named(piece: str, calls: Sequence[tuple[str, str]]) -> str:
    """A piece about the first calls, about those with these names and ids."""
    for call, (name, key) in zip(CALLS, calls, strict=False):
        piece = piece.replace(call.id, key).replace(call.name, name)
    return piece
