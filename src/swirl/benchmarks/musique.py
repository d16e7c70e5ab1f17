"""MuSiQue's official file: JSON lines (a JSON list is read too) with `paragraphs` and `question_decomposition`.

The row counts are those of MuSiQue-Ans, and of the answerable rows of MuSiQue-Full, which pairs each with an
unanswerable one. They come from other sources, because we had no access to the paper's own table: appendix A of
StackPlanner (Zhang et al.), whose three splits sum to 24,814 (the paper's abstract says 25K), and the hub's page of
`dgslibisey/MuSiQue`, which says 19.9k and 2.42k rows.
"""

from __future__ import annotations

from swirl.benchmarks.rows import (
    NOTHING,
    Fields,
    Format,
    Row,
    any_text,
    fields_of,
    filled,
    flag,
    items,
    missing,
    text,
    texts,
)


def parse(row: Fields, number: int) -> Row | None:
    """The answer and its aliases are accepted; hops are the steps of the decomposition; None when unanswerable.

    A row without `answerable` is answerable, because it has an answer.
    """
    if not missing(row, "answerable") and not flag(row, "answerable"):
        return None
    paragraphs = [fields_of(value, "paragraphs") for value in items(row, "paragraphs", least=1)]
    titles = [any_text(p.get("title", NOTHING), "title") for p in paragraphs]
    bodies = [any_text(p.get("paragraph_text", NOTHING), "paragraph_text") for p in paragraphs]
    context = list(zip(titles, bodies, strict=True))
    supporting = [flag(p, "is_supporting") for p in paragraphs]
    decomposition = items(row, "question_decomposition", least=1)
    steps = [_step(hop) for hop in decomposition]
    return Row(
        id=text(row, "id"),
        text=text(row, "question"),
        answers=tuple(dict.fromkeys((text(row, "answer"), *texts(row, "answer_aliases")))),
        hops=len(decomposition),
        context=filled(context, "paragraphs"),
        support=tuple(pair for pair, supports in zip(context, supporting, strict=True) if supports),
        steps=tuple(asked for asked, _ in steps) if all(map(all, steps)) else (),
        results=tuple(answer for _, answer in steps) if all(map(all, steps)) else (),
    )


def _step(hop: object) -> tuple[str, str]:
    """The question and the answer of one hop of the decomposition, each empty where the row does not say it."""
    fields = fields_of(hop, "question_decomposition")
    asked, answer = (any_text(fields.get(name, ""), "question_decomposition") for name in ("question", "answer"))
    return asked, answer


FORMAT = Format(parse, ("search",), "search", {"train": 19_938, "dev": 2417, "evaluation": 2417})
