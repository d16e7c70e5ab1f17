"""From params to the policy's prompts, and the folders of what a user writes."""

from __future__ import annotations

import re
from pathlib import Path

from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.models.prompts import Prompts, read_prompt
from swirl.tools.actions import DEFAULT_TAGS

SYSTEM = "system.txt"
"""File in the prompts' folder that holds the system turn, with the model's own tool format; it may be missing."""
_TAGS = re.compile(r"\{tools\}|</?(?:" + "|".join(DEFAULT_TAGS) + r")>")


def read_prompts(params: Params, layout: Layout) -> Prompts:
    """The policy's prompts.

    Raises `DataError` naming a file that is missing or lacks `{question}`, or a closed-book prompt with `{tools}`; and
    with the model's own tool format, a prompt that lists the tools or names a tag, which its chat template does not
    teach, and without it, a system.txt.
    """
    folder = layout.root / params.prompts.policy
    texts = {}
    for name in (*params.tasks, "closed_book"):
        texts[name] = read_prompt(folder / f"{name}.txt")
        if "{question}" not in texts[name]:
            raise DataError(f"{folder / name}.txt must hold {{question}}, where the question goes")
        if "{tools}" in texts[name] and name == "closed_book":
            raise DataError(f"{folder / name}.txt must not hold {{tools}}: it is asked without tools; leave it out")
        if params.actions.format == "native" and (taught := _TAGS.search(texts[name])):
            raise DataError(
                f"{folder / name}.txt holds {taught[0]}, but actions.format is native: the chat template shows the "
                "tools and how to call them; set prompts.policy to src/swirl/prompts/native, or leave it out"
            )
    closed_book, system = texts.pop("closed_book"), folder / SYSTEM
    if system.exists() and params.actions.format == "tags":
        raise DataError(f"{system}: a system turn needs actions.format: native; put what it says into the prompts")
    return Prompts(texts, closed_book, read_prompt(system) if system.exists() else "")


def demonstration_prompts(params: Params, layout: Layout) -> Prompts:
    """The policy's prompts for a base made from demonstrations, which list no tools.

    Raises `DataError` as `read_prompts` does, and for a prompt with `{tools}`.
    """
    prompts = read_prompts(params, layout)
    for name, text in prompts.tasks.items():
        if "{tools}" in text:
            why = "the demonstrations that the base is made from are written without them"
            raise DataError(f"{layout.root / params.prompts.policy / name}.txt must not hold {{tools}}: {why}")
    return prompts


def user_input_folders(params: Params, layout: Layout) -> list[Path]:
    """Folders of prompts and own tools, which a journal's fingerprint covers: files may change and keep their names."""
    return [layout.root / params.prompts.policy, layout.root / params.tools.folder]
