"""Writes data/support.jsonl: the recorded conversations of a made-up support desk, the same ones every time.

The recorded agent is uneven on purpose: in a third of the conversations it skips the order, the policy, or both, asks
for another order, or refunds another amount. `python examples/agent-logs/make_logs.py`
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

CONVERSATIONS = 320
SYSTEM = (
    "You are the support agent of Fernhill Outdoor. Look an order up before you speak of it. Read the policy before "
    "you promise or refuse money. Refund what was paid, once, and only where the policy allows it."
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup_order",
            "description": "the item, price, state and age of an order",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}},
                "required": ["order_id"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "search_policy",
            "description": "the desk's rules about a kind of item",
            "parameters": {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "issue_refund",
            "description": "pays money back",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}},
                "required": ["order_id", "amount"],
            },
        },
    },
]
DAYS = {"boots": 60, "tent": 30, "jacket": 45, "stove": 14, "rope": 0, "lamp": 30}
"""Item -> for how many days it may be sent back; 0: not at all."""
NAMES = ("Ada", "Bram", "Cleo", "Edda", "Falk", "Greta", "Hugo", "Iris", "Jon", "Kaja")
ASKS = {
    "where": (
        "Hello, {name} here. Where is my order {order}?",
        "My {item} has not come yet. The order is {order}. Any news? {name}",
        "{order}: when does it arrive? Thanks, {name}",
    ),
    "refund": (
        "I want my money back for the {item}, order {order}. {name}",
        "The {item} of order {order} does not suit me. Please refund it. Regards, {name}",
        "{name} here: can you take order {order} back and refund me?",
    ),
    "rule": (
        "How long can I send back a {item}? {name} asks.",
        "{name} here. Before I buy the {item}: may I return it, and until when?",
    ),
}


def conversation(number: int) -> dict[str, Any]:
    """One conversation as a line of the log."""
    draw = random.Random(f"desk {number}")
    item, kind = draw.choice(sorted(DAYS)), draw.choices(("where", "refund", "rule"), (3, 5, 2))[0]
    order, price = f"F{draw.randrange(10000, 99999)}", draw.randrange(20, 400)
    age, flawed = draw.randrange(2, 80), draw.random() < 0.34
    asked = draw.choice(ASKS[kind]).format(name=f"{draw.choice(NAMES)} {number}", order=order, item=item)
    shown = f"order {order}: {item}, paid {price} EUR, "
    shown += f"delivered {age} days ago" if kind == "refund" else f"sent, arrives in {age % 6 + 1} days"
    rule = f"{item}: may be returned within {DAYS[item]} days" if DAYS[item] else f"{item}: cannot be returned"
    allowed = age <= DAYS[item]
    lookup = ("lookup_order", {"order_id": order}, shown)
    policy = ("search_policy", {"item": item}, rule)
    refund = ("issue_refund", {"order_id": order, "amount": price}, f"refunded {price} EUR for order {order}")
    if kind == "where":
        steps, said = [lookup], f"Order {order} is on its way and arrives in {age % 6 + 1} days."
    elif kind == "rule":
        steps = [policy]
        said = f"You can send the {item} back within {DAYS[item]} days." if DAYS[item] else f"A {item} stays with you."
    elif allowed:
        steps, said = [lookup, policy, refund], f"I have refunded {price} EUR for order {order}."
    else:
        steps, said = [lookup, policy], f"I am sorry: the {item} came {age} days ago, which the rules do not allow."
    if flawed:
        steps, said = spoilt(draw, kind, steps, said, order, price)
    return {"session_id": f"desk-{number:04d}", "messages": messages(asked, steps, said), "tools": TOOLS}


def spoilt(
    draw: random.Random, kind: str, steps: list[Any], said: str, order: str, price: int
) -> tuple[list[Any], str]:
    """The conversation with one flaw of the recorded agent."""
    if kind == "refund":
        flaw = draw.choice(("no policy", "no order", "other amount"))
        more = price + draw.choice((10, 25, 40))
        paid = ("issue_refund", {"order_id": order, "amount": more}, f"refunded {more} EUR for order {order}")
        if flaw == "other amount":
            return [*steps[:2], paid], f"I have refunded {more} EUR for order {order}."
        full = ("issue_refund", {"order_id": order, "amount": price}, f"refunded {price} EUR for order {order}")
        return [*(steps[:1] if flaw == "no policy" else []), full], f"I have refunded {price} EUR for order {order}."
    if draw.random() < 0.5:
        return [], "It should be fine, please wait for 9 more days."
    other = ("lookup_order", {"order_id": f"F{draw.randrange(10000, 99999)}"}, "there is no such order")
    return [other, *steps], said


def messages(asked: str, steps: list[Any], said: str) -> list[dict[str, Any]]:
    """The conversation in OpenAI's form."""
    made: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
    for number, (name, arguments, result) in enumerate(steps):
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        made.append({"role": "assistant", "content": None, "tool_calls": [call]})
        made.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    return [*made, {"role": "assistant", "content": said}]


def main() -> None:
    """Write the file."""
    path = Path(__file__).with_name("data") / "support.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = (json.dumps(conversation(number)) + "\n" for number in range(CONVERSATIONS))
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
