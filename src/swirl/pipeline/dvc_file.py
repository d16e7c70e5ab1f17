"""The stages as dvc.yaml lists them, and the invocation of DVC that this process belongs to."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from swirl.config.yaml_text import read
from swirl.core.errors import ParamsError
from swirl.core.folder_files import files_inside

PLACEHOLDER = re.compile(r"\$\{\s*([\w.]+)\s*\}")


@dataclass(frozen=True, slots=True)
class DvcStage:
    """One stage of dvc.yaml after expansion. Paths are relative to the project root."""

    name: str
    """The name in DVC: `train@swirl`."""
    params: tuple[str, ...]
    """The keys of params.yaml that it depends on, such as `filter` or `train.swirl`."""
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    """Outputs, metrics and plots."""
    desc: str = ""
    """What it makes, in a few words."""

    @property
    def id(self) -> str:
        """The name in file names: `train-swirl`."""
        return self.name.replace("@", "-")

    @property
    def item(self) -> str:
        """`swirl` of `train@swirl`; empty for a stage without items."""
        return self.name.partition("@")[2]


def read_stages(root: Path, params: Mapping[str, Any]) -> dict[str, DvcStage]:
    """All stages by DVC name, `foreach` and `matrix` expanded; empty without dvc.yaml.

    `${...}` is replaced by values of `params`. Not supported, because dvc.yaml does not need them here: `wdir`, `vars`
    (used in commands alone), and items that are lists. Raises `ParamsError` for a file that cannot be read.
    """
    path = root / "dvc.yaml"
    if not path.exists():
        return {}
    whole = read(path) or {}
    entries = (whole.get("stages") if isinstance(whole, Mapping) else None) or {}
    if not isinstance(entries, Mapping):
        raise ParamsError(f"{path}: stages are no mapping of names to stages")
    stages = (_stage(*one) for name, entry in entries.items() for one in _expand(name, entry, params))
    return {stage.name: stage for stage in stages}


def _expand(name: str, entry: dict[str, Any], params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(DVC name, definition) of each stage that one entry of dvc.yaml stands for."""
    if "foreach" in entry:
        items = _fill(entry["foreach"], params)
        pairs = items.items() if isinstance(items, dict) else ((str(item), item) for item in items)
        for key, item in pairs:
            yield f"{name}@{key}", _fill(entry["do"], {**params, "item": item, "key": key})
    elif "matrix" in entry:
        axes = _fill(entry["matrix"], params)
        definition = {key: value for key, value in entry.items() if key != "matrix"}
        for values in itertools.product(*axes.values()):
            item = dict(zip(axes, values, strict=True))
            yield f"{name}@{'-'.join(map(str, values))}", _fill(definition, {**params, "item": item})
    else:
        yield name, _fill(entry, params)


def _fill(value: Any, context: Mapping[str, Any]) -> Any:
    """`value` with each `${a.b}` replaced; a string that is one placeholder becomes the value itself."""
    if isinstance(value, dict):
        return {_fill(key, context): _fill(inner, context) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, context) for inner in value]
    if not isinstance(value, str):
        return value
    whole = PLACEHOLDER.fullmatch(value)
    if whole:
        return _look_up(whole, context)
    return PLACEHOLDER.sub(lambda match: str(_look_up(match, context)), value)


def _look_up(match: re.Match[str], context: Mapping[str, Any]) -> Any:
    """The value of a placeholder; the placeholder itself when there is none, as for a variable of the shell."""
    found: Any = context
    for key in match.group(1).split("."):
        if not isinstance(found, Mapping) or key not in found:
            return match.group(0)
        found = found[key]
    return found


def _stage(name: str, definition: dict[str, Any]) -> DvcStage:
    def paths(*sections: str) -> tuple[str, ...]:
        entries = [entry for section in sections for entry in definition.get(section) or []]
        return tuple(path for entry in entries for path in (entry if isinstance(entry, dict) else [entry]))

    keys: list[str] = []
    for entry in definition.get("params") or []:
        keys.extend(entry.get("params.yaml") or [] if isinstance(entry, dict) else [entry])
    return DvcStage(name, tuple(keys), paths("deps"), paths("outs", "metrics", "plots"), definition.get("desc", ""))


def upstream(name: str, stages: Mapping[str, DvcStage]) -> list[str]:
    """The stages that stage `name` depends on, directly or not, in the order of dvc.yaml."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        deps = stages[waiting.pop()].deps
        makers = {
            other.name for other in stages.values() for out in other.outs for dep in deps if _overlap(out, dep)
        } - found
        found |= makers
        waiting.extend(makers)
    return [other for other in stages if other in found]


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are equal or one contains the other."""
    a, b = PurePosixPath(one), PurePosixPath(other)
    return a.is_relative_to(b) or b.is_relative_to(a)


def dvc_hash(path: Path) -> str:
    """DVC's hash of a file: its MD5; of a folder: the MD5 of its files' MD5s and paths as JSON, and `.dir`."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = sorted((file.relative_to(path).as_posix(), file) for file in files_inside(path))
    entries = [{"md5": dvc_hash(file), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def invocation() -> str:
    """The `dvc repro` or `dvc exp run` that this process descends from, as `<pid>-<start>`; empty without one.

    The start is in seconds since boot, which a change of the system's clock does not affect.
    """
    import psutil

    for process in psutil.Process(os.getpid()).parents():
        try:
            if _is_dvc_run(process.cmdline()):
                return f"{process.pid}-{process.create_time() - psutil.boot_time():.2f}"
        except psutil.Error:
            continue
    return ""


def _is_dvc_run(command: list[str]) -> bool:
    """Whether a command line is DVC running a pipeline, as a script or as `python -m dvc`."""
    for position, word in enumerate(command[:-1]):
        if Path(word).name == "dvc":
            rest = [word for word in command[position + 1 :] if not word.startswith("-")]
            runs = rest[1:2] in (["run"], ["exec-run"])  # the second is what --temp and queues start
            return rest[:1] == ["repro"] or (rest[:1] in (["exp"], ["experiments"]) and runs)
    return False
