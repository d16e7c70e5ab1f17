"""Presets: named settings of params.yaml. `presets/mini.yaml` is complete; the others hold what differs from it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from itertools import count, takewhile
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from swirl.config.messages import chosen_by_source
from swirl.config.params import Params, load, validate
from swirl.config.section import Section
from swirl.config.yaml_text import dump, read, replace
from swirl.core.errors import ParamsError
from swirl.core.suggestions import meant

COMPLETE = "mini"
"""The preset that holds every key; the others are laid over it."""


def names(root: Path) -> list[str]:
    """The presets of a project, the complete one first."""
    found = sorted(path.stem for path in (root / "presets").glob("*.yaml"))
    return sorted(found, key=lambda name: name != COMPLETE)


def summary(root: Path, name: str) -> str:
    """What a preset is: the first sentence of the comment that its file begins with."""
    lines = (root / f"presets/{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    return re.split(r"(?<=\.)\s", " ".join(comment))[0]


def tree(root: Path, name: str) -> dict[str, Any]:
    """All settings of a preset: one of `names`, or a user's own YAML file, laid over the complete one.

    Raises `ParamsError` for a preset that does not exist or is not valid.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else root / f"presets/{name}.yaml"
    if not path.is_file():
        known = names(root)
        raise ParamsError(
            f"there is no preset {name!r}; there are {', '.join(known)}, or give a YAML file{meant(name, known)}"
        )
    complete = _read(root / f"presets/{COMPLETE}.yaml")
    settings = complete if path == root / f"presets/{COMPLETE}.yaml" else laid_over(complete, _read(path))
    validate(settings, str(path))
    return settings


def settings(root: Path, name: str | None) -> Params:
    """The params of a preset, as `tree` finds it, or those of the project's params.yaml. Raises `ParamsError`."""
    return validate(tree(root, name), name) if name is not None else load(root / "params.yaml")


def laid_over(base: Mapping[str, Any], changes: Mapping[str, Any], kind: Any = Params) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section.

    Replaced as a whole are lists, mappings whose keys the user chooses (benchmarks, tasks, options), and a section
    whose `source` changes, because another source has other keys.
    """
    result = dict(base)
    for key, value in changes.items():
        old, field = result.get(key), getattr(kind, "model_fields", {}).get(key)
        inside = _section(field.annotation, value) if field else None
        result[key] = value
        if inside is None or not isinstance(old, Mapping) or not isinstance(value, Mapping):
            continue
        if value.get("source", old.get("source")) == old.get("source"):
            result[key] = laid_over(old, value, inside)
    return result


def _section(annotation: Any, value: Any) -> Any:
    """The section class of a value with this annotation; None if the annotation holds no section."""
    source = value.get("source") if isinstance(value, Mapping) else None
    kinds = chosen_by_source(annotation)
    if kinds:
        return kinds.get(str(source), next(iter(kinds.values())))
    union = get_origin(annotation) in (Union, UnionType)
    candidates = get_args(annotation) if union else (annotation,)
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Section)), None)


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) wherever two trees differ; None where one has no such key."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield key, old, new


def nearest(root: Path, values: Mapping[str, Any]) -> tuple[str, list[tuple[str, Any]]]:
    """The preset that differs least from the values of keys such as `train.swirl`, and (key, value) of what differs.

    The name is empty where there is no preset, or no value.
    """
    found: dict[str, list[tuple[str, Any]]] = {}
    for name in names(root) if values else ():
        with contextlib.suppress(ParamsError):  # a preset that is not valid is none of these
            settings = tree(root, name)
            found[name] = [
                (changed, now)
                for key, value in values.items()
                for changed, _, now in differences(_as_json(at(settings, key)), _as_json(value), key)
            ]
    return min(found.items(), key=lambda one: len(one[1]), default=("", []))


def at(settings: Any, key: str) -> Any:
    """The value of a dotted key in nested values; None when there is none."""
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, Mapping) else None
    return settings


def _as_json(value: Any) -> Any:
    """As JSON has it, where every key is text: validated settings are compared with what YAML says."""
    return json.loads(json.dumps(value))


def write(root: Path, settings: Mapping[str, Any], name: str) -> Path | None:
    """Write a preset's `settings` to params.yaml, and return the path of a backup of its previous content.

    Backups are params.yaml.before, params.yaml.before.2 and so on; no backup is ever overwritten. Returns None
    when there was no params.yaml or nothing changes.
    """
    path, kept = root / "params.yaml", None
    if name == COMPLETE:
        text = (root / f"presets/{COMPLETE}.yaml").read_text(encoding="utf-8")
    else:
        head = f"# Written by `swirl preset {name}`. `swirl params` checks this file.\n"
        text = head + dump(settings)
    if path.exists() and path.read_bytes() != text.encode():
        kept = _kept(path)
    replace(path, text)
    return kept


def _kept(path: Path) -> Path:
    """Back a file up in its folder, under the first name that is free or has the same content already."""
    for number in count(1):
        copy = path.with_name(f"{path.name}.before{'' if number == 1 else f'.{number}'}")
        if not copy.exists():
            shutil.copyfile(path, copy)
        if copy.read_bytes() == path.read_bytes():
            return copy
    raise AssertionError  # never reached: `count` does not end


def _read(path: Path) -> dict[str, Any]:
    value = read(path)
    if not isinstance(value, dict):
        raise ParamsError(f"{path} holds no settings; expected sections as params.yaml has them")
    return value
