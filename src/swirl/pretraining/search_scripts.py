"""How to answer by searching, written from annotations: HotPotQA's supporting pages, MuSiQue's sub-questions.

The search tool runs while a script is written: a query stays only if its result shows what the annotation says is
needed, and a later query uses what an earlier result said. Thoughts are short, and in words of ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from swirl.core.grading import normalize
from swirl.core.showing import shows
from swirl.core.types import ActionKind, Passage
from swirl.tools.actions import render
from swirl.tools.search import Search

_FIRST = ("First the page on {name}.", "Start with the page on {name}.", "I look up {name} first.")
_ABOUT = ("First a search for {names}.", "Start with what is known: {names}.", "I look for {names} first.")
_NEXT = ("It names {name}. Next the page on {name}.", "That leads to {name}, so look up {name}.", "Now {name}.")
_OTHER = ("Now the other one, {name}.", "Next the page on {name}.", "Then {name}, to compare.")
_DATED = (
    "Compare: {one} has {first}, {two} has {second}. So it is {answer}.",
    "{first} for {one}, {second} for {two}: {answer}.",
)
_ASK = ("First find out: {ask}.", "Needed first: {ask}.", "Start with: {ask}.")
_THEN = ("It is {found}. Next: {ask}.", "That is {found}. Now find out: {ask}.", "So {found}. Then: {ask}.")
_ALSO = ("Also needed: {ask}.", "Now the other part: {ask}.")
_DONE = ("It is {answer}.", "That gives {answer}.", "So the answer is {answer}.")

_JOINING = frozenset({"of", "the", "and", "de", "la", "in", "for"})
"""Words that may stand inside a name."""
_OPENING = frozenset(
    "a an are at before did do does during for from had has how in is it of on the this to was were what when where "
    "which while who whom whose why with".split()
)
"""Words that are written with a capital at the start of a question, and are no name."""
_YEAR = re.compile(r"(?<!\d)1[0-9]{3}(?!\d)|(?<!\d)20[0-9]{2}(?!\d)")
_EARLIER = re.compile(r"\b(first|earlier|earliest|older|oldest|before)\b", re.I)
_LATER = re.compile(r"\b(later|latest|younger|youngest|newer|newest|last|recently|after)\b", re.I)


class NoScript(StrEnum):
    """Why no script is written for a question."""

    NO_ANNOTATION = "no annotation"
    OTHER_PAGES = "the annotation does not name two pages"
    NOT_FOUND = "no query from the question brings a needed page"
    NO_BRIDGE = "the first page does not name the second"
    NOT_SHOWN = "the results do not show the answer"
    NO_ACTION = "the query or the answer cannot be written as an action"


@dataclass(slots=True)
class _Script:
    """The actions so far, and what their results showed."""

    search: Search
    rng: random.Random
    actions: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    def says(self, text: str) -> bool:
        """Whether the results show a text, whatever its case, punctuation and articles."""
        return any(_within(text, result) for result in self.results)

    def sees(self, page: Passage) -> bool:
        """Whether the results show the beginning of a page."""
        return any(shows(result, page) for result in self.results)

    def longest(self, title: str) -> str:
        """The longest run of a title's words with a capital or a digit in it that the results say, or nothing."""
        words = title.split()
        runs = (words[i:j] for size in range(len(words), 0, -1) for i, j in _spans(len(words), size))
        said = (" ".join(run) for run in runs if any(not word[0].islower() and len(word) > 2 for word in run))
        return next((run for run in said if normalize(run) and self.says(run)), "")

    def find(self, queries: Iterable[str], wanted: Sequence[Passage], needed: str, thought: str) -> bool:
        """Add the first query whose result shows a `wanted` page and says what is `needed`; False without one."""
        for query in queries:
            result = self.search.run(query) if query.strip() else ""
            if any(shows(result, page) for page in wanted) and (not needed or _within(needed, result)):
                self.actions.append(_action(thought, ActionKind.SEARCH, query))
                self.results.append(result)
                return True
        return False

    def write(self, wordings: Sequence[str], **words: str) -> str:
        """One of the wordings, filled in."""
        return self.rng.choice(wordings).format(**words)


