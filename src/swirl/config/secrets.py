"""Settings without secrets, to be shown or stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

HIDDEN = "(not logged)"
_WORDS = r"(?:token|secrets?|passw(?:or)?ds?|authorization|credentials?)"
_KEYS = r"(?:api|access|auth|private|secret)[_-]?keys?"
_NAME = re.compile(rf"(?i:{_WORDS}|{_KEYS})(?:\.|$)|(?:^|[^A-Za-z]|(?<=[a-z])(?=[A-Z]))(?i:keys?)(?:\.|$)")
"""The end of a name, or of a part of a dotted one; a number is shown under such a name, too.

A key is a word of its own: `web_key` and `webKey`, but no `monkey`.
"""
_OPTION = rf"--?(?:[\w-]*{_WORDS}|\w[\w-]*[_-]keys?|[\w-]*{_KEYS})"
_BEFORE = re.compile(_OPTION, re.IGNORECASE)
"""A program's option whose value is a secret; `--max-tokens` is none, nor is `--key` alone."""
_GIVEN = re.compile(
    rf"(?i:(?<![\w-])(?:{_OPTION}(?:\s*=\s*|\s+)|[\w-]*(?:{_WORDS}|{_KEYS})\s*=\s*))\S+"
    r"|(?<![A-Za-z0-9_])[A-Z0-9_]*_KEYS?\s*=\s*\S+"
    r"|(?i:(?<=[?&])(?:key|sig|[\w-]*signature)=)\S+"
    r"|(?i:(?<![\w-])[\w-]*(?:authorization|api-key|auth-token|access-token)\s*:).*",
    re.DOTALL,
)
"""A secret in a text with its name: an option's value, a variable's, one of a URL's query, or a header to its end."""

_CREDENTIALS = re.compile(r"""://(?:[^/\s]*|[^/\s:@\[]*:(?!\d{1,5}/)[^\s@"'<>]{0,500})@""")
"""What precedes the host; a password may hold a slash, where no port precedes it."""


def plain(params: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as nested JSON values, without secrets."""
    values = params if isinstance(params, Mapping) else params.model_dump(mode="json")
    return {key: _safe(value, is_secret(key)) for key, value in values.items()}


def is_secret(name: object) -> bool:
    """Whether a setting has the name of a secret; so do all settings below it."""
    return _NAME.search(str(name)) is not None


def precedes_secret(item: object) -> bool:
    """Whether an item of a list is a program's option, such as `--api-key`, so that the next item is a secret."""
    return isinstance(item, str) and _BEFORE.fullmatch(item) is not None


def without_secret(text: str) -> str:
    """The text without secrets: in URLs, and behind a name, as `--api-key sk-1`, `API_KEY=sk-1`, `X-Api-Key: sk-1`."""
    text = without_credentials(text)
    return _GIVEN.sub(lambda found: re.sub(r"(?s)^([^\s:=]*(?:\s*[:=]\s*|\s+)).*", rf"\1{HIDDEN}", found[0]), text)


def _safe(value: Any, secret: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _safe(inner, secret or is_secret(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        pairs = zip((None, *value), value, strict=False)
        return [_safe(item, secret or precedes_secret(before)) for before, item in pairs]
    if isinstance(value, str):
        return HIDDEN if secret and value else without_secret(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)  # a date, for example


def without_credentials(text: str) -> str:
    """The text with credentials in URLs masked: `https://user:password@host` becomes `https://***@host`."""
    return _CREDENTIALS.sub("://***@", text)
