"""Settings laid over params.yaml by dotted key: `{"filter.strategy": "outcome", "seed": 1}`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from swirl.config.params import Params, validate
from swirl.config.secrets import plain
from swirl.config.yaml_text import modified, parse, read
from swirl.core.errors import ParamsError


def parsed(settings: Sequence[str]) -> dict[str, Any]:
    """Overrides from `["filter.strategy=outcome", "seed=1"]`; values are YAML. Raises `ParamsError`."""
    found = dict[str, Any]()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ParamsError(f"{setting}: expected KEY=VALUE, as filter.strategy=outcome")
        found[key] = parse(value, f"{setting}: the value")
    return found


def checked(path: Path, overrides: Mapping[str, Any]) -> Params:
    """The settings of params.yaml at `path` with `overrides` laid over them, checked.

    Raises `ParamsError` for an unknown key, a wrong type or a combination that is not allowed.
    """
    tree = read(path)
    if not isinstance(tree, dict):
        raise ParamsError(f"{path} holds no settings")
    lay_over(tree, overrides)
    return validate(tree, f"{path.name} with {text(overrides)}")


def write(path: Path, overrides: Mapping[str, Any]) -> None:
    """Write `overrides` into params.yaml at `path`, keeping its comments and its order."""
    with modified(path) as tree:
        lay_over(tree, overrides)


def lay_over(tree: MutableMapping[Any, Any], overrides: Mapping[str, Any]) -> None:
    """Set each dotted key of `overrides` in nested mappings, in place; a value replaces the old one as a whole.

    A section that YAML shares with another (by an anchor) becomes one of its own, so that the other stays as it is.
    """
    for key, value in overrides.items():
        *sections, last = key.split(".")
        inside: Any = tree
        for depth, section in enumerate(sections):
            outer, written = inside, _as_written(inside, section)
            inside = outer.get(written)
            if not isinstance(inside, MutableMapping):
                where = ".".join(sections[: depth + 1])
                raise ParamsError(f"override {key}: params.yaml has no section {where}; its keys have no others below")
            if _places(tree, inside) > 1:
                inside = outer[written] = copy.deepcopy(inside)
        inside[_as_written(inside, last)] = value


def _places(tree: Any, wanted: Any) -> int:
    """At how many places in a tree of mappings and lists one of them stands."""
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ()
    return sum((part is wanted) + _places(part, wanted) for part in parts)


def text(overrides: Mapping[str, Any]) -> str:
    """The overrides as `filter.strategy=outcome, seed=1`, without secrets."""
    return ", ".join(f"{key}={value}" for key, value in plain(overrides).items())


def _as_written(tree: Mapping[Any, Any], key: str) -> Any:
    """The mapping's own key that is written like `key`: YAML may have read `1` as a number."""
    return next((one for one in tree if str(one) == key), key)
