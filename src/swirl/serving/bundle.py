"""Bundles: all that an answer depends on in one folder, which is registered and served without the project.

    agent.json           benchmarks, checksums of every file and of files that are only pointed to
    params.yaml          that of the run, with the folders below in place of the project's
    prompts/  tools/     the prompt files, and the modules of the user's own tools
    data/index/          the evaluation index of each benchmark that searches
    models/swirl/        weights, or an adapter, whose base model is in models/weights/
    models/base/         the base model's tokenizer, if search results are measured in tokens

A model or an index above a size limit is not copied: the bundle then names its place, with checksums. Tools of MCP
servers and embedding models of the hub are named, too, not copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from swirl.config import params as parameters
from swirl.config.params import Params
from swirl.config.secrets import is_secret, precedes_secret, without_secret
from swirl.config.yaml_text import dump
from swirl.core.checksums import checksum
from swirl.core.errors import DataError, ModelError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save_json
from swirl.models.adapters import name_base
from swirl.models.loading import is_adapter
from swirl.models.pointers import NAME as POINTER
from swirl.models.pointers import files_of, follow, read_pointer, write_pointer
from swirl.models.skipped import why_skipped
from swirl.pipeline import environment
from swirl.serving.agent import Agent, Kind

ARTIFACT = "agent"
"""The bundle's name among a registered model's artifacts."""

MODEL = "swirl"
"""The model that is registered: the tuned policy."""

_DESCRIPTION = "agent.json"
_VERSION = 2
_JUNK = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True, slots=True)
class Placed(Layout):
    """The layout of a bundle, whose indices may be outside of it."""

    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Benchmark -> the folder of its evaluation index, for those outside of the bundle."""

    def index(self, benchmark: str, split: str) -> Path:
        """See `Layout.index`."""
        if benchmark in self.elsewhere:
            return Path(self.elsewhere[benchmark])
        return self.root / f"data/index/{benchmark}.{split}"


def benchmarks_of(layout: Layout) -> dict[str, Kind]:
    """The benchmarks that the project evaluates on, in file order. Raises `DataError` when there are no questions."""
    import pyarrow.compute as pc

    from swirl.core.records import read_table
    from swirl.core.types import Question

    table = read_table(Question, layout.questions).select(["benchmark", "split", "tools", "task"])
    rows = table.filter(pc.equal(table["split"], "evaluation"))
    names = rows["benchmark"].to_pylist()
    firsts = {name: place for place, name in reversed(list(enumerate(names)))}
    return {
        name: Kind(tuple(rows["tools"][firsts[name]].as_py()), rows["task"][firsts[name]].as_py())
        for name in dict.fromkeys(names)
    }


def project_agent(model: Path, params: Params, layout: Layout, benchmarks: Mapping[str, Kind]) -> Agent:
    """The agent of a model's folder, with the project's own data. Raises `DataError` when there is no model.

    A model of the project that params.yaml names a server for answers there.
    """
    from swirl.wiring.policies import load_policy

    if why := why_skipped(model):
        raise DataError(f"there is no model in {model}: {why}")
    known = params.evaluate.servers.items()
    server = next((server for name, server in known if layout.model(name).resolve() == model.resolve()), None)
    policy = load_policy(params, model, model.name, server)
    return Agent(policy, params, layout, benchmarks)


def write_bundle(folder: Path, params: Params, layout: Layout, max_mb: float) -> bool:
    """Write the tuned policy of a project and all that it needs to `folder`, and return whether all of it was copied.

    A model with its weights, or an index, of more than `max_mb` megabytes (0: no limit) is only pointed to. Raises
    `DataError` for a tool's option that looks like a secret: secrets must come from the environment.
    """
    for tool, options in params.tools.options.items():
        _refuse_secrets(options, f"tools.options.{tool}")
    benchmarks = benchmarks_of(layout)
    whole = _put_model(folder, layout.model(MODEL), max_mb)
    shutil.copytree(layout.root / params.prompts.policy, folder / "prompts", ignore=_JUNK)
    if (layout.root / params.tools.folder).is_dir():
        shutil.copytree(layout.root / params.tools.folder, folder / "tools", ignore=_JUNK)
    if params.tools.search_output_unit == "tokens":
        _put_tokenizer(folder / "models/base", layout.model("base"))
    if params.index.retriever != "bm25" and (layout.root / params.index.embedding_model).is_dir():
        _put_embedding(folder, params.index.embedding_model, layout.root)
    elsewhere: dict[str, dict[str, object]] = {}
    for name, kind in benchmarks.items():
        index = layout.index(name, "evaluation")
        if "search" not in kind.tools:
            continue
        if _fits(megabytes(index), max_mb):
            shutil.copytree(index, folder / "data/index" / index.name)
        else:
            elsewhere[name] = {"folder": str(index.resolve()), "files": _sums(index)}
    _put_params(folder / "params.yaml", params)
    description = {
        "version": _VERSION,
        "benchmarks": {name: asdict(kind) for name, kind in benchmarks.items()},
        "indices": elsewhere,
        "files": _sums(folder),
    }
    save_json_in_order(description, folder / _DESCRIPTION)
    return whole and not elsewhere


