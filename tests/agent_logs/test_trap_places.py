"""What is met in agents' logs, trap by trap: what is changed or left out, with file, line, turn and reason, and what is
used. `test_traps.py` has the traps in more of their forms, and what the conversations are then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swirl.agent_logs.exchanges import Change, Fault, NoAction
from swirl.agent_logs.logs import Logs
from tests.agent_logs.test_traps import (
    FETCH,
    FETCHED,
    SCHEMA,
    SYSTEM,
    call,
    calls,
    chain,
    conversation,
    request,
    result,
    said,
    spoken,
    user,
)

Json = dict[str, Any]
ASK = user("Weather in Oslo?")
SOUND = conversation(ASK, said("4 degrees, and it rains."))
"""The first line of every log here."""
LONG = "It is four degrees and raining in Oslo this morning."
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}
NULL_KEY = calls(call({"city": "Oslo", "query": None}))
BOTH = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}],
    "tool_calls": [call()],
}
HIDDEN = said("4", reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}])
OLD = {"role": "assistant", "content": "", "function_call": {"name": "weather", "arguments": "{}"}}
START = [SYSTEM, user("Is it warm?")]
SUMMED = [SYSTEM, user("Summary of the conversation: Oslo."), calls(call()), result(), user("And now?")]
MESSAGES = {"messages": [user("?"), calls(call()), result(), said("4")]}


def piece(block: Json) -> Json:
    asked = {"system": "Be brief.", "messages": [user("?")], "tools": [{"name": "weather", "input_schema": SCHEMA}]}
    answer = {"type": "message", "id": "msg_1", "role": "assistant", "content": [block]}
    return {"request": asked, "response": answer}


GLUED = calls(call('{"city": "Oslo"}{"city": "Rome"}', "a"))
TRAPS: dict[str, tuple[list[Any], list[list[int]], list[tuple[int, int, str]], list[tuple[int, int, str]]]] = {
    "01 an object": (
        [conversation(user("?"), calls(call({"city": "Oslo"})), result(), said("4"))],
        [[1, 3]], [(2, 2, Change.OBJECT)], [],
    ),
    "02 null content, parts": (
        [conversation({"role": "user", "content": [{"type": "text", "text": "?"}]}, {**calls(call()), "content": None},
                      result(), said("4"))],
        [[1, 3]], [(2, 1, Change.PARTS), (2, 2, Change.NULL)], [],
    ),
    "02 an image": (
        [conversation(user("?"), said("Hi"), IMAGE, said("A cat"))], [[1]], [], [(2, 4, Fault.PART)],
    ),
    "03 a result without its call": (
        [conversation(user("?"), said("Hi"), result(id="gone"), said("4"))], [[1]], [], [(2, 4, Fault.ORPHAN)],
    ),
    "04 a call without a result": (
        [conversation(user("?"), calls(call()), user("Well?"), said("Sorry"))], [[1]], [], [(2, 4, Fault.UNANSWERED)],
    ),
    "05 ids used again": (
        [conversation(user("?"), calls(call(id="call_0")), result("4", "call_0"), calls(call("{}", "call_0")),
                      result("5", "call_0"), said("5"))],
        [[1, 3, 5]], [], [],
    ),
    "06 results in another order": (
        [conversation(user("?"), calls(call(id="a"), call(id="b")), result("5", "b"), result("4", "a"), said("4"))],
        [[1, 4]], [(2, 4, Change.ORDER)], [],
    ),
    "07 glued, and split by the results": (
        [conversation(user("?"), GLUED, result("4", "a"), result("20", "b"), said("Rome"))],
        [[1, 4]], [(2, 2, Change.SPLIT)], [],
    ),
    "07 glued, and nothing splits it": (
        [conversation(user("?"), GLUED, result("4", "a"), said("4"))], [], [],
        [(2, 2, Fault.GLUED), (2, 4, Fault.GLUED)],
    ),
    "08 empty arguments": (
        [conversation(user("?"), calls(call("")), result(), said("4"))], [[1, 3]], [(2, 2, Change.EMPTY)], [],
    ),
    "09 encoded twice": (
        [conversation(user("?"), calls(call(json.dumps('{"city": "Oslo"}'))), result(), said("4"))],
        [[1, 3]], [(2, 2, Change.DECODED)], [],
    ),
    "10 no JSON, an unknown tool": (
        [conversation(user("?"), calls(call("{")), result("error"), calls(call("{}", name="teleport")),
                      result("error"), said("No"))],
        [[1, 3, 5]], [], [],
    ),
    "11 old roles, no id": (
        [conversation({"role": "developer", "content": "Be brief."}, user("?"), OLD,
                      {"role": "function", "name": "weather", "content": "4"}, said("4"))],
        [[2, 4]],
        [(2, 1, Change.DEVELOPER), (2, 3, Change.FUNCTION_CALL), (2, 4, Change.FUNCTION), (2, 4, Change.NO_ID)], [],
    ),
    "11 ids that do not add up": (
        [conversation(user("?"), calls(call(id="a"), call(id="b")), {"role": "tool", "content": "4"}, said("4"))],
        [[1]], [], [(2, 4, Fault.UNPAIRED)],
    ),
    "12 thoughts, withheld ones": (
        [conversation(user("?"), said("a", reasoning_content="one"), user("?"), HIDDEN)],
        [[1, 3]], [(2, 2, Change.THOUGHT), (2, 4, Change.WITHHELD)], [],
    ),
    "13 tools not logged": ([MESSAGES], [[1, 3]], [(2, 4, Change.TOOLS_SEEN)], []),
    "14 null keys": (
        [conversation(user("?"), NULL_KEY, result(), said("4"))],
        [[1, 3]], [(2, 2, Change.NULL_KEYS), (2, 2, Change.OBJECT)], [],
    ),
    "15 a sub-agent in the session": (
        [request(START, calls(call()), session_id="s"), request([user("Trains?")], said("At nine"), session_id="s"),
         request([*START, calls(call()), result()], said("Take the train"), session_id="s")],
        [[1], [2, 4]], [], [],
    ),
    "16 a summary for the history": (
        [request(START, calls(call()), session_id="s"), request(SUMMED, said("Still 4"), session_id="s")],
        [[2], [5]], [(3, 2, Change.SEGMENT)], [],
    ),
    "17 sent twice": (
        [request([user("?")], said("4")), request([user("?")], said("Five")), request([user("?")], said(""))],
        [[1], [1]], [], [(4, 2, Fault.EMPTY)],
    ),
    "18 an example, weight 0, the client's error": (
        [conversation({"role": "user", "name": "example_user", "content": "Hello"},
                      said("Hi", name="example_assistant"), user("?"), said("Wait", weight=0),
                      said("API Error: 500 overloaded"), user("Again"), said("4"))],
        [[6]], [], [(2, 2, NoAction.EXAMPLE), (2, 4, NoAction.WEIGHT), (2, 5, NoAction.CLIENT)],
    ),
    "19 cut by the logger": (
        [conversation(user("?"), calls(call()), result("long ...[truncated]"), said("4"))],
        [[1]], [], [(2, 4, Fault.LOGGER)],
    ),
    "20 masked values": (
        [conversation(user("I am [EMAIL]"), calls(call('{"city": "[EMAIL]"}')), result(), said("Done"))],
        [[3]], [], [(2, 2, NoAction.MASKED)],
    ),
    "21 cut at its length": (
        [request([user("?")], said("It is"), finish="length"),
         request([user("?"), said("It is"), user("Go on")], said("4"))],
        [[3]], [], [(2, 2, NoAction.LENGTH)],
    ),
    "22 a call twice": (
        [conversation(user("?"), BOTH, result(), said("4"))],
        [[1, 3]], [(2, 2, Change.PARTS), (2, 2, Change.TWICE)], [],
    ),
    "23 only new items": (
        [chain("r1", None, "?", [FETCH]), chain("r2", "r1", [FETCHED], [spoken("4")])],
        [[2, 4]], [(3, 1, Change.CHAINED)], [],
    ),
    "23 the first is missing": ([chain("r3", "r2", [user("Sure?")], [spoken("Yes")])], [], [], [(2, 2, Fault.CHAIN)]),
    "24 a line separator inside a line": (
        [json.dumps(conversation(user("one\u2028two"), said("4")), ensure_ascii=False) + "\r"], [[1]], [], [],
    ),
    "25 one turn on several lines": (
        [piece({"type": "text", "text": "Wait"}),
         piece({"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}})],
        [[2]], [(2, 2, Change.JOINED)], [],
    ),
    "26 assistant turns in a row": (
        [conversation(user("?"), said("Let me look"), calls(call()), result(), said("4"), said("Bye"))],
        [[1, 2, 4, 5]], [], [],
    ),
    "27 another model": (
        [conversation(user("?"), said("4", model="small"), user("Sure?"), said("Yes", model="large"))],
        [[3]], [], [(1, 2, NoAction.MODEL), (2, 2, NoAction.MODEL)],
    ),
}  # fmt: skip
"""Trap -> the lines after the sound one; the actions of each trajectory; (line, turn, reason) of each change and
of what is left out."""


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap(trap: str, tmp_path: Path) -> None:
    rows, actions, changed, left_out = TRAPS[trap]
    path = tmp_path / "agent.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in (SOUND, *rows)]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    met: list[tuple[str, int, int, str]] = []
    logs = Logs(
        [path],
        models=["large"] if trap.startswith("27") else (),
        changed=lambda change, place: met.append((place.file, place.line, place.turn, change)),
        names=["agent.jsonl"],
    )
    logs.read()
    found = [list(one.actions) for one in logs.conversations()]
    assert found == (actions if trap.startswith("27") else [[1], *actions])
    assert sorted(met) == sorted(("agent.jsonl", *one) for one in changed)
    places = [(one.place.file, one.place.line, one.place.turn, one.reason) for one in logs.summary.left_out]
    assert places == [("agent.jsonl", *one) for one in left_out]
    assert {one.unit for one in logs.summary.left_out} <= {"step"}


def test_there_is_a_row_for_each_of_the_27() -> None:
    assert sorted({int(name[:2]) for name in TRAPS}) == list(range(1, 28))
