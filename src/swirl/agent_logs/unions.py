"""Sets that are joined step by step."""

from __future__ import annotations

from collections.abc import Hashable


class Unions:
    """Which of any keys belong together."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def find(self, key: Hashable) -> Hashable:
        """The key that stands for the set of `key`."""
        root = key
        while (above := self._above.get(root, root)) != root:
            root = above
        while (above := self._above.get(key, key)) != root:
            self._above[key], key = root, above
        return root

    def join(self, one: Hashable, other: Hashable) -> None:
        """Make the sets of two keys one; that of `other` goes into that of `one`."""
        first, second = self.find(one), self.find(other)
        if first != second:
            self._above[second] = first
