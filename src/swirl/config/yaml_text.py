"""Reading and writing of all settings, in the dialect that DVC uses, YAML 1.2, where 1e-5 is a number."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from swirl.core.errors import ParamsError

LARGEST, DEEPEST = 100_000, 50
"""How many values a file of settings may have, and how deep they may be nested."""


def read(path: Path) -> Any:
    """The plain values of a YAML file. Raises `ParamsError` when there is no such file or it is not YAML."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run this from the project's root, where dvc.yaml is") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not YAML: {error}") from error
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error}") from error


def parse(text: str, source: str) -> Any:
    """The plain values of YAML 1.2, which DVC reads and writes: 1e-5 is a number. Raises `ParamsError`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        if (size := _expanded(text)) > LARGEST:
            raise ParamsError(f"{source} has {size:,} values with what its aliases repeat; {LARGEST:,} is the limit")
        return YAML(typ="safe").load(text)
    except (YAMLError, ValueError, LookupError) as error:  # e.g. an impossible date, 2020-13-01, and !!int ""
        raise ParamsError(f"{source} is not YAML: {str(error).partition(chr(10) * 2)[0]}") from error


def _expanded(text: str) -> int:
    """How many values a document has if each alias counts as what it stands for.

    Raises `ValueError` where they are nested deeper than `DEEPEST`, of which a parser's own stack could run out.
    """
    from ruamel.yaml import YAML, events

    known: dict[str, int] = {}
    inside: list[tuple[str | None, int]] = [(None, 0)]
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, events.CollectionStartEvent):
            if len(inside) > DEEPEST:
                raise ValueError(f"its values are nested more than {DEEPEST} deep")
            inside.append((event.anchor, 1))
            continue
        if isinstance(event, events.CollectionEndEvent):
            anchor, size = inside.pop()
        elif isinstance(event, events.AliasEvent):
            anchor, size = None, known.get(event.anchor, 1)
        elif isinstance(event, events.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor is not None:
            known[anchor] = size
        inside[-1] = (inside[-1][0], inside[-1][1] + size)
    return inside[0][1]


def dump(tree: Mapping[str, Any]) -> str:
    """Plain values as text from which `parse` gives the same values: a revision such as 12345e7 is quoted."""
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    text = StringIO()
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 120, False
    yaml.dump(dict(tree), text)
    return text.getvalue()


def inline(value: Any) -> str:
    """A plain value as YAML on one line: null, true, [1, 2], {a: b}."""
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    text = StringIO()
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = True, 1_000_000, False
    yaml.dump({"value": value}, text)
    return text.getvalue().strip().removeprefix("{value: ").removesuffix("}")


@contextmanager
def modified(path: Path) -> Iterator[Any]:
    """Yield a file's values, and write back what the block changes; comments, order and quotes stay."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Quoting(RoundTripRepresenter):
        """Quotes text with a colon, as `own:Tool`, which not every reader takes between brackets without quotes."""

    def quoted(representer: Any, text: str) -> Any:
        return representer.represent_scalar("tag:yaml.org,2002:str", text, style="'" if ":" in text else None)

    Quoting.add_representer(str, quoted)
    yaml: Any = YAML()
    yaml.Representer, yaml.preserve_quotes = Quoting, True
    tree = yaml.load(path.read_text(encoding="utf-8"))
    yield tree
    text = StringIO()
    yaml.dump(tree, text)
    replace(path, text.getvalue())


def replace(path: Path, text: str) -> None:
    """Write a file at once, in UTF-8; where `path` is a link, the file that it leads to."""
    whole = path.resolve()
    partial = whole.with_name(whole.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, whole)
