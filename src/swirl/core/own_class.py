"""Classes of the user's project by name: they run in this process, as trusted as the project itself."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swirl.core.errors import ParamsError

OWN_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
"""The form of such a name: package.module:Class."""


def make_own(what: str, name: str, options: Mapping[str, object], root: Path) -> Any:
    """An instance of the class `package.module:Class`, made with `options` as keyword arguments.

    The module is imported with `root` on sys.path. Raises `ParamsError` that begins with `what` it is to be and `name`.
    """
    module_name, _, class_name = name.partition(":")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ParamsError(f"{what} {name}: there is no module {module_name} in {root} or installed") from None
        raise ParamsError(f"{what} {name}: importing {module_name} failed: {error}") from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        raise ParamsError(f"{what} {name}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        where = getattr(module, "__file__", None) or module_name
        raise ParamsError(f"{what} {name}: {where} has no class {class_name}")
    try:
        return kind(**{str(key): value for key, value in options.items()})
    except (Exception, SystemExit) as error:  # a user's class may raise anything while it is made
        given = ", ".join(map(str, options)) or "none"
        why = f"{type(error).__name__}: {error}"
        raise ParamsError(f"{what} {name}: {class_name} cannot be made with its options ({given}): {why}") from error
