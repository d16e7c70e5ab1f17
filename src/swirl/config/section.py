"""What all sections of params.yaml have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def leads_outside(path: str) -> bool:
    """Whether a path is absolute or empty, or goes up by `..`."""
    return not path or path.startswith("/") or ".." in path.split("/")


def _in_project(folder: str) -> str:
    if leads_outside(folder):
        raise ValueError(
            f"expected a folder inside the project, relative to params.yaml; got {folder!r}: copy it into the project, "
            "or put a link to it there, so that stages can depend on it"
        )
    return folder


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""A name that may be part of a file's name."""
ProjectFolder = Annotated[str, AfterValidator(_in_project)]
"""A folder that stages depend on."""


class Section(BaseModel):
    """A section: unknown keys, wrong types and values out of range are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())

    refused: ClassVar[Mapping[str, str]] = {}
    """Keys that one might look for here -> why there is no such setting."""
