"""What holds for any log: no action is lost silently, and how a conversation was logged does not change it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from swirl.agent_logs.conversation import LoggedConversation
from swirl.agent_logs.exchanges import Change
from swirl.agent_logs.logs import Logs, Summary

Json = dict[str, Any]

WORDS = st.sampled_from(["yes", "no", "Oslo", "4 degrees", "…", ""])
ARGUMENTS = st.sampled_from(['{"city": "Oslo"}', "{}", "", "{}{}", "{", '"{}"', None, {"city": None}])
IDS = st.sampled_from(["a", "b", ""])


def _call(id: str, arguments: Any) -> Json:
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


CALLS = st.lists(st.builds(_call, IDS, ARGUMENTS), max_size=2)
MESSAGES = st.lists(
    st.one_of(
        st.builds(lambda text: {"role": "user", "content": text}, WORDS),
        st.builds(lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls}, WORDS, CALLS),
        st.builds(lambda text, id: {"role": "tool", "content": text, "tool_call_id": id}, WORDS, IDS),
        st.builds(lambda text: {"role": "assistant", "content": text, "weight": 0}, WORDS),
        st.just({"role": "user", "content": [{"type": "image_url"}]}),
    ),
    min_size=1,
    max_size=8,
)


def read(*lines: Any) -> tuple[list[LoggedConversation], Summary]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        logs = Logs([path])
        logs.read()
        return list(logs.conversations()), logs.summary


@given(MESSAGES)
def test_every_turn_of_the_assistant_is_a_step_or_is_left_out_with_its_place(messages: list[Json]) -> None:
    found, summary = read({"messages": messages})
    turns = {number for number, one in enumerate(messages, 1) if one["role"] == "assistant"}
    used = {one.places[index].turn for one in found for index in one.actions}
    left_out = [one.place.turn for one in summary.left_out if one.unit == "step"]
    if turns:
        assert used | (set(left_out) & turns) == turns
        assert not used & set(left_out) and len(left_out) == len(set(left_out))
        assert summary.steps == len(used)
    else:
        assert [one.unit for one in summary.left_out] == ["line"]


@st.composite
def sound(draw: st.DrawFn) -> list[Json]:
    """A conversation without a fault."""
    messages: list[Json] = [{"role": "user", "content": draw(st.sampled_from(["Oslo?", "Rome?"]))}]
    for turn in range(draw(st.integers(1, 4))):
        ids = [f"{turn}{number}" for number in range(draw(st.integers(0, 2)))]
        text = draw(st.sampled_from(["Hm", "Yes"]))
        messages.append({"role": "assistant", "content": text, "tool_calls": [_call(id, '{"a": 1}') for id in ids]})
        follows = [{"role": "tool", "content": draw(WORDS), "tool_call_id": id} for id in draw(st.permutations(ids))]
        messages += follows or [{"role": "user", "content": draw(st.sampled_from(["Sure?", "And?"]))}]
    return messages[:-1] if messages[-1]["role"] == "user" else messages


@given(st.lists(sound(), min_size=1, max_size=2), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_requests_in_any_order_are_the_conversations_that_they_are_of(
    conversations: list[list[Json]], draw: Any
) -> None:
    whole, _ = read(*[{"messages": messages, "tools": []} for messages in conversations])
    lines = [
        {"request": {"messages": messages[:at], "tools": []}, "response": {"choices": [{"message": messages[at]}]}}
        for messages in conversations
        for at in range(len(messages))
        if messages[at]["role"] == "assistant"
    ]
    draw.shuffle(lines)
    found, summary = read(*lines)

    def said(one: LoggedConversation) -> tuple[Any, ...]:
        last = max(one.actions)
        return tuple((message.role, message.text, len(message.calls)) for message in one.messages[: last + 1])

    assert sorted(map(said, found)) == sorted(map(said, whole))
    assert summary.steps + summary.changed[Change.AGAIN] == len(lines) and summary.left_out == []


KEYS = (
    "messages role content tool_calls function arguments type request input response choices message delta output "
    "tools spans data attributes id model name stop_reason index choices delta"
).split()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(float("inf"))
    | st.sampled_from(["assistant", "text", "{}", "", "tool_use", "data: {}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, VALUES)
@settings(max_examples=200)
def test_no_value_breaks_the_import(one: Any, other: Any) -> None:
    """Values of the wrong types in the right places."""
    _, summary = read(one, {"request": {"messages": [one, other]}, "response": other}, {"messages": [other, one]})
    assert all(left.place.line in (1, 2, 3) for left in summary.left_out)
