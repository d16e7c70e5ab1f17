"""The pipeline's table of contents, and which source files each stage's output depends on."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from swirl.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of dvc.yaml: `swirl stage NAME` runs `swirl.stages.NAME`."""

    items: tuple[str, ...] = ()
    """What a matrix stage is run for, one at a time; empty when it runs once."""
    uses_torch: bool = False
    """Whether thread and allocator settings matter."""


STAGES = {
    "download": Stage(),
    "check_questions": Stage(),
    "index": Stage(),
    "base_model": Stage(uses_torch=True),
    "reward_model": Stage(uses_torch=True),
    "synthesize": Stage(uses_torch=True),
    "check_trajectories": Stage(),
    "judge": Stage(uses_torch=True),
    "filter": Stage(),
    "check_steps": Stage(),
    "train": Stage(items=("sft", "swirl"), uses_torch=True),
    "evaluate": Stage(items=("ceiling", "base", "sft", "swirl"), uses_torch=True),
    "report": Stage(),
}
"""Every stage, in the order of a full run."""

CANNOT_CHANGE_AN_OUTPUT = {
    "swirl.cli": "starts stages and prints",
    "swirl.environment": "sets the process up; the number of threads is a param",
    "swirl.params": "holds no default: what it hands out is params.yaml, which DVC compares value by value",
    "swirl.pipeline": "this table; no stage computes with it",
    "swirl.progress": "writes to the terminal",
    "swirl.running": "times and tracks a stage from outside",
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


def _data_folders(package: Path) -> dict[str, list[Path]]:
    """The folders below `package` that hold other files than Python, by their name; prompts are named by params."""
    folders: dict[str, list[Path]] = {}
    for path in package.rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc", ".typed"} and "prompts" not in path.parts:
            folders.setdefault(path.parent.name, []).append(path)
    return folders
