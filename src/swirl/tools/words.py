"""How BM25 cuts texts and queries into words, in any script.

Where words are written apart, a word is a run of letters, their marks, digits and underscores. Chinese, Japanese, Thai
and their like write no blanks, and Korean writes particles onto its words. So there every two neighbouring characters
are a word, as in Lucene's CJK analyzer. A text has each of its characters besides, so that a query of one is found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from itertools import pairwise

_MARKS = "".join(
    chr(code)
    for code in range(0x300, 0x10000)
    if unicodedata.category(chr(code)) in ("Mn", "Mc") and not 0xFE00 <= code <= 0xFE0F
)
"""Accents and vowel signs, which `\\w` does not match; without the variation selectors, which belong to emoji.

Those beyond the first plane of Unicode, of rare scripts, are left out: with them, reading takes several times longer.
"""
_RANGES = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf\U00011700-\U0001174f"  # Tai Le, Lue, Tham and Viet; Ahom
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3041-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"  # Hiragana, Katakana
    "\u3105-\u312f\u31a0-\u31bf\ua000-\ua48f\U00016fe0-\U00018d8f"  # Bopomofo, Yi, Tangut
)
_ASCII = re.compile(r"\w+", re.ASCII)
_RUN = re.compile(rf"\w[\w{_MARKS}]*")
_CHARACTER = rf"(?!\d)[{_RANGES}][{_MARKS}]*"
"""A character with its marks in a script where words are not written apart; digits are none."""
_CHARACTERS = re.compile(_CHARACTER)
_UNSPACED = re.compile(rf"((?:{_CHARACTER})+)")
_WIDTHS = re.compile("[\uff01-\uffef]+")
"""Letters, digits and signs that have the width of an ideograph, and Katakana of half that width."""


def words(text: str, stopwords: Collection[str] = ()) -> list[str]:
    """The lower-case words of a query that are not stopwords."""
    return _words(text, stopwords, single=False)


def indexed(text: str, stopwords: Collection[str] = ()) -> list[str]:
    """The lower-case words of a text that queries may find it by, without stopwords."""
    return _words(text, stopwords, single=True)


def _words(text: str, stopwords: Collection[str], *, single: bool) -> list[str]:
    folded = text.lower()
    if folded.isascii():
        found = _ASCII.findall(folded)
    else:
        folded = unicodedata.normalize("NFC", _WIDTHS.sub(_usual_width, folded))
        runs = _RUN.findall(folded)
        found = [word for run in runs for word in ([run] if run.isascii() else _of_run(run, single))]
    return [word for word in found if word not in stopwords]


def _usual_width(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found[0]).lower()


def _of_run(run: str, single: bool) -> Iterator[str]:
    """The words of a text without blanks, in their order."""
    for number, part in enumerate(_UNSPACED.split(run)):
        if number % 2 == 0:
            yield from [part] if part else []
            continue
        characters = _CHARACTERS.findall(part)
        if single or len(characters) == 1:
            yield from characters
        yield from map("".join, pairwise(characters))
