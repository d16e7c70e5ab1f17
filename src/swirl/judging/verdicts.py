"""From what a judge wrote, reasoning first, to its verdict: total, linear in the text, and None rather than a guess."""

from __future__ import annotations

import re

GOOD_BAD = ("GOOD", "BAD")
YES_NO = ("YES", "NO")

_READ = 4000
"""Characters at the end of a text that are looked at: a verdict comes last."""

_TAG = re.compile(r"</?\w{1,20}>")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_UNDECIDED = re.compile(r"(?:\bnot|\bnever|n['’]t|\bneither|\bnor|\bor|/)[\W_]*$", re.IGNORECASE)
"""What before the word makes it no verdict: "not GOOD", "GOOD or BAD", "YES/NO"."""

_LABEL = re.compile(r"[\W_]*|[\W_]*(?:[^\W_]+[^\w\n:=]+){0,5}[^\W_]+[\s*_`\"')\]]*[:=][\W_]*")
"""What may stand before a verdict that has a line to itself: marks, or up to six words and a colon."""


def parse(text: str, words: tuple[str, str] = GOOD_BAD) -> bool | None:
    """Whether the verdict is the first of `words`; None when there is none.

    The verdict is the last of the two words, in any case, that stands alone: it ends the text, or it has a line to
    itself but for a label such as `Verdict:`. Markdown, brackets, tags and punctuation around it do not matter. A word
    inside a sentence ("a good query, but ...") is reasoning, not a verdict; so is one that is negated or left open.
    """
    lines = [line for line in _TAG.sub(" ", text[-_READ:]).splitlines() if _WORD.search(line)]
    for number, line in enumerate(reversed(lines)):
        word = list(_WORD.finditer(line))[-1]
        verdict = word.group().upper()
        before = line[: word.start()]
        if verdict not in words or _UNDECIDED.search(before):
            if number == 0 and verdict in words:
                return None  # it ends undecided
            continue
        if number == 0 or _LABEL.fullmatch(before):
            return verdict == words[0]
    return None
