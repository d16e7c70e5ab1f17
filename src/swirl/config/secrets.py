"""Settings without secrets, to be shown or stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

HIDDEN = "(not logged)"
_WORDS = r"keys?|token|secrets?|passw(?:or)?ds?|authorization|credentials?"
_SECRET = re.compile(rf"(?:{_WORDS}|tokens)(?:\.|$)", re.IGNORECASE)
"""Ends a name, or a part of a dotted one; a number is shown under such a name, too, as that of `max_tokens` is."""
_OPTION = re.compile(rf"--?[\w-]*(?:{_WORDS})", re.IGNORECASE)
"""A program's option whose value is a secret; `--max-tokens` is none."""
_GIVEN = re.compile(rf"(?<!\S)(-{{0,2}}[\w-]*(?:{_WORDS})=|authorization:).*", re.IGNORECASE | re.DOTALL)
"""A text that holds a secret after its name, to its end."""


def plain(params: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as nested JSON values, without secrets."""
    values = params if isinstance(params, Mapping) else params.model_dump(mode="json")
    return {key: _safe(value, is_secret(key)) for key, value in values.items()}


def is_secret(name: object) -> bool:
    """Whether a setting has the name of a secret; so do all settings below it."""
    return _SECRET.search(str(name)) is not None


def precedes_secret(item: object) -> bool:
    """Whether an item of a list is a program's option, such as `--api-key`, so that the next item is a secret."""
    return isinstance(item, str) and _OPTION.fullmatch(item) is not None


def without_secret(text: str) -> str:
    """The text, masked from where it gives a secret: `--api-key=sk-1`, `API_KEY=sk-1`, `Authorization: Bearer sk-1`."""
    return _GIVEN.sub(rf"\1{HIDDEN}", text)


def _safe(value: Any, secret: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _safe(inner, secret or is_secret(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        pairs = zip((None, *value), value, strict=False)
        return [_safe(item, secret or precedes_secret(before)) for before, item in pairs]
    if isinstance(value, str):
        return HIDDEN if secret and value else without_credentials(without_secret(value))
    return value if value is None or isinstance(value, bool | int | float) else str(value)  # a date, for example


def without_credentials(text: str) -> str:
    """The text with credentials in URLs masked: `https://user:password@host` becomes `https://***@host`."""
    return re.sub(r"://[^/\s]*@", "://***@", text)
