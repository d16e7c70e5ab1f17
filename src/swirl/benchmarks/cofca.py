"""CofCA, in our own JSON lines format: {"id", "question", "answers", "hops", "context": [{"title", "text"}]}.

According to the authors' paper, each of 300 rewritten passages has one question of two hops, one of three and one of
four. We found no description of the fields in the authors' file, so `convert` takes the names of the fields, and was
tested only on invented rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from swirl.benchmarks.rows import (
    NOTHING,
    BadRow,
    Fields,
    Format,
    Row,
    any_text,
    fields_of,
    filled,
    items,
    open_rows,
    some_text,
    text,
    texts,
)
from swirl.core.errors import DataError

NAMES: Mapping[str, str] = {
    "passage": "passage",
    "title": "title",
    "questions": "questions",
    "question": "question",
    "answer": "answer",
    "hops": "hops",
}
"""What `convert` reads -> name of its field in the file; `title` may be missing from a row."""


def parse(row: Fields, number: int) -> Row:
    """All `answers` are accepted; `hops` is 2, 3 or 4; at least one passage of the context has text."""
    passages = [fields_of(value, "context") for value in items(row, "context", least=1)]
    context = [(any_text(p.get("title", NOTHING), "title"), any_text(p.get("text", NOTHING), "text")) for p in passages]
    return Row(
        id=text(row, "id"),
        text=text(row, "question"),
        answers=texts(row, "answers", least=1),
        hops=_hops(row, "hops"),
        context=filled(context, "context"),
    )


def convert(source: Path, target: Path, names: Mapping[str, str] = NAMES) -> int:
    """Convert a file with one row per passage into our format at `target`; returns the number of questions.

    A row holds the passage, perhaps its title, and the list of its questions, each with its answer (a text, or a list
    of accepted ones) and its hops. `names` gives the names of fields that differ from `NAMES`. A question's id is
    `<row>-<place in the list>`, both from 0. Not verified against the authors' file.

    Raises `DataError` naming file, row, field, value and what is expected.
    """
    called = {**NAMES, **names}
    written = 0
    unit, numbered = open_rows(source, "")
    partial = target.with_name(target.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for number, raw in numbered:
            try:
                for row in _questions(fields_of(raw), number, called):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    written += 1
            except BadRow as bad:
                raise DataError(f"{source}, {unit} {number + 1}, {bad}") from None
    os.replace(partial, target)
    return written


def _questions(row: Fields, number: int, called: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """The questions on one passage in our format."""
    title = any_text(row[called["title"]], called["title"]) if called["title"] in row else ""
    context = [{"title": title, "text": text(row, called["passage"])}]
    for place, value in enumerate(items(row, called["questions"], least=1)):
        question = fields_of(value, called["questions"])
        answer = question.get(called["answer"], NOTHING)
        several = isinstance(answer, list)
        yield {
            "id": f"{number}-{place}",
            "question": text(question, called["question"]),
            "answers": texts(question, called["answer"], least=1) if several else [some_text(answer, called["answer"])],
            "hops": _hops(question, called["hops"]),
            "context": context,
        }


def _hops(row: Fields, field: str) -> int:
    hops = row.get(field, NOTHING)
    if type(hops) is not int or hops not in (2, 3, 4):
        raise BadRow(field, hops, "2, 3 or 4")
    return hops


FORMAT = Format(parse, ("search",), "search", {})
