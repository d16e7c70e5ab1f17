"""Filling prompts: with question, step limit and tools, but not the placeholders that those texts may contain."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from swirl.config import presets
from swirl.config.params import Params, load, validate
from swirl.config.presets import laid_over
from swirl.config.shared import Actions
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import Question
from swirl.models.prompts import fill, read_prompt
from swirl.tools import Calculator
from swirl.tools.actions import parse
from swirl.tools.base import MAX_DESCRIPTION, Tool, listed
from swirl.wiring.attempts import attempts_with
from swirl.wiring.judge_prompts import judge_question
from swirl.wiring.judges import read_judge_prompts
from swirl.wiring.prompts import demonstration_prompts, read_prompts
from tests import taught

ROOT = Path(__file__).parents[2]
OWN = str(ROOT / "examples/own-task/preset.yaml")
SHIPPED = [*sorted((ROOT / "src/swirl/prompts").glob("[pr]*/*.txt")), ROOT / "examples/own-task/prompts/staff.txt"]
HOSTILE = "first\r\nline\u2028{question} {steps} {tools} \ud800"


@dataclass
class Told:
    """A tool with an arbitrary description."""

    description: str
    name: str = "told"
    kind: str = "told"
    tag: str = "tell_me"
    time_limit_s: float = 1.0
    output_limit: int = 100

    def run(self, payload: str) -> str:
        return payload


@pytest.mark.parametrize("path", sorted((ROOT / "src/swirl/prompts").glob("[pr]*/*.txt")), ids=str)
def test_the_built_in_prompts_have_no_tools_to_fill(path: Path) -> None:
    prompt = path.read_text(encoding="utf-8")
    text = fill(prompt, "Who {calls}?", 5, "<a> ... </a>: x")
    assert text == prompt.replace("{calls}", "4").replace("{question}", "Who {calls}?")
    assert "{steps}" not in text  # a limit on calls that names the number of actions promises one too many


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_a_prompt_names_the_calls_that_there_may_be(path: Path) -> None:
    """With 5 actions, the last of which must be the answer, 4 results are read."""
    shown = fill(path.read_text(encoding="utf-8"), "Who?", 5)
    assert path.name == "closed_book.txt" or re.search(r"\b4 (searches|calculations|times|calls)\b", shown)
    assert not re.search(r"\b5\b", shown)


def test_nothing_is_filled_inside_what_was_filled_in() -> None:
    text = fill("{tools}|{steps}|{calls}|{question}|{other}", "{tools} {calls} {question}", 3, "{question} {tools}")
    assert text == "{question} {tools}|3|2|{tools} {calls} {question}|{other}"
    assert (fill("{calls}", "", 1), fill("{calls}", "", 0)) == ("0", "0")


def test_a_tool_is_listed_in_the_form_that_is_read_as_its_call() -> None:
    lines = listed([taught.SEARCH, Calculator(), Told("says it")]).splitlines()
    assert lines == [
        "<search_query> ... </search_query>: finds the passages that match a query",
        "<math_exp> ... </math_exp>: evaluates an arithmetic expression",
        "<tell_me> ... </tell_me>: says it",
    ]
    action = parse(lines[2].partition(":")[0], {"tell_me": "told"})
    assert (action.kind, action.payload) == ("told", "...")
    assert listed([]) == ""


def test_a_description_has_one_line_and_an_end() -> None:
    hostile = listed([Told(HOSTILE)])
    assert hostile == "<tell_me> ... </tell_me>: first line {question} {steps} {tools} ?"
    long = listed([Told("x" * 10 * MAX_DESCRIPTION)]).removeprefix("<tell_me> ... </tell_me>: ")
    assert len(long) == MAX_DESCRIPTION
    assert long.endswith("x ... [cut]")


def test_a_prompt_s_byte_order_mark_is_left_out_and_other_bytes_than_utf_8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "search.txt"
    path.write_bytes(b"\xef\xbb\xbfFrage: {question}\r\n")
    assert read_prompt(path) == "Frage: {question}"
    path.write_bytes("Beantworte präzise: {question}".encode("cp1252"))
    with pytest.raises(DataError, match=r"search\.txt is not UTF-8 from byte 13 on; save it as UTF-8"):
        read_prompt(path)


def project(root: Path, preset: str, **prompts: str) -> tuple[Params, Layout]:
    """The params of a preset, with prompt files that the test writes."""
    tree = laid_over(presets.tree(ROOT, preset), {"prompts": {"policy": "words"}})
    (root / "words").mkdir()
    for name, text in (dict.fromkeys((*tree["tasks"], "closed_book"), "{question}") | prompts).items():
        (root / f"words/{name}.txt").write_text(text, encoding="utf-8")
    return validate(tree, "tests"), Layout(root)


def test_an_attempt_is_told_of_the_tools_of_its_question(tmp_path: Path) -> None:
    params, layout = project(
        tmp_path, OWN, staff="{tools}\n{steps} calls. {question}", closed_book="No tools: {question}"
    )
    said = Told(HOSTILE)
    tools: dict[str, Tool] = {"search": taught.SEARCH, "told": said}
    asked = Question("q", "b", "train", "Why {tools}?", ("x",), 1, ("search", "told:Told"), "staff")
    one = dataclasses.replace(asked, tools=("told:Told",))
    made = [
        *attempts_with(params, layout, [asked], 1, lambda _: tools),
        *attempts_with(params, layout, [one], 1, lambda _: {"told": said}),
        *attempts_with(params, layout, [asked], 1, None),
    ]
    hostile = "<tell_me> ... </tell_me>: first line {question} {steps} {tools} ?"
    assert [attempt.prompt for attempt in made] == [
        "<search_query> ... </search_query>: finds the passages that match a query\n"
        f"{hostile}\n5 calls. Why {{tools}}?",
        f"{hostile}\n5 calls. Why {{tools}}?",
        "No tools: Why {tools}?",
    ]


@pytest.mark.parametrize(("setting", "thoughts"), [("allow", [True, True, False]), ("refuse", [False] * 3)])
def test_thoughts_alone_are_allowed_by_params_and_never_in_the_closed_book(
    tmp_path: Path, setting: str, thoughts: list[bool]
) -> None:
    params, layout = project(tmp_path, OWN)
    params = params.model_copy(update={"actions": Actions(format="tags", thinking="none", thought_only=setting)})  # type: ignore[arg-type]
    asked = Question("q", "b", "train", "Why?", ("x",), 1, ("search",), "staff")
    made = [
        *attempts_with(params, layout, [asked], 2, lambda _: {"search": taught.SEARCH}),
        *attempts_with(params, layout, [asked], 1, None),
    ]
    assert [attempt.thoughts for attempt in made] == thoughts


@pytest.mark.parametrize("folder", ["src/swirl/prompts/judge", "examples/own-task/judge"])
def test_judges_are_told_what_a_good_thought_is(folder: str) -> None:
    """Where it is allowed; else that whatever is neither a call nor an answer is BAD."""
    params = load(ROOT / "params.yaml")
    params = params.model_copy(update={"prompts": params.prompts.model_copy(update={"judge": folder})})
    for setting, rule in (("allow", "it is GOOD if it follows from the results"), ("refuse", "nor one answer is BAD")):
        chosen = params.model_copy(update={"actions": Actions(format="tags", thinking="none", thought_only=setting)})  # type: ignore[arg-type]
        prompts = read_judge_prompts(chosen, Layout(ROOT))
        for prompt in (prompts.process, prompts.reward):
            assert rule in prompt
            assert "{thoughts}" not in prompt
        assert "{thoughts}" not in judge_question(chosen, Layout(ROOT))


def test_tools_where_there_are_none_to_show(tmp_path: Path) -> None:
    params, layout = project(tmp_path, OWN, closed_book="{tools} {question}")
    with pytest.raises(DataError, match=r"closed_book.txt must not hold \{tools\}: it is asked without tools"):
        read_prompts(params, layout)


def test_tools_in_the_prompt_of_a_base_made_from_demonstrations(tmp_path: Path) -> None:
    params, layout = project(tmp_path, "smoke", search="{tools} {question}")
    with pytest.raises(DataError, match=r"search.txt must not hold \{tools\}: the demonstrations that"):
        demonstration_prompts(params, layout)
