"""Size and SHA-256 of a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from swirl.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Checksum:
    """Size (bytes) and SHA-256 (hex) of a file."""

    bytes: int
    sha256: str


def checksum(path: Path) -> Checksum:
    """The checksum of a whole file. Raises `DataError` when it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Checksum(file.tell(), digest)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
