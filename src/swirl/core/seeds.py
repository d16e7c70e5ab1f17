"""Every random draw has a seed derived from its purpose, so no draw depends on how many were made before it."""

from __future__ import annotations

import hashlib
import random


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: `derive(0, "synthesize", question_id, sample, step)`."""
    text = "\x1f".join([str(seed), *(str(part) for part in purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> random.Random:
    """A Python random generator for one purpose."""
    return random.Random(derive(seed, *purpose))
