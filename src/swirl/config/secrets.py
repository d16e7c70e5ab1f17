"""Settings without secrets, to be shown or stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

SECRET = re.compile(r"(key|token|secret|password)$", re.IGNORECASE)
HIDDEN = "(not logged)"


def plain(params: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as nested JSON values, without secrets."""
    values = params if isinstance(params, Mapping) else params.model_dump(mode="json")
    return {key: _safe(key, value) for key, value in values.items()}


def _safe(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {inner: _safe(inner, content) for inner, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe(key, content) for content in value]
    if isinstance(value, str):
        return HIDDEN if SECRET.search(key) and value else without_credentials(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)  # a date, for example


def without_credentials(text: str) -> str:
    """The text with credentials in URLs masked: `https://user:password@host` becomes `https://***@host`."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)
