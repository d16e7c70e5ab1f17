"""Reading and writing of all settings, in the dialect that DVC uses, YAML 1.2, where 1e-5 is a number."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from swirl.core.errors import ParamsError


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
        return YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:  # ValueError: an impossible date such as 2020-13-01
        raise ParamsError(f"{source} is not YAML: {str(error).partition(chr(10) * 2)[0]}") from error


def dump(tree: Mapping[str, Any]) -> str:
    """Plain values as text from which `parse` gives the same values: a revision such as 12345e7 is quoted."""
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    text = StringIO()
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 120, False
    yaml.dump(dict(tree), text)
    return text.getvalue()


@contextmanager
def modified(path: Path) -> Iterator[Any]:
    """Yield a file's values, and write back what the block changes; comments, order and quotes stay."""
    from ruamel.yaml import YAML

    yaml: Any = YAML()
    tree = yaml.load(path.read_text(encoding="utf-8"))
    yield tree
    text = StringIO()
    yaml.dump(tree, text)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text.getvalue(), encoding="utf-8")
    os.replace(partial, path)