def by_pages(
    question: str, answer: str, pages: Sequence[Passage], search: Search, rng: random.Random
) -> list[str] | NoScript:
    """The actions that read two supporting pages one after the other and answer (HotPotQA).

    If the question names both pages, and neither page the other, they are compared, in the order of the question. Else
    the first page is found by its title, if the question names it, or by the names in the question, and the second by
    its title, or the part of it that the first result names. Its search is left out where the first result shows it
    already. Where that finds no page, the question's other words are asked for, too. The answer has no thought, but for
    two years that are compared.
    """
    titles = [_bare(page.title) for page in pages]
    if len(pages) != 2 or not all(map(normalize, titles)) or titles[0] == titles[1]:
        return NoScript.OTHER_PAGES
    named = [_within(title, question) for title in titles]
    linked = [_within(titles[1], pages[0].text), _within(titles[0], pages[1].text)]
    if all(named) and not any(linked):
        return _compared(question, answer, sorted(pages, key=lambda page: _place(page, question)), search, rng)
    worst = NoScript.NOT_FOUND
    for first in sorted((0, 1), key=lambda one: (not linked[one], not named[one])):
        made = _bridged(question, answer, pages[first], pages[1 - first], search, rng)
        if not isinstance(made, NoScript):
            return made
        worst = made if worst is NoScript.NOT_FOUND else worst
    return worst


def _bridged(
    question: str, answer: str, first: Passage, second: Passage, search: Search, rng: random.Random
) -> list[str] | NoScript:
    script, name = _Script(search, rng), _bare(second.title)
    if not script.find(*_opening(question, first, script)):
        return NoScript.NOT_FOUND
    if not script.sees(second):
        said = script.longest(name)
        if not said and not _within(name, question):
            queries, thought = [" ".join(_asked(question))], script.write(_ABOUT, names=", ".join(_names(question)))
        else:
            wordings = _NEXT if said else _OTHER
            queries = _titled(second, question) if said in ("", name) else [said, " ".join([said, *_asked(question)])]
            thought = script.write(wordings, name=said or name)
        if not script.find(queries, [second], "", thought):
            return NoScript.NOT_FOUND if said else NoScript.NO_BRIDGE
    if not script.says(answer) and answer.lower() not in ("yes", "no"):
        return NoScript.NOT_SHOWN
    return [*script.actions, _action("", ActionKind.ANSWER, answer)]


def _opening(question: str, page: Passage, script: _Script) -> tuple[list[str], list[Passage], str, str]:
    """The queries that may find the first page, the page, and the thought."""
    name = _bare(page.title)
    if _within(name, question):
        return _titled(page, question), [page], "", script.write(_FIRST, name=name)
    names, asked = _names(question), _asked(question)
    return [" ".join(names), " ".join(asked)], [page], "", script.write(_ABOUT, names=", ".join(names or asked))


def _compared(
    question: str, answer: str, pages: Sequence[Passage], search: Search, rng: random.Random
) -> list[str] | NoScript:
    script = _Script(search, rng)
    one, two = (_bare(page.title) for page in pages)
    for page, name, wordings in zip(pages, (one, two), (_FIRST, _OTHER), strict=True):
        if not script.sees(page) and not script.find(
            _titled(page, question), [page], "", script.write(wordings, name=name)
        ):
            return NoScript.NOT_FOUND
    if not script.says(answer) and answer.lower() not in ("yes", "no"):
        return NoScript.NOT_SHOWN
    chosen = next((page for page in pages if _within(_bare(page.title), answer) or _within(answer, page.title)), None)
    years = _years(question, chosen, pages) if chosen else []
    thought = script.write(_DATED, one=one, two=two, first=years[0], second=years[1], answer=answer) if years else ""
    return [*script.actions, _action(thought, ActionKind.ANSWER, answer)]


