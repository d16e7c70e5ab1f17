"""HotPotQA's official file: a JSON list of rows, `context` a list of [title, [sentences]].

The Hugging Face column shape is read too: `id` for `_id`, `context` an object of `title` and `sentences` lists,
`supporting_facts` an object of `title` and `sent_id` lists.
"""

from __future__ import annotations

from swirl.benchmarks.rows import (
    NOTHING,
    BadRow,
    Fields,
    Format,
    Pair,
    Row,
    any_text,
    composed,
    filled,
    items,
    missing,
    some_items,
    some_text,
    text,
)


def parse(row: Fields, number: int) -> Row:
    """Always two hops; a passage is a paragraph, and a supporting one has a title that a supporting fact names.

    A row may lack `level`: nobody knows then whether it is easy.
    """
    context = filled(_context(row.get("context", NOTHING)), "context")
    titles = _supporting_titles(row.get("supporting_facts", NOTHING))
    support = tuple(pair for pair in context if composed(pair[0]) in titles)
    return Row(
        id=text(row, "_id" if "_id" in row else "id"),
        text=text(row, "question"),
        answers=(text(row, "answer"),),
        hops=2,
        context=context,
        support=support if titles == {composed(title) for title, _ in support} else None,
        easy=None if missing(row, "level") else text(row, "level") == "easy",
    )


def _context(value: object) -> list[Pair]:
    """(title, text) of each paragraph; its sentences are joined as they are, because they include the blanks."""
    if isinstance(value, dict):
        titles, bodies = items(value, "title"), items(value, "sentences")
        if len(titles) != len(bodies):
            raise BadRow("context", [len(titles), len(bodies)], "as many titles as lists of sentences")
        pairs = list(zip(titles, bodies, strict=True))
    else:
        pairs = []
        for entry in some_items(value, "context", least=1):
            title, body = some_items(entry, "context", least=2, most=2)
            pairs.append((title, body))
    return [(any_text(title, "context"), _joined(body)) for title, body in pairs]


def _joined(sentences: object) -> str:
    listed = some_items(sentences, "context")
    if not all(isinstance(sentence, str) for sentence in listed):
        raise BadRow("context", listed, "a list of sentences")
    return any_text("".join(str(sentence) for sentence in listed), "context")


def _supporting_titles(value: object) -> set[str]:
    if isinstance(value, dict):
        titles = items(value, "title")
    else:
        facts = some_items(value, "supporting_facts")
        titles = [some_items(fact, "supporting_facts", least=2, most=2)[0] for fact in facts]
    return {composed(some_text(title, "supporting_facts")) for title in titles}


FORMAT = Format(parse, ("search",), "search", {"train": 90_447, "dev": 7405, "validation": 7405, "evaluation": 7405})
