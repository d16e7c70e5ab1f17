"""What a stage read: DVC's hashes of its dependencies, and its tables as datasets. Knows nothing of MLflow."""

from __future__ import annotations

import getpass
import hashlib
import json
import subprocess
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from swirl.config.yaml_text import parse
from swirl.core.layout import Layout
from swirl.pipeline.dvc_file import DvcStage, dvc_hash

SOURCE = "src/swirl"
"""Files and folders below this folder are the source of a stage, unless they are prompts."""
CONTEXTS = {"train": "training", "evaluate": "evaluation"}
GOLDEN = ("annotations", "derivations", "solutions", "support")
"""Tables of golden labels: training reads them for curves that it logs, and for nothing else."""
LOGGED = "log only"
"""The context of such a table in training."""


def lock_hash(layout: Layout) -> dict[str, str]:
    """The tag `dvc.lock`: the MD5 of that file; no tag without it."""
    path = layout.root / "dvc.lock"
    return {"dvc.lock": dvc_hash(path)} if path.exists() else {}


@cache
def commit(root: Path) -> str:
    """The git commit that is checked out, or `unknown`."""
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def source_tags(root: Path, command: str) -> dict[str, str]:
    """The tags that fill MLflow's columns Version, Source and User, and `git.commit`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container in which the user has no name
        user = "unknown"
    found = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL", "mlflow.user": user}
    known = commit(root)
    return {**found, "git.commit": known, **({"mlflow.source.git.commit": known} if known != "unknown" else {})}


def dependencies(stage: DvcStage, layout: Layout, locked: bool) -> dict[str, str]:
    """The MD5 of each dependency of a stage by path; a folder's is the one that DVC computes, which ends in `.dir`.

    With `locked`, the hashes of other stages' outputs are taken from dvc.lock, where DVC has just written them;
    otherwise every file is hashed here. Dependencies that do not exist are left out.
    """
    lock = layout.root / "dvc.lock"
    made = _outputs(lock.read_text(encoding="utf-8")) if locked and lock.exists() else {}
    found: dict[str, str] = {}
    for dep in stage.deps:
        path = layout.root / dep
        if dep in made:
            found[dep] = made[dep]
        elif path.exists():
            found[dep] = dvc_hash(path)
    return found


def dependency_tags(hashes: dict[str, str]) -> dict[str, str]:
    """A tag `dep.PATH` for each dependency, and one tag for all source of the stage, `dep.source`: a hash of hashes."""
    source = {path: value for path, value in hashes.items() if f"{path}/".startswith(f"{SOURCE}/") and _is_code(path)}
    tags = {f"dep.{path}"[:250]: value for path, value in hashes.items() if path not in source}
    if source:
        lines = "".join(f"{value}  {path}\n" for path, value in sorted(source.items()))
        tags["dep.source"] = hashlib.md5(lines.encode()).hexdigest()
    return tags


def _is_code(path: str) -> bool:
    return "prompts" not in Path(path).parts


def datasets(stage: DvcStage, layout: Layout, hashes: dict[str, str]) -> list[dict[str, str]]:
    """The Parquet files among the dependencies, in the form of `swirl.tracking.operations.Inputs`.

    What a stage learns from comes first, then questions, then what training reads for the log alone.
    """
    import pyarrow.parquet as pq

    context = CONTEXTS.get(stage.name.partition("@")[0], "input")
    found = []
    for dep in stage.deps:
        path = layout.root / dep
        for file in [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet")) if path.is_dir() else []:
            footer = pq.ParquetFile(file)
            columns = [{"type": _kind(str(f.type)), "name": f.name, "required": False} for f in footer.schema_arrow]
            found.append(
                {
                    "name": file.relative_to(layout.root).as_posix().removesuffix(".parquet"),
                    "digest": dvc_hash(file),
                    "path": str(file.resolve()),
                    "schema": json.dumps({"mlflow_colspec": columns}),
                    "profile": json.dumps({"num_rows": footer.metadata.num_rows, "dvc": hashes.get(dep, "")}),
                    "context": LOGGED if context == "training" and file.stem in GOLDEN else context,
                }
            )
    return sorted(found, key=lambda one: (one["context"] == LOGGED, one["name"].startswith("data/questions/")))


def _kind(arrow: str) -> str:
    """MLflow's name of an Arrow type; `object` for nested and all other types."""
    names = {"string": "string", "int32": "integer", "int64": "long", "float": "float", "double": "double"}
    return names.get(arrow, "boolean" if arrow == "bool" else "object")


@lru_cache(maxsize=1)
def _outputs(lock: str) -> dict[str, str]:
    """MD5 by path of all outputs in the text of dvc.lock."""
    stages: dict[str, Any] = (parse(lock, "dvc.lock") or {}).get("stages") or {}
    return {out["path"]: out["md5"] for entry in stages.values() for out in entry.get("outs") or [] if "md5" in out}
