"""docs/method.md: the functions and pictures that it names are there, and its arithmetic is right."""

from __future__ import annotations

import ast
import re

import pytest
import torch

from swirl.rl.objective import advantages
from tests.conftest import ROOT

PAGE = (ROOT / "docs/method.md").read_text()


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`([\w/]+\.py)::([\w.]+)`", PAGE))), ids="::".join)
def test_what_it_names_is_there(place: tuple[str, str]) -> None:
    file, names = place
    inside: ast.Module | ast.FunctionDef | ast.ClassDef = ast.parse((ROOT / "src/swirl" / file).read_text())
    for name in names.split("."):
        there = {node.name: node for node in inside.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert name in there
        inside = there[name]


def test_every_equation_leads_to_the_function_that_computes_it() -> None:
    links = re.findall(r"\[`([\w/]+\.py)::([\w.]+)`\]\(([\w./]+)\)", PAGE)
    assert [name for _, name, _ in links] == [
        "RewardModel._read_group", "surrogate", "Trainer.update", "advantages", "token_statistics",
    ]  # fmt: skip
    for file, _, link in links:
        assert (ROOT / "docs" / link).resolve() == ROOT / "src/swirl" / file


def test_its_pictures_are_there_and_hold_no_script() -> None:
    pictures = re.findall(r"\]\((images/[\w.-]+)\)", PAGE)
    assert len(pictures) == 3
    for picture in pictures:
        assert "<script" not in (ROOT / "docs" / picture).read_text()


def test_its_advantages_are_those_of_the_code() -> None:
    found = advantages(torch.tensor([[0.585905] * 5 + [0.027344] * 3]), "rloo")[0]
    assert f"{found[0]:+.3f}" == "+0.239"
    assert f"{found[7]:+.3f}" == "-0.399"
    assert "+.239" in PAGE and "−.399" in PAGE
