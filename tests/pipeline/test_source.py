"""The source that a stage is made of: which files, and what of them counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.core.errors import DataError
from swirl.pipeline.source import CARRIES_ONLY, SHAPES_NO_OUTPUT, digest, libraries, modules
from swirl.pipeline.stages import STAGES


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package: stage filter is made of seven files, of which four count."""
    write(
        tmp_path,
        **{
            "stages/filter": "from swirl import errors\ndef run():\n    from swirl.tools import search\n",
            "errors": "class E(Exception): ...\n",
            "tools/__init__": '"""Only words."""\n',
            "tools/search": "import numpy\nimport swirl.text.words\nfrom swirl.pipeline.progress import track\n",
            "text/words": "WORDS = 1\n",
            "unused": "import torch\n",
            "pipeline/progress": "import swirl.unused\n",
        },
    )
    return tmp_path


def write(package: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_lazy_imports_submodules_and_packages_are_followed(package: Path) -> None:
    found = ["errors.py", "stages/filter.py", "text/words.py", "tools/search.py"]
    assert modules("filter", package) == found
    write(package, **{"tools/__init__": "from swirl.text.words import WORDS\n"})
    assert modules("filter", package) == sorted([*found, "tools/__init__.py"])


def test_the_libraries_are_those_that_it_computes_with(package: Path) -> None:
    assert libraries("filter", package) == ["numpy"]


def test_relative_imports_and_unknown_stages_are_refused(package: Path) -> None:
    write(package, **{"stages/judge": "\nfrom . import filter\n"})
    with pytest.raises(DataError, match=r"stages/judge\.py:2: a relative import"):
        modules("judge", package)
    with pytest.raises(DataError, match="stage 'index' has no module"):
        modules("index", package)


def changed(package: Path, **texts: str) -> bool:
    """Whether the digest is another one after these edits."""
    before = digest("filter", package)
    write(package, **texts)
    return digest("filter", package) != before


@pytest.mark.parametrize(
    "text",
    [
        '"""What it is."""\n\n\nWORDS = 1  # how many\n',
        "# A comment\nWORDS = 1\n'a string that nobody reads'\n",
        "WORDS = (\n    1\n)\n",
    ],
    ids=["docstring", "comment", "layout"],
)
def test_words_for_people_change_no_digest(text: str, package: Path) -> None:
    assert not changed(package, **{"text/words": text})


def test_what_a_docstring_alone_says_changes_no_digest(package: Path) -> None:
    assert not changed(package, errors='class E(Exception):\n    """An error."""\n    ...\n')


@pytest.mark.parametrize(
    "edit",
    [{"text/words": "WORDS = 2\n"}, {"text/words": "WORDS = 1\nMORE = 1\n"}, {"tools/__init__": "LIMIT = 3\n"}],
    ids=["value", "statement", "package"],
)
def test_what_is_computed_differently_changes_the_digest(edit: dict[str, str], package: Path) -> None:
    assert changed(package, **edit)


def test_what_the_stage_is_not_made_of_changes_no_digest(package: Path) -> None:
    assert not changed(package, unused="A = 1\n", **{"pipeline/progress": "A = 1\n"})


def test_a_file_that_is_moved_changes_the_digest(package: Path) -> None:
    edit = {"tools/search": "import numpy\nimport swirl.text.terms\n", "text/terms": "WORDS = 1\n"}
    assert changed(package, **edit)


def test_another_version_of_a_library_changes_the_digest(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest("filter", package)
    monkeypatch.setattr("swirl.pipeline.source.version", lambda name: "0.0.1")
    assert digest("filter", package) != before


@pytest.mark.slow
def test_the_real_stages_are_made_of_what_they_should_be() -> None:
    for stage in STAGES:
        found = modules(stage)
        assert f"stages/{stage}.py" in found
        left_out = {name.removeprefix("swirl.") for name in (*SHAPES_NO_OUTPUT, CARRIES_ONLY.get(stage, "swirl.cli"))}
        assert not [name for name in found if name.partition("/")[0] in left_out]
    assert "rl/objective.py" in modules("train")
    assert "rl/objective.py" not in modules("evaluate")
