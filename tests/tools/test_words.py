"""The words that BM25 goes by: unchanged where blanks stand between them, pairs of characters where none do."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.tools.words import indexed, words


def test_words_that_are_written_apart() -> None:
    assert words("The O'Neill-film, ÉLAN (1999)") == ["the", "o", "neill", "film", "élan", "1999"]
    assert words("the film", {"the"}) == ["film"]
    assert indexed("The film_2, m² and ½") == words("The film_2, m² and ½") == ["the", "film_2", "m²", "and", "½"]


@given(st.text(st.characters(max_codepoint=0x2FF, exclude_characters="\u0130"), max_size=60))
def test_latin_text_has_the_runs_of_letters_and_digits(text: str) -> None:
    """As it always had, so that an English index keeps its bytes; \u0130 has a mark of its own in lower case."""
    assert words(text) == indexed(text) == re.findall(r"\w+", text.lower())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("日本の首都", ["日本", "本の", "の首", "首都"]),
        ("猫", ["猫"]),
        ("東京2020年、オリンピック", ["東京", "2020", "年", "オリ", "リン", "ンピ", "ピッ", "ック"]),
        ("ＡＢＣ ２０ ｶﾞｽ", ["abc", "20", "ガス"]),
        ("กรุงเก่า", ["กรุ", "รุง", "งเ", "เก่", "ก่า"]),
        ("ລາວ", ["ລາ", "າວ"]),
        ("ភ្នំពេញ", ["ភ្នំ", "នំពេ", "ពេញ"]),
        ("ပြည် ၁၂၃", ["ပြည်", "၁၂၃"]),
        ("한국의 수도", ["한국", "국의", "수도"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("Москва Αθήνα", ["москва", "αθήνα"]),
        ("𠮷野家x", ["𠮷野", "野家", "x"]),
        ("1️⃣", ["1"]),
    ],
)
def test_every_script_has_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_text_has_its_single_characters_too() -> None:
    assert indexed("首都 x") == ["首", "都", "首都", "x"]
    assert indexed("猫") == ["猫"]
    assert indexed("首都の", {"の", "首都"}) == ["首", "都", "都の"]


@pytest.mark.parametrize(
    ("composed", "decomposed"), [("café", "cafe\u0301"), ("がく", "か\u3099く"), ("각", "\u1100\u1161\u11a8")]
)
def test_composed_and_decomposed_letters_are_the_same(composed: str, decomposed: str) -> None:
    assert composed != decomposed
    assert words(composed) == words(decomposed)


@given(st.text())
def test_a_text_is_found_by_every_word_of_its_own(text: str) -> None:
    assert set(words(text)) <= set(indexed(text))
