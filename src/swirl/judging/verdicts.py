"""Parses a judge's verdict from its text, reasoning first: never fails, takes linear time, and never guesses."""

from __future__ import annotations

import re
from itertools import accumulate

from swirl.core.types import BAD, GOOD

GOOD_BAD = (GOOD, BAD)
YES_NO = ("YES", "NO")

_READ = 4000
"""Characters at the end of a text that are read, because a verdict comes last."""

_THOUGHT = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_TAG = re.compile(r"</?\w{1,20}>")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

_LABEL = re.compile(r"(?:[\W_]|boxed|text)*|[\W_]*(?:[^\W_]\w*[^\w\n:=]+){0,5}[^\W_]\w*[\s*`\"')\]]*[:=→–—-][\W_]*")
"""What may precede a verdict on a line of its own: punctuation, or a label of up to six words and a colon."""
_VERDICT = re.compile(
    r"(?:\b|_)(?:verdict|judge?ment|decision|conclusion|assessment|evaluation|(?<!to )grade|rating|overall)"
    r"(?:\b|_)",
    re.IGNORECASE,
)
"""Words that mark a label as a verdict's; "Answer to grade: no" has none, and only repeats the prompt."""

_CLAUSE = re.compile(
    r"[.;:!?](?!\w)|[–—→]|\s-+\s|\bbut\b"
    r"|(?:,|\band\b|\bso\b)(?=\s+(?:so|and|but|is|therefore|thus|hence|then|which|making|it|this|that|the|my|I|we)\b)",
    re.IGNORECASE,
)
"""A boundary between clauses. A comma alone is none: 'not, in my view, GOOD'."""
_UNDECIDED = re.compile(
    r"\b(?:not|never|neither|nor|no|none|nothing|cannot|without|hardly|barely|scarcely|far from|unlikely|doubt\w*|hard"
    r"|harder|difficult|impossible|rather than|instead of|might|may|could|would be|would have|whether|if|unless|perhaps"
    r"|maybe|possibly)\b|n['’]t\b|(?:\bor|[/|])[\W_]*$",
    re.IGNORECASE,
)
"""Before GOOD, in its clause, these make it no verdict: "not very GOOD", "might be GOOD", "BAD or GOOD", "BAD/GOOD"."""
_SAID = re.compile(r"\b(?:is|are|was|be|as)(?:\s+[^\W_]+)?[\W_]*$", re.IGNORECASE)
"""What precedes a lower-case verdict in a sentence that states it: "The step is clearly good."."""


def find(text: str, words: tuple[str, str] = GOOD_BAD, ended: bool = True) -> tuple[bool, int] | None:
    """Whether the verdict is the first of `words`, and its place in `text`; None if there is no verdict.

    `ended` is False for a text cut off.

    The verdict is the last of the two words, in upper or lower case, that stands alone on a line (a label such as
    `Verdict:` may precede it), or that ends the text in a sentence which states it: in capitals, emphasised, or as in
    "The step is good.". Markdown, brackets, tags and punctuation around it are ignored. In a text that was cut off,
    only a line with a verdict's label counts; thoughts, up to `</think>`, never count. A word inside a sentence
    ("a good query, but ...") is reasoning, not a verdict, and so is a word that its clause negates or leaves open.
    """
    thoughts = list(_THOUGHT_ENDS.finditer(text))
    if not thoughts and _THOUGHT.match(text):
        return None
    start = max(thoughts[-1].end() if thoughts else 0, len(text) - _READ)
    said = _TAG.sub(lambda tag: " " * len(tag[0]), text[start:])
    whole = said.splitlines(keepends=True)
    starts = accumulate(map(len, whole), initial=start)
    lines = [(at, line.rstrip("\r\n")) for at, line in zip(starts, whole, strict=False) if _WORD.search(line)]
    for number, (at, line) in enumerate(reversed(lines)):
        word = list(_WORD.finditer(line))[-1]
        if word.group().upper() not in words:
            continue
        before, after = line[: word.start()], line[word.end() :]
        clause = before[max((end.end() for end in _CLAUSE.finditer(before)), default=0) :]
        if _UNDECIDED.search(clause) or "?" in after:
            if number == 0:
                return None  # the text ends undecided
            continue
        label = _LABEL.fullmatch(before) is not None
        if label and (_VERDICT.search(before) or (ended and (number == 0 or not _WORD.search(before)))):
            return word.group().upper() == words[0], at + word.start()
        if ended and number == 0 and _gives(clause, word.group(), after):
            return word.group().upper() == words[0], at + word.start()
    return None


def _gives(clause: str, word: str, after: str) -> bool:
    """Whether a word that ends the text inside a sentence is the verdict rather than part of the reasoning."""
    if word.isupper() or clause[-1:] in tuple("*_`\"'“‘{[(") or not _WORD.search(clause):
        return True
    return _SAID.search(clause) is not None and (after.strip()[:1] in (".", "!") or _VERDICT.search(clause) is not None)
