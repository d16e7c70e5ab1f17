"""From what a judge wrote, reasoning first, to its verdict: total, linear in the text, and None rather than a guess."""

from __future__ import annotations

import re

from swirl.core.types import BAD, GOOD

GOOD_BAD = (GOOD, BAD)
YES_NO = ("YES", "NO")

_READ = 4000
"""Characters at the end of a text that are looked at: a verdict comes last."""

_THOUGHT = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_TAG = re.compile(r"</?\w{1,20}>")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

_LABEL = re.compile(r"(?:[\W_]|boxed|text)*|[\W_]*(?:[^\W_]\w*[^\w\n:=]+){0,5}[^\W_]\w*[\s*`\"')\]]*[:=→–—-][\W_]*")
"""What may stand before a verdict that has a line to itself: marks, or up to six words and a colon."""
_VERDICT = re.compile(
    r"(?:\b|_)(?:verdict|judge?ment|decision|conclusion|assessment|evaluation|(?<!to )grade|rating|overall)"
    r"(?:\b|_)",
    re.IGNORECASE,
)
"""What a label says that is surely a verdict's: "Answer to grade: no" only repeats what was shown."""

_CLAUSE = re.compile(
    r"[.;:!?](?!\w)|[–—→]|\s-+\s|\bbut\b"
    r"|(?:,|\band\b|\bso\b)(?=\s+(?:so|and|but|is|therefore|thus|hence|then|which|making|it|this|that|the|my|I|we)\b)",
    re.IGNORECASE,
)
"""Where a clause ends and another begins. A comma alone is no end: 'not, in my view, GOOD'."""
_UNDECIDED = re.compile(
    r"\b(?:not|never|neither|nor|no|none|nothing|cannot|without|hardly|barely|scarcely|far from|unlikely|doubt\w*|hard"
    r"|harder|difficult|impossible|rather than|instead of|might|may|could|would be|would have|whether|if|unless|perhaps"
    r"|maybe|possibly)\b|n['’]t\b|(?:\bor|[/|])[\W_]*$",
    re.IGNORECASE,
)
"""What in its clause makes the word no verdict: "not very GOOD", "might be GOOD", "GOOD or BAD", "YES/NO"."""
_SAID = re.compile(r"\b(?:is|are|was|be|as)(?:\s+[^\W_]+)?[\W_]*$", re.IGNORECASE)
"""What comes before a verdict in a sentence that gives it in small letters: "The step is clearly good."."""


def parse(text: str, words: tuple[str, str] = GOOD_BAD, ended: bool = True) -> bool | None:
    """Whether the verdict is the first of `words`; None when there is none. `ended` is False for a text that was cut.

    The verdict is the last of the two words, in any case, that has a line to itself but for a label such as `Verdict:`,
    or that ends the text in a sentence which gives it: in capitals, emphasised, or as in "The step is good.". Markdown,
    brackets, tags and punctuation around it do not matter. Of a text that was cut, only a line with such a label
    counts; of thoughts, which `</think>` closes, nothing. A word inside a sentence ("a good query, but ...") is
    reasoning, not a verdict; so is one that its clause negates or leaves open.
    """
    thoughts = list(_THOUGHT_ENDS.finditer(text))
    if not thoughts and _THOUGHT.match(text):
        return None
    said = text[thoughts[-1].end() if thoughts else 0 :]
    lines = [line for line in _TAG.sub(" ", said[-_READ:]).splitlines() if _WORD.search(line)]
    for number, line in enumerate(reversed(lines)):
        word = list(_WORD.finditer(line))[-1]
        if word.group().upper() not in words:
            continue
        before, after = line[: word.start()], line[word.end() :]
        clause = before[max((end.end() for end in _CLAUSE.finditer(before)), default=0) :]
        if _UNDECIDED.search(clause) or "?" in after:
            if number == 0:
                return None  # it ends undecided
            continue
        label = _LABEL.fullmatch(before) is not None
        if label and (_VERDICT.search(before) or (ended and (number == 0 or not _WORD.search(before)))):
            return word.group().upper() == words[0]
        if ended and number == 0 and _gives(clause, word.group(), after):
            return word.group().upper() == words[0]
    return None


def _gives(clause: str, word: str, after: str) -> bool:
    """Whether the word that ends a text within a sentence is its verdict, and not a part of the reasoning."""
    if word.isupper() or clause[-1:] in tuple("*_`\"'“‘{[(") or not _WORD.search(clause):
        return True
    return _SAID.search(clause) is not None and (after.strip()[:1] in (".", "!") or _VERDICT.search(clause) is not None)
