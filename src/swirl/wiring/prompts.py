"""From params to the policy's prompts."""

from __future__ import annotations

from pathlib import Path

from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.models.prompts import Prompts, read_prompt


def read_prompts(params: Params, layout: Layout) -> Prompts:
    """The policy's prompts.

    Raises `DataError` naming a file that is missing or lacks `{question}`, or a closed-book prompt with `{tools}`.
    """
    folder = layout.root / params.prompts.policy
    texts = {}
    for name in (*params.tasks, "closed_book"):
        texts[name] = read_prompt(folder / f"{name}.txt")
        if "{question}" not in texts[name]:
            raise DataError(f"{folder / name}.txt must hold {{question}}, where the question goes")
        if "{tools}" in texts[name] and name == "closed_book":
            raise DataError(f"{folder / name}.txt must not hold {{tools}}: it is asked without tools; leave it out")
    closed_book = texts.pop("closed_book")
    return Prompts(texts, closed_book)


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
