"""The gate after download: complete questions, no leakage between splits, a corpus that can be searched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from swirl.core.grading import grade
from swirl.core.leakage import leakage_key
from swirl.core.splits import SPLITS
from swirl.core.types import LOGGED
from swirl.quality import expect
from swirl.quality.tables import data_columns
from swirl.quality.validation import Report, Table, examine


def check(
    questions: pd.DataFrame,
    derivations: pd.DataFrame,
    support: pd.DataFrame,
    corpora: Mapping[str, pd.DataFrame],
    sources: Sequence[Mapping[str, Any]],
    *,
    evaluated: Mapping[str, bool],
    min_evaluation: int,
    max_skipped_share: float,
) -> Report:
    """Validate the questions, their derivations and supporting passages, and the corpora.

    `derivations` and `support` are empty when no benchmark provides any. `corpora` are by `benchmark.split`, `sources`
    are the entries of sources.json, of which each may have skipped at most `max_skipped_share` (0 to 1) of its rows.
    `evaluated` maps every expected benchmark to whether it is evaluated on; if so, it needs at least `min_evaluation`
    questions. A corpus that several splits share (the same frame) is validated once, under the first of its names.
    """
    benchmarks = sorted(evaluated)
    complete = [
        Table("questions", questions, ("row", "id"), expect.present(data_columns(questions))),
        Table("derivations", derivations, ("row", "question_id"), expect.present(data_columns(derivations))),
        Table("support", support, ("row", "question_id"), expect.present(data_columns(support))),
    ]
    seen: set[int] = set()
    for name, passages in corpora.items():
        if id(passages) not in seen:
            complete.append(Table(f"corpus.{name}", passages, ("row", "id"), _passages_are_whole(passages)))
        seen.add(id(passages))

    def derive() -> tuple[list[Table], dict[str, float]]:
        mix = _mix(questions, benchmarks)
        wanted = mix[[evaluated[name] for name in mix["benchmark"]]].reset_index(drop=True)
        enough = f"every benchmark that is evaluated on has at least {min_evaluation} evaluation questions"
        tables = [
            _questions_table(questions, benchmarks),
            _derivations_table(derivations, questions),
            _support_table(support, questions, corpora),
            Table("mix", wanted, ("benchmark",), [expect.between("evaluation", min_evaluation, None, enough)]),
        ]
        if sources:
            tables.append(_sources_table(sources, max_skipped_share))
        return tables, {**_statistics(mix), **_skipped(sources)}

    return examine("questions", complete, derive)


def searched(questions: pd.DataFrame, benchmarks: Sequence[str]) -> list[tuple[str, str]]:
    """The (benchmark, split) pairs whose questions search a corpus, sorted; rows that the gate refuses are ignored."""
    sound = questions[questions["benchmark"].isin(list(benchmarks)) & questions["split"].isin(SPLITS)].dropna()
    pairs = zip(sound["benchmark"], sound["split"], sound["tools"], strict=True)
    return sorted({(str(benchmark), str(split)) for benchmark, split, tools in pairs if "search" in tools})


def _passages_are_whole(passages: pd.DataFrame) -> list[expect.Expectation]:
    return [
        *expect.present(data_columns(passages)),
        expect.at_least(1, "a corpus that is searched has passages"),
        expect.unique(["id"], "every passage of a corpus has an id of its own"),
        expect.unique(["title", "text"], "no passage is in a corpus twice"),
        expect.not_blank("text", "every passage has a text"),
    ]


def _questions_table(questions: pd.DataFrame, benchmarks: Sequence[str]) -> Table:
    frame = questions.assign(
        full_answers=[
            1 if task == LOGGED and not len(answers) else sum(bool(answer.strip()) for answer in answers)
            for answers, task in zip(questions["answers"], questions["task"], strict=True)
        ],
        text_problem=pd.Series(_leaks(questions), dtype=object),
        id_problem=pd.Series(_shared_ids(questions), dtype=object),
    )
    expectations = [
        expect.at_least(1, "there are questions"),
        expect.unique(["id"], "every question has an id of its own, in one split only"),
        expect.not_blank("text", "every question has a text"),
        expect.between("full_answers", 1, None, "every question has an answer that is not blank"),
        expect.one_of("split", SPLITS, f"the split is one of {', '.join(SPLITS)}"),
        expect.one_of("benchmark", benchmarks, f"the benchmark is one of {', '.join(benchmarks)}"),
        expect.between("hops", 0, None, "hops are counted from 0"),
        expect.not_blank("task", "every question has a kind of task"),
        expect.no_problem("text_problem", "no question is asked in two splits, however it is punctuated"),
        expect.no_problem("id_problem", "no official id is of an evaluation question and of one in another split"),
    ]
    return Table("questions", frame, ("row", "id"), expectations)


def _leaks(questions: pd.DataFrame) -> list[str | None]:
    """For each question, which question of another split has the same text; None when there is none, or no text."""
    texts = [leakage_key(text) for text in questions["text"]]
    first: dict[str, dict[str, str]] = {}
    for text, split, identifier in zip(texts, questions["split"], questions["id"], strict=True):
        first.setdefault(text, {}).setdefault(split, identifier)
    return [
        next((f"the text of {same} ({other})" for other, same in first[text].items() if text and other != split), None)
        for text, split in zip(texts, questions["split"], strict=True)
    ]


def _shared_ids(questions: pd.DataFrame) -> list[str | None]:
    """For each question, the other split that its official id is in, if one of the two is evaluation; None if not.

    Only questions of the same benchmark are compared. Plain numbers do not count as official ids: files without ids
    are numbered by row.
    """
    columns = zip(questions["benchmark"], questions["split"], questions["id"], strict=True)
    keys = [
        (benchmark, split, identifier.removeprefix(f"{benchmark}/{split}/")) for benchmark, split, identifier in columns
    ]
    splits: dict[tuple[str, str], set[str]] = {}
    for benchmark, split, official in keys:
        if not re.fullmatch(r"[0-9]+", official):
            splits.setdefault((benchmark, official), set()).add(split)
    found: list[str | None] = []
    for benchmark, split, official in keys:
        others = splits.get((benchmark, official), set()) - {split}
        leak = others if split == "evaluation" else others & {"evaluation"}
        found.append(f"id {official} is in split {min(leak)} too" if leak else None)
    return found


def _support_table(support: pd.DataFrame, questions: pd.DataFrame, corpora: Mapping[str, pd.DataFrame]) -> Table:
    """The passages that answers rest on must be in the corpus that the question searches."""
    there = {name: set(passages["id"]) for name, passages in corpora.items()}
    asked = {
        identifier: f"{benchmark}.{split}"
        for identifier, benchmark, split in zip(
            questions["id"], questions["benchmark"], questions["split"], strict=True
        )
    }
    problems = []
    for identifier, passages in zip(support["question_id"], support["passage_ids"], strict=True):
        lost = [passage for passage in passages if passage not in there.get(asked.get(identifier, ""), ())]
        problems.append(f"there is no passage {lost[0]}" if lost else None)
    expectations = [
        expect.unique(["question_id"], "a question has one list of supporting passages"),
        expect.no_problem("passages_problem", "every supporting passage is in the question's corpus"),
    ]
    frame = support.assign(passages_problem=pd.Series(problems, dtype=object))
    return Table("support", frame, ("row", "question_id"), expectations)


def _sources_table(sources: Sequence[Mapping[str, Any]], max_skipped_share: float) -> Table:
    """The share of bad rows that were skipped, one row per file that has rows (a list of ids has none)."""
    frame = pd.DataFrame(
        [
            (source["benchmark"], source["file"], source["skipped"] / source["rows"])
            for source in sources
            if source["rows"]
        ],
        columns=["benchmark", "file", "skipped_share"],
    )
    meaning = f"at most {max_skipped_share:g} of a file's rows are bad and were skipped"
    expectation = expect.between("skipped_share", None, max_skipped_share, meaning)
    return Table("sources", frame, ("benchmark", "file"), [expectation])


def _derivations_table(derivations: pd.DataFrame, questions: pd.DataFrame) -> Table:
    asked = {
        identifier: (answers, hops)
        for identifier, answers, hops in zip(questions["id"], questions["answers"], questions["hops"], strict=True)
    }
    rows = zip(derivations["question_id"], derivations["calls"], derivations["results"], strict=True)
    problems = [_derivation_problem(calls, results, asked.get(identifier)) for identifier, calls, results in rows]
    expectations = [
        expect.unique(["question_id"], "a question has one derivation"),
        expect.no_problem(
            "results_problem", "a derivation leads, in as many calls as its question has hops, to an accepted answer"
        ),
    ]
    frame = derivations.assign(results_problem=pd.Series(problems, dtype=object))
    return Table("derivations", frame, ("row", "question_id"), expectations)


def _derivation_problem(
    calls: Sequence[str], results: Sequence[str], question: tuple[Sequence[str], int] | None
) -> str | None:
    if question is None:
        return "there is no such question"
    answers, hops = question
    if len(calls) != hops or len(results) != hops:
        return f"{len(calls)} calls and {len(results)} results for {hops} hops"
    if not hops or not grade(results[-1], answers):
        return f"ends in {list(results)[-1:]}, accepted are {list(answers)}"
    return None


def _mix(questions: pd.DataFrame, benchmarks: Sequence[str]) -> pd.DataFrame:
    """Number of questions: a row for each benchmark, a column for each split."""
    counts = pd.crosstab(questions["benchmark"], questions["split"])
    counts = counts.reindex(index=sorted(benchmarks), columns=list(SPLITS), fill_value=0)
    return counts.rename_axis("benchmark").reset_index()


def _statistics(mix: pd.DataFrame) -> dict[str, float]:
    return {
        f"{split}/{benchmark}": int(count)
        for split in SPLITS
        for benchmark, count in zip(mix["benchmark"], mix[split], strict=True)
    }


def _skipped(sources: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Number of bad rows that were skipped, for each file that had some."""
    return {
        f"skipped/{source['benchmark']}/{source['file']}": source["skipped"] for source in sources if source["skipped"]
    }
