"""Which source files a stage is made of, from its imports."""

from __future__ import annotations

import ast
from pathlib import Path

from swirl.core.errors import DataError

CANNOT_CHANGE_AN_OUTPUT = {
    "swirl.cli.main": "starts stages and prints",
    "swirl.pipeline.environment": "sets the process up; the number of threads is a param",
    "swirl.config.params": "holds no default: what it hands out is params.yaml, which DVC compares value by value",
    "swirl.pipeline.stages": "this table; no stage computes with it",
    "swirl.pipeline.progress": "writes to the terminal",
    "swirl.cli.run_stage": "times and tracks a stage from outside",
    "swirl.tracking": "copies finished outputs to MLflow",
}
"""The reviewed list of modules that no stage depends on in DVC's eyes, each with the reason."""


def closure(stage: str, root: Path) -> list[str]:
    """The source files that `stage` is made of: what its module imports within `swirl`, lazy imports included.

    Paths are relative to `root`, sorted. A module brings the `__init__.py` of its packages, and every file of a
    folder of data (prompts, templates) whose name one of its strings has as a part of a path. Raises
    `DataError` when the stage has no module.
    """
    source = root / "src"
    start = f"swirl.stages.{stage}"
    if _file(source, start) is None:
        raise DataError(f"stage {stage!r} has no module src/swirl/stages/{stage}.py")
    data = _data_folders(source / "swirl")
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        path = _file(source, module)
        if path is None or path in found or _excluded(module):
            continue
        found.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        waiting.extend(_imports(tree, path))
        waiting.append(module.rpartition(".")[0])
        for name in _path_parts(tree) & data.keys():
            found.update(data[name])
    return sorted(path.relative_to(root).as_posix() for path in found)


def _excluded(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in CANNOT_CHANGE_AN_OUTPUT)


def _file(package: Path, module: str) -> Path | None:
    """The file of a dotted module name, None when it names no module (but an attribute of one)."""
    base = package / Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(tree: ast.AST, path: Path) -> list[str]:
    """Dotted names under `swirl` that a file imports anywhere; those that are attributes are named too."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise DataError(f"{path}:{node.lineno}: a relative import; write its full name, from swirl on")
            names.append(node.module or "")
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return [name for name in names if name == "swirl" or name.startswith("swirl.")]


def _path_parts(tree: ast.AST) -> set[str]:
    """Every part of every string of a file, cut at slashes."""
    strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return {part for string in strings for part in string.split("/")}


def _data_folders(package: Path) -> dict[str, list[Path]]:
    """The folders below `package` that hold other files than Python, by their name; prompts are named by params."""
    folders: dict[str, list[Path]] = {}
    for path in package.rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc", ".typed"} and "prompts" not in path.parts:
            folders.setdefault(path.parent.name, []).append(path)
    return folders
