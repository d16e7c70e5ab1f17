"""CofCA, in JSON lines of our own: {"id", "question", "answers", "hops", "context": [{"title", "text"}]}.

The fields of the authors' own file are not published where we could read them, so nothing converts that file yet.
"""

from __future__ import annotations

from swirl.benchmarks.rows import NOTHING, BadRow, Fields, Format, Row, any_text, fields_of, filled, items, text, texts


def parse(row: Fields, number: int) -> Row:
    """All `answers` are accepted; `hops` is 2, 3 or 4; at least one passage of the context has text."""
    hops = row.get("hops", NOTHING)
    if type(hops) is not int or hops not in (2, 3, 4):
        raise BadRow("hops", hops, "2, 3 or 4")
    passages = [fields_of(value, "context") for value in items(row, "context", least=1)]
    context = [(any_text(p.get("title", NOTHING), "title"), any_text(p.get("text", NOTHING), "text")) for p in passages]
    return Row(
        id=text(row, "id"),
        text=text(row, "question"),
        answers=texts(row, "answers", least=1),
        hops=hops,
        context=filled(context, "context"),
    )


FORMAT = Format(parse, ("search",), "search", {})