def _years(question: str, chosen: Passage, pages: Sequence[Passage]) -> list[str]:
    """The first year on each page, if the question asks for the earlier or later one and they say it is `chosen`."""
    years = [match.group() for page in pages if (match := _YEAR.search(page.text))]
    wanted = min if _EARLIER.search(question) else max if _LATER.search(question) else None
    if wanted is None or len(set(years)) != 2:
        return []
    return years if pages[years.index(wanted(years))] is chosen else []


def by_questions(
    steps: Sequence[str],
    results: Sequence[str],
    answer: str,
    pages: Sequence[Passage],
    search: Search,
    rng: random.Random,
) -> list[str] | NoScript:
    """The actions that ask one sub-question after the other, with the results so far filled in (MuSiQue).

    Each search must bring a supporting page that was not shown and says the sub-question's result. The query is the
    sub-question, or, if that does not find the page, its title, where sub-question or earlier results name it.
    """
    script = _Script(search, rng)
    for number, (step, result) in enumerate(zip(steps, results, strict=True)):
        said = step
        for earlier, found in enumerate(results[:number], 1):
            said = said.replace(f"#{earlier}", found)
        ask = ", ".join(part.strip() for part in said.split(">>")).rstrip(" ?.")
        unseen = [page for page in pages if not script.sees(page)]
        if number and f"#{number}" in step:
            thought = script.write(_THEN, found=results[number - 1], ask=ask)
        else:
            thought = script.write(_ALSO if number else _ASK, ask=ask)
        titles = [_bare(page.title) for page in unseen]
        known = [title for title in titles if _within(title, ask) or script.says(title)]
        if not script.find([said.replace(" >> ", " ").rstrip(" ?."), *known], unseen, result, thought):
            return NoScript.NOT_FOUND
    return [*script.actions, _action(script.write(_DONE, answer=answer), ActionKind.ANSWER, answer)]


def _action(thought: str, kind: str, payload: str) -> str:
    return f"{' '.join(thought.split())} {render(kind, payload)}".lstrip()


def _bare(title: str) -> str:
    """A title without what tells it from others, such as (film)."""
    return re.sub(r"\s*\([^)]*\)\s*$", "", title).strip()


def _titled(page: Passage, question: str) -> list[str]:
    """Queries by title: bare; whole, without the brackets; with the question's other words."""
    whole = re.sub(r"[()]", "", page.title)
    return list(dict.fromkeys((_bare(page.title), whole, " ".join([_bare(page.title), *_asked(question)]))))


def _asked(question: str) -> list[str]:
    """The words of a question without those that open one."""
    return [word for word in re.findall(r"\w[\w'’-]*", question) if word.lower() not in _OPENING]


def _spans(length: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, start + size) for start in range(length - size + 1))


def _words(text: str) -> str:
    return f" {normalize(text)} "


def _within(part: str, text: str) -> bool:
    """Whether the words of `part` stand in `text` in this order, whatever their case, punctuation and articles."""
    return _words(part) in _words(text)


def _place(page: Passage, question: str) -> int:
    return _words(question).find(_words(_bare(page.title)))


def _names(question: str) -> list[str]:
    """The names in a question: runs of words that begin with a capital or a digit, and words like `of` between them."""
    runs: list[list[str]] = [[]]
    waiting: list[str] = []
    for word in re.findall(r"\w[\w'’.&-]*", question):
        name = word.rstrip(".'’-")
        if (word[0].isupper() or word[0].isdigit()) and (runs[-1] or name.lower() not in _OPENING):
            runs[-1] += [*waiting, name]
            waiting = []
        elif runs[-1] and word in _JOINING and not waiting:
            waiting = [word]
        else:
            runs, waiting = [*runs, []], []
    return list(dict.fromkeys(" ".join(run) for run in runs if run))
