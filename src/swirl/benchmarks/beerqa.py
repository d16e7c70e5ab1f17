"""BeerQA's official file: one JSON object whose `data` is the list of rows, `context` a list of [title, text].

The row counts are those of alphaXiv's page on the benchmark (alphaxiv.org/benchmarks/stanford-university/beerqa), whose
splits and parts both sum to its 163,096 questions; we had no access to the paper's own table (arXiv 2010.12527).
"""

from __future__ import annotations

from swirl.benchmarks.rows import Fields, Format, Row, any_text, items, some_items, text, texts


def parse(row: Fields, number: int) -> Row:
    """All `answers` are accepted; hops are not known. Without a context a row adds nothing to the corpus."""
    pairs = [some_items(entry, "context", least=2, most=2) for entry in items({"context": [], **row}, "context")]
    return Row(
        id=text(row, "id"),
        text=text(row, "question"),
        answers=texts(row, "answers", least=1),
        hops=0,
        context=tuple((any_text(title, "context"), any_text(body, "context")) for title, body in pairs),
    )


COUNTS = {"train": 134_043, "dev": 14_121, "evaluation": 14_121}
"""Rows of the official files."""

FORMAT = Format(parse, ("search",), "search", COUNTS, wrapper="data")
