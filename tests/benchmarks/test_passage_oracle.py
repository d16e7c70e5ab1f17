"""Labels of steps by annotated passages, with observations as the real search tool writes them."""

from __future__ import annotations

from swirl.benchmarks.passage_oracle import label_by_passages
from swirl.core.types import Action, Observation, Passage, Step, Stop, Trajectory
from swirl.tools.search import Search

PASSAGES = [
    Passage("p0", "Ada Lovelace", "Ada Lovelace was the daughter of Lord Byron, and wrote about a machine."),
    Passage("p1", "Lord Byron", "Lord Byron was born in London in 1788, and died in Missolonghi."),
    Passage("p2", "Missolonghi", "A town in the west of a country by the sea, known for its lagoon."),
]
SEARCH = Search.over(PASSAGES, 1)


def searched(*queries: str) -> Step:
    seen = tuple(Observation(SEARCH.run(query), False, "search", query) for query in queries)
    return Step(0, Action("search", "", queries[0]), seen, (1,), (-0.1,), (2,))


def answered(text: str) -> Step:
    return Step(0, Action("answer", "", text), (), (1,), (-0.1,), ())


def labels(*steps: Step) -> list[bool]:
    made = Trajectory("t", "q", "hotpotqa", 0, "m", 0, (1,), steps, Stop.ANSWERED, "")
    return label_by_passages(made, PASSAGES[:2], ["London"])


def test_a_search_is_good_when_it_shows_a_needed_passage_for_the_first_time() -> None:
    assert labels(searched("Ada Lovelace"), searched("Ada Lovelace machine"), searched("Lord Byron born")) == [
        True, False, True
    ]  # fmt: skip
    assert labels(searched("Missolonghi lagoon"), searched("nothing that is there at all: xyzzy")) == [False, False]


def test_an_answer_is_good_when_it_is_right_and_all_passages_were_shown() -> None:
    both = (searched("Ada Lovelace"), searched("Lord Byron born"))
    assert labels(*both, answered("London"))[-1]
    assert not labels(*both, answered("Paris"))[-1]
    assert not labels(both[1], answered("London"))[-1]


def test_a_step_of_several_searches_is_good_when_each_is() -> None:
    assert labels(searched("Ada Lovelace", "Lord Byron born"), answered("London")) == [True, True]
    assert labels(searched("Ada Lovelace", "Ada Lovelace machine"), answered("London")) == [False, False]


def test_thoughts_and_other_steps() -> None:
    def plain(kind: str) -> Step:
        return Step(0, Action(kind, "", ""), (), (1,), (-0.1,), (2,))

    assert labels(plain("think"), plain("think"), searched("Ada Lovelace"), plain("think")) == [True, False, True, True]
    assert labels(plain("malformed"), plain("cut"), plain("calculate")) == [False, False, False]
