"""A module that is cheap to import stays cheap: what is heavy is imported where it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ["torch", "transformers", "mlflow", "great_expectations", "prefect", "dvc", "sympy", "bm25s", "matplotlib"]

CHECK = """
import importlib, sys
heavy = {heavy!r}
for name in {modules!r}:
    importlib.import_module(name)
    loaded = [h for h in heavy if h in sys.modules]
    if loaded:
        sys.exit(f"importing {{name}} imports {{', '.join(loaded)}}; move that import into the function that needs it")
"""


def test_the_command_line_the_packages_and_the_stages_import_no_heavy_library(root: Path) -> None:
    """A module inside a package may need torch for its classes, as long as nothing imports it on the way."""
    source = root / "src"
    files = [
        source / "swirl/cli/main.py",
        *sorted(source.rglob("__init__.py")),
        *sorted(source.glob("swirl/stages/*.py")),
    ]
    modules = [".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert {"swirl.tracking", "swirl.stages.train"} <= set(modules)
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(heavy=HEAVY, modules=modules)],
        cwd=root,
        env={"PYTHONPATH": str(root / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line_imports_no_data_library(root: Path) -> None:
    heavy = "('pandas', 'pyarrow', 'pydantic')"
    program = f"import sys, swirl.cli.main; sys.exit(' '.join(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(root / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == ""
