"""What a model's folder brings along, and what stays the project's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from swirl.cli.models import settings_of
from swirl.config import presets
from swirl.config.own_settings import own_settings, with_own, write_own
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.config.shared import Actions
from swirl.core.errors import ParamsError
from swirl.core.layout import Layout
from swirl.wiring.prompts import read_prompts
from tests.conftest import ROOT

MADE = {
    "runtime": {"dtype": "bfloat16", "context": 2048, "threads": 3, "workers": 5, "attention": "sdpa"},
    "prompts": {"policy": "src/swirl/prompts/real", "judge": "elsewhere"},
    "tasks": {
        "calculate": {"tools": ["calculator", "a:B"], "max_steps": 8},
        "search": {"tools": ["search"], "max_steps": 4},
    },
    "tools": {
        "search_results": 2,
        "search_output_limit": 700,
        "folder": "tools",
        "options": {"a:B": {"key": "secret"}},
    },
    "actions": {"thought_only": "allow"},
    "rollout": {"max_action_tokens": 96, "in_flight": 32},
}


@pytest.fixture
def params() -> Params:
    """The project's, which has the same tool of its own, for another task."""
    tree = presets.settings(ROOT, "mini").model_dump()
    tree["tasks"]["search"]["tools"].append("a:B")
    return validate(tree, "tests")


@pytest.fixture
def folder(params: Params, tmp_path: Path) -> Path:
    """A folder with the settings and prompts of a model that was made with `MADE`."""
    made = validate(laid_over(params.model_dump(), MADE), "tests")
    write_own(tmp_path / "model", own_settings(made), made.tasks, ROOT / made.prompts.policy)
    return tmp_path / "model"


def test_what_a_model_says_depends_on_comes_from_its_folder_and_the_rest_from_the_project(
    params: Params, folder: Path
) -> None:
    got, project = with_own(params, folder).model_dump(), params.model_dump()
    assert (got["runtime"], got["rollout"]["max_action_tokens"], got["rollout"]["in_flight"]) == (
        project["runtime"] | {"dtype": "bfloat16", "context": 2048},
        96,
        32,
    )
    assert got["tasks"] == {
        "calculate": {"tools": ["calculator", "a:B"], "max_steps": 8},
        "search": {"tools": ["search"], "max_steps": 4},
    }
    assert got["tools"] == project["tools"] | {"search_results": 2, "search_output_limit": 700}
    assert got["actions"] == {"format": "tags", "thinking": "none", "thought_only": "allow"}
    assert got["prompts"]["judge"] == project["prompts"]["judge"]
    same = {name for name in project if got[name] == project[name]}
    assert project.keys() - same == {"runtime", "prompts", "tasks", "tools", "actions", "rollout"}


def test_its_prompts_are_read_from_its_folder_in_any_project(
    params: Params, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = read_prompts(with_own(params, Path("model")), Layout(tmp_path / "project"))
    for task in ("search", "calculate"):
        assert prompts.tasks[task] == (ROOT / f"src/swirl/prompts/real/{task}.txt").read_text().strip()
    assert "secret" not in (folder / "swirl.yaml").read_text()
    assert str(ROOT) not in (folder / "swirl.yaml").read_text()


def test_a_folder_without_them_is_asked_with_the_project_s(
    params: Params, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settings_of(folder, params) == with_own(params, folder)
    assert capsys.readouterr().err == (
        f"swirl: {folder} is asked with its own prompts and settings (swirl.yaml), not params.yaml's\n"
    )
    (folder / "swirl.yaml").unlink()
    assert settings_of(folder, params) is params
    assert settings_of("http://127.0.0.1:9/v1#m", params) is params
    assert capsys.readouterr().err == ""


def test_settings_that_are_wrong_are_named_by_file_and_key(params: Params, folder: Path) -> None:
    path = folder / "swirl.yaml"
    right = yaml.safe_load(path.read_text())
    for change, said in (
        ({"clients": {}}, "  clients: no such key; the keys here are tasks, tools, actions, rollout, runtime"),
        ({"tools": right["tools"] | {"folder": "x"}}, "  tools.folder: no such key; the keys here are search_results"),
        ({"tools": right["tools"] | {"search_output_unit": "tokens"}}, "  tools.search_output_unit = 'tokens': Input"),
        ({"rollout": right["rollout"] | {"top_p": 2.0}}, "  rollout.top_p = 2.0: Input should be less than or equal"),
        (
            {"runtime": {"dtype": "bfloat16", "context": 90}},
            "  params: runtime.context must be above rollout.max_action",
        ),
    ):
        path.write_text(yaml.safe_dump(right | change))
        with pytest.raises(ParamsError) as caught:
            with_own(params, folder)
        assert str(caught.value).startswith(f"{path}: 1 wrong\n{said}")


@pytest.mark.parametrize("tool", ["stranger.evil:Tool", "a:Other", "mcp:files/delete"])
def test_a_tool_that_the_project_does_not_have_is_refused(params: Params, folder: Path, tool: str) -> None:
    path = folder / "swirl.yaml"
    path.write_text(path.read_text().replace("a:B", tool))
    with pytest.raises(ParamsError) as caught:
        with_own(params, folder)
    assert str(caught.value) == (
        f"{path}: tasks.calculate has the tool {tool}, which is in none of this project's tasks; a model's folder runs "
        "no code here. If you know the tool and trust it, add it to a task of params.yaml; otherwise take it out of "
        "that file"
    )


def test_prompts_of_an_earlier_export_do_not_stay(params: Params, folder: Path, tmp_path: Path) -> None:
    (folder / "prompts/old.txt").write_text("old")
    shutil.copytree(ROOT / "src/swirl/prompts/policy", tmp_path / "policy")
    write_own(folder, own_settings(params), params.tasks, tmp_path / "policy")
    assert {path.name for path in (folder / "prompts").iterdir()} == {"search.txt", "calculate.txt", "closed_book.txt"}


def test_a_model_from_before_the_formats_acts_in_tags_and_a_system_turn_goes_along(
    params: Params, folder: Path, tmp_path: Path
) -> None:
    text = (folder / "swirl.yaml").read_text(encoding="utf-8")
    older = "".join(line for line in text.splitlines(True) if line.strip() not in ("format: tags", "thinking: none"))
    assert older != text
    (folder / "swirl.yaml").write_text(older, encoding="utf-8")
    assert with_own(params, folder).actions == Actions(format="tags", thinking="none", thought_only="allow")
    (folder / "prompts/system.txt").write_text("Be brief.\n", encoding="utf-8")
    write_own(tmp_path / "other", None, ("search",), folder / "prompts")
    assert (tmp_path / "other/prompts/system.txt").read_text(encoding="utf-8") == "Be brief.\n"
