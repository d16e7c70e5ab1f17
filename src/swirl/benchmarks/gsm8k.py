"""GSM8K's official file: JSON lines of {"question", "answer"}, the answer a worked solution that ends in `#### 72`."""

from __future__ import annotations

import re

from swirl.benchmarks.rows import BadRow, Fields, Format, Row, text
from swirl.core.grading import same_number

_ANNOTATION = re.compile(r"<<[^<>]*>>")


def parse(row: Fields, number: int) -> Row:
    """The answer is what follows `####`, without thousands separators; hops count the calculator annotations.

    GSM8K has no ids, so a question's id is its row's number, from 0.
    """
    solution = text(row, "answer")
    answer = solution.rpartition("####")[2].strip().replace(",", "")
    if "####" not in solution or not same_number(answer, answer) or any(map(str.isalpha, answer)):
        raise BadRow("answer", solution, "a solution that ends in '#### ' and a number")
    return Row(str(number), text(row, "question"), (answer,), len(_ANNOTATION.findall(solution)), solution=solution)


FORMAT = Format(parse, ("calculator",), "calculate", {"train": 7473, "test": 1319, "evaluation": 1319})