def save_json_in_order(value: object, path: Path) -> None:
    """Write JSON whose keys stay in their order."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def open_bundle(folder: Path) -> Agent:
    """The agent of a bundle. Raises `DataError` when it is no bundle, or a file is missing or has changed."""
    from swirl.wiring.policies import load_local_policy

    if not (folder / _DESCRIPTION).exists():
        raise DataError(f"{folder} holds no agent ({_DESCRIPTION}); `swirl` registers one after each run")
    description = load_json(folder / _DESCRIPTION)
    if description.get("version") != _VERSION:
        raise DataError(f"{folder} was written by another version of swirl; use that one, or register the agent anew")
    _check(folder, description["files"])
    for index in description["indices"].values():
        _check(Path(index["folder"]), index["files"])
    benchmarks = {name: Kind(tuple(kind["tools"]), kind["task"]) for name, kind in description["benchmarks"].items()}
    layout = Placed(folder, {name: index["folder"] for name, index in description["indices"].items()})
    params = parameters.load(folder / "params.yaml")
    environment.set_torch_variables(params.runtime.threads)
    return Agent(load_local_policy(params, layout.model(MODEL), MODEL), params, layout, benchmarks)


def weights_digest(folder: Path) -> str:
    """One SHA-256 (hex) of all files of a model's folder, and of those that its pointer names."""
    pointer = read_pointer(folder)
    sums = {name: digest for name, digest in _sums(folder).items() if name != POINTER}
    sums |= {f"{POINTER}/{name}": digest for name, digest in (pointer.files if pointer else {}).items()}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def megabytes(folder: Path) -> float:
    """Size of all files of a folder, in megabytes. Raises `DataError` when there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; run `dvc repro` to make it")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _fits(size: float, max_mb: float) -> bool:
    return max_mb == 0 or size <= max_mb


def _put_model(folder: Path, model: Path, max_mb: float) -> bool:
    """Write the model's folder into the bundle, and return whether its weights were copied, too."""
    here = folder / "models" / MODEL
    pointer = read_pointer(model)
    if pointer is None:
        if _fits(megabytes(model), max_mb):
            shutil.copytree(model, here)
            return True
        write_pointer(here, str(model.resolve()))
        return False
    shutil.copytree(model, here)
    follow(model, weights=False)  # refuses what has changed
    source, file = files_of(model)
    size = megabytes(model) + sum((source / name).stat().st_size for name in pointer.files) / 1e6
    copied = _fits(size, max_mb)
    if copied:
        weights = folder / "models/weights"
        weights.mkdir(parents=True)
        for name in pointer.files:
            shutil.copyfile(source / name, weights / name)
        pointer = replace(pointer, model=os.path.relpath(weights / file, here), revision="")
    elif not pointer.revision:
        pointer = replace(pointer, model=str(source.resolve() / file))
    save_json({"source": "pretrained", **asdict(pointer)}, here / POINTER)
    if is_adapter(here):
        name_base(here, folder)
    return copied


def _put_tokenizer(folder: Path, model: Path) -> None:
    """Copy the files of a model that counting tokens needs: everything but weights and code."""
    source, _ = follow(model, weights=False)
    folder.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt") and path.name != POINTER:
            shutil.copyfile(path, folder / path.name)


def _put_embedding(folder: Path, model: str, root: Path) -> None:
    """Copy an embedding model's folder to the path that the index names; one at an absolute path is not copied."""
    if Path(model).is_absolute():
        return
    if ".." in Path(model).parts:
        raise ModelError(f"index.embedding_model {model} is outside the project; move it inside to register the agent")
    shutil.copytree(root / model, folder / model, ignore=_JUNK)


def _put_params(path: Path, params: Params) -> None:
    """Write the params with the bundle's folders, and without servers: the model runs where the bundle is opened."""
    tree = params.model_dump()
    tree["prompts"]["policy"], tree["tools"]["folder"] = "prompts", "tools"
    tree["evaluate"]["servers"], tree["evaluate"]["judge"] = {}, "same"
    path.write_text(dump(tree), encoding="utf-8")


def _refuse_secrets(options: object, where: str, secret: bool = False) -> None:
    """Raise `DataError` for a string, at any depth, that looks like a `secret`, or stands below one's name."""
    if isinstance(options, Mapping):
        for name, value in options.items():
            _refuse_secrets(value, f"{where}.{name}", secret or is_secret(name))
    elif isinstance(options, list):
        for before, value in zip((None, *options), options, strict=False):
            _refuse_secrets(value, where, secret or precedes_secret(before))
    elif options and isinstance(options, str) and (secret or without_secret(options) != options):
        raise DataError(
            f"{where} looks like a secret, which is not registered; let the tool read it from the environment"
        )


def _sums(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): checksum(path).sha256 for path in files}


def _check(folder: Path, files: Mapping[str, str]) -> None:
    """Raise `DataError` unless all files are there and have these SHA-256 sums."""
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; register the agent anew, or take another version")
        if checksum(folder / name).sha256 != digest:
            raise DataError(f"{folder / name} is not what was registered; register the agent anew")
