"""Which result answers which call: results are put into the order of the calls, and what does not pair is a fault."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence

from swirl.agent_logs.conversation import Call, Role
from swirl.agent_logs.exchanges import Change, Fault, Turn


def pair(turns: Sequence[Turn]) -> tuple[list[Turn], bool]:
    """The turns with results in the order of their calls and faults noted, and whether calls at the end wait.

    A result answers a call of the assistant's turn right before the results, by its id or, where all lack one, by
    order; so ids may come again later. The turns given are not changed.
    """
    paired: list[Turn] = []
    waiting, at = False, 0
    while at < len(turns):
        turn = turns[at]
        end = at
        while end < len(turns) and turns[end].message.role is Role.TOOL:
            end += 1
        if end > at:
            results = [dataclasses.replace(one, changes=list(one.changes)) for one in turns[at:end]]
            caller = paired[-1] if paired and paired[-1].message.role is Role.ASSISTANT else None
            if caller is None or not caller.message.calls:
                results[0].fault = results[0].fault or Fault.ORPHAN
                waiting = False
            else:
                paired[-1], results, waiting = _match(caller, results)
            paired.extend(results)
            at = end
            continue
        if waiting:
            turn = dataclasses.replace(turn, fault=turn.fault or Fault.UNANSWERED)
        waiting = turn.message.role is Role.ASSISTANT and bool(turn.message.calls)
        paired.append(turn)
        at += 1
    return paired, waiting


def _match(caller: Turn, results: list[Turn]) -> tuple[Turn, list[Turn], bool]:
    """The caller (its glued calls split, if the results say so), its results in order, whether some calls wait."""
    if caller.glued and len(results) == len(caller.glued):
        calls = tuple(
            dataclasses.replace(call, id=result.message.call_id or call.id)
            for call, result in zip(caller.glued, results, strict=True)
        )
        message = dataclasses.replace(caller.message, calls=calls)
        split = dataclasses.replace(caller, message=message, changes=[*caller.changes, Change.SPLIT], glued=())
        return split, results, False
    calls = caller.message.calls
    if any(not result.message.call_id for result in results):
        return caller, *_by_order(calls, results)
    return caller, *_by_id(calls, results)


def _by_order(calls: Sequence[Call], results: list[Turn]) -> tuple[list[Turn], bool]:
    """Results of which some lack an id: by order if there are as many as calls, otherwise a fault."""
    known = {call.id for call in calls}
    if len(calls) != len(results) or any(one.message.call_id not in ("", *known) for one in results):
        results[0].fault = results[0].fault or Fault.UNPAIRED
        return results, False
    for call, result in zip(calls, results, strict=True):
        if not result.message.call_id and call.id:
            result.message = dataclasses.replace(result.message, call_id=call.id)
    results[0].changes.append(Change.NO_ID)
    return results, False


def _by_id(calls: Sequence[Call], results: list[Turn]) -> tuple[list[Turn], bool]:
    """Results by the first call with their id that is still open; one that has none is a fault."""
    open_calls: dict[str, deque[int]] = {}
    for i, call in enumerate(calls):
        open_calls.setdefault(call.id, deque()).append(i)
    order: list[int] = []
    for number, result in enumerate(results):
        same = open_calls.get(result.message.call_id)
        if not same:
            result.fault = result.fault or Fault.ORPHAN
            ranked = sorted(range(number), key=order.__getitem__)
            return [*(results[i] for i in ranked), *results[number:]], False
        order.append(same.popleft())
    ranked = sorted(range(len(order)), key=order.__getitem__)
    if ranked != list(range(len(order))):
        results[ranked[0]].changes.append(Change.ORDER)
    return [results[i] for i in ranked], len(order) < len(calls)
