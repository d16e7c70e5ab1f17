"""dvc.yaml: every stage depends on the source that it is made of, and reads and writes what it should."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import swirl
from swirl.config.params import Params
from swirl.config.section import Section
from swirl.config.shared import Runtime
from swirl.pipeline.source import COMPUTE, libraries, modules
from swirl.pipeline.stages import STAGES

PACKAGE = Path(swirl.__file__).parent
GATES = {"check_questions": "questions", "check_trajectories": "trajectories", "check_steps": "steps"}


@pytest.fixture(scope="module")
def stages(root: Path) -> dict[str, Any]:
    """The stages of dvc.yaml; a foreach stage as its `do`."""
    document = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: {**body.get("do", body), "foreach": body.get("foreach", ())} for name, body in document.items()}


def outputs(stage: dict[str, Any]) -> list[str]:
    entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def source_of(stage: dict[str, Any]) -> list[str]:
    """The files and folders of src/swirl that a stage depends on."""
    return [dep for dep in stage["deps"] if dep.startswith("src")]


def covers(dep: str, path: str) -> bool:
    """Whether `path` is the dependency, or is in it."""
    return f"{path}/".startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_source_it_is_made_of(stage: str, stages: dict[str, Any]) -> None:
    """Both ways: all that it imports is in its deps, and nothing is in its deps that it does not import."""
    made_of = [f"src/swirl/{name}" for name in modules(stage)]
    deps = source_of(stages[stage])
    missing = [path for path in made_of if not any(covers(dep, path) for dep in deps)]
    assert missing == [], f"{stage} imports these: add them, or their packages, to its deps in dvc.yaml"
    needless = [dep for dep in deps if not any(covers(dep, path) for path in made_of)]
    assert needless == [], f"{stage} imports nothing of these: take them out of its deps in dvc.yaml"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_versions_of_what_it_computes_with(stage: str, stages: dict[str, Any]) -> None:
    assert ("constraints-compute.txt" in stages[stage]["deps"]) == bool(libraries(stage))


def test_the_versions_of_what_is_computed_with_are_exact_and_in_a_file_of_their_own(root: Path) -> None:
    lines = [line for line in (root / "constraints-compute.txt").read_text().splitlines() if not line.startswith("#")]
    assert [re.fullmatch(r"([\w-]+)==[\d.]+", line)[1] for line in lines] == list(COMPUTE)  # type: ignore[index]
    others = (root / "constraints.txt").read_text().splitlines()
    assert "-c constraints-compute.txt" in others
    assert not [line for line in others if line.partition("==")[0] in COMPUTE]


RERUNS = {
    "reporting": {"report"},
    "rl": {"train"},
    "evaluation": {"evaluate", "report"},
    "judging": {"reward_model", "judge", "filter", "train", "evaluate"},
    "endpoints": {"judge", "train", "evaluate"},
    "quality": {"check_questions", "check_trajectories", "check_steps"},
    "judge_training": {"reward_model"},
    "pretraining": {"base_model", "reward_model"},
    "agent_logs": {"download", "base_model", "synthesize"},
    **{
        package: set[str]()
        for package in ("bench", "cli", "config", "execution", "orchestration", "pipeline", "planning")
    },
    **{package: set[str]() for package in ("mlflow_store", "registry", "serving", "traces", "tracking")},
}
"""Package -> the stages that may run again because of an edit in it; others do so only if a stage's output changed."""


@pytest.mark.parametrize("package", RERUNS)
def test_an_edit_runs_no_other_stage_again(package: str, stages: dict[str, Any], root: Path) -> None:
    files = [path.relative_to(root).as_posix() for path in (root / "src/swirl" / package).rglob("*.py")]
    assert files
    again = {
        name for name, stage in stages.items() for file in files if any(covers(dep, file) for dep in source_of(stage))
    }
    assert again == RERUNS[package]
    assert package in ("pretraining", "agent_logs") or not again & {"base_model", "synthesize"}


def test_every_package_is_known(root: Path) -> None:
    """A new one belongs into the table above, unless the stages that make trajectories are made of it."""
    packages = {path.parent.name for path in (root / "src/swirl").glob("*/__init__.py")}
    made_of = {"benchmarks", "comb", "core", "models", "rollout", "stages", "tools", "wiring"}
    assert packages == RERUNS.keys() | made_of
    assert not list((root / "src/swirl").glob("[!_]*.py")), "a module in no package"


def test_no_two_modules_share_a_name_that_does_not_say_which(root: Path) -> None:
    """Names that the package makes plain: a stage's, a section's, what is here or elsewhere, a benchmark's."""
    plain = {"base_model", "reward_model", "download", "evaluate", "filter", "judge", "train"}
    plain |= {"remote", "prompts", "steps", "trajectories", "questions", "tables", "text", "report", "worker"}
    names = Counter(path.stem for path in (root / "src/swirl").glob("*/**/*.py") if path.stem != "__init__")
    assert {name for name, count in names.items() if count > 1} - plain == set()


