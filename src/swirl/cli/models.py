"""The models that a command line can name: a folder, a file of weights, a registered agent, a server."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.core.errors import ModelError, SwirlError
from swirl.core.layout import Layout
from swirl.models.gguf_files import is_gguf

if TYPE_CHECKING:
    from swirl.config.params import Params
    from swirl.config.served import ClientSettings
    from swirl.serving.agent import Agent, Kind

TRUST = "SWIRL_TRUST_REMOTE_CODE"
"""The environment variable that lets code run that comes with a model."""
_SERVER = ("http:", "https:")
_REGISTERED = "models:"


def source(given: str | None, layout: Layout) -> Path | str:
    """The model that a user names: a folder or a .gguf file as a `Path`, or a string for `opener`.

    A string is one of `models:/NAME@ALIAS`, `models:/NAME/VERSION` and `URL#MODEL`. None is the project's models/swirl.
    Raises `SwirlError` when there is no such folder or file.
    """
    if given and given.startswith((_REGISTERED, *_SERVER)):
        return given
    path = layout.model("swirl") if given is None else Path(given)
    if given == "":
        raise SwirlError("the model's name is empty: is the variable that should hold it unset?")
    if not path.is_dir() and not _is_gguf(path):
        raise SwirlError(
            f"there is no model folder {given or 'models/swirl'}; `dvc repro` makes models/swirl; a model is a folder, "
            "a .gguf file, models:/NAME@ALIAS, models:/NAME/VERSION, or a server's URL#MODEL"
        )
    return path


def is_registered(model: Path | str) -> bool:
    """Whether it is an agent of the registry, which brings its own settings, prompts and tools."""
    return isinstance(model, str) and model.startswith(_REGISTERED)


def settings_of(model: Path | str, params: Params) -> Params:
    """The settings that a model is asked with: its own, if its folder brings some, which is said; otherwise `params`.

    Raises `ParamsError` for a swirl.yaml that is wrong.
    """
    from swirl.config.own_settings import NAME, brings_settings, with_own

    if isinstance(model, str) or not brings_settings(model):
        return params
    print(f"swirl: {model} is asked with its own prompts and settings ({NAME}), not params.yaml's", file=sys.stderr)
    return with_own(params, model)


def opener(
    model: Path | str,
    params: Params,
    layout: Layout,
    benchmarks: Mapping[str, Kind],
    key_env: str = "",
    clients: Mapping[str, ClientSettings] | None = None,
) -> Callable[[], Agent]:
    """A function that loads `model`, which is as `source` gives it; what costs little is checked at once.

    `benchmarks`, `params` and `layout` are those of the agent, unless it is registered with its own. `clients` says how
    a server is asked; by default for one person who waits. Raises `SwirlError` for what is no model.
    """
    from swirl.serving.agent import Agent
    from swirl.serving.bundle import open_bundle, project_agent

    if isinstance(model, Path):
        check(model, layout)
        place = _folder_of(model) if _is_gguf(model) else model.resolve()
        return lambda: project_agent(place, params, layout, benchmarks)
    if is_registered(model):
        from swirl.registry.model_registry import fetch

        folder = fetch(model, layout)
        return lambda: open_bundle(folder)
    if params.actions.format == "native":
        raise ModelError(
            f"{model} is asked by chat, but actions.format is native: states are then sent as tokens; evaluate such a "
            "server as the base_model of a project (source: endpoint, api: completions), or set actions.format to tags"
        )
    from swirl.serving.endpoint import endpoint_policy

    policy = endpoint_policy(model, key_env, clients) if clients else endpoint_policy(model, key_env)
    return lambda: Agent(policy, params, layout, benchmarks)


def _is_gguf(model: Path) -> bool:
    return is_gguf(model) and model.is_file()


def _folder_of(file: Path) -> Path:
    """A model's folder that points to a file of weights; removed when this process ends."""
    from swirl.models.pointers import write_pointer

    place = Path(tempfile.mkdtemp(prefix="swirl-pointer-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    folder = place / file.stem
    write_pointer(folder, str(file.resolve()))
    return folder


def check(model: Path, layout: Layout | None) -> None:
    """Raise `ModelError` for a folder that holds no model, or stands on a missing file, without reading weights.

    Also for one that would run code of its own, unless a stage of this project made it or the environment allows it.
    """
    from swirl.models.pointers import NAME as POINTER
    from swirl.models.pointers import points_to_gguf, read_pointer
    from swirl.models.skipped import why_skipped
    from swirl.wiring.servers import SERVER

    if why := why_skipped(model):
        raise ModelError(f"there is no model in {model}: {why}")
    if not _is_gguf(model) and not any((model / name).exists() for name in ("config.json", POINTER, SERVER)):
        raise ModelError(f"{model} holds no model; run `dvc repro` to make it, or give the folder of one")
    _refuse_code(model, layout)
    pointer = read_pointer(model)
    if pointer and points_to_gguf(model) and not (file := (model / pointer.model).resolve()).is_file():
        raise ModelError(
            f"{model} stands on {file}, which is not there; `make weights` puts SmolLM2-135M-Instruct into data/weights"
        )


def _refuse_code(model: Path, layout: Layout | None) -> None:
    """Raise `ModelError` where a model that somebody else may have made says that its own Python code is to run."""
    from swirl.models.pointers import NAME as POINTER
    from swirl.serving.export_folder import pointers_below

    made_here = layout is not None and model.resolve().is_relative_to((layout.root / "models").resolve())
    if made_here or os.environ.get(TRUST) == "1":
        return
    for place, pointer in pointers_below(model):
        if pointer.trust_remote_code:
            raise ModelError(
                f"{place / POINTER} says that Python code that comes with {pointer.model} is to run "
                f"(trust_remote_code); if you trust whoever made it, set {TRUST}=1"
            )
