"""Settings that a model's folder brings along: `swirl.yaml` and `prompts/`, what it was made and measured with.

Where it runs (device, threads), the tools' own code and options, the search index and grading stay the project's: so a
folder that somebody else made runs no code of its own here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from swirl.config.messages import explain
from swirl.config.params import Params
from swirl.config.section import Count, Section
from swirl.config.shared import Actions, Rollout, Task
from swirl.config.yaml_text import dump, read
from swirl.core.errors import ParamsError
from swirl.tools.by_name import BUILT_IN

NAME, PROMPTS = "swirl.yaml", "prompts"
_HEAD = "# What this model was made and measured with, beside prompts/; `swirl evaluate` and `swirl ask` use both.\n"


class OwnTools(Section):
    """What a search shows; see `swirl.config.shared.Tools`."""

    search_results: Count = Field(description="passages that one search shows")
    search_output_limit: Annotated[int, Field(ge=20)] = Field(description="how much one search shows at most")
    search_output_unit: Literal["characters"] = Field(
        description="of what; tokens would need the project's models/base"
    )


class OwnRuntime(Section):
    """What of section `runtime` changes what a model says; see `swirl.config.shared.Runtime`."""

    dtype: Literal["float32", "bfloat16"] = Field(description="type of the weights")
    context: Annotated[int, Field(ge=0)] = Field(description="longest conversation in tokens; 0: what the model can")


class OwnSettings(Section):
    """All of swirl.yaml."""

    tasks: Annotated[Mapping[str, Task], Field(min_length=1)]
    tools: OwnTools
    actions: Actions
    rollout: Rollout
    runtime: OwnRuntime

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, tree: Any) -> Any:
        """A model from before there were these keys acts in tags without thoughts."""
        if isinstance(tree, dict) and isinstance(tree.get("actions"), dict):
            return {**tree, "actions": {"format": "tags", "thinking": "none", **tree["actions"]}}
        return tree

    @model_validator(mode="after")
    def _fits(self) -> OwnSettings:
        if 0 < self.runtime.context <= self.rollout.max_action_tokens:
            raise ValueError("runtime.context must be above rollout.max_action_tokens, or 0")
        return self


def own_settings(params: Params) -> OwnSettings:
    """What a model that was made with `params` would bring along. Raises `ParamsError` for what it cannot."""
    tree = params.model_dump()
    tools, runtime = (
        {key: tree[name][key] for key in kind.model_fields}
        for name, kind in (("tools", OwnTools), ("runtime", OwnRuntime))
    )
    kept = {name: tree[name] for name in ("tasks", "actions", "rollout")}
    return _validated(kept | {"tools": tools, "runtime": runtime}, "the settings cannot be given along with a model")


def brings_settings(folder: Path) -> bool:
    """Whether a model's folder has settings of its own."""
    return (folder / NAME).is_file()


def write_own(folder: Path, own: OwnSettings | None, tasks: Iterable[str], prompts: Path) -> None:
    """Write settings, if there are some, into a model's folder; copy the prompts of tasks from the folder `prompts`."""
    shutil.rmtree(folder / PROMPTS, ignore_errors=True)
    (folder / PROMPTS).mkdir(parents=True)
    for name in (*tasks, "closed_book"):
        shutil.copyfile(prompts / f"{name}.txt", folder / PROMPTS / f"{name}.txt")
    if (prompts / "system.txt").exists():
        shutil.copyfile(prompts / "system.txt", folder / PROMPTS / "system.txt")
    (folder / NAME).unlink(missing_ok=True)
    if own is not None:
        (folder / NAME).write_text(_HEAD + dump(own.model_dump()), encoding="utf-8")


def with_own(params: Params, folder: Path) -> Params:
    """`params` with what a model's folder brings in place of theirs.

    Raises `ParamsError` for a wrong swirl.yaml, and for one with a tool that is neither built in nor the project's.
    """
    own = _validated(read(folder / NAME), str(folder / NAME))
    _refuse_code(own, params, folder)
    return params.model_copy(
        update={
            "tasks": own.tasks,
            "tools": params.tools.model_copy(update=own.tools.model_dump()),
            "actions": own.actions,
            "rollout": own.rollout,
            "runtime": params.runtime.model_copy(update=own.runtime.model_dump()),
            "prompts": params.prompts.model_copy(update={"policy": str((folder / PROMPTS).resolve())}),
        }
    )


def _refuse_code(own: OwnSettings, params: Params, folder: Path) -> None:
    """Raise `ParamsError` for a tool that only the model's folder names: its code may come from there, too."""
    known = {*BUILT_IN, *(tool for task in params.tasks.values() for tool in task.tools)}
    for name, task in own.tasks.items():
        for tool in task.tools:
            if tool not in known:
                raise ParamsError(
                    f"{folder / NAME}: tasks.{name} has the tool {tool}, which is in none of this project's tasks; a "
                    "model's folder runs no code here. If you know the tool and trust it, add it to a task of "
                    "params.yaml; otherwise take it out of that file"
                )


def _validated(tree: Any, source: str) -> OwnSettings:
    try:
        return OwnSettings.model_validate(tree)
    except ValidationError as error:
        lines = [explain(item, OwnSettings) for item in error.errors(include_url=False)]
        raise ParamsError(f"{source}: {len(lines)} wrong\n" + "\n".join(f"  {line}" for line in lines)) from None