def test_the_repository_holds_no_links(root: Path) -> None:
    """A clone without symbolic links has text in their place, and no stage would notice an edit of what they led to."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=root, capture_output=True, text=True, check=True)
    assert not [line for line in listed.stdout.splitlines() if line.startswith("120000")]


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


LIMITS = {
    "check_trajectories.max_failed_rate",
    "check_steps.max_null_rate",
    "clients",
    "execution",
    "tool_calls.in_flight",
}
"""How much may fail at a server decides whether a stage fails, not what it writes (but the gates do depend on it); how
a server is asked changes no answer, nor does how many calls of tools are made at a time, and where a block is made
changes none of its bytes."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_every_param_that_it_reads(stage: str, stages: dict[str, Any]) -> None:
    declared = declared_params(stages[stage], STAGES[stage].items)
    read = [name for name in params_read(stage) if name not in LIMITS]
    missing = [name for name in read if not any(f"{name}.".startswith(f"{key}.") for key in declared)]
    assert missing == [], f"add these to the params of {stage} in dvc.yaml: {', '.join(missing)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_folders_of_prompts_and_tools_that_it_reads(stage: str, stages: dict[str, Any]) -> None:
    read = params_read(stage)
    folders = [name for name in ("prompts.policy", "prompts.judge", "tools.folder") if name in read]
    assert [dep for dep in stages[stage]["deps"] if dep.startswith(("${prompts", "${tools"))] == [
        f"${{{name}}}" for name in folders
    ]


def test_the_schema_holds_no_default() -> None:
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


def params_read(stage: str, package: Path = PACKAGE) -> set[str]:
    """The keys of params.yaml, as `train.swirl.lr`, that follow `params` or `self._params` in the source of `stage`.

    A name may go on after the key, as in `filter.strategy.upper`. What a function is given by another name is not
    seen, so pass sections on, not pieces of an alias. A property of Params counts as the keys that it reads.
    """
    read = set()
    for name in modules(stage, package):
        read |= _after_params(ast.parse((package / name).read_text(encoding="utf-8")))
    return {key for name in read for key in (PROPERTIES | RUNTIME).get(name, {name})}


PROPERTIES = {"shared_seed": {"seed", "base_seed"}}
"""Properties of Params, with the keys that they read."""
TRAINING = {"processes", "sharding"}
"""Keys of `runtime` that nothing but training reads."""
RUNTIME = {
    key: {f"runtime.{key}" for key in Runtime.model_fields.keys() - TRAINING}
    for key in ("runtime", "runtime.of_every_stage")
}
"""The section by another name, and as a part of a fingerprint, with the keys that are read of it."""


def test_of_runtime_nothing_but_training_reads_processes_and_sharding() -> None:
    section = re.compile(r"run|runtime|.*params\.runtime")
    made_of = {stage: modules(stage, PACKAGE) for stage in STAGES}
    found = {
        name
        for name in set().union(*made_of.values())
        for node in ast.walk(ast.parse((PACKAGE / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in TRAINING and section.fullmatch(ast.unparse(node.value))
    }
    readers = {stage for stage, names in made_of.items() if found & set(names)}
    assert readers == {"train"}


def test_what_every_stage_reads_of_runtime_is_the_rest(root: Path) -> None:
    given = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["runtime"]
    assert Runtime(**given).of_every_stage() == {key: value for key, value in given.items() if key not in TRAINING}


def test_the_properties_of_params_are_known() -> None:
    assert {name for name, value in vars(Params).items() if isinstance(value, property)} == set(PROPERTIES)


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


def test_params_read_are_the_names_after_params(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    lines = ["from swirl import helper", "def run(params):", "    f(params.judge.threshold, params.seed)"]
    (tmp_path / "stages/judge.py").write_text("\n".join(lines))
    said = "def g(self):\n    return [params.rollout.max_steps['search'], other.params.no, self._params.tools]\n"
    (tmp_path / "helper.py").write_text(said)
    assert params_read("judge", tmp_path) == {"judge.threshold", "seed", "rollout.max_steps", "tools"}


def test_nothing_depends_on_how_servers_are_asked_where_blocks_are_made_or_what_is_tracked(
    stages: dict[str, Any],
) -> None:
    for definition in stages.values():
        sections = {name.partition(".")[0] for name in definition["params"]}
        assert not sections & {"clients", "execution", "tool_calls", "tracking"}


def test_training_does_not_depend_on_how_answers_are_graded(stages: dict[str, Any]) -> None:
    judging = [name for name in stages["train"]["params"] if name.partition(".")[0] == "judge"]
    assert judging == ["judge.threshold", "judge.retry_failed", "judge.rewards"]
