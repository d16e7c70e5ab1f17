"""The source files of a stage, found by its imports: dvc.yaml must list them, and unfinished work is tied to them."""

from __future__ import annotations

import ast
import hashlib
from importlib.metadata import version
from pathlib import Path

from swirl.core.errors import DataError

SHAPES_NO_OUTPUT = {
    "swirl.cli": "starts stages and prints",
    "swirl.config": "holds no default: what it hands out is params.yaml, whose values are compared one by one",
    "swirl.execution": "decides where blocks are made and in what order they come; what makes them is the stage's",
    "swirl.pipeline": "lists the stages, sets processes up, shows progress",
    "swirl.tracking": "copies finished outputs to MLflow",
}
"""A reviewed list of the packages that no stage depends on, each with the reason."""

CARRIES_ONLY = {
    **dict.fromkeys(("base_model", "reward_model", "synthesize"), "swirl.endpoints"),
    "download": "swirl.traces",
}
"""Stage -> the package that only transports messages for it, so that the stage does not depend on that package.

`base_model` and `reward_model` send no request to a server, but store its address. `swirl.rollout.remote` decides what
`synthesize` asks and how it uses an answer. DVC cannot see that a server's answers change in any case. Traces that
`download` fetches become files in the folder that it depends on.
"""

COMPUTE = ("accelerate", "bm25s", "numpy", "peft", "safetensors", "sympy", "tokenizers", "torch", "transformers")
"""The libraries that outputs are computed with. Their exact versions are in constraints-compute.txt."""

_PACKAGE = Path(__file__).resolve().parents[1]


def modules(stage: str, package: Path = _PACKAGE) -> list[str]:
    """Sorted paths below `package`, such as `stages/judge.py`, of all files that `stage` imports, even lazily.

    Left out are packages that shape no output, and files without a statement (an `__init__.py` with a docstring alone).
    Raises `DataError` when the stage has no module, and for a relative import, which is not followed.
    """
    start = f"swirl.stages.{stage}"
    if _file(package, start) is None:
        raise DataError(f"stage {stage!r} has no module {package.name}/stages/{stage}.py")
    left_out = (*SHAPES_NO_OUTPUT, *([CARRIES_ONLY[stage]] if stage in CARRIES_ONLY else []))
    found: set[Path] = set()
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        path = _file(package, name)
        if path is None or name in seen or any(f"{name}.".startswith(f"{other}.") for other in left_out):
            continue
        seen.add(name)
        tree = _tree(path)
        if tree.body:
            found.add(path)
        waiting += _imports(tree, path)
        waiting.append(name.rpartition(".")[0])
    return sorted(path.relative_to(package).as_posix() for path in found)


def digest(stage: str, package: Path = _PACKAGE) -> str:
    """A hash of the source of a stage, and of the versions of the libraries that it computes with.

    Source is hashed as syntax trees, so that comments, docstrings and layout do not change the hash.
    """
    whole = hashlib.blake2b(digest_size=16)
    parts = [part for name in modules(stage, package) for part in (name, ast.dump(_tree(package / name)))]
    for part in (*parts, *(f"{name}=={version(name)}" for name in libraries(stage, package))):
        whole.update(f"{len(part)}:{part}".encode())
    return whole.hexdigest()


def libraries(stage: str, package: Path = _PACKAGE) -> list[str]:
    """The libraries of `COMPUTE` that a stage's source imports, sorted."""
    trees = ((package / name, _tree(package / name)) for name in modules(stage, package))
    imported = {name.partition(".")[0] for path, tree in trees for name in _imports(tree, path)}
    return sorted(imported & set(COMPUTE))


def _tree(path: Path) -> ast.Module:
    """A file's syntax tree without its docstrings (any statement that is a string alone)."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                setattr(node, block, [one for one in statements if not _is_text(one)])
    return tree


def _is_text(statement: ast.AST) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _file(package: Path, name: str) -> Path | None:
    """The file of a dotted module name; None for other packages, and for an attribute of a module."""
    first, *rest = name.split(".")
    base = package.joinpath(*rest)
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if first == "swirl" and candidate.is_file():
            return candidate
    return None


def _imports(tree: ast.AST, path: Path) -> list[str]:
    """Dotted names that a file imports anywhere: for `from a import b` both a and a.b, as b may be a module."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise DataError(f"{path}:{node.lineno}: a relative import; write its full name, from swirl on")
            names.append(node.module or "")
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return names
