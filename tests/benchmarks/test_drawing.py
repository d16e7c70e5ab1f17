"""Drawing questions into splits: disjoint, seeded, and unchanged when later splits ask for more."""

from __future__ import annotations

from itertools import chain

import pytest

from swirl.benchmarks.drawing import ORDER, Key, Wish, draw
from swirl.core.errors import DataError
from swirl.core.types import Question


def pool(benchmark: str, texts: list[str], file: str = "train") -> list[Question]:
    return [
        Question(f"{benchmark}/{file}/{number}", benchmark, file, text, ("a",), 1, ("search",))
        for number, text in enumerate(texts)
    ]


TEN = pool("b", [f"question {number}" for number in range(10)])


def drawn(pools: dict[Key, list[Question]], *wishes: Wish, seed: int = 0) -> dict[str, list[str]]:
    """The texts drawn for each split; the wishes must all be for one benchmark."""
    return {split: [q.text for q in questions] for (_, split), questions in draw(wishes, pools, seed).questions.items()}


def wishes(**counts: int | None) -> list[Wish]:
    return [Wish("b", split, "train", count) for split, count in counts.items()]


def test_splits_of_one_file_share_nothing_and_have_their_sizes() -> None:
    got = drawn({("b", "train"): TEN}, *wishes(pretrain=1, reward=2, train=3, development=2, evaluation=2))
    assert {split: len(texts) for split, texts in got.items()} == {
        "evaluation": 2,
        "development": 2,
        "train": 3,
        "reward": 2,
        "pretrain": 1,
    }
    assert sorted(chain(*got.values())) == sorted(question.text for question in TEN)


def test_the_order_in_which_splits_are_named_does_not_matter() -> None:
    pools = {("b", "train"): TEN}
    assert drawn(pools, *wishes(train=3, evaluation=2)) == drawn(pools, *wishes(evaluation=2, train=3))


def test_growing_a_split_keeps_it_and_all_before_it() -> None:
    before = drawn({("b", "train"): TEN}, *wishes(evaluation=2, development=1, train=2))
    after = drawn({("b", "train"): TEN}, *wishes(evaluation=2, development=1, train=4, reward=1, pretrain=2))
    assert after["evaluation"] == before["evaluation"]
    assert after["development"] == before["development"]
    assert after["train"][:2] == before["train"]
    assert ORDER == ("evaluation", "development", "train", "reward", "pretrain")


def test_the_seed_the_benchmark_and_the_file_decide() -> None:
    asked = wishes(train=5)
    first = drawn({("b", "train"): TEN}, *asked)
    assert first == drawn({("b", "train"): TEN}, *asked)
    assert first != drawn({("b", "train"): TEN}, *asked, seed=1)
    other = [Wish("c", "train", "train", 5)]
    assert first != drawn({("c", "train"): pool("c", [q.text for q in TEN])}, *other)
    assert first["train"] != [q.text for q in TEN[:5]]


def test_all_is_what_the_others_leave() -> None:
    got = drawn({("b", "train"): TEN}, *wishes(evaluation=2, train=None, pretrain=3))
    assert {split: len(texts) for split, texts in got.items()} == {"evaluation": 2, "train": 5, "pretrain": 3}
    assert len(set(chain(*got.values()))) == 10


def test_asking_for_too_many_names_both_numbers() -> None:
    with pytest.raises(DataError, match="b: train asks for 9 of the 10 questions of file 'train', and 8 are left; ask"):
        drawn({("b", "train"): TEN}, *wishes(evaluation=2, train=9))
    with pytest.raises(DataError, match="b: train asks for all that are left of the 10 .* and 10 are left, 10 of them"):
        drawn({("b", "train"): TEN}, *wishes(train=None, reward=10))


def test_a_text_that_a_file_holds_twice_never_comes_into_two_splits() -> None:
    twice = pool("b", ["Same?", "a", "b", "same", "c", "d"])
    for seed in range(20):
        got = draw(wishes(evaluation=2, train=3), {("b", "train"): twice}, seed)
        texts = {split: {q.text.strip("?").lower() for q in qs} for (_, split), qs in got.questions.items()}
        assert not texts["evaluation"] & texts["train"]
        assert len(got.questions["b", "train"]) == 3
        everything = draw(wishes(evaluation=None, train=2), {("b", "train"): twice}, seed)
        kept = sum(len(questions) for questions in everything.questions.values())
        assert len(everything.questions["b", "train"]) == 2
        assert 5 <= kept + everything.repeated["b"] <= 6
    (split,) = draw(wishes(evaluation=None), {("b", "train"): twice}, 0).questions.values()
    assert len(split) == 6


def test_questions_that_differ_in_a_symbol_are_no_repeats() -> None:
    texts = ["Is 3 < 5?", "Is 3 > 5?", "3 + 5", "3 - 5", "3 * 5", "3 / 5", "C++?", "C#?", "किताब", "कुताब", "?", "!"]
    got = draw(wishes(evaluation=6, train=6), {("b", "train"): pool("b", texts)}, 0)
    assert got.repeated == {"b": 0}
    assert sorted(q.text for questions in got.questions.values() for q in questions) == sorted(texts)


def test_too_few_for_a_split_says_how_many_were_repeats() -> None:
    pools = {("b", "train"): TEN, ("c", "evaluation"): pool("c", ["Question 3!", "question 7"], "evaluation")}
    asked = [*wishes(development=1, train=9), Wish("c", "evaluation", "evaluation", None)]
    message = "train asks for 9 of the 10 .* and 7 are left; 2 were passed over, because their text is in another split"
    with pytest.raises(DataError, match=message):
        draw(asked, pools, 0)


def test_all_leaves_later_splits_texts_that_it_does_not_have() -> None:
    """Each text twice, 20,000 questions: looked at one by one for each smaller number, this took very long."""
    twice = pool("b", [f"question {number // 2}" for number in range(20_000)])
    got = draw(wishes(train=None, reward=2_000), {("b", "train"): twice}, 0)
    train, reward = got.questions["b", "train"], got.questions["b", "reward"]
    assert not {q.text for q in train} & {q.text for q in reward}
    assert (len(train), len(reward), got.repeated["b"]) == (13_728, 2_000, 4_272)


def test_what_another_benchmark_is_evaluated_on_is_not_trained_on() -> None:
    pools = {("b", "train"): TEN, ("c", "evaluation"): pool("c", ["Question 3!", "question 7", "new"], "evaluation")}
    got = draw([*wishes(train=None), Wish("c", "evaluation", "evaluation", None)], pools, 0)
    texts = {q.text for q in got.questions["b", "train"]}
    assert texts == {q.text for q in TEN} - {"question 3", "question 7"}
    assert len(got.questions["c", "evaluation"]) == 3
    assert got.repeated == {"b": 2, "c": 0}


def test_listed_questions_are_taken_as_they_are() -> None:
    listed = (TEN[7], TEN[2])
    asked = [Wish("b", "evaluation", "train", None, listed), *wishes(train=None)]
    got = draw(asked, {("b", "train"): TEN}, 0).questions
    assert got["b", "evaluation"] == [TEN[7], TEN[2]]
    assert len(got["b", "train"]) == 8
    assert not {q.id for q in got["b", "train"]} & {TEN[7].id, TEN[2].id}
