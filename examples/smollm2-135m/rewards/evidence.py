"""A reward without labels: what does a step bring that the question asks about, and does an answer rest on it?

It reads the question, the conversation and what the step's own call brings: the search runs on the index of the
question's split, the calculation in the calculator. It never reads an answer, a supporting page or an annotation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from swirl.core.errors import ToolError
from swirl.core.records import load
from swirl.core.types import Question
from swirl.tools.calculator import Calculator
from swirl.tools.search import Search

ASKED = re.compile(r"\n(?:Question|Problem): ")
SEARCH = re.compile(r"<search_query>(.*?)</search_query>", re.DOTALL)
CALCULATION = re.compile(r"<math_exp>(.*?)</math_exp>", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
WORD = re.compile(r"[^\W_]+")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
COMMON = frozenset(
    "a about after also an and as at been before between both by did do does during for from had has have he her his "
    "how in into is it its of on or other over same she than that the their them then these they this those to was "
    "were are be what when where which who whom whose why with".split()
)
SPELLED = {
    "half": 2, "twice": 2, "double": 2, "triple": 3, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twelve": 12, "dozen": 12, "week": 7, "weeks": 7, "year": 12,
    "years": 12, "day": 24, "hour": 60, "hours": 60, "minutes": 60,
}  # fmt: skip
ALWAYS = {1.0, 2.0, 100.0}


class Evidence:
    """Scores from 0 to 1; 0 for a call that was made before, and for what is neither a call nor an answer.

    - A search: the square root of the share of the question's words that its results show for the first time.
    - A calculation: 0 if one of its numbers is neither in the problem nor a result (nor 1, 2, 100). Else 0.2, and 0.2
      for a whole result, 0.2 for one that is new, and 0.4 times the share of its numbers that are the problem's and
      had not been used.
    - An answer to a question: the squared share of the question's words that the results show, if the answer is in
      them and not in the question, or is yes or no; else 0.
    - An answer to a problem: the squared share of the problem's numbers that were used, if it is the last result;
      else 0.
    """

    def __init__(
        self,
        index: str = "data/index",
        questions: str = "data/questions/questions.parquet",
        results: int = 2,
        limit: int = 700,
    ) -> None:
        """Reads `questions` (which split each is of) and searches as `tools.search_results` and its limit say."""
        self._index, self._results, self._limit = Path(index), results, limit
        self._split = {
            q.text.strip(): f"{q.benchmark}.{q.split}" if "search" in q.tools else ""
            for q in load(Question, Path(questions))
        }
        self._searches: dict[str, Search] = {}
        self._calculator = Calculator()
        self._found = lru_cache(maxsize=100_000)(self._find)

    def scores(self, states: Sequence[str], actions: Sequence[str]) -> list[float]:
        """One score an action."""
        return [self._score(state, action) for state, action in zip(states, actions, strict=True)]

    def _score(self, state: str, action: str) -> float:
        asked, *turns = ASKED.split(state, maxsplit=1)[-1].split("\n---\n")
        question, said, shown = asked.strip(), "\n".join(turns[0::2]), "\n".join(turns[1::2])
        if query := SEARCH.search(action):
            return 0.0 if query[1].strip() in calls(SEARCH, said) else self._search(query[1].strip(), question, shown)
        calculated = calls(CALCULATION, said)
        if expression := CALCULATION.search(action):
            text = expression[1].strip()
            return 0.0 if text in calculated else self._calculation(text, question, shown, calculated)
        if answer := ANSWER.search(action):
            text = answer[1].strip()
            return of_problem(text, question, shown, calculated) if calculated else of_question(text, question, shown)
        return 0.0

    def _search(self, query: str, question: str, shown: str) -> float:
        asked = words(question)
        new = (words(self._found(self._split[question], query)) - words(shown)) & asked
        return float((len(new) / max(1, len(asked))) ** 0.5)

    def _find(self, split: str, query: str) -> str:
        if not split:  # a problem, for which there is nothing to search
            return ""
        if split not in self._searches:
            self._searches[split] = Search(self._index / split, k=self._results, output_limit=self._limit)
        return self._searches[split].run(query)

    def _calculation(self, expression: str, problem: str, shown: str, calculated: Sequence[str]) -> float:
        given, results, used = given_numbers(problem), computed(shown), set(numbers(expression))
        if not used or not used <= given | set(results) | ALWAYS:
            return 0.0
        try:
            (value,) = numbers(self._calculator.run(expression))
        except (ToolError, ValueError):
            return 0.0
        unused = (used & given) - set(numbers(" ".join(calculated)))
        new = value not in given | set(results)
        return (1 + (value == int(value)) + new + 2 * len(unused) / len(used)) / 5


def of_question(answer: str, question: str, shown: str) -> float:
    """The score of an answer after searches."""
    low, asked = answer.lower(), words(question)
    rests = low in ("yes", "no") or (low in shown.lower() and low not in question.lower())
    return (len(words(shown) & asked) / max(1, len(asked))) ** 2 if low and rests else 0.0


def of_problem(answer: str, problem: str, shown: str, calculated: Sequence[str]) -> float:
    """The score of an answer after calculations."""
    given, results = given_numbers(problem), computed(shown)
    if not results or numbers(answer)[:1] != results[-1:]:
        return 0.0
    return (len(given & set(numbers(" ".join(calculated)))) / max(1, len(given))) ** 2


def calls(tag: re.Pattern[str], said: str) -> list[str]:
    """What was called before."""
    return [payload.strip() for payload in tag.findall(said)]


def words(text: str) -> set[str]:
    """The words of a text that say what it is about."""
    return {word for word in WORD.findall(text.lower()) if word not in COMMON}


def numbers(text: str) -> list[float]:
    """The numbers in a text, in its order and without signs."""
    return [float(found) for found in NUMBER.findall(text.replace(",", ""))]


def given_numbers(problem: str) -> set[float]:
    """The numbers of a problem, in digits or in words."""
    return {*numbers(problem), *(float(SPELLED[word]) for word in WORD.findall(problem.lower()) if word in SPELLED)}


def computed(shown: str) -> list[float]:
    """What the calculator has said, in its order."""
    lines = (line.rsplit("->", 1)[1] for line in shown.splitlines() if "->" in line)
    return [found[0] for line in lines if (found := numbers(line))]
