"""Conversations that say nearly the same, by MinHash (Broder 1997) over pieces of five letters or digits."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from swirl.agent_logs.conversation import LoggedConversation, Role

NEARLY = 0.8
"""Estimated Jaccard similarity from which two conversations are near-duplicates."""
LENGTH = 4000
"""Bytes of a conversation that are compared."""
SIZE, BANDS = 64, 16
"""Hashes of a signature; bands of equal hashes by which candidates are found (of two at 0.8, 9,998 in 10,000)."""

Signature = npt.NDArray[np.uint32]

_ODD = np.random.default_rng(20260101).integers(1, 2**63, SIZE, dtype=np.uint64) | np.uint64(1)
_PIECE = 5
_WEIGHTS = np.array([257**power for power in range(_PIECE)], dtype=np.uint64)


def signature(conversation: LoggedConversation) -> Signature:
    """(SIZE,): the signature of what user and assistant say and call; case, punctuation and spacing do not count."""
    parts = []
    for message in conversation.messages:
        if message.role in (Role.USER, Role.ASSISTANT):
            parts.append(message.text)
            parts.extend(f"{call.name} {call.arguments}" for call in message.calls)
    return of_text(" ".join(parts)[: 2 * LENGTH])


def of_text(text: str) -> Signature:
    """(SIZE,): the signature of a text."""
    plain = " ".join(re.findall(r"\w+", text.casefold())).encode("utf-8", "replace")[:LENGTH]
    data = np.frombuffer(plain.ljust(_PIECE), dtype=np.uint8).astype(np.uint64)
    pieces = np.lib.stride_tricks.sliding_window_view(data, _PIECE) @ _WEIGHTS
    mixed = np.unique(pieces) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    hashed = (mixed[:, None] * _ODD[None, :]) >> np.uint64(32)
    return np.asarray(hashed.min(axis=0), dtype=np.uint32)


def near_duplicates(signatures: bytes | bytearray) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of near-duplicates; each later one is in one pair, with the earliest that was found.

    `signatures` are the bytes of all, one after the other: they may be millions.
    """
    table = np.frombuffer(signatures, np.uint32).reshape(-1, SIZE)
    if len(table) < 2:
        return []
    found: dict[int, int] = {}
    for band in np.split(table, BANDS, axis=1):
        order = np.lexsort(band.T[::-1])
        starts = np.r_[True, (band[order][1:] != band[order][:-1]).any(axis=1)]
        first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
        alike = (table[order] == table[first]).mean(axis=1) >= NEARLY
        for later, earlier in zip(order[alike & ~starts].tolist(), first[alike & ~starts].tolist(), strict=True):
            found[later] = min(earlier, found.get(later, earlier))
    return sorted(found.items())
