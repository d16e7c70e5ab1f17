"""What readers of actions that are whole turns have in common: only an end of turn ends one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class WholeTurns:
    """Several calls may be one action, so that nothing in the text says that it is at its end."""

    __slots__ = ()
    chat: Any

    def complete(self, ids: Sequence[int]) -> bool:
        """False: a turn may go on after a call."""
        return False

    def cut(self, ids: Sequence[int]) -> bool:
        """Whether these tokens, where sampling ended, stop short of the end of the turn."""
        return ids[-1] not in self.chat.end_ids
