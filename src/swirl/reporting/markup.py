"""Builds HTML and SVG in which every text is escaped unless `tag` or `raw` made it."""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = frozenset({"meta", "br", "link", "path", "line", "rect", "circle", "polyline", "polygon"})


class Html(str):
    """Markup that `tag` or `raw` made; any other string is text."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def tag(element: str, /, *children: Child, **attributes: str | int | float | None) -> Html:
    """One element. Attribute `class_` is written `class`, `stroke_width` as `stroke-width`; None omits an attribute."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in _VOID and not children:
        return Html(f"<{element}{written}{'>' if element in ('meta', 'br', 'link') else '/>'}")
    return Html(f"<{element}{written}>{join(children)}</{element}>")


def join(children: Child) -> Html:
    """Nested children as one piece of markup, plain strings escaped and None left out."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str | int):
        return Html(html.escape(printable(str(children))))
    return Html("".join(join(child) for child in children))


def raw(constant: str) -> Html:
    """Markup as it is: for constants of this package, never for data."""
    return Html(constant)


def printable(text: str) -> str:
    """Text that is safe to show: control and direction characters and lone surrogates become U+FFFD."""
    return "".join(character if _harmless(character) else "\ufffd" for character in text)


def _harmless(character: str) -> bool:
    code = ord(character)
    control = (code < 32 and character not in "\n\t") or 127 <= code < 160
    direction = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in (0x200E, 0x200F, 0x061C)
    return not (control or direction or 0xD800 <= code <= 0xDFFF)
