"""dvc.yaml: every stage depends on the source that it is made of, and reads and writes what it should."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from swirl.config.params import Params
from swirl.config.section import Section
from swirl.core.errors import DataError
from swirl.pipeline.source import closure
from swirl.pipeline.stages import STAGES

GATES = {"check_questions": "questions", "check_trajectories": "trajectories", "check_steps": "steps"}


@pytest.fixture(scope="module")
def stages(root: Path) -> dict[str, Any]:
    """The stages of dvc.yaml; a foreach stage as its `do`."""
    document = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: {**body.get("do", body), "foreach": body.get("foreach", ())} for name, body in document.items()}


def outputs(stage: dict[str, Any]) -> list[str]:
    entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_source_it_is_made_of(stage: str, stages: dict[str, Any], root: Path) -> None:
    assert [dep for dep in stages[stage]["deps"] if dep.startswith("src")] == ["src/swirl"]
    assert closure(stage, root)


def test_the_stages_are_those_that_can_be_run(stages: dict[str, Any], root: Path) -> None:
    assert list(stages) == list(STAGES)
    modules = {path.stem for path in (root / "src/swirl/stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_own_command_with_its_own_params(stage: str, stages: dict[str, Any]) -> None:
    items = STAGES[stage].items
    assert tuple(stages[stage]["foreach"]) == items
    variable = {"train": " --item ${item}", "evaluate": " --item ${key}"}.get(stage, "")
    assert stages[stage]["cmd"] == "${swirl} stage " + stage + variable


def declared_params(stage: dict[str, Any], items: tuple[str, ...]) -> set[str]:
    """The keys of params.yaml under `params`, each `${item}` replaced by every item."""
    return {name.replace("${item}", item) for name in stage["params"] for item in items or ("",)}


def test_every_declared_param_is_in_params_yaml(stages: dict[str, Any], root: Path) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    for stage, definition in stages.items():
        for name in declared_params(definition, STAGES[stage].items):
            value = params
            for part in name.split("."):
                assert part in value, f"{stage} depends on {name}, which params.yaml does not have"
                value = value[part]


LIMITS = {"check_trajectories.max_failed_rate", "check_steps.max_null_rate"}
"""How much may fail at a server decides whether a stage fails, not what it writes; but the gates do depend on it."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_every_param_that_it_reads(stage: str, stages: dict[str, Any], root: Path) -> None:
    declared = declared_params(stages[stage], STAGES[stage].items)
    read = [name for name in params_read(stage, root) if name not in LIMITS]
    missing = [name for name in read if not any(f"{name}.".startswith(f"{key}.") for key in declared)]
    assert missing == [], f"add these to the params of {stage} in dvc.yaml: {', '.join(missing)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_folders_of_prompts_and_tools_that_it_reads(
    stage: str, stages: dict[str, Any], root: Path
) -> None:
    read = params_read(stage, root)
    folders = [name for name in ("prompts.policy", "prompts.judge", "tools.folder") if name in read]
    assert [dep for dep in stages[stage]["deps"] if dep.startswith(("${prompts", "${tools"))] == [
        f"${{{name}}}" for name in folders
    ]


def test_params_py_holds_no_default() -> None:
    """Which is why no stage depends on it: DVC compares the values themselves. None says that a key is left out."""
    sections: list[type[BaseModel]] = [Params]
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.is_required() or field.default is None, f"{section.__name__}.{name} has a default"
        sections.extend(sub for sub in Section.__subclasses__() if sub not in sections)
    assert len(sections) > len(STAGES)


@pytest.mark.parametrize("gate", GATES)
def test_what_follows_a_gate_depends_on_its_report(gate: str, stages: dict[str, Any]) -> None:
    report = f"reports/quality/{GATES[gate]}.json"
    assert outputs(stages[gate]) == [report]
    gated = {
        "check_questions": ["index", "base_model", "synthesize", "evaluate", "report"],
        "check_trajectories": ["judge", "filter", "report"],
        "check_steps": ["train", "report"],
    }[gate]
    assert [name for name, stage in stages.items() if report in stage["deps"]] == gated


def test_no_output_survives_a_change(stages: dict[str, Any]) -> None:
    """Partial work is resumed from journals outside of DVC; a persisted output would mix two runs."""
    for stage in stages.values():
        assert not any(isinstance(out, dict) and next(iter(out.values())).get("persist") for out in stage["outs"])


def params_read(stage: str, root: Path) -> set[str]:
    """The keys of params.yaml, as `train.swirl.lr`, that follow `params` or `self._params` in the source of `stage`.

    A name may go on after the key, as in `filter.strategy.upper`. What a function is given by another name is not
    seen, so pass sections on, not pieces of an alias.
    """
    read = set()
    for path in closure(stage, root):
        if path.endswith(".py"):
            read |= _after_params(ast.parse((root / path).read_text(encoding="utf-8")))
    return read


def _after_params(tree: ast.AST) -> set[str]:
    """The longest dotted names that follow `params` or `self._params`: `b.c` for `params.b.c`."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            whole = re.fullmatch(r"(?:params|self\._params)\.([\w.]+)", ast.unparse(node))
            if whole:
                names.add(whole.group(1))
    return names


def write_project(root: Path, **modules: str) -> None:
    """A small `src/swirl`: each argument is a file's text, its name's double underscores being slashes."""
    for name, text in modules.items():
        path = root / "src/swirl" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_closure_follows_lazy_imports_submodules_and_packages(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        stages__filter="from swirl import errors\ndef run():\n    from swirl.tools import search\n",
        errors="",
        tools__search="import swirl.text.words\nfrom swirl.pipeline.progress import track\n",
        text__words="WORDS = 1\n",
        unused="",
        progress="import swirl.unused\n",
    )
    (tmp_path / "src/swirl/tools/__init__.py").write_text("from swirl.text.words import WORDS\n")
    assert closure("filter", tmp_path) == [
        "src/swirl/core/errors.py",
        "src/swirl/stages/filter.py",
        "src/swirl/text/words.py",
        "src/swirl/tools/__init__.py",
        "src/swirl/tools/search.py",
    ]


def test_closure_brings_the_data_folder_that_a_string_names(tmp_path: Path) -> None:
    write_project(tmp_path, stages__judge="PATH = 'templates/page.html'\n", stages__index="PATH = 'other'\n")
    (tmp_path / "src/swirl/templates").mkdir()
    (tmp_path / "src/swirl/templates/page.html").write_text("Is it good?")
    assert closure("judge", tmp_path) == ["src/swirl/stages/judge.py", "src/swirl/templates/page.html"]
    assert closure("index", tmp_path) == ["src/swirl/stages/index.py"]


def test_params_read_are_the_names_after_params(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        stages__judge="from swirl import helper\ndef run(params):\n    f(params.judge.threshold, params.seed)\n",
        helper="def g(self):\n    return [params.rollout.max_steps['search'], other.params.no, self._params.tools]\n",
    )
    assert params_read("judge", tmp_path) == {"judge.threshold", "seed", "rollout.max_steps", "tools"}


def test_closure_refuses_relative_imports_and_unknown_stages(tmp_path: Path) -> None:
    write_project(tmp_path, stages__judge="\nfrom . import filter\n")
    with pytest.raises(DataError, match=r"stages/judge\.py:2: a relative import"):
        closure("judge", tmp_path)
    with pytest.raises(DataError, match="stage 'filter' has no module"):
        closure("filter", tmp_path)
